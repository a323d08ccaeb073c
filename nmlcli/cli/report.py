"""`nml report`: result lines as a table, Markdown or a figure."""

from typing import Annotated

import typer

from nmlcli.cli import options, render
from nmlcli.cli.options import AsJson, AsTable, Quiet

Sources = Annotated[
    list[str] | None,
    options.argument(
        "[RESULTS|-]...",
        "Files of result lines, from eval and spectrum --results, and logs of pretrain.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="KEYS",
        help="Group by these keys, in this order; else by noise, role and method.",
    ),
]
Metric = Annotated[str, typer.Option("--metric", metavar="KEY", help="The key whose mean is shown.")]
Partial = Annotated[
    bool, typer.Option("--partial", help="Take means over what there is, also over unequal sets.")
]
Out = Annotated[
    str | None,
    typer.Option(
        "-o", "--out", metavar="FILE", help="Write a .md, .csv, .svg or .png (extra plot). Else stdout."
    ),
]


def report(
    results: Sources = None,
    by: By = None,
    metric: Metric = "accuracy",
    partial: Partial = False,
    out: Out = None,
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
        table = layout.texts(comparison)
        render.compared(*table, comparison.remarks, layout.flat(comparison), as_json, as_table)
    elif str(out).endswith(".svg"):
        render.write_svg(str(out), *layout.texts(comparison), comparison.remarks, title="nml report")
    else:
        write(comparison, str(out))
