"""`nml data`: what data there is, what it looks like, generated sets as folders, sets in parts."""

from typing import Annotated

import typer

from nmlcli.cli import options, render
from nmlcli.cli.usage import SETTINGS, Command, Group
from nmlcli.data.sources import SourceOptions

data = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    context_settings=SETTINGS,
    no_args_is_help=True,
    help="Sets of images: list, show, write as folders, split.",
)

Folder = Annotated[
    str, typer.Option("-o", "--out", metavar="DIR", help="The folder to write.", show_default=False)
]


@data.command("list", cls=Command)
def list_(as_json: options.AsJson = False, as_table: options.AsTable = False) -> None:
    """List the sets that are built in, with their classes, domains and splits."""
    from nmlcli.stages.data import list_sets

    columns = ("data", "about", "domains", "splits", "classes")
    render.answer(list_sets(), as_json, as_table, columns)


@data.command(cls=Command)
def show(
    source: options.Data = None,
    out: options.Out = None,
    columns: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Images a row.")] = 10,
    size: Annotated[int, typer.Option(metavar="PIXELS", min=8, max=512, help="Of an image.")] = 64,
    labels: options.Labels = None,
    limit: options.Limit = None,
    domain: options.Domain = None,
    classes: options.Classes = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    id_column: options.IdColumn = "id",
    root: options.Root = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Draw a contact sheet as PNG: a row a class, samples with a wrong label framed in red."""
    from nmlcli.stages.data import show as draw

    source = options.one_input(source, "DATA")
    render.refuse_terminal(out)
    chosen = SourceOptions(
        labels=labels, limit=limit, domain=domain, classes=tuple(options.split(classes)) or None,
        image_column=image_column, label_column=label_column, id_column=id_column, root=root,
    )  # fmt: skip
    with render.progress("data show", quiet) as advance:
        draw(source, out, chosen, columns=columns, size=size, advance=advance)


@data.command(cls=Command)
def make(
    source: options.Data = None,
    out: Folder = ...,  # type: ignore[assignment]
    labels: options.Labels = None,
    limit: options.Limit = None,
    domain: options.Domain = None,
    classes: options.Classes = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    id_column: options.IdColumn = "id",
    root: options.Root = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a set as PNG files in class folders, named by id; whole or not at all."""
    from nmlcli.stages.data import make as write

    source = options.one_input(source, "DATA")
    chosen = SourceOptions(
        labels=labels, limit=limit, domain=domain, classes=tuple(options.split(classes)) or None,
        image_column=image_column, label_column=label_column, id_column=id_column, root=root,
    )  # fmt: skip
    with render.progress("data make", quiet) as advance:
        write(source, out, chosen, advance)


@data.command(cls=Command)
def split(
    source: options.Data = None,
    parts: Annotated[
        str,
        typer.Option(metavar="NAME=SHARE,…", help="As in train=.8,val=.2.", show_default=False),
    ] = ...,  # type: ignore[assignment]
    out: Folder = ...,  # type: ignore[assignment]
    seed: options.Seed = 0,
    labels: options.Labels = None,
    limit: options.Limit = None,
    domain: options.Domain = None,
    classes: options.Classes = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    id_column: options.IdColumn = "id",
    root: options.Root = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Split a set into tables DIR/NAME.csv, every class alike; the images stay where they are."""
    from nmlcli.stages.data import parse_parts
    from nmlcli.stages.data import split as write

    source = options.one_input(source, "DATA")
    chosen = SourceOptions(
        labels=labels, limit=limit, domain=domain, classes=tuple(options.split(classes)) or None,
        image_column=image_column, label_column=label_column, id_column=id_column, root=root,
    )  # fmt: skip
    write(source, parse_parts(parts), out, chosen, seed)
