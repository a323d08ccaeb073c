"""Singular values as a picture; needs the extra `plot`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.report.figures import figure

SUFFIXES = (".png", ".svg", ".pdf")

_BANDS = (20, 500)  # ranks at which head and middle end, where there are many more
_NAMED = 10  # curves, up to which each has a name and a colour of its own


@dataclass(frozen=True)
class Curve:
    """Singular values [d], descending, and what they are of."""

    label: str
    values: NDArray[np.float64]


def bands(size: int) -> tuple[tuple[int, int], ...]:
    """First and last rank, from 1, of head, middle and tail of so many singular values.

    The head ends at rank 20 and the middle at 500; of fewer than 1,000, at the third and the second
    third of the logarithm of their number, so that each band has some.
    """
    ends = _BANDS if size >= 2 * _BANDS[1] else tuple(round(size ** (k / 3)) for k in (1, 2))
    edges = (0, *sorted(min(end, size) for end in ends), size)
    return tuple((low + 1, high) for low, high in pairwise(edges) if high > low)


def draw_spectra(curves: Sequence[Curve], out: Path, *, centred: bool) -> None:
    """Draw singular values over their rank: all on logarithmic axes, then head, middle and tail.

    Values that are 0 are left out, since a logarithm has no place for them.
    """
    longest = max(len(curve.values) for curve in curves)
    panels = bands(longest)
    with figure(out, (3.2 + 2.6 * len(panels), 3.2)) as drawn:
        whole, *others = drawn.subplots(1, 1 + len(panels), width_ratios=(1.4, *(1 for _ in panels)))
        for curve, style in zip(curves, _styles(len(curves)), strict=True):
            _line(whole, curve, 1, longest, style)
            for axis, (low, high) in zip(others, panels, strict=True):
                _line(axis, curve, low, high, style)
        scale = (
            "log" if any(curve.values[0] > 0 for curve in curves) else "linear"
        )  # of zeros there is none
        whole.set(xscale="log", yscale=scale, xlabel="rank", title="all", ylabel="singular value"
                  + (", centred" if centred else ""))  # fmt: skip
        for axis, (low, high), name in zip(others, panels, ("head", "middle", "tail"), strict=False):
            axis.set(xlabel="rank", title=f"{name}, {low:,}–{high:,}")
            axis.xaxis.get_major_locator().set_params(integer=True, nbins=4)
        for axis in (whole, *others):
            axis.grid(alpha=0.3)
        if len(curves) <= _NAMED:
            whole.legend(frameon=False, fontsize=8)


def _line(axis: Any, curve: Curve, low: int, high: int, style: dict[str, Any]) -> None:
    values = curve.values[low - 1 : high]
    shown = np.where(values > 0, values, np.nan)
    mark = "o" if high - low < 10 else None
    axis.plot(np.arange(low, low + len(values)), shown, label=curve.label, marker=mark, markersize=3,
              linewidth=1.4, **style)  # fmt: skip


def _styles(count: int) -> Iterator[dict[str, Any]]:
    """A colour each; of many, one scale of colours, since no one tells so many apart."""
    import matplotlib

    for number in range(count):
        if count <= _NAMED:
            yield {"color": f"C{number}"}
        else:
            yield {"color": matplotlib.colormaps["viridis"](number / (count - 1)), "alpha": 0.6}
