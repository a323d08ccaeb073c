"""`nml info`: what a product is and what it came from."""

from typing import Annotated

import typer

from nmlcli.cli import render
from nmlcli.cli.options import AsJson, AsTable, Verbose, inputs


def info(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE|-]...", show_default=False)
    ] = None,
    as_json: AsJson = False,
    as_table: AsTable = False,
    verbose: Verbose = False,
) -> None:
    """Say what a product is and what it came from, by its header alone.

    Of two files on a terminal: what they differ in.
    """
    from nmlcli.stages.info import describe, differences, worded

    sources = inputs(files, "FILE")
    if len(sources) == 2:
        pair = [describe(source) for source in sources]
        rows = differences(*pair)
        remarks = [] if rows else ["no difference"]
        render.compared(("", *sources), rows, remarks, pair, as_json, as_table)
    else:
        facts = map(describe, sources)
        render.cards(map(worded, facts), facts, as_json, as_table)
