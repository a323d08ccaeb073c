"""Keyed choices of rows and new classes; the counts are exact, in integers and fractions."""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed
from nmlcli.keyed import Keys


def flips(ratio: Fraction, rows: int) -> int:
    """⌊rN + ½⌋, the number of rows that a ratio asks for."""
    return math.floor(ratio * rows + Fraction(1, 2))


def smallest(hashes: Keys, ratio: Fraction, seed: int) -> NDArray[np.bool_]:
    """The ⌊rN + ½⌋ rows of the smallest keys, bool [N]; hashes are distinct."""
    count = flips(ratio, len(hashes))
    if count == 0:
        return np.zeros(len(hashes), dtype=np.bool_)
    keys = keyed.keys(hashes, seed, "select")
    chosen: NDArray[np.bool_] = keys <= np.partition(keys, count - 1)[count - 1]
    return chosen


def below_ratio(hashes: Keys, ratio: Fraction, seed: int) -> NDArray[np.bool_]:
    """The rows whose key is below r · 2^64, bool [N]."""
    threshold = keyed.threshold(ratio)
    if threshold >= 2**64:
        return np.ones(len(hashes), dtype=np.bool_)
    chosen: NDArray[np.bool_] = keyed.keys(hashes, seed, "select") < np.uint64(threshold)
    return chosen


def shifts(hashes: Keys, bound: int, seed: int) -> NDArray[np.int64]:
    """Uniform integers in [0, bound) that do not depend on the ratio, int64 [N]."""
    return keyed.below(keyed.keys(hashes, seed, "target"), bound)


def shifted(
    labels: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    shift: NDArray[np.int64] | int,
    num_classes: int,
) -> NDArray[np.int64]:
    """Labels [N] with the chosen ones moved on by a shift [N], cyclically among C classes."""
    return np.where(chosen, (labels + shift) % num_classes, labels)
