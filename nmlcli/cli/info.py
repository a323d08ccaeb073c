"""`nml info`: what a product is and what it came from."""

from typing import Annotated

from nmlcli.cli import render
from nmlcli.cli.options import AsJson, AsTable, Verbose, argument, inputs


def info(
    files: Annotated[list[str] | None, argument("[FILE|-]...", "What nml has written.")] = None,
    as_json: AsJson = False,
    as_table: AsTable = False,
    verbose: Verbose = False,
) -> None:
    """Say what a product is and what it came from, by its header alone.

    Of two files of one kind, on a terminal: what they differ in.
    """
    from nmlcli.stages.info import describe, differences, worded

    facts = [describe(source) for source in inputs(files, "FILE")]
    if len(facts) == 2 and facts[0]["kind"] == facts[1]["kind"]:
        rows = differences(*facts)
        remarks = [] if rows else ["no difference"]
        header = ("", *(each["source"] for each in facts))
        render.compared(header, rows, remarks, facts, as_json, as_table)
    else:
        render.cards(map(worded, facts), facts, as_json, as_table)
