"""How good predictions are: a few numbers a row from its logits, and their sums; in numpy alone.

Notation: N rows, C classes. labels and predictions are int64 [N], logits float [N, C]. Logarithms are
natural. A set without rows raises ValueError. What the sums say is in scores.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmlcli.numerics.scores import Tally

Labels = NDArray[np.int64]
Logits = NDArray[np.floating]
Float64 = NDArray[np.float64]

BINS = 15  # of confidence; bin b holds (b/15, (b+1)/15], the first 0 too
CACHED = 2**16  # logits that are worked on at once, so that a processor's cache has them


class RowScores(NamedTuple):
    """What the logits of N rows say. losses, among: None without labels.

    predictions: int64 [N], the class of the largest logit, of equal ones the smallest number.
    confidence: float64 [N], its probability. losses: float64 [N], -log p(label), from differences of
    logits, so that no probability is clipped. among: bool [N], whether the label is among the k
    likeliest classes; of equal logits the smaller number comes first.
    """

    predictions: Labels
    confidence: Float64
    losses: Float64 | None
    among: NDArray[np.bool_] | None


def score_rows(logits: Logits, labels: Labels | None = None, k: int = 5) -> RowScores:
    """Look at the logits of some rows."""
    if labels is not None:
        _check(labels, logits)
    rows, classes = logits.shape
    predictions = np.asarray(np.argmax(logits, axis=1), dtype=np.int64)
    largest = np.take_along_axis(logits, predictions[:, None], axis=1)
    own = largest if labels is None else np.take_along_axis(logits, labels[:, None], axis=1)
    others, ahead = np.empty(rows), np.zeros(rows, dtype=np.int64)
    few = max(1, CACHED // classes)
    buffer = np.empty((few, classes), dtype=logits.dtype)
    for start in range(0, rows, few):
        some = slice(start, start + few)
        part = logits[some]
        shifted = np.subtract(part, largest[some], out=buffer[: len(part)])
        # Without the largest, whose 1 would swallow in float32 what a sure prediction leaves to others.
        shifted[np.arange(len(part)), predictions[some]] = -np.inf
        others[some] = np.exp(shifted, out=shifted).sum(axis=1)
        if labels is not None:
            ahead[some] = (part > own[some]).sum(axis=1, dtype=np.int32)
    confidence = 1 / (1 + others)
    if labels is None:
        return RowScores(predictions, confidence, None, None)
    losses = np.subtract(largest, own, dtype=np.float64)[:, 0] + np.log1p(others)
    unsure = np.flatnonzero((ahead < k) & (predictions != labels))  # ties may be before the label
    ahead[unsure] += _tied_before(logits[unsure], own[unsure], labels[unsure])
    return RowScores(predictions, confidence, losses, ahead < k)


def _tied_before(logits: Logits, own: Logits, labels: Labels) -> Labels:
    """How many classes of smaller numbers have the label's logit own [N, 1], int64 [N]."""
    before = np.arange(logits.shape[1]) < labels[:, None]
    return np.asarray(np.count_nonzero((logits == own) & before, axis=1), dtype=np.int64)


def softmax(logits: Logits) -> Float64:
    """Class probabilities, float64 [N, C], without overflow."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ScoredRows:
    """A few numbers a row of a labelled set [N], as in RowScores, of which a Tally is made.

    classes: C. among_five: whether the label is among the five likeliest classes. ratings: float64
    [N, 2], ratings x and labels y as numbers, None where classes are no numbers. positive: as of Tally.
    """

    labels: Labels
    predictions: Labels
    confidence: Float64
    losses: Float64
    among_five: NDArray[np.bool_]
    classes: int
    ratings: Float64 | None = None
    positive: int | None = None

    def __post_init__(self) -> None:
        _check(self.labels, self.predictions)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Which rows are predicted right."""
        return np.asarray(self.labels == self.predictions)

    def tally(self, weights: Float64 | None = None) -> Tally:
        """The sums over rows, each as often as weights [N] say; once without them."""
        each = np.ones(len(self.labels)) if weights is None else weights
        bins, columns = self._columns
        sums = each @ columns
        return Tally(
            rows=_summed(self.labels, each, self.classes),
            predicted=_summed(self.predictions, each, self.classes),
            right=_summed(self.labels, each * self.right, self.classes),
            among_five=float(sums[0]),
            loss=float(sums[1]),
            gaps=_summed(bins, each * (self.right - self.confidence), BINS),
            moments=None if self.ratings is None else sums[2:],
            positive=self.positive,
        )

    @cached_property
    def _columns(self) -> tuple[Labels, Float64]:
        """The bin of each row's confidence, and what is summed over rows, [N, 2 or 7]."""
        bins = np.clip(np.ceil(self.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        columns = [self.among_five, self.losses]
        if self.ratings is not None:  # less their means: large ones would cost the digits
            x, y = (self.ratings - self.ratings.mean(axis=0)).T
            columns += [x, y, x * x, y * y, x * y]
        return bins, np.stack(columns, axis=1).astype(np.float64)


def _summed(numbers: Labels, weights: Float64, size: int) -> Float64:
    """The sums of weights [N] by their rows' numbers, [size]."""
    return np.asarray(np.bincount(numbers, weights, size), dtype=np.float64)


def _check(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if len(one) == 0:
        raise ValueError("no rows to score")
    if len(one) != len(other):
        raise ValueError(f"{len(one)} rows against {len(other)}")
