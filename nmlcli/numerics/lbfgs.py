"""Minimising a smooth convex function by L-BFGS, in float64 vectors, whatever its values are made of.

After Nocedal and Wright 2006, algorithms 7.4 and 7.5, with a preconditioner as the first Hessian. The
function may be computed in float32: slopes, which keep more digits than differences of values do,
decide where values no longer can, and what float32 cannot improve ends the search.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Evaluate = Callable[[Vector], tuple[float, Vector]]

MEMORY = 20  # pairs of steps and changes of the gradient
GAP = 5e-8  # of the value: a minimum may not be expected to lie further below
DECREASE = 1e-4  # of what the slope promises: Armijo's condition
NOISE = 2.0**-22  # of a value, below which differences of values say nothing
SHORTENINGS = 25
PATIENCE = 25  # steps without a better value or gradient


@dataclass(frozen=True)
class Minimum:
    """Where a search ended: the point and its value and gradient, and why.

    reason: "converged", "precision" (float32 allows no further progress) or "iterations".
    """

    point: Vector
    value: float
    gradient: Vector
    iterations: int
    evaluations: int
    reason: str

    @property
    def steepest(self) -> float:
        """The largest element of the gradient, without its sign."""
        return _largest(self.gradient)


class History:
    """The last pairs (s, y) of steps and changes of the gradient; their product with a vector."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._pairs: deque[tuple[Vector, Vector, float]] = deque(maxlen=memory)  # s, y, s·y

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, step: Vector, change: Vector) -> None:
        """Take a pair, unless rounding made its curvature vanish."""
        curvature = float(step @ change)
        if curvature > 1e-10 * math.sqrt(float(step @ step) * float(change @ change)):
            self._pairs.append((step, change, curvature))

    def curve(self, by: Vector) -> None:
        """Know that the Hessian has changed by diag(by): so has each change of the gradient."""
        pairs = list(self._pairs)
        self.clear()
        for step, change, _ in pairs:
            self.add(step, change + by * step)

    def clear(self) -> None:
        """Forget all pairs."""
        self._pairs.clear()

    def direction(self, gradient: Vector, precondition: Callable[[Vector], Vector]) -> Vector:
        """-H g, by the two loops; H starts as the preconditioner, to the scale of the last pair."""
        vector, shares = -gradient, []
        for step, change, curvature in reversed(self._pairs):
            share = float(step @ vector) / curvature
            vector -= share * change
            shares.append(share)
        vector = precondition(vector)
        if self._pairs:
            _, change, curvature = self._pairs[-1]
            vector *= curvature / float(change @ precondition(change))
        for (step, change, curvature), share in zip(self._pairs, reversed(shares), strict=True):
            vector += (share - float(change @ vector) / curvature) * step
        return vector


def minimise(
    evaluate: Evaluate, start: Vector, tolerance: float, iterations: int,
    precondition: Callable[[Vector], Vector] = np.copy, history: History | None = None,
) -> Minimum:  # fmt: skip
    """Search from start [n] until no element of the gradient is larger than the tolerance.

    Nor may the minimum of the quadratic that the search has learned lie GAP lower: where little
    curves, as with a weak penalty, a small gradient alone says little of the value.

    evaluate gives the value and a gradient [n] that it does not keep; precondition, a positive
    definite map that does not change its argument, approximates the inverse of the Hessian. A history
    may come from a search of a function with this Hessian; it goes on with the pairs of this one.
    """
    history = History() if history is None else history
    point, (value, gradient) = start, evaluate(start)
    if not (math.isfinite(value) and np.isfinite(gradient).all()):
        raise ValueError(f"the search starts where the function is {value}")
    evaluations, lowest, best, waited = 1, value, _largest(gradient), 0
    for done in range(iterations + 1):
        direction = history.direction(gradient, precondition)
        expected = -float(gradient @ direction) / 2  # how much lower a quadratic's minimum is
        if _largest(gradient) <= tolerance and expected <= GAP * abs(value):
            return Minimum(point, value, gradient, done, evaluations, "converged")
        if done == iterations:
            break
        found, tried = _search(evaluate, point, value, gradient, direction)
        evaluations += tried
        if found is None and len(history):  # rounding may have spoilt it
            history.clear()
            direction = history.direction(gradient, precondition)
            found, tried = _search(evaluate, point, value, gradient, direction)
            evaluations += tried
        if found is None:
            return Minimum(point, value, gradient, done, evaluations, "precision")
        after, value, changed = found
        history.add(after - point, changed - gradient)
        point, gradient = after, changed
        better = value < lowest - NOISE * abs(lowest) or _largest(gradient) < 0.9 * best
        waited = 0 if better else waited + 1
        lowest, best = min(lowest, value), min(best, _largest(gradient))
        if waited == PATIENCE:
            return Minimum(point, value, gradient, done + 1, evaluations, "precision")
    return Minimum(point, value, gradient, iterations, evaluations, "iterations")


def _search(
    evaluate: Evaluate, point: Vector, value: float, gradient: Vector, direction: Vector
) -> tuple[tuple[Vector, float, Vector] | None, int]:
    """The first of shorter and shorter steps that is good enough, and how many were tried."""
    slope = float(gradient @ direction)
    if not slope < 0:
        return None, 0
    size = 1.0
    for tried in range(1, SHORTENINGS + 1):
        after = point + size * direction
        reached, changed = evaluate(after)
        end = float(changed @ direction)
        if math.isfinite(reached) and math.isfinite(end):
            # Of a quadratic, the slope at the end says the same as Armijo's condition does.
            flat = reached <= value + NOISE * abs(value) and end <= (2 * DECREASE - 1) * slope
            if reached <= value + DECREASE * size * slope or flat:
                return (after, reached, changed), tried
            size *= min(0.5, max(0.1, slope / (slope - end)))
        else:
            size *= 0.1
    return None, SHORTENINGS


def _largest(vector: Vector) -> float:
    return float(np.abs(vector).max(initial=0.0))
