"""What noisy labels are like beside the clean ones: rates, by class, and from class to class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

_MOST_CELLS = 10_000_000  # of a matrix that is counted whole; a larger one pair by pair


def transition_counts(clean: Numbers, noisy: Numbers, num_classes: int) -> Numbers:
    """How often each pair of classes occurs: int64 [K, 3], clean, noisy, rows, in order."""
    cells = clean * num_classes + noisy
    if num_classes**2 <= _MOST_CELLS:
        counted = np.bincount(cells, minlength=num_classes**2)
        (pairs,) = np.nonzero(counted)
        counts = counted[pairs]
    else:
        pairs, counts = np.unique(cells, return_counts=True)
    return np.stack([pairs // num_classes, pairs % num_classes, counts], axis=1)


def statistics(clean: Numbers, noisy: Numbers, classes: Sequence[str]) -> dict[str, Any]:
    """What became of labels int64 [N].

    `classes`: of each its rows, how many of them changed and how many came to it. `transitions`: from
    each clean class the rows of each noisy one.
    """
    counted = transition_counts(clean, noisy, len(classes))
    transitions: dict[str, dict[str, int]] = {name: {} for name in classes}
    sizes, left, came = (np.zeros(len(classes), dtype=np.int64) for _ in range(3))
    moved = counted[counted[:, 0] != counted[:, 1]]
    np.add.at(sizes, counted[:, 0], counted[:, 2])
    np.add.at(left, moved[:, 0], moved[:, 2])
    np.add.at(came, moved[:, 1], moved[:, 2])
    for one, two, rows in counted.tolist():
        transitions[classes[one]][classes[two]] = rows
    columns = (classes, sizes.tolist(), left.tolist(), came.tolist())
    by_class = {
        name: {"of": of, "flipped": gone, "realised": gone / of if of else 0.0, "received": new}
        for name, of, gone, new in zip(*columns, strict=True)
    }
    return {"classes": by_class, "transitions": transitions}


def in_short(found: Mapping[str, Any], most: int = 3) -> dict[str, str]:
    """The rates of the classes and the largest flows between them, in words; none without classes."""
    if "classes" not in found:
        return {}
    rates = sorted((row["realised"], name) for name, row in found["classes"].items() if row["of"])
    (least, quietest), (highest, noisiest) = rates[0], rates[-1]
    flows = sorted(
        ((rows, one, two) for one, row in found["transitions"].items() for two, rows in row.items()
         if one != two),
        key=lambda flow: (-flow[0], flow[1:]),
    )  # fmt: skip
    words = [f"{one} → {two} {rows:,}" for rows, one, two in flows[:most]]
    spread = f"{100 * least:.1f} % ({quietest}) to {100 * highest:.1f} % ({noisiest})"
    return {
        "by class": f"{len(found['classes']):,} classes, {spread}",
        "largest flows": ", ".join(words) if words else "none",
    }
