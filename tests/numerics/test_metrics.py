"""Metrics against scikit-learn and SciPy."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as oracle

from nmlcli.numerics import metrics


def draw(rows: int = 500, classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += 1
    return logits, labels


def test_accuracies_and_likelihood_agree_with_scikit_learn() -> None:
    logits, labels = draw()
    predictions = metrics.predict(logits)
    assert metrics.mean_class_accuracy(labels, predictions) == pytest.approx(
        oracle.balanced_accuracy_score(labels, predictions)
    )
    assert metrics.negative_log_likelihood(logits, labels) == pytest.approx(
        oracle.log_loss(labels, metrics.softmax(logits), labels=range(7)), rel=1e-12
    )
    for k in (1, 2, 5, 7, 9):
        expected = oracle.top_k_accuracy_score(labels, logits, k=k) if k < 7 else 1.0
        assert metrics.top_k_accuracy(logits, labels, k) == expected


def test_macro_f1_is_over_the_classes_present_in_the_set() -> None:
    logits, labels = draw()
    logits[:, 5] += 1
    kept = (labels != 5) & (labels != 0)
    predictions, labels = metrics.predict(logits[kept]), labels[kept]
    assert (predictions == 5).any()
    expected = oracle.f1_score(
        labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
    )
    assert metrics.macro_f1(labels, predictions) == pytest.approx(expected)
    assert expected > oracle.f1_score(labels, predictions, average="macro", zero_division=0)
    never = np.zeros_like(labels)
    assert metrics.macro_f1(labels, never) == 0
    assert metrics.mean_class_accuracy(labels, never) == 0


def test_ties_go_to_the_smallest_class() -> None:
    logits, labels = np.zeros((4, 3)), np.array([0, 1, 2, 0])
    assert metrics.predict(logits).tolist() == [0, 0, 0, 0]
    assert metrics.top_k_accuracy(logits, labels, 1) == 0.5
    assert metrics.top_k_accuracy(logits, labels, 2) == 0.75


def test_likelihood_neither_clips_nor_overflows() -> None:
    logits = np.array([[3e4, 0.0], [0.0, 3e4]], dtype=np.float32)
    assert metrics.negative_log_likelihood(logits, np.array([1, 1])) == 1.5e4
    assert np.array_equal(metrics.softmax(logits), [[1, 0], [0, 1]])


def slow_calibration(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_calibration_error() -> None:
    generator = np.random.default_rng(1)
    confidence, correct = generator.uniform(0.001, 1, 2000), generator.random(2000) < 0.6
    got = metrics.expected_calibration_error(confidence, correct)
    assert got == pytest.approx(slow_calibration(confidence, correct, 15))
    ones, right = np.ones(10), np.ones(10, dtype=bool)
    assert metrics.expected_calibration_error(ones, right) == 0
    assert metrics.expected_calibration_error(ones, ~right) == 1
    assert metrics.expected_calibration_error(ones / 2, np.arange(10) % 2 == 0) == 0
    edge, hit = np.array([0.2, 0.19, 0.0]), np.array([True, False, False])  # 3/15 closes its bin
    assert metrics.expected_calibration_error(edge, hit) == pytest.approx((1 - 0.39) / 3)


@pytest.mark.parametrize(
    "correct,rows", [(0, 1), (1, 1), (3, 10), (50, 100), (0, 40), (40, 40), (9321, 10000)]
)
def test_interval_is_wilsons(correct: int, rows: int) -> None:
    for level in (0.9, 0.95):
        wanted = binomtest(correct, rows).proportion_ci(level, method="wilson")
        assert metrics.accuracy_interval(correct, rows, level) == pytest.approx(
            (wanted.low, wanted.high)
        )


def test_interval_agrees_with_the_bootstrap_of_a_large_set() -> None:
    draws = np.random.default_rng(0).binomial(10000, 0.8, 20000) / 10000
    assert metrics.accuracy_interval(8000, 10000) == pytest.approx(
        np.percentile(draws, [2.5, 97.5]), abs=4e-4
    )


def test_nothing_to_score_and_unequal_rows_are_refused() -> None:
    none = np.array([], dtype=np.int64)
    with pytest.raises(ValueError, match="no rows"):
        metrics.macro_f1(none, none)
    with pytest.raises(ValueError, match="3 rows against 2"):
        metrics.macro_f1(np.array([0, 1, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="5 right of 4"):
        metrics.accuracy_interval(5, 4)
