"""The `nml corrupt` command."""

from typing import Annotated, Any

from nmlcli.cli import options, render
from nmlcli.errors import UsageError
from nmlcli.noise.classmaps import MAPS
from nmlcli.noise.kinds import DRAWS, NOISES, RATIOS_OF

_DATA_HELP = f"FEATURES.h5, LABELS.safetensors (labels); {options.DATA_HELP}"
_WHO, _WHERE = "Which rows change", "What they become"


def corrupt(
    data: Annotated[str | None, options.argument("[DATA|TABLE|FEATURES|-]", _DATA_HELP)] = None,
    *,
    ratio: Annotated[
        str | None, options.option("--ratio R", "The share of rows to change, from 0 to 1.")
    ] = None,
    kind: Annotated[str, options.choice(NOISES, "--kind KIND", "The kind of noise")] = "symmetric",
    seed: options.Seed = 0,
    out: options.Out = None,
    stats: Annotated[
        str | None, options.option("--stats FILE", "Write counts, rates and transitions as JSON.")
    ] = None,
    draw: Annotated[str, options.choice(DRAWS, "--draw DRAW", "How rows are chosen", _WHO)] = "exact",
    stratify: Annotated[
        bool, options.option("--stratify", "Exact in each class and each transition too.", _WHO)
    ] = False,
    classes: Annotated[
        str | None, options.option("--classes A,B,…", "Only rows of these classes change.", _WHO)
    ] = None,
    ratio_of: Annotated[
        str, options.choice(RATIOS_OF, "--ratio-of WHICH", "What the ratio is of", _WHO)
    ] = "selected",
    replace: Annotated[
        bool,
        options.option(
            "--replace", "Draw noise that is there already anew, from the clean values.", _WHO
        ),
    ] = False,
    map_: Annotated[
        str | None,
        options.choice(MAPS, "--map MAP", "A table from, to, weight, or", _WHERE, other=True),
    ] = None,
    matrix: Annotated[
        str | None,
        options.option("--matrix TABLE", "T[true, noisy]: a row a true class, its name first.", _WHERE),
    ] = None,
    features: Annotated[
        str | None, options.option("--features FILE", "Features of the samples, joined by id.", _WHERE)
    ] = None,
    from_column: Annotated[
        str | None,
        options.option("--from-column NAME", "Labels that people gave, beside --label-column.", _WHERE),
    ] = None,
    label_column: options.LabelColumn = "label",
    text_column: options.TextColumn = "text",
    id_column: options.IdColumn = "id",
    group_column: options.GroupColumn = "image",
    limit: options.Limit = None,
    domain: options.Domain = None,
    data_dir: options.DataDir = "data",
    download: options.Download = False,
    reuse: options.Reuse = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Put noise on labels or captions: exactly as much as asked for, the same for each id in any order.

    A table (CSV, TSV, JSON Lines, Parquet) keeps its form: one column changes, and one of the clean
    values is added. Anything else gives a table id, label, clean_label, or a binary file of them.
    """
    from nmlcli.noise.statistics import in_short
    from nmlcli.stages import corrupt as stage

    source = options.one_input(data, "a table or a set")
    if classes is not None and not options.split(classes):
        raise UsageError("--classes names none", "leave it out for all")
    asked = stage.CorruptOptions(
        ratio=ratio, kind=kind, draw=draw, stratify=stratify, ratio_of=ratio_of,
        classes=tuple(options.split(classes)), map=map_, matrix=matrix, features=features,
        from_column=from_column, replace=replace, seed=seed, label_column=label_column,
        text_column=text_column, id_column=id_column, group_column=group_column, limit=limit,
        domain=domain, data_dir=data_dir, download=download, stats=stats, reuse=reuse,
    )  # fmt: skip
    told: dict[str, Any] = {}
    with render.progress("corrupt", quiet, draining=source == "-") as advance:
        stage.corrupt(source, out, asked, advance, told.update)
    render.summary(in_short(told), quiet)
