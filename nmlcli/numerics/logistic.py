"""Multinomial logistic regression on all rows at once, by L-BFGS, from rows that may be streamed.

    f(W, b) = 1/N Σ_i CE(W x_i + b, y_i) + l2/2 ‖W‖²_F        (the bias is not penalised)

Notation: N rows, D columns, C classes; X float32 [N, D], W [C, D], b [C]. scikit-learn's C is
1 / (l2 N). An evaluation is two float32 products a block of rows (W Xᵀ and Rᵀ X, R the probabilities
less the labels); the loss, sums over blocks and the search are float64. Blocks are cut to ROWS rows
here, so that no bit of a result depends on how the rows arrive; in memory are a block, its logits,
2 MEMORY vectors [C, D + 1] of the search and, where it pays, a preconditioner [D, D].

The search moves in features less their mean and divided by their scale, W·(x - mean)/scale + b': the
same function in other coordinates, since the bias is free, in which a large mean and the unit of the
features cost no iterations, and the tolerance of the gradient means the same for all features.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nmlcli.numerics.lbfgs import History, Minimum, Vector, minimise
from nmlcli.numerics.rows import Blocks, Float32, Float64, Labels, Rows, covariance_work, survey

CACHED = 2**17  # logits that are worked on one after the other, so that a processor's cache has them
ABSENT = 1e-8  # the share that a class without rows starts with, below any tolerance
FLOOR = 1e-5  # variance, relative to the mean one, that no direction is taken to have less than
WORTH = 15.0  # evaluations that a covariance may cost; it saves more than these


@dataclass(frozen=True)
class Fitted:
    """A linear classifier, logits = W x + b, and how the search for it ended.

    weight float64 [C, D] and bias [C]. objective: f. gradient: the largest |∂f| with features less
    their mean and to mean square 1. evaluations: passes over the rows. reason: "converged",
    "precision" (float32 products allow no further progress) or "iterations" (there were no more).
    """

    l2: float
    weight: Float64
    bias: Float64
    objective: float
    gradient: float
    iterations: int
    evaluations: int
    reason: str

    @property
    def converged(self) -> bool:
        """Whether the gradient is within the tolerance."""
        return self.reason == "converged"


def usual_l2s(mean_square: float, count: int = 8) -> tuple[float, ...]:
    """L2 values that a sweep tries, from strong to weak: 10 … 1e-6 times the mean square ‖f‖²/D.

    A value l2 is a prior of variance 1 / (l2 N) on each weight, and weights go as 1 / √mean_square:
    relative to it a value means the same for unit-norm vectors and for large features. At 10 nothing
    but the class means' direction is learned; at 1e-6 even a million rows decide for themselves.
    CLIP's sweep (Radford et al. 2021, A.3) is 96 values of scikit-learn's C in 1e-6 … 1e6.
    """
    if not 0 < mean_square < np.inf:
        raise ValueError(f"features of mean square {mean_square} have no scale")
    return tuple(float(mean_square * value) for value in np.geomspace(10, 1e-6, count))


def fit(
    rows: Rows, l2: float, start: Fitted | None = None, *,
    tolerance: float = 1e-5, iterations: int = 1000,
) -> Fitted:  # fmt: skip
    """Minimise f from start, or from W = 0 and the logarithms of the classes' shares.

    Raises ValueError for rows that are none, not finite, not as wide or not as many as they say, for
    labels outside the classes, for an l2 below 0 and for a start that overflows. On separable rows
    with l2 = 0 there is no minimum, and the search ends by its iterations.
    """
    return _Problem(rows).solve(l2, start, tolerance, iterations)


def path(
    rows: Rows, l2s: Iterable[float], start: Fitted | None = None, *,
    tolerance: float = 1e-5, iterations: int = 1000,
) -> Iterator[Fitted]:  # fmt: skip
    """As fit, for each of several values from the strongest to the weakest, each from the last."""
    problem = _Problem(rows)
    for l2 in sorted(l2s, reverse=True):
        start = problem.solve(l2, start, tolerance, iterations)
        yield start


class _Problem:
    """Rows, what a first pass knows of them, and the buffers that evaluations share."""

    def __init__(self, rows: Rows) -> None:
        if min(rows.count, rows.columns, rows.classes) < 1:
            raise ValueError(f"{rows.count} rows × {rows.columns} of {rows.classes} classes")
        self._rows, self._blocks = rows, Blocks(rows)
        worth = WORTH * 4 * rows.count * rows.columns * rows.classes
        self._facts = survey(self._blocks, whole=covariance_work(rows) <= worth)
        self._history, self._penalty = History(), 0.0  # of the last solve, for the next
        self._logits = np.empty(rows.classes * self._blocks.size, dtype=np.float32)
        self._product = np.empty((rows.classes, rows.columns), dtype=np.float32)

    def solve(self, l2: float, start: Fitted | None, tolerance: float, iterations: int) -> Fitted:
        """The fit of one L2 value."""
        if not 0 <= l2 < np.inf:
            raise ValueError(f"l2 is {l2}; it is 0 or more")
        rows, scale = self._rows, self._facts.scale
        point = np.empty((rows.classes, rows.columns + 1))
        if start is None:
            point[:, :-1], point[:, -1] = 0, np.log(np.maximum(self._facts.shares, ABSENT))
        elif start.weight.shape != (rows.classes, rows.columns):
            raise ValueError(f"start is {start.weight.shape}, not {(rows.classes, rows.columns)}")
        else:
            point[:, :-1] = start.weight * scale
            point[:, -1] = start.bias + start.weight @ self._facts.mean
        point -= point.mean(axis=0)  # what all classes share changes no probability, only rounding
        penalty = l2 / scale**2

        def evaluate(vector: Vector) -> tuple[float, Vector]:
            # The search steps back from what overflows.
            with np.errstate(over="ignore", invalid="ignore"):
                return self._evaluate(vector.reshape(point.shape), penalty)

        if start is None:
            self._history.clear()
        by = np.zeros_like(point)
        by[:, :-1] = penalty - self._penalty
        self._history.curve(by.reshape(-1))
        self._penalty = penalty
        inverse = self._inverse(penalty)
        found = minimise(evaluate, point.reshape(-1), tolerance, iterations, inverse, self._history)
        return self._fitted(found, l2)

    def _fitted(self, found: Minimum, l2: float) -> Fitted:
        point = found.point.reshape(self._rows.classes, -1)
        weight = point[:, :-1] / self._facts.scale
        return Fitted(
            l2, weight, point[:, -1] - weight @ self._facts.mean, found.value, found.steepest,
            found.iterations, found.evaluations, found.reason,
        )  # fmt: skip

    def _evaluate(self, point: Float64, penalty: float) -> tuple[float, Vector]:
        """f and its gradient, flat, at [C, D + 1] = (W scale, b + W mean)."""
        facts, count = self._facts, self._rows.count
        weight = (point[:, :-1] / facts.scale).astype(np.float32)
        left = facts.mean if facts.shift is None else facts.mean - facts.shift  # of the mean, in blocks
        offset = (point[:, -1] - weight.astype(np.float64) @ left).astype(np.float32)
        loss, gradient = 0.0, np.zeros_like(point)
        for block, labels in self._blocks.read(facts.shift):
            logits = self._logits[: len(weight) * len(block)].reshape(len(weight), -1)
            np.matmul(weight, block.T, out=logits)
            loss += _to_residuals(logits, labels, offset)
            gradient[:, :-1] += np.matmul(logits, block, out=self._product)
            gradient[:, -1] += logits.sum(axis=1)
        gradient /= count
        gradient[:, :-1] -= gradient[:, -1:] * left
        gradient[:, :-1] /= facts.scale
        gradient[:, :-1] += penalty * point[:, :-1]
        value = loss / count + penalty / 2 * float(np.square(point[:, :-1]).sum())
        return value, gradient.reshape(-1)

    def _inverse(self, penalty: float) -> Callable[[Vector], Vector]:
        """About the inverse of the Hessian: of curvature · covariance + penalty, alike for each class.

        curvature is p (1 - p) at the classes' shares; with the covariance of the features in it,
        directions of small variance are learned as fast as those of large. Where that [D, D] matrix
        costs more than it saves, their variances have to do.
        """
        shares, spread = self._facts.shares, self._facts.spread
        inverse: Float64
        curvature = max(float(np.mean(shares * (1 - shares))), ABSENT)
        if spread.ndim == 1:
            inverse = 1 / (curvature * np.maximum(spread, FLOOR) + penalty)
        else:
            least = (curvature * FLOOR + penalty) * np.eye(len(spread))
            inverse = np.asarray(np.linalg.inv(curvature * spread + least), dtype=np.float64)

        def apply(vector: Vector) -> Vector:
            matrix = vector.reshape(self._rows.classes, -1)
            out = np.empty_like(matrix)
            weight = matrix[:, :-1]
            out[:, :-1] = weight * inverse if inverse.ndim == 1 else weight @ inverse
            out[:, -1] = matrix[:, -1] / curvature
            return out.reshape(-1)

        return apply


def _to_residuals(logits: Float32, labels: Labels, offset: Float32) -> float:
    """Turn logits [C, n], less the bias, into probabilities less labels in place; the sum of losses."""
    few, loss = max(64, CACHED // len(logits)), 0.0
    for start in range(0, logits.shape[1], few):
        part, own = logits[:, start : start + few], labels[start : start + few]
        place = (own, np.arange(len(own)))
        part += offset[:, None]
        part -= part.max(axis=0)
        loss -= float(part[place].sum(dtype=np.float64))
        np.exp(part, out=part)
        sums = part.sum(axis=0)
        loss += float(np.log(sums, dtype=np.float64).sum())
        part *= 1 / sums
        part[place] -= 1
    return loss
