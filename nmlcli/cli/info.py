"""`nml info`: what a product is, what it came from, what noise its labels carry."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from nmlcli.cli import render
from nmlcli.cli.options import (
    AsJson,
    AsTable,
    LabelColumn,
    TextColumn,
    Verbose,
    argument,
    inputs,
    option,
)
from nmlcli.errors import UsageError

_NOISE = "Noise"


def info(
    files: Annotated[list[str] | None, argument("[FILE|-]...", "What nml has written.")] = None,
    noise: Annotated[
        bool, option("--noise", "Count the noise of labels: rates, and from class to class.", _NOISE)
    ] = False,
    label_column: LabelColumn = "label",
    clean_column: Annotated[
        str | None,
        option("--clean-column NAME", "The column of clean labels.  [default: clean_label]", _NOISE),
    ] = None,
    text_column: TextColumn = "text",
    plot: Annotated[
        str | None, option("--plot FILE", "Draw the transition matrix: .png, .svg, .pdf.", _NOISE)
    ] = None,
    as_json: AsJson = False,
    as_table: AsTable = False,
    verbose: Verbose = False,
) -> None:
    """Say what a product is and what it came from, by its header alone.

    Of two files of one kind, on a terminal: what they differ in. With --noise: what noise labels carry,
    of any table with a column of clean ones beside them.
    """
    from nmlcli.stages.info import describe, differences, worded

    sources = inputs(files, "FILE")
    if noise:
        _noise(sources, (label_column, clean_column, text_column, plot), as_json, as_table)
        return
    if (label_column, clean_column, text_column, plot) != ("label", None, "text", None):
        raise UsageError("names of columns and --plot are for --noise", "add --noise")
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


def _noise(sources: list[str], given: tuple[str, str | None, str, str | None], as_json: bool,
           as_table: bool) -> None:  # fmt: skip
    """Audit each source; of one with few classes the matrix is shown, else its noisiest classes."""
    from nmlcli.stages.audit import AuditOptions, audit, in_table, worded

    if given[-1] and len(sources) > 1:
        raise UsageError("--plot draws one file", "give one")
    found = (audit(source, AuditOptions(*given)) for source in sources)
    if len(sources) > 1:
        render.cards(found, as_json, as_table, worded)
        return
    facts = next(found)
    header, rows = in_table(facts)
    remarks = [f"{name}: {text}" for name, text in worded(facts).items()]
    render.table(header, rows, [facts], as_json, as_table, remarks)
