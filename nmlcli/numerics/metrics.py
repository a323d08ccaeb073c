"""How good predictions are: numbers from labels, predictions and logits, in numpy alone.

Notation: N rows, C classes. labels and predictions are int64 [N], logits float [N, C]. Fractions are
0-1, logarithms natural. A set without rows raises ValueError.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Logits = NDArray[np.floating]
Float64 = NDArray[np.float64]


def predict(logits: Logits) -> Labels:
    """The class of the largest logit, int64 [N]; of equal ones the smallest number."""
    return np.asarray(np.argmax(logits, axis=1), dtype=np.int64)


def log_softmax(logits: Logits) -> Float64:
    """Logarithms of the class probabilities, float64 [N, C], without overflow."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]


def softmax(logits: Logits) -> Float64:
    """Class probabilities, float64 [N, C]."""
    return np.exp(log_softmax(logits))


def accuracy_interval(correct: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy (1927): low and high, in [0, 1].

    It agrees with the percentile bootstrap over rows for large sets and keeps its width where all or
    no rows are right, where the bootstrap shrinks to a point. What it covers is the choice of rows,
    not of the seed.
    """
    if not 0 <= correct <= rows or rows < 1:
        raise ValueError(f"{correct} right of {rows} rows")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = correct / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == rows else min(1.0, centre + half)
    return low, high


def top_k_accuracy(logits: Logits, labels: Labels, k: int = 5) -> float:
    """The fraction of rows whose label is among the k largest logits; ties go to smaller numbers."""
    _check(labels, logits)
    own = np.take_along_axis(logits, labels[:, None], axis=1)  # [N, 1]
    tied_before = (logits == own) & (np.arange(logits.shape[1]) < labels[:, None])
    ahead = (logits > own).sum(axis=1) + tied_before.sum(axis=1)
    return float(np.mean(ahead < k))


def mean_class_accuracy(labels: Labels, predictions: Labels) -> float:
    """The recall of each class that has rows, averaged over those classes (balanced accuracy)."""
    rows, _, right = _counts(labels, predictions)
    present = rows > 0
    return float(np.mean(right[present] / rows[present]))


def macro_f1(labels: Labels, predictions: Labels) -> float:
    """F1 of each class that has rows, averaged over those classes; 0 for one never predicted right."""
    rows, predicted, right = _counts(labels, predictions)
    present = rows > 0
    return float(np.mean(2 * right[present] / (rows + predicted)[present]))


def negative_log_likelihood(logits: Logits, labels: Labels) -> float:
    """The mean of -log p(label), from logits in float64, so that no probability is clipped."""
    _check(labels, logits)
    return float(-np.take_along_axis(log_softmax(logits), labels[:, None], axis=1).mean())


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """How far confidence is from accuracy: Σ n_b/N |accuracy_b - confidence_b| over equal-width bins.

    confidence [N] in [0, 1], the largest probability of each row. Bin b holds (b/bins, (b+1)/bins];
    the first takes 0 too. Empty bins count nothing. Naeini et al. 2015, Guo et al. 2017.
    """
    _check(correct, confidence)
    sure = np.asarray(confidence, dtype=np.float64)
    number = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(number, weights=correct - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def _counts(labels: Labels, predictions: Labels) -> tuple[Labels, Labels, Labels]:
    """Per class: rows, rows predicted as it, rows of it predicted right; each int64 [C]."""
    _check(labels, predictions)
    classes = int(max(labels.max(), predictions.max())) + 1
    rows = np.bincount(labels, minlength=classes)
    predicted = np.bincount(predictions, minlength=classes)
    right = np.bincount(labels[labels == predictions], minlength=classes)
    return rows, predicted, right


def _check(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if len(one) == 0:
        raise ValueError("no rows to score")
    if len(one) != len(other):
        raise ValueError(f"{len(one)} rows against {len(other)}")
