"""The `nml corrupt` command."""

from typing import Annotated

from nmlcli.cli import options, render
from nmlcli.noise.kinds import DRAWS, NOISES


def corrupt(
    data: Annotated[str | None, options.argument("[DATA|TABLE|-]", options.DATA_HELP)] = None,
    *,
    ratio: Annotated[str, options.option("--ratio R", "The share of labels to change, from 0 to 1.")],
    kind: Annotated[str, options.choice(NOISES, "--kind KIND", "Where labels go")] = "symmetric",
    draw: Annotated[str, options.choice(DRAWS, "--draw DRAW", "How rows are chosen")] = "exact",
    seed: options.Seed = 0,
    label_column: options.LabelColumn = "label",
    id_column: options.IdColumn = "id",
    limit: options.Limit = None,
    domain: options.Domain = None,
    out: options.Out = None,
    stats: Annotated[
        str | None, options.option("--stats FILE", "Write counts, rates and transitions as JSON.")
    ] = None,
    reuse: options.Reuse = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Put noise on labels: exactly as much as asked for, and the same for each id in any order.

    A table (CSV, TSV, JSON Lines) keeps its form: its label column changes and a column clean_label
    is added. Any other set gives a table id, label, clean_label.
    """
    from nmlcli.stages import corrupt as stage

    source = options.one_input(data, "a table or a set")
    asked = stage.CorruptOptions(
        ratio=ratio, kind=kind, draw=draw, seed=seed, label_column=label_column, id_column=id_column,
        limit=limit, domain=domain, stats=stats, reuse=reuse,
    )  # fmt: skip
    with render.progress("corrupt", quiet, draining=source == "-") as advance:
        stage.corrupt(source, out, asked, advance)
