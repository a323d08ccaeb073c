"""How sure a score is: 95 % intervals over the choice of rows, and the comparison of two classifiers.

What an interval covers is the choice of rows, not of the seed. Draws are keyed: the same rows give the
same interval.
"""

from collections.abc import Callable, Collection, Mapping
from math import comb, exp, lgamma, log
from statistics import NormalDist

import numpy as np

from nmlcli import keyed
from nmlcli.numerics.metrics import Float64
from nmlcli.numerics.scores import Statistic, Tally

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_EXACT = 100_000  # up to so many rows a binomial coefficient is a matter of milliseconds

Interval = tuple[float, float]


def accuracy_interval(correct: int, rows: int) -> Interval:
    """Wilson's score interval of an accuracy (1927): low and high, in [0, 1].

    It agrees with the percentile bootstrap over rows for large sets and keeps its width where all or
    no rows are right, where the bootstrap shrinks to a point.
    """
    if not 0 <= correct <= rows or rows < 1:
        raise ValueError(f"{correct} right of {rows} rows")
    share, z = correct / rows, _Z
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == rows else min(1.0, centre + half)
    return low, high


def bootstrap(
    tally: Callable[[Float64], Tally], rows: int, statistics: Mapping[str, Statistic],
    count: int, inflated: Collection[str] = (),
) -> dict[str, Interval]:  # fmt: skip
    """Intervals of statistics over `count` resamplings of the rows, with replacement.

    tally: the sums over rows for weights [N], how often a resampling took each. Intervals are those of
    percentiles; for shares that a resampling makes larger than the rows did, which are named as
    inflated, basic ones: twice the estimate less the percentiles, cut to [0, 1] (Davison and Hinkley
    1997, 5.2). Replicates in which a statistic is not defined are left out; where there is none left,
    the interval is not a number.
    """
    generator = np.random.default_rng(keyed.scalar(0, "bootstrap"))
    found = np.empty((count, len(statistics)))
    for values in found:
        taken = generator.integers(0, rows, rows, dtype=np.int32 if rows < 2**31 else np.int64)
        sums = tally(np.bincount(taken, minlength=rows).astype(np.float64))
        values[:] = [statistic(sums) for statistic in statistics.values()]
    ends = {name: _percentiles(found[:, place]) for place, name in enumerate(statistics)}
    whole = tally(np.ones(rows))
    for name in inflated:
        low, high = (min(max(2 * statistics[name](whole) - end, 0.0), 1.0) for end in ends[name][::-1])
        ends[name] = low, high
    return ends


def paired_difference(first_only: int, second_only: int, rows: int) -> Interval:
    """Tango's score interval (1998) of the accuracy of one classifier less that of another.

    first_only, second_only: rows that only the one, or the other, predicts right. It keeps its width
    where there are few such rows or none, where resampled rows would all give the same difference.
    """
    low = -_furthest(second_only, first_only, rows)
    return low, _furthest(first_only, second_only, rows)


def _furthest(more: int, less: int, rows: int) -> float:
    """The largest difference that the score test does not reject, by halving; the upper end."""
    inside, outside = (more - less) / rows, 1.0
    for _ in range(60):
        middle = (inside + outside) / 2
        # The share of `less` that is likeliest given the difference: 2 N q² + b q + c = 0.
        b = (2 * rows - more + less) * middle - more - less
        c = -less * middle * (1 - middle)
        share = ((b * b - 8 * rows * c) ** 0.5 - b) / (4 * rows)
        spread = rows * (2 * share + middle * (1 - middle))
        rejected = (more - less - rows * middle) ** 2 > _Z * _Z * spread
        inside, outside = (inside, middle) if rejected else (middle, outside)
    return inside


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided p of McNemar's test: min(1, 2 P(X ≤ min)), X binomial with p = ½.

    It asks whether two classifiers are right equally often, of the rows that only one has right.
    """
    fewer, count = min(first_only, second_only), first_only + second_only
    if count <= _EXACT:
        term = comb(count, fewer) / 2**count  # of whole numbers, so neither overflows
    else:
        ways = lgamma(count + 1) - lgamma(fewer + 1) - lgamma(count - fewer + 1)
        term = exp(ways - count * log(2))
    total = 0.0
    for k in range(fewer, -1, -1):
        total += term
        term *= k / (count - k + 1)
        if term <= total * 1e-17:
            break
    return min(1.0, 2 * total)


def _percentiles(values: Float64) -> Interval:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
