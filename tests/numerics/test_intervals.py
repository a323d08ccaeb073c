"""Intervals and tests of significance against SciPy and slow loops."""

from math import comb

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
    for level in (0.9, 0.95):
        wanted = binomtest(correct, rows).proportion_ci(level, method="wilson")
        assert intervals.accuracy_interval(correct, rows, level) == pytest.approx(
            (wanted.low, wanted.high)
        )


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


def test_bootstrap_is_seeded() -> None:
    rows = rows_of(50)
    wanted = {"mcc": METRICS["mcc"].measure}
    one = intervals.bootstrap(rows.tally, 50, wanted, 100)
    assert intervals.bootstrap(rows.tally, 50, wanted, 100) == one
    assert intervals.bootstrap(rows.tally, 50, wanted, 100, seed=1) != one


def test_what_is_never_defined_has_no_interval() -> None:
    def never(_: object) -> float:
        return float("nan")

    assert np.isnan(intervals.bootstrap(rows_of(20).tally, 20, {"x": never}, 5)["x"]).all()


def test_paired_difference_is_that_of_resampled_pairs() -> None:
    low, high = intervals.paired_difference(80, 50, 1000)
    generator = np.random.default_rng(1)
    pairs = np.repeat([1, -1, 0], [80, 50, 870])
    draws = [pairs[generator.integers(0, 1000, 1000)].mean() for _ in range(5000)]
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1.5e-3)
    assert (low, high) == pytest.approx(
        (0.03 - 1.96 * 0.01136, 0.03 + 1.96 * 0.01136), abs=1.5e-3
    )  # √((b + c - (b - c)²/N) / N²)
    assert intervals.paired_difference(80, 50, 1000) == (low, high)
    assert intervals.paired_difference(0, 0, 10) == (0, 0)


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
