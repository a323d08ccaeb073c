"""`nml embed`: the features of a set."""

from typing import Annotated, Literal

import typer

from nmlcli.cli import render
from nmlcli.cli.options import (
    DATA_HELP,
    Classes,
    Domain,
    IdColumn,
    ImageColumn,
    LabelColumn,
    Labels,
    Limit,
    Out,
    Quiet,
    Reuse,
    Root,
    Seed,
    Verbose,
    argument,
    choice,
    inputs,
    split,
)
from nmlcli.data.sources import SourceOptions
from nmlcli.models.precision import PRECISIONS
from nmlcli.models.schemes import SCHEMES

_MODEL = "The network: " + "; ".join(scheme.help for scheme in SCHEMES.values()) + "."


def embed(
    data: Annotated[list[str] | None, argument("[[NAME=]DATA|-]...", DATA_HELP)] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="MODEL", help=_MODEL, show_default=False)
    ] = ...,  # type: ignore[assignment]
    out: Out = None,
    random_init: Annotated[
        bool, typer.Option("--random-init", help="Build it without weights, from the seed.")
    ] = False,
    seed: Seed = 0,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=8, help="Size of the images, else its own.")
    ] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the features.")] = "float32",
    precision: Annotated[str, choice(PRECISIONS, "--precision", help="Compute in")] = "fp32",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at once.")] = 256,
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Threads that read images ahead.")
    ] = 2,
    reuse: Reuse = False,
    labels: Labels = None,
    limit: Limit = None,
    domain: Domain = None,
    classes: Classes = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    id_column: IdColumn = "id",
    root: Root = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make features: one row a sample, what the network has before its classifier.

    Several sets share one start of the network: with -o DIR/ each becomes DIR/NAME.h5.
    """
    from nmlcli.stages.embed import EmbedOptions
    from nmlcli.stages.embed import embed as run

    sources = inputs(data, "DATA")
    render.refuse_terminal(out)
    source = SourceOptions(
        labels=labels, limit=limit, domain=domain, classes=tuple(split(classes)) or None,
        image_column=image_column, label_column=label_column, id_column=id_column, root=root,
    )  # fmt: skip
    options = EmbedOptions(
        source=source, random_init=random_init, seed=seed, size=size, precision=precision,
        dtype=dtype, batch_size=batch_size, workers=workers, reuse=reuse,
    )  # fmt: skip
    with render.progress("embed", quiet) as advance:
        run(sources, model, out, options, advance)
