"""Singular values of features, from one pass over blocks of rows, in float64.

Notation: X [N, D] the prepared rows, d = min(N, D). Small or wide X is held, and decomposed where it
is small and ill-conditioned; of tall X only sums outlive a block. Values below the tolerance are
rounding and are set to 0: relative to the largest, max(N, D) · eps for a decomposition (numpy's rule
for ranks), sqrt(size · eps) for a Gram matrix, whose forming costs half the digits.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nmlcli.numerics.measures import PREPARATIONS, Preparation

Float64 = NDArray[np.float64]
Block = NDArray[np.float32] | NDArray[np.float16] | Float64

HELD = 2**20  # values of X that are held, where it is not wide: 8 MiB
DECOMPOSED = 2**26  # N · D · d of the largest X that is decomposed: on busy cores that is very slow
CLEAR = 1e-5  # a Gram matrix with no singular value below this share is as good as a decomposition
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

    def singular_values(self, center: bool) -> tuple[Float64, float]:
        """Singular values [d], descending, and the relative tolerance below which they are 0."""
        matrix = self._matrix[: self.count]
        floor = 0.0
        if center:
            floor = CENTRING * float(np.linalg.norm(matrix))
            matrix = matrix - matrix.mean(axis=0)
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        values, tolerance = _of_gram(gram, floor)
        large = matrix.size * min(matrix.shape) > DECOMPOSED
        if large or values[-1] > CLEAR * values[0]:
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

    def add(self, block: Float64) -> None:
        """Add a block of rows [n, D], which is overwritten."""
        if self._shift is None:
            self._shift = block.mean(axis=0)
        block -= self._shift
        self._sums += block.sum(axis=0)
        self._gram += np.matmul(block.T, block, out=self._product)
        self.count += len(block)

    def singular_values(self, center: bool) -> tuple[Float64, float]:
        """Singular values [d], descending, and the relative tolerance below which they are 0."""
        gram = self.gram()
        if not center:
            return _of_gram(gram)
        floor = CENTRING * math.sqrt(gram.trace())
        return _of_gram(self._gram - np.outer(self._sums, self._sums) / max(self.count, 1), floor)

    def gram(self) -> Float64:
        """Xᵀ X [D, D]."""
        if self._shift is None:
            return self._gram
        crossed = np.outer(self._shift, self._sums)
        return self._gram + crossed + crossed.T + self.count * np.outer(self._shift, self._shift)

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return self._sums if self._shift is None else self._sums + self.count * self._shift


Sums = HeldRows | GramSums


class Accumulator:
    """Takes blocks of the N rows of a set in order and gives their spectrum.

    rows, columns: N and D. preparation: what is done to each row first (see PREPARATIONS).
    """

    def __init__(self, rows: int, columns: int, preparation: Preparation = PREPARATIONS["raw"]) -> None:
        held = rows <= columns or rows * columns <= HELD
        self.sums: Sums = HeldRows(rows, columns) if held else GramSums(columns)
        self.zero_rows = 0
        self._prepare = preparation.prepare
        self._buffer = np.empty((0, columns))

    def add(self, block: Block) -> None:
        """Take a block of rows [n, D], finite."""
        if len(block) > len(self._buffer):
            self._buffer = np.empty(block.shape)
        rows = self._buffer[: len(block)]
        np.copyto(rows, block)
        self.zero_rows += self._prepare(rows)
        self.sums.add(rows)

    def spectrum(self, center: bool = False) -> "Spectrum":
        """The spectrum of what was taken, with the column means taken off if center."""
        return Spectrum(self.sums, center)


@dataclass(frozen=True)
class Spectrum:
    """Singular values of X (of X less its column means if center), computed when asked for."""

    sums: Sums
    center: bool

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
