"""Intervals and tests of significance against SciPy and slow loops."""

from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from nmlcli.numerics import intervals
from nmlcli.numerics.metrics import ScoredRows
from nmlcli.numerics.scores import MEASURED, METRICS


@pytest.mark.parametrize(
    "correct,rows", [(0, 1), (1, 1), (3, 10), (50, 100), (0, 40), (40, 40), (9321, 10000)]
)
def test_interval_is_wilsons(correct: int, rows: int) -> None:
    wanted = binomtest(correct, rows).proportion_ci(0.95, method="wilson")
    assert intervals.accuracy_interval(correct, rows) == pytest.approx((wanted.low, wanted.high))


def test_interval_agrees_with_the_bootstrap_of_a_large_set() -> None:
    draws = np.random.default_rng(0).binomial(10000, 0.8, 20000) / 10000
    assert intervals.accuracy_interval(8000, 10000) == pytest.approx(
        np.percentile(draws, [2.5, 97.5]), abs=4e-4
    )


def test_more_right_than_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="5 right of 4"):
        intervals.accuracy_interval(5, 4)


def rows_of(count: int = 400, classes: int = 6) -> ScoredRows:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    said = np.where(generator.random(count) < 0.7, labels, generator.integers(0, classes, count))
    losses, five = generator.exponential(size=count), generator.random(count) < 0.9
    return ScoredRows(labels, said, generator.random(count), losses, five, classes)


def test_bootstrap_is_that_of_a_loop_over_resampled_rows() -> None:
    rows = rows_of()
    found = intervals.bootstrap(rows.tally, 400, MEASURED, 2000)
    generator, slow = np.random.default_rng(5), []
    for _ in range(2000):
        taken = generator.integers(0, 400, 400)
        labels, said = rows.labels[taken], rows.predictions[taken]
        f1 = oracle.f1_score(labels, said, labels=np.unique(labels), average="macro", zero_division=0)
        slow.append((f1, rows.losses[taken].mean(), (labels == said).mean()))
    for name, values in zip(("macro_f1", "nll", "accuracy"), np.transpose(slow), strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        # Both are draws: an end of 2,000 of them has a standard error near 0.06 of the interval's half.
        assert found[name] == pytest.approx((low, high), abs=0.2 * (high - low) / 2), name
        assert found[name][0] < MEASURED[name](rows.tally()) < found[name][1]


def test_bootstrap_is_keyed() -> None:
    rows = rows_of(50)
    wanted = {"mcc": METRICS["mcc"].measure}
    one = intervals.bootstrap(rows.tally, 50, wanted, 100)
    assert intervals.bootstrap(rows.tally, 50, wanted, 100) == one


def test_as_many_rows_are_drawn_as_there_are_and_the_ends_are_those_of_95_percent() -> None:
    """Each replicate is what the n-th resampling says: the ends are known percentiles of 1 … 1000."""
    drawn: list[float] = []

    def tally(weights: np.ndarray) -> Any:
        drawn.append(weights.sum())
        return len(drawn)

    low, high = intervals.bootstrap(tally, 400, {"place": float}, 1000)["place"]  # type: ignore[dict-item]
    assert set(drawn) == {400}
    assert (low, high) == pytest.approx((1 + 0.025 * 999, 1 + 0.975 * 999))


def test_the_interval_of_the_calibration_error_is_not_carried_upwards() -> None:
    """Of 100 sets of 300 rows whose confidence is 5 % too high; percentiles cover it 3 times in 10."""
    generator, wanted = np.random.default_rng(0), {"ece": MEASURED["ece"]}
    covered = {True: 0, False: 0}
    for _ in range(100):
        confidence = 0.1 + 0.9 * generator.beta(5, 2, 300)
        right, none = generator.random(300) < confidence - 0.05, np.zeros(300)
        labels = none.astype(np.int64)
        rows = ScoredRows(labels, np.where(right, 0, 1), confidence, none, none.astype(bool), 2)
        for basic in covered:
            low, high = intervals.bootstrap(rows.tally, 300, wanted, 100, ["ece"] * basic)["ece"]
            covered[basic] += low <= 0.05 <= high
            assert 0 <= low <= high <= 1
    assert covered[True] >= 82 and covered[False] < 50


def test_what_is_never_defined_has_no_interval() -> None:
    def never(_: object) -> float:
        return float("nan")

    assert np.isnan(intervals.bootstrap(rows_of(20).tally, 20, {"x": never}, 5)["x"]).all()


def test_paired_difference_is_tangos_score_interval() -> None:
    """Complete response before and after therapy, Cavo et al. 2012, as in Fagerland et al. 2017."""
    assert intervals.paired_difference(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)
    low, high = intervals.paired_difference(80, 50, 1000)
    assert (low, high) == pytest.approx(
        (0.03 - 1.96 * 0.01136, 0.03 + 1.96 * 0.01136), abs=1.5e-3
    )  # √((b + c - (b - c)²/N) / N²), of many rows
    assert intervals.paired_difference(50, 80, 1000) == (-high, -low)
    half = 1.959964**2 / (20 + 1.959964**2)
    assert intervals.paired_difference(0, 0, 20) == pytest.approx((-half, half))
    assert intervals.paired_difference(20, 0, 20)[1] == 1


@pytest.mark.parametrize(("rows", "one", "other"), [(30, 0.2, 0.05), (200, 0.02, 0.02), (50, 0.3, 0.3)])
def test_paired_difference_covers(rows: int, one: float, other: float) -> None:
    draws = np.random.default_rng(0).multinomial(rows, [one, other, 1 - one - other], 4000)
    counts, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    ends = np.array([intervals.paired_difference(b, c, rows) for b, c in counts.tolist()])
    inside = (ends[:, 0] <= one - other) & (one - other <= ends[:, 1])
    assert 0.93 <= (times * inside).sum() / 4000 <= 0.985


def test_mcnemar_is_exact() -> None:
    assert intervals.mcnemar(5, 15) == 0.04138946533203125 == intervals.mcnemar(15, 5)
    assert intervals.mcnemar(0, 0) == intervals.mcnemar(7, 7) == 1
    assert intervals.mcnemar(0, 5000) == 0
    assert intervals.mcnemar(100_500, 101_000) == pytest.approx(
        binomtest(100_500, 201_500).pvalue, rel=1e-8
    )


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_twice_a_binomial_tail(one: int, other: int) -> None:
    count, fewer = one + other, min(one, other)
    tail = sum(comb(count, k) for k in range(fewer + 1))
    assert intervals.mcnemar(one, other) == pytest.approx(min(1, 2 * tail / 2**count), rel=1e-12)
