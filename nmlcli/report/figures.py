"""The comparison as a picture; needs the extra `plot`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nmlcli.errors import NmlError
from nmlcli.products.results import FRACTIONS
from nmlcli.report.grouping import NOISE, Comparison, GroupRow
from nmlcli.report.layout import key_text, name_of

_MARKS = "osD^vP*X"
_TIMELESS = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def draw(comparison: Comparison, out: Path) -> None:
    """Draw the metric against the noise, a panel for each group of sets, and the spectrum beside it.

    A line a method with its spread as bars; SVE and LSVR, where they are known, share the last panel.
    Raises NmlError where matplotlib is missing or the rows have no noise ratio.
    """
    if NOISE not in comparison.keys:
        raise NmlError(f"the groups have no {NOISE} to draw against", f"add it to --by: --by {NOISE},…")
    panels: dict[tuple[Any, ...], list[GroupRow]] = {}
    place = comparison.keys.index(NOISE)
    for row in comparison.rows:
        panels.setdefault(row.key[:place] + row.key[place + 1 :], []).append(row)
    spectrum = [name for name in ("sve", "lsvr") if name in comparison.measures]
    count = len(panels) + bool(spectrum)
    with figure(out, (1.2 + 3.1 * count, 3.2)) as drawn:
        axes = drawn.subplots(1, count, squeeze=False)[0]
        for axis, (key, rows) in zip(axes, panels.items(), strict=False):
            _panel(axis, comparison, rows, _title(comparison, key, rows[0]))
        axes[0].legend(frameon=False)
        if spectrum:
            _spectrum_panel(axes[-1], next(iter(panels.values())), spectrum, place)


@contextmanager
def figure(out: Path, inches: tuple[float, float]) -> Iterator[Any]:
    """A figure to draw in, saved as its suffix says, the same bytes each time.

    Raises NmlError where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NmlError("a figure needs matplotlib", 'pip install "nmlcli[plot]"') from error
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "svg.hashsalt": "nml"}):
        drawn = Figure(figsize=inches, layout="constrained")
        yield drawn
        drawn.savefig(out, dpi=160, metadata=_TIMELESS[out.suffix.lower()])


def _title(comparison: Comparison, key: Sequence[Any], row: GroupRow) -> str:
    names = [name for name in comparison.keys if name != NOISE]
    return ", ".join(key_text(name, value, row) for name, value in zip(names, key, strict=True))


def _noise(row: GroupRow, place: int) -> float:
    share = row.realised if row.realised is not None else row.key[place]
    return float("nan") if share is None else 100 * float(share)


def _panel(axis: Any, comparison: Comparison, rows: Sequence[GroupRow], title: str) -> None:
    scale = 100 if comparison.metric in FRACTIONS else 1
    place = comparison.keys.index(NOISE)
    span = max(_noise(row, place) for row in rows) - min(_noise(row, place) for row in rows)
    for number, method in enumerate(comparison.methods):
        cells = [(_noise(row, place), row.cells[method]) for row in rows if method in row.cells]
        aside = 0.012 * span * (number - (len(comparison.methods) - 1) / 2)  # equal lines stay visible
        axis.errorbar(
            [noise + aside for noise, _ in cells],
            [scale * cell.value for _, cell in cells],
            yerr=[scale * (cell.spread or 0) for _, cell in cells],
            label=name_of(method), marker=_MARKS[number % len(_MARKS)], markersize=5, capsize=2,
            linewidth=1.5, elinewidth=1,
        )  # fmt: skip
    unit = " (%)" if scale == 100 else ""
    axis.set(title=title, xlabel="noise in pre-training (%)", ylabel=comparison.metric + unit)
    axis.grid(axis="y", alpha=0.3)


def _spectrum_panel(axis: Any, rows: Sequence[GroupRow], names: Sequence[str], place: int) -> None:
    twin = axis
    for number, name in enumerate(names):
        twin = axis if number == 0 else axis.twinx()
        points = [(row, row.measures[name]) for row in rows if name in row.measures]
        noise = [_noise(row, place) for row, _ in points]
        colour = f"C{number + 5}"
        twin.plot(noise, [value for _, value in points], marker=_MARKS[number], color=colour)
        twin.set_ylabel(name_of(name), color=colour)
        twin.tick_params(axis="y", colors=colour)
    axis.set(title=" and ".join(map(name_of, names)), xlabel="noise in pre-training (%)")
