"""The transition matrix of noisy labels as a picture; needs the extra `plot`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.report.figures import figure

SUFFIXES = (".png", ".svg", ".pdf")

MOST_DRAWN = 2_000  # classes; a finer picture has fewer pixels than cells
_WRITTEN = 20  # classes, up to which shares stand in the cells
_NAMED = 60  # classes, up to which all are named


def shares(found: Mapping[str, Any]) -> NDArray[np.float64]:
    """Of the rows of each clean class the share of each noisy one, float64 [C, C], from statistics."""
    names = {name: place for place, name in enumerate(found["classes"])}
    matrix = np.zeros((len(names), len(names)))
    for one, row in found["transitions"].items():
        for two, rows in row.items():
            matrix[names[one], names[two]] = rows / found["classes"][one]["of"]
    return matrix


def draw_transitions(found: Mapping[str, Any], out: Path, title: str) -> None:
    """Draw statistics as a heat map: rows are clean classes, colours tell where their labels go.

    What stays is written, not coloured, since beside it all else would be pale.
    """
    matrix, names = shares(found), list(found["classes"])
    size = len(names)
    wrong = matrix * (1 - np.eye(size))
    side = min(14.0, max(3.6, 1.6 + 0.42 * size if size <= _WRITTEN else 2.4 + 0.16 * size))
    with figure(out, (side + 1.0, side)) as drawn:
        axis = drawn.subplots()
        shown = np.ma.masked_array(wrong, np.eye(size, dtype=np.bool_))
        image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=wrong.max() or 1, interpolation="nearest")
        axis.set_facecolor("0.92")
        if size <= _WRITTEN:
            _write_cells(axis, matrix, float(wrong.max()))
        if size <= _NAMED:
            small = 9 if size <= _WRITTEN else 6
            axis.set_xticks(range(size), names, rotation=90, fontsize=small)
            axis.set_yticks(range(size), names, fontsize=small)
        axis.set(xlabel="noisy class", ylabel="clean class", title=title)
        bar = drawn.colorbar(image, ax=axis, shrink=0.7, format=lambda share, _: f"{100 * share:.3g} %")
        bar.outline.set_visible(False)


def _write_cells(axis: Any, matrix: NDArray[np.float64], highest: float) -> None:
    """Per cent in each cell that is not empty."""
    for (row, column), share in np.ndenumerate(matrix):
        if share:
            dark = row != column and share > 0.6 * highest
            text = f"{100 * share:.0f}" if share >= 0.0095 else "<1"
            axis.text(column, row, text, ha="center", va="center", fontsize=8,
                      color="white" if dark else "0.15")  # fmt: skip
