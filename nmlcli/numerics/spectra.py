"""Singular values of features, from one pass over blocks of rows, in float64.

Notation: X [N, D] the prepared rows, d = min(N, D). Small or wide X is held, and decomposed where it
is ill-conditioned; of tall X only sums outlive a block. Values below the tolerance are
rounding and are set to 0: relative to the largest, max(N, D) · eps for a decomposition (numpy's rule
for ranks), sqrt(size · eps) for a Gram matrix, whose forming costs half the digits. A second look at
the directions that a Gram matrix does not resolve brings those digits back; see Resolution.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nmlcli.numerics.measures import PREPARATIONS, Preparation

Float64 = NDArray[np.float64]
Block = NDArray[np.float32] | NDArray[np.float16] | Float64

ROWS = 4096  # that are multiplied at once; fixed, since the last bits of a product depend on it
HELD = 2**20  # values of X that are held, where it is not wide: 8 MiB
# With no singular value below this share a Gram matrix is exact to about 1e-11 of the largest.
CLEAR = 1e-5
EPS = float(np.finfo(np.float64).eps)
CENTRING = 8 * EPS  # centred values below this share of ‖X‖ are what taking the means off left over


class HeldRows:
    """All rows of a small or wide X."""

    def __init__(self, rows: int, columns: int) -> None:
        self._matrix = np.empty((rows, columns))
        self.count = 0

    def add(self, block: Float64) -> None:
        """Take a block of rows [n, D]."""
        self._matrix[self.count : self.count + len(block)] = block
        self.count += len(block)

    @property
    def columns(self) -> int:
        """D."""
        return self._matrix.shape[1]

    def singular_values(self, center: bool) -> tuple[Float64, float]:
        """Singular values [d], descending, and the relative tolerance below which they are 0."""
        matrix = self._matrix[: self.count]
        floor = 0.0
        if center:
            floor = CENTRING * float(np.linalg.norm(matrix))
            matrix = matrix - matrix.mean(axis=0)
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        values, tolerance = _of_gram(gram, floor)
        if values[-1] > 10 * CLEAR * values[0]:  # held rows are small: there is no need to be sparing
            return values, tolerance
        values = np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)
        return _cut(values, max(matrix.shape) * EPS, floor)

    def gram(self) -> Float64:
        """Xᵀ X [D, D]."""
        matrix = self._matrix[: self.count]
        return np.asarray(matrix.T @ matrix)

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return np.asarray(self._matrix[: self.count].sum(axis=0))


class GramSums:
    """Count, column sums and Gram matrix of rows that are not kept.

    Sums are of X less the mean of the first block: taking a large mean off a finished Gram matrix
    would cost the digits that it fills.
    """

    def __init__(self, columns: int) -> None:
        self.count = 0
        self._shift: Float64 | None = None  # [D]
        self._sums = np.zeros(columns)  # of X - shift
        self._gram = np.zeros((columns, columns))  # of X - shift
        self._product = np.empty((columns, columns))
        self._resolution: Resolution | None = None

    def add(self, block: Float64) -> None:
        """Add a block of rows [n, D], which is overwritten by itself less the shift."""
        if self._shift is None:
            self._shift = block.mean(axis=0)
        block -= self._shift
        self._sums += block.sum(axis=0)
        self._gram += np.matmul(block.T, block, out=self._product)
        self.count += len(block)

    @property
    def columns(self) -> int:
        """D."""
        return len(self._sums)

    def reopen(self) -> bool:
        """Prepare for a second look; whether it needs the rows again, by add_again."""
        self._resolution = Resolution(self.centred_gram())
        return self._resolution.open > 0

    @property
    def resolved(self) -> bool:
        """Whether all rows were looked at again, or the Gram matrix left nothing to look for."""
        again = self._resolution
        return again is not None and (again.open == 0 or again.count == self.count)

    def add_again(self, block: Float64) -> None:
        """Look at a block of the same rows [n, D] again; it is overwritten."""
        if self._resolution is None:
            raise ValueError("nothing was asked for a second time")
        block -= self.mean()
        self._resolution.add(block)

    def singular_values(self, center: bool) -> tuple[Float64, float]:
        """Singular values [d], descending, and the relative tolerance below which they are 0."""
        floor = CENTRING * self._norm() if center else 0.0
        again = self._resolution
        if again is None or not self.resolved:
            return _of_gram(self.centred_gram() if center else self.gram(), floor)
        factor = again.factor()
        if not center:  # X = (X - mean) + 1 meanᵀ, which are at right angles to each other
            factor = np.vstack((factor, math.sqrt(self.count) * (self.mean() @ again.axes)))
        values = np.asarray(np.linalg.svd(factor, compute_uv=False), dtype=np.float64)
        return _cut(values, max(self.count, len(values)) * EPS, floor)

    def _norm(self) -> float:
        """‖X‖, Frobenius."""
        shift = 0 * self._sums if self._shift is None else self._shift
        return math.sqrt(self._gram.trace() + shift @ (2 * self._sums + self.count * shift))

    def mean(self) -> Float64:
        """Means of the columns [D]."""
        return self._sums / max(self.count, 1) + (0.0 if self._shift is None else self._shift)

    def shifted_sums(self) -> Float64:
        """Sums of the columns [D] of what add leaves of its blocks."""
        return self._sums

    def centred_gram(self) -> Float64:
        """(X - mean)ᵀ (X - mean) [D, D]."""
        squared = np.outer(self._sums, self._sums, out=self._product)
        squared /= max(self.count, 1)
        return self._gram - squared

    def gram(self) -> Float64:
        """Xᵀ X [D, D]."""
        if self._shift is None:
            return self._gram
        crossed = np.outer(self._shift, self._sums, out=self._product)
        gram = self._gram + crossed
        gram += crossed.T
        squared = np.outer(self._shift, self._shift, out=self._product)
        squared *= self.count
        gram += squared
        return gram

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return self._sums if self._shift is None else self._sums + self.count * self._shift


class SavedSums:
    """The sums of rows that are gone: count, column sums [D] and Xᵀ X [D, D], as a state holds them.

    known: whether centred, singular values [d] and tolerance that were measured while the rows lasted.
    """

    def __init__(
        self, count: int, sums: Float64, gram: Float64,
        known: tuple[bool, Float64, float] | None = None,
    ) -> None:  # fmt: skip
        self.count, self._sums, self._gram, self._known = count, sums, gram, known

    @property
    def columns(self) -> int:
        """D."""
        return len(self._sums)

    def __add__(self, other: "SavedSums") -> "SavedSums":
        """The sums of both sets of rows."""
        sums, gram = self._sums + other._sums, self._gram + other._gram
        return SavedSums(self.count + other.count, sums, gram)

    def singular_values(self, center: bool) -> tuple[Float64, float]:
        """Singular values [d], descending, and the relative tolerance below which they are 0.

        Taking the means off a finished Gram matrix leaves rounding of the size of what they filled.
        """
        if self._known is not None and self._known[0] == center:
            return self._known[1:]
        gram, floor = self._gram, 0.0
        if center:
            gram = gram - np.outer(self._sums, self._sums) / self.count
            floor = math.sqrt(len(gram) * EPS * np.linalg.norm(self._gram, 2))
        values, tolerance = _of_gram(gram, floor)
        values = values[: min(self.count, len(values))]
        return values, max(tolerance, floor / values[0]) if values[0] > 0 else tolerance

    def gram(self) -> Float64:
        """Xᵀ X [D, D]."""
        return self._gram

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return self._sums


class Resolution:
    """A second look at A [n, d], n ≥ d, along the eigenvectors of its Gram matrix that are not clear.

    The Gram matrix knows A V = Q R S V-wise only where s > CLEAR · s₁, of which it is as good as a
    decomposition. For the others, V₂, the rows are read again: Y = A V₂ / s₂ has columns of length
    about 1, whatever the condition of A is, so that R₁₂ and R₂₂ of A V = Q R S keep their digits:
    R₁₂ = S₁⁻¹ V₁ᵀ Aᵀ Y, R₂₂ᵀ R₂₂ = Yᵀ Y - R₁₂ᵀ R₁₂. That is a Cholesky QR with the eigenvectors as
    its preconditioner (after Yamamoto et al. 2015); values are then exact to about 1e-11 of the
    largest, and it costs in proportion to the directions that were not clear.
    """

    def __init__(self, gram: Float64) -> None:
        squares, axes = np.linalg.eigh(gram)
        self.axes: Float64 = axes[:, ::-1]  # V [d, d]
        scale = np.sqrt(np.maximum(squares[::-1], 0))
        self._scale = np.maximum(scale, math.sqrt(len(gram) * EPS) * (scale[0] or 1.0))
        self._clear = int((scale > CLEAR * scale[0]).sum())
        self.open = len(gram) - self._clear  # how many directions are not clear
        self.count = 0
        self._turn = self.axes[:, self._clear :] / self._scale[self._clear :]
        self._crossed = np.zeros((len(gram), self.open))  # Aᵀ Y
        self._gram = np.zeros((self.open, self.open))  # Yᵀ Y

    def add(self, block: Float64) -> None:
        """Take rows [n, d] of A."""
        turned = block @ self._turn
        self._crossed += block.T @ turned
        self._gram += turned.T @ turned
        self.count += len(block)

    def factor(self) -> Float64:
        """R S [d, d], whose singular values are those of A."""
        clear = self._clear
        factor = np.eye(len(self._scale))
        crossed = (self.axes[:, :clear] / self._scale[:clear]).T @ self._crossed
        squares, axes = np.linalg.eigh(self._gram - crossed.T @ crossed)
        factor[:clear, clear:] = crossed
        factor[clear:, clear:] = np.sqrt(np.maximum(squares, 0))[:, None] * axes.T
        factor *= self._scale
        return factor


Sums = HeldRows | GramSums | SavedSums


def is_held(rows: int, columns: int) -> bool:
    """Whether all rows of X are held: it is small, or wide."""
    return rows <= columns or rows * columns <= HELD


def footprint(rows: int, columns: int) -> int:
    """Bytes at most that an accumulator takes, a second look included."""
    return 16 * rows * columns if is_held(rows, columns) else 48 * columns**2 + 8 * ROWS * columns


class Accumulator:
    """Takes the N rows of a set in order, in blocks of any sizes, and gives their spectrum.

    rows, columns: N and D. preparation: what is done to each row first (see PREPARATIONS). Rows that
    are summed wait for others until there are ROWS of them, so that sizes of blocks never matter.
    """

    def __init__(self, rows: int, columns: int, preparation: Preparation = PREPARATIONS["raw"]) -> None:
        self.sums: Sums = HeldRows(rows, columns) if is_held(rows, columns) else GramSums(columns)
        self.zero_rows = 0
        self._preparation = preparation
        self._rows = rows
        self._room = min(rows, ROWS)
        self._buffer = np.empty((0, columns))  # lasts from the first row to the last
        self._waiting = self._taken = 0

    def add(self, block: Block) -> None:
        """Take a block of rows [n, D], finite."""
        for part in self.fitting(len(block)):
            self.prepared(block[part])
            self.take()

    def add_again(self, block: Block) -> None:
        """Take the same rows once more, in blocks [n, D], after reopen."""
        zeros = self.zero_rows
        for part in self.fitting(len(block)):
            self.prepared(block[part])
            self.take(again=True)
        self.zero_rows = zeros

    def fitting(self, count: int) -> Iterator[slice]:
        """The parts of a block of so many rows that prepared takes, one after the other."""
        start = 0
        while start < count:
            stop = min(count, start + self._room - self._waiting)
            yield slice(start, stop)
            start = stop

    def prepared(self, part: Block) -> Float64:
        """Fitting rows as they are measured, float64; take takes them."""
        if not len(self._buffer):
            self._buffer = np.empty((self._room, part.shape[1]))
        rows = self._buffer[self._waiting : self._waiting + len(part)]
        np.copyto(rows, part)
        self.zero_rows += self._preparation.prepare(rows)
        self._waiting += len(part)
        return rows

    def take(self, again: bool = False) -> None:
        """Take the rows that were prepared, when they are many enough."""
        last = self._taken + self._waiting == self._rows
        if self._waiting < self._room and not last:
            return
        rows = self._buffer[: self._waiting]
        if again and isinstance(self.sums, GramSums):
            self.sums.add_again(rows)
        elif not again and not isinstance(self.sums, SavedSums):
            self.sums.add(rows)
        self._taken += self._waiting
        self._waiting = 0
        if last:
            self._taken, self._buffer = 0, self._buffer[:0].copy()

    def reopen(self) -> bool:
        """Ask for a second look at what is not clear; whether it needs the rows again, by add_again."""
        return isinstance(self.sums, GramSums) and self.sums.reopen()

    def spectrum(self, center: bool = False) -> "Spectrum":
        """The spectrum of what was taken, with the column means taken off if center."""
        return Spectrum(self.sums, center, self._preparation.lost)


@dataclass(frozen=True)
class Spectrum:
    """Singular values of X (of X less its column means if center), computed when asked for.

    lost: how many dimensions the preparation takes out, whose values are 0 for certain.
    """

    sums: Sums
    center: bool
    lost: int = 0

    @cached_property
    def _plain(self) -> tuple[Float64, float]:
        return self.sums.singular_values(self.center)

    @property
    def values(self) -> Float64:
        """Singular values [d], descending; those below the tolerance are 0."""
        return self._plain[0]

    @property
    def tolerance(self) -> float:
        """What counts as 0, relative to the largest singular value."""
        return self._plain[1]

    @property
    def clear(self) -> bool:
        """Whether a second look at the rows would show nothing new."""
        if isinstance(self.sums, HeldRows):
            return True
        for values in (self.values, self.centred):  # some measures are always of the centred ones
            known = values[: len(values) - self.lost]
            if known.size and known[0] > 0 and not known[-1] > CLEAR * known[0]:
                return False
        return True

    @property
    def resolved(self) -> bool:
        """Whether small values are exact: nothing is unclear, or it was looked at again."""
        return self.clear or (isinstance(self.sums, GramSums) and self.sums.resolved)

    @cached_property
    def centred(self) -> Float64:
        """Singular values [d] of X less its column means, whatever `center` is."""
        return self.values if self.center else self.sums.singular_values(True)[0]


def _of_gram(gram: Float64, floor: float = 0.0) -> tuple[Float64, float]:
    """Singular values from the Gram matrix of the shorter side."""
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))
    return _cut(values, math.sqrt(len(gram) * EPS), floor)


def _cut(values: Float64, tolerance: float, floor: float) -> tuple[Float64, float]:
    return np.where(values > max(tolerance * values[0], floor), values, 0.0), tolerance
