"""`nml report`: result lines as a table, Markdown or a figure."""

from typing import Annotated

from nmlcli.cli import options, render
from nmlcli.cli.options import AsJson, AsTable, Quiet, argument, option

_RESULTS = "Files of result lines, from eval and spectrum --results, and logs of pretrain."
_OUT = "Write a .md, .csv, .svg or .png (extra plot). Else stdout."
_BY = "Group by these keys, in this order; else by noise, role and method."
_PARTIAL = "Take means over what there is, also over unequal sets."


def report(
    results: Annotated[list[str] | None, argument("[RESULTS|-]...", _RESULTS)] = None,
    by: Annotated[str | None, option("--by KEYS", _BY)] = None,
    metric: Annotated[str, option("--metric KEY", "The key whose mean is shown.")] = "accuracy",
    partial: Annotated[bool, option("--partial", _PARTIAL)] = False,
    out: Annotated[str | None, option("-o --out FILE", _OUT)] = None,
    as_json: AsJson = False,
    as_table: AsTable = False,
    quiet: Quiet = False,
) -> None:
    """Compare results: noise by method, in and out of domain, with spread and difference to clean.

    A number is the mean over heads, sets and pre-training runs; ± is the standard deviation over
    pre-training runs, or where there is one a row the 95 % interval of the test samples.
    """
    from nmlcli.report import layout
    from nmlcli.stages.report import ReportOptions, write
    from nmlcli.stages.report import report as compare

    sources = options.inputs(results, "a file of result lines")
    comparison = compare(sources, ReportOptions(tuple(options.split(by)), metric, partial))
    if out in (None, "-"):
        header, rows = layout.texts(comparison)
        flat = layout.flat(comparison)
        render.table(header, rows, flat, as_json, as_table, comparison.remarks)
    elif str(out).endswith(".svg"):
        render.write_svg(str(out), *layout.texts(comparison), comparison.remarks, title="nml report")
    else:
        write(comparison, str(out))
