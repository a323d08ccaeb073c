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

Folder = Annotated[str, options.option("-o --out DIR", "The folder to write.")]


@data.command("list", cls=Command)
def list_(as_json: options.AsJson = False, as_table: options.AsTable = False) -> None:
    """List the sets that are built in, with their classes, domains and splits."""
    from nmlcli.stages.data import list_sets

    shown = ("data", "about", "domains", "splits", "classes")
    render.cards(list_sets(), as_json, as_table, lambda each: {key: each[key] for key in shown})


@data.command(cls=Command)
@options.with_source
def show(
    data: options.Data = None,
    out: options.Out = None,
    columns: Annotated[int, options.option("--columns N", "Images a row.", min=1, max=100)] = 10,
    size: Annotated[int, options.option("--size PIXELS", "Of an image.", min=8, max=512)] = 64,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    *,
    source: SourceOptions,
) -> None:
    """Draw a contact sheet as PNG: a row a class, samples with a wrong label framed in red."""
    from nmlcli.stages.data import show as draw

    name = options.one_input(data, "DATA")
    render.refuse_terminal(out)
    with render.progress("data show", quiet) as advance:
        draw(name, out, source, columns=columns, size=size, advance=advance)


@data.command(cls=Command)
@options.with_source
def make(
    data: options.Data = None,
    *,
    out: Folder,
    source: SourceOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a set as PNG files in class folders, named by id; whole or not at all."""
    from nmlcli.stages.data import make as write

    name = options.one_input(data, "DATA")
    with render.progress("data make", quiet) as advance:
        write(name, out, source, advance)


@data.command(cls=Command)
@options.with_source
def split(
    data: options.Data = None,
    *,
    parts: Annotated[str, options.option("--parts NAME=SHARE,…", "As in train=.8,val=.2.")],
    out: Folder,
    seed: options.Seed = 0,
    source: SourceOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Split a set into tables DIR/NAME.csv, every class alike; the images stay where they are."""
    from nmlcli.stages.data import parse_parts
    from nmlcli.stages.data import split as write

    write(options.one_input(data, "DATA"), parse_parts(parts), out, source, seed)
