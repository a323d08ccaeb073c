"""The work of `nml report`: read result lines, group them, write the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmlcli.atomic import replacing
from nmlcli.errors import UsageError
from nmlcli.products import results
from nmlcli.report import layout
from nmlcli.report.grouping import Comparison, compare

WRITERS = {".md": layout.markdown, ".csv": layout.comma_separated}
FIGURES = (".png", ".pdf")


@dataclass(frozen=True)
class ReportOptions:
    """by: keys to group by (none: noise, role, method). metric: the key that is averaged."""

    by: tuple[str, ...] = ()
    metric: str = "accuracy"
    partial: bool = False


def report(sources: Sequence[str], options: ReportOptions) -> Comparison:
    """Group the lines of result files, spectra and training logs; see `nmlcli.report.grouping`."""
    lines = [line for source in sources for line in results.read(source)]
    return compare(results.by_identity(lines), options.by, options.metric, options.partial)


def write(comparison: Comparison, out: str) -> None:
    """Write a comparison as Markdown, CSV or a figure, chosen by the suffix of out."""
    suffix = Path(out).suffix.lower()
    if suffix not in (*WRITERS, *FIGURES):
        known = ", ".join([*WRITERS, ".svg", *FIGURES])
        raise UsageError(
            f"{out}: no report has the suffix {suffix or '(none)'}", f"choose from {known}"
        )
    with replacing(out) as temporary:
        if suffix in FIGURES:
            from nmlcli.report.figures import draw

            draw(comparison, temporary)
        else:
            temporary.write_text(WRITERS[suffix](comparison), encoding="utf-8")
