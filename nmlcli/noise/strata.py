"""Exact shares: how many of each class, and in which order the targets of a class come.

The rule is a divisor rule whose offsets are spread evenly: the j-th seat of a party of weight w has
priority (j - U) / w, and the seats of smallest priority are given. A larger total only adds seats, no
share is off by much more than one, and small parties get theirs too: with the same U for all
(Sainte-Laguë) those of equal weight would all come at once, or not at all. Priorities are made with the
four basic operations alone, which IEEE 754 rounds alike everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from nmlcli.keyed import Keys, uniforms

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: its multiples are spread most evenly

Weights = NDArray[np.float64]
Counts = NDArray[np.int64]


def seats(weights: Weights, caps: Counts, total: int, ties: Keys, start: int) -> Counts:
    """How many of a total each of K parties gets, int64 [K].

    weights: float64 [K], not negative. caps: the most that each can get, int64 [K]; their sum over
    parties of positive weight is at least the total. ties: uint64 [K], decide between equals. start:
    64 bits that the offsets begin with.
    """
    given = np.zeros(len(weights), dtype=np.int64)
    (parties,) = np.nonzero((weights > 0) & (caps > 0))
    if total == 0 or not len(parties):
        return given
    weights, caps, ties = weights[parties], caps[parties], ties[parties]
    offsets = _offsets(weights, ties, start)

    def counts(threshold: float) -> Counts:
        return np.minimum(caps, np.floor(threshold * weights + offsets)).astype(np.int64)

    low, high = 0.0, float(((caps + 1) / weights).max())
    while high - low > 1e-9 * high and counts(low).sum() < total:
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() <= total else (low, middle)
    sure, possible = counts(low), counts(high)
    party, rank = _runs(possible - sure)
    priority = (sure[party] + rank - offsets[party]) / weights[party]
    more = np.lexsort((ties[party], priority))[: total - int(sure.sum())]
    given[parties] = sure + np.bincount(party[more], minlength=len(parties))
    return given


def sequence(weights: Weights, total: int, ties: Keys, start: int) -> Counts:
    """The first of an endless row of parties in which each comes by its weight, int64 [total].

    weights: float64 [K], positive. ties, start: as for seats.
    """
    offsets = _offsets(weights, ties, start)
    for surplus in (1 + len(weights) ** 0.5, 1 + len(weights)):  # the second is enough for sure
        counts = np.floor((total + surplus) / weights.sum() * weights + offsets).astype(np.int64)
        if counts.sum() >= total:
            break
    party, rank = _runs(counts)
    priority = (rank - offsets[party]) / weights[party]
    return party[np.lexsort((ties[party], priority))[:total]]


def _offsets(weights: Weights, ties: Keys, start: int) -> NDArray[np.float64]:
    """U in [0, 1) for each of K parties: evenly spread over those of like weight."""
    places = np.empty(len(weights), dtype=np.uint64)
    places[np.lexsort((ties, weights))] = np.arange(len(weights), dtype=np.uint64)
    return uniforms(np.uint64(start) + places * _GOLDEN)


def _runs(counts: Counts) -> tuple[Counts, Counts]:
    """For counts (2, 0, 3): whose seat it is (0, 0, 2, 2, 2), and which of theirs (1, 2, 1, 2, 3)."""
    party = np.repeat(np.arange(len(counts)), counts)
    return party, np.arange(1, len(party) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
