"""Labelled rows that are read again and again, from memory or from files, in blocks of one size.

Notation: N rows, D columns, C classes. Whatever sizes rows arrive in, they leave ROWS at a time, so
that no bit of what is computed from them depends on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.int64]

ROWS = 2048  # that are multiplied at once; fixed, since the last bits of a product depend on it
SAMPLE = 4  # rows for each column that a covariance is measured on
FAR = 10.0  # mean² / variance above which float32 products need the mean taken off the rows first


class Overflow(ValueError):  # noqa: N818
    """Features that are so large that float32 does not hold the sums of their squares."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows that can be read again and again.

    count, columns, classes: N, D and C. blocks(): iterate all rows in order, in blocks of any sizes:
    features float32 [n, D] and labels int64 [n] in 0 … C-1.
    """

    count: int
    columns: int
    classes: int
    blocks: Callable[[], Iterator[tuple[Float32, Labels]]]


def held_rows(features: Float32, labels: Labels, classes: int) -> Rows:
    """Features [N, D] and labels [N] that are in memory, without a copy; raises ValueError."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"features {features.shape} and labels {labels.shape} do not match")
    count, columns = features.shape
    return Rows(count, columns, classes, lambda: iter([(features, labels)]))


class Blocks:
    """Rows cut to `size` = min(ROWS, N) at a time, the last block shorter."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.size = min(ROWS, rows.count)
        self._features = np.empty((0, rows.columns), dtype=np.float32)  # made when it is needed
        self._labels = np.empty(self.size, dtype=np.int64)

    def read(self, shift: Float32 | None = None) -> Iterator[tuple[Float32, Labels]]:
        """Iterate all rows, less a shift [D]; a block lasts until the next one is asked for.

        Blocks are views of what arrives where that has the size and nothing is shifted. Raises
        ValueError where the rows are not as many or as wide as they say.
        """
        count, columns, taken = self.rows.count, self.rows.columns, 0
        for features, labels in self.rows.blocks():
            if features.shape != (len(labels), columns) or taken + len(labels) > count:
                raise ValueError(
                    f"{features.shape} features and {len(labels)} labels after {taken} of {count} rows"
                )
            start = 0
            while start < len(features):
                waiting = taken % self.size
                stop = min(len(features), start + self.size - waiting)
                part, taken = slice(start, stop), taken + stop - start
                start = stop
                ready = taken % self.size == 0 or taken == count
                if ready and not waiting and shift is None and features.flags.c_contiguous:
                    yield features[part], labels[part]
                    continue
                held = self._hold(features[part], labels[part], shift, waiting)
                if ready:
                    yield held
        if taken != count:
            raise ValueError(f"{taken} rows, not {count}")

    def _hold(
        self, features: Float32, labels: Labels, shift: Float32 | None, waiting: int
    ) -> tuple[Float32, Labels]:
        if not len(self._features):
            self._features = np.empty((self.size, self.rows.columns), dtype=np.float32)
        stop = waiting + len(features)
        np.subtract(
            features, np.float32(0) if shift is None else shift, out=self._features[waiting:stop]
        )
        self._labels[waiting:stop] = labels
        return self._features[:stop], self._labels[:stop]


@dataclass(frozen=True)
class Facts:
    """What one pass over rows tells.

    shares [C]: each class's share of the rows. mean [D]. scale: the root of the mean variance of a
    column, 1 where nothing varies. spread: the covariance [D, D] of a sample of the rows, or just
    the variances [D] of all, in units of scale². shift: the mean in float32 where it is so large that
    float32 products need it taken off the rows, or None.
    """

    shares: Float64
    mean: Float64
    scale: float
    spread: Float64
    shift: Float32 | None


def covariance_work(rows: Rows) -> float:
    """Floating-point operations, about, of a sample's covariance [D, D] and of one inverse of it."""
    return 2.0 * min(rows.count, SAMPLE * rows.columns) * rows.columns**2 + 6.0 * rows.columns**3


def survey(blocks: Blocks, whole: bool) -> Facts:
    """Check all rows, and measure them; the covariance if whole, else the variances.

    Raises ValueError for numbers that are not finite, Overflow where their squares are not, and
    ValueError for labels outside the classes.
    """
    rows = blocks.rows
    stride, taken, sampled = max(1, rows.count // (SAMPLE * rows.columns)), 0, 0
    numbers, near = np.zeros(rows.classes, dtype=np.int64), np.zeros(rows.columns, dtype=np.float32)
    sums, squares, few = np.zeros(rows.columns), np.zeros(rows.columns), np.zeros(rows.columns)
    products = np.zeros((rows.columns, rows.columns)) if whole else None
    with np.errstate(over="ignore", invalid="ignore"):
        for features, labels in blocks.read():
            if taken == 0:
                near = features.mean(axis=0)  # less this, sums and squares cancel less
            numbers += _numbers(labels, rows.classes)
            block = features - near
            power = np.einsum("nd,nd->d", block, block)
            if not np.isfinite(power).all():
                wrong = f"rows {taken} to {taken + len(block) - 1} hold numbers that are not finite"
                finite = np.isfinite(features).all()
                raise Overflow(f"{wrong} when they are squared") if finite else ValueError(wrong)
            sums += block.sum(axis=0)
            squares += power
            if products is not None:
                sample = block[-taken % stride :: stride]
                sampled += len(sample)
                few += sample.sum(axis=0)
                products += sample.T @ sample
            taken += len(block)
    sums /= taken
    variances = np.maximum(squares / taken - sums**2, 0)
    mean, average = near + sums, float(variances.mean())
    shift = mean.astype(np.float32) if float(mean @ mean) > FAR * float(variances.sum()) else None
    spread = variances
    if products is not None:
        few /= sampled
        spread = products / sampled - np.outer(few, few)
    scale = average**0.5 or 1.0
    return Facts(numbers / taken, mean, scale, spread / scale**2, shift)


def _numbers(labels: Labels, classes: int) -> NDArray[np.int64]:
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels {labels.min()} to {labels.max()} of {classes} classes")
    return np.bincount(labels, minlength=classes)
