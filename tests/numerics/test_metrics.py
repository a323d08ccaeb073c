"""Metrics against scikit-learn and slow transcriptions."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as oracle

from nmlcli.numerics import metrics
from nmlcli.numerics.pools import POOLS
from nmlcli.numerics.scores import MEASURED, METRICS


def draw(rows: int = 500, classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += 1
    return logits, labels


def scored(logits: np.ndarray, labels: np.ndarray, **more: Any) -> metrics.ScoredRows:
    said = metrics.score_rows(logits, labels)
    assert said.losses is not None and said.among is not None
    known = (said.predictions, said.confidence, said.losses, said.among, logits.shape[1])
    return metrics.ScoredRows(labels, *known, **more)


def of_predictions(labels: np.ndarray, predictions: np.ndarray, classes: int, **more: Any) -> Any:
    none = np.zeros(len(labels))
    rows = (labels, predictions, none, none, none.astype(bool), classes)
    return metrics.ScoredRows(*rows, **more).tally()


def test_accuracies_and_likelihood_agree_with_scikit_learn() -> None:
    logits, labels = draw()
    logits = logits.astype(np.float64)
    said = metrics.score_rows(logits, labels)
    tally = scored(logits, labels).tally()
    assert MEASURED["accuracy"](tally) == oracle.accuracy_score(labels, said.predictions)
    assert MEASURED["mean_class_accuracy"](tally) == pytest.approx(
        oracle.balanced_accuracy_score(labels, said.predictions)
    )
    likelihood = oracle.log_loss(labels, metrics.softmax(logits), labels=range(7))
    assert MEASURED["nll"](tally) == pytest.approx(likelihood, rel=1e-12)
    assert said.losses is not None and said.losses.mean() == pytest.approx(likelihood, rel=1e-12)
    assert np.allclose(said.confidence, metrics.softmax(logits).max(axis=1), rtol=1e-14, atol=0)
    assert MEASURED["top5"](tally) == oracle.top_k_accuracy_score(labels, logits, k=5)
    for k in (1, 2, 5, 7, 9):
        expected = oracle.top_k_accuracy_score(labels, logits, k=k) if k < 7 else 1.0
        among = metrics.score_rows(logits, labels, k).among
        assert among is not None and among.mean() == expected


@pytest.mark.parametrize("spread", [0.1, 3, 30])
def test_float32_logits_cost_no_more_than_their_own_rounding(spread: float) -> None:
    logits, labels = draw(rows=3000, classes=400)
    logits *= np.float32(spread)
    quick = metrics.score_rows(logits, labels)
    exact = metrics.score_rows(logits.astype(np.float64), labels)
    assert quick.losses is not None and exact.losses is not None
    # A logit of size a is rounded by a / 2**24, and that is what its share is off by, relatively.
    rounding = float(np.abs(logits).max()) * 2.0**-22
    assert np.allclose(quick.losses, exact.losses, rtol=rounding, atol=0)
    assert np.allclose(1 - quick.confidence, 1 - exact.confidence, rtol=rounding, atol=1e-15)


def test_many_rows_are_scored_as_each_alone() -> None:
    logits, labels = draw(rows=300, classes=700)  # four pieces
    logits = logits.round(1)  # so that there are ties
    whole, ranks = metrics.score_rows(logits, labels), []
    for row, label in zip(logits, labels, strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        ranks.append(order.index(label))
    for k in (1, 3, 5, 50):
        among = metrics.score_rows(logits, labels, k).among
        assert among is not None and among.tolist() == [rank < k for rank in ranks]
    assert whole.predictions.tolist() == logits.argmax(axis=1).tolist()
    unlabelled = metrics.score_rows(logits)
    assert np.array_equal(unlabelled.confidence, whole.confidence)
    assert (unlabelled.losses, unlabelled.among) == (None, None)


def test_macro_f1_is_over_the_classes_present_in_the_set() -> None:
    logits, labels = draw()
    logits[:, 5] += 1
    logits[:, 3] -= 9
    kept = (labels != 5) & (labels != 0)
    logits, labels = logits[kept], labels[kept]
    predictions = logits.argmax(axis=1)
    assert (predictions == 5).any() and (labels == 3).any() and not (predictions == 3).any()
    expected = oracle.f1_score(
        labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
    )
    tally = scored(logits, labels).tally()
    assert MEASURED["macro_f1"](tally) == pytest.approx(expected)
    assert expected > oracle.f1_score(labels, predictions, average="macro", zero_division=0)
    never = of_predictions(labels, np.zeros_like(labels), 7)
    assert MEASURED["macro_f1"](never) == 0
    assert MEASURED["mean_class_accuracy"](never) == 0


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_correlation_and_f1_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    tally = of_predictions(labels, predictions, 5, positive=1)
    wanted = {
        "accuracy": oracle.accuracy_score(labels, predictions),
        "mean-class": oracle.recall_score(
            labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
        ),
        "macro-f1": oracle.f1_score(
            labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
        ),
        "mcc": oracle.matthews_corrcoef(labels, predictions),
        "f1": oracle.f1_score(labels == 1, predictions == 1, zero_division=0),
    }
    got = {name: METRICS[name].measure(tally) for name in wanted}
    assert got == pytest.approx(wanted, abs=1e-12)


def test_matthews_of_two_classes_is_the_closed_form() -> None:
    labels, predictions = np.repeat([1, 1, 0, 0], [90, 5, 4, 1]), np.repeat([1, 0, 1, 0], [90, 5, 4, 1])
    both, missed, false, none = 90, 5, 4, 1
    closed = (both * none - false * missed) / (95 * 94 * 5 * 6) ** 0.5
    assert METRICS["mcc"].measure(of_predictions(labels, predictions, 2)) == pytest.approx(closed)
    assert METRICS["mcc"].measure(of_predictions(labels, np.ones_like(labels), 2)) == 0


@given(arrays.arrays(np.float64, (12, 2), elements=st.integers(-30, 30).map(float)))
def test_pearson_is_numpys(ratings: np.ndarray) -> None:
    none = np.zeros(12, dtype=np.int64)
    got = METRICS["pearson"].measure(of_predictions(none, none, 1, ratings=ratings + 1e6))
    if np.ptp(ratings, axis=0).min() == 0:
        assert np.isnan(got)
    else:
        assert got == pytest.approx(np.corrcoef(ratings.T)[0, 1], abs=1e-9)


def test_metrics_that_need_more_say_so() -> None:
    tally = of_predictions(np.array([0, 1]), np.array([0, 1]), 2)
    for name in ("f1", "pearson"):
        with pytest.raises(ValueError):
            METRICS[name].measure(tally)


def test_ties_go_to_the_smallest_class() -> None:
    logits, labels = np.zeros((4, 3)), np.array([0, 1, 2, 0])
    assert metrics.score_rows(logits, labels).predictions.tolist() == [0, 0, 0, 0]
    for k, share in ((1, 0.5), (2, 0.75), (3, 1)):
        among = metrics.score_rows(logits, labels, k).among
        assert among is not None and among.mean() == share


def test_likelihood_neither_clips_nor_overflows() -> None:
    logits = np.array([[3e4, 0.0], [0.0, 3e4], [0.0, 20.0]], dtype=np.float32)
    said = metrics.score_rows(logits, np.array([1, 1, 1]))
    assert said.losses is not None and said.losses[:2].mean() == 1.5e4
    assert said.losses[2] == pytest.approx(np.exp(-20), rel=1e-6, abs=0)
    assert np.array_equal(metrics.softmax(logits[:2]), [[1, 0], [0, 1]])


def slow_calibration(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def calibration(confidence: np.ndarray, correct: np.ndarray) -> float:
    labels, none = np.zeros(len(correct), dtype=np.int64), np.zeros(len(correct))
    rows = (labels, np.where(correct, 0, 1), confidence, none, none.astype(bool), 2)
    return MEASURED["ece"](metrics.ScoredRows(*rows).tally())


def test_calibration_error() -> None:
    generator = np.random.default_rng(1)
    confidence, correct = generator.uniform(0.001, 1, 2000), generator.random(2000) < 0.65
    got = calibration(confidence, correct)
    assert got == pytest.approx(slow_calibration(confidence, correct, 15))
    assert got != pytest.approx(slow_calibration(confidence, correct, 10), rel=1e-3)
    ones, right = np.ones(10), np.ones(10, dtype=bool)
    assert calibration(ones, right) == 0
    assert calibration(ones, ~right) == 1
    assert calibration(ones / 2, np.arange(10) % 2 == 0) == 0
    edge, hit = np.array([0.2, 0.19, 0.0]), np.array([True, False, False])  # 3/15 closes its bin
    assert calibration(edge, hit) == pytest.approx((1 - 0.39) / 3)


@given(
    arrays.arrays(np.float64, (5, 8), elements=st.floats(-800, 800)),
    st.sets(st.integers(1, 7), max_size=6),
)
def test_pools_are_the_largest_and_the_sum_of_probabilities(logits: np.ndarray, cuts: set[int]) -> None:
    starts = np.array([0, *sorted(cuts)])
    groups = np.split(np.arange(8), starts[1:])
    shares = metrics.softmax(logits)
    best = np.stack([logits[:, group].max(axis=1) for group in groups], axis=1)
    assert np.array_equal(POOLS["max"].pool(logits, starts), best)
    added = np.stack([shares[:, group].sum(axis=1) for group in groups], axis=1)
    got = POOLS["sum"].pool(logits, starts)
    assert np.allclose(metrics.softmax(got), added, atol=1e-12)
    assert np.isfinite(got).all()


def test_weights_stand_for_rows_taken_more_than_once() -> None:
    logits, labels = draw(rows=60)
    ratings = np.random.default_rng(3).normal(size=(60, 2))
    rows = scored(logits, labels, ratings=ratings, positive=1)
    taken = np.random.default_rng(2).integers(0, 60, 60)
    weighted = rows.tally(np.bincount(taken, minlength=60).astype(float))
    again = scored(logits[taken], labels[taken], ratings=ratings[taken], positive=1).tally()
    for name, metric in METRICS.items():
        assert metric.measure(weighted) == pytest.approx(metric.measure(again)), name
    for name, measure in MEASURED.items():
        assert measure(weighted) == pytest.approx(measure(again)), name


def test_nothing_to_score_and_unequal_rows_are_refused() -> None:
    none = np.array([], dtype=np.int64)
    with pytest.raises(ValueError, match="no rows"):
        of_predictions(none, none, 1)
    with pytest.raises(ValueError, match="3 rows against 2"):
        of_predictions(np.array([0, 1, 1]), np.array([0, 1]), 2)
