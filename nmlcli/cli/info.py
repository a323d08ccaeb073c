"""`nml info`: what a product is and what it came from."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

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

    sources = inputs(files, "FILE")
    facts: Iterator[Mapping[str, Any]] = map(describe, sources)
    if len(sources) == 2:
        one, two = pair = list(facts)
        if one["kind"] == two["kind"]:
            rows = differences(one, two)
            header, remarks = ("", one["source"], two["source"]), [] if rows else ["no difference"]
            render.table(header, rows, pair, as_json, as_table, remarks)
            return
        facts = iter(pair)
    render.cards(facts, as_json, as_table, worded)
