"""Which rows change: how many of them, and those of the smallest keys."""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed
from nmlcli.errors import InvalidInput, UsageError, first, meant
from nmlcli.keyed import Keys
from nmlcli.noise.terms import Request, Rows

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


def half_up(value: Fraction) -> int:
    """The nearest whole number, halves up."""
    return math.floor(value + Fraction(1, 2))


def sources(rows: Rows, request: Request, flowing: Mask | None = None) -> Mask:
    """The classes whose labels may change, bool [C]: those asked for, of those that go anywhere.

    Raises UsageError for a class that the labels lack.
    """
    chosen = np.ones(len(rows.classes), dtype=np.bool_) if flowing is None else flowing.copy()
    if request.classes:
        unknown = [name for name in request.classes if name not in rows.classes]
        if unknown:
            raise UsageError(
                f"{rows.source} has no class {first(unknown)}", meant(unknown[0], rows.classes)
            )
        chosen &= np.isin(np.array(rows.classes), request.classes)
    return chosen


def share(request: Request, eligible: int, rows: int) -> Fraction:
    """The ratio as a share of the rows that can change.

    Raises InvalidInput, naming the largest ratio that there can be, where they are too few.
    """
    ratio = request.ratio or Fraction(0)
    if eligible == 0:
        if ratio == 0:
            return ratio
        raise InvalidInput("no row is of a class that can change", "check --classes, --map or --matrix")
    if request.ratio_of == "selected":
        return ratio
    if half_up(ratio * rows) > eligible:
        largest = math.floor(Fraction(eligible, rows) * 10**6) / 10**6
        raise InvalidInput(
            f"{100 * float(ratio):.6g} % of all {rows:,} rows is more than the {eligible:,} of classes "
            "that can change",
            f"--ratio {largest:.6g} is the largest",
        )
    return min(Fraction(1), ratio * rows / eligible)


def smallest(keys: Keys, count: int, eligible: Mask | None = None) -> Mask:
    """The rows of the count smallest keys, bool [N], among the eligible ones; keys are distinct."""
    if count == 0:
        return np.zeros(len(keys), dtype=np.bool_)
    among = keys if eligible is None else keys[eligible]
    chosen: Mask = keys <= np.partition(among, count - 1)[count - 1]
    return chosen if eligible is None else chosen & eligible


def below(keys: Keys, ratio: Fraction) -> Mask:
    """The rows whose keys lie below a share of all keys, bool [N]: a draw of each row on its own."""
    threshold = keyed.threshold(ratio)
    if threshold >= 2**64:
        return np.ones(len(keys), dtype=np.bool_)
    hit: Mask = keys < np.uint64(threshold)
    return hit


def by_class(values: Numbers, rows: Numbers, num_classes: int) -> Iterator[tuple[int, Numbers]]:
    """Some rows int64 [M], class by class in the order that they have; classes without are left out."""
    small = values[rows].astype(np.uint16 if num_classes <= 2**16 else np.int64)  # sorts by radix
    order = np.argsort(small, kind="stable")
    ends = np.cumsum(np.bincount(small, minlength=num_classes))
    for number in np.unique(small).tolist():
        start = ends[number - 1] if number else 0
        yield int(number), rows[order[start : ends[number]]]
