"""What singular values are computed from: rows that are held, sums of rows that are not, saved sums.

Notation: X [N, D] the prepared rows, d = min(N, D). Values below the tolerance are
rounding and are set to 0: relative to the largest, max(N, D) · eps for a decomposition (numpy's rule
for ranks), sqrt(size · eps) for a Gram matrix, whose forming costs half the digits. A second look at
the directions that a Gram matrix does not resolve brings those digits back; see Resolution.
"""

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# With no singular value below this share of what a Gram matrix was summed of, ‖·‖ (Frobenius), it is
# exact to about 1e-11 of that.
CLEAR = 1e-5
SURE = 5e-9  # bound of the error of SVE, see count_clear
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

    def centred_gram(self) -> Float64:
        """(X - mean)ᵀ (X - mean) [D, D]."""
        matrix = self._matrix[: self.count]
        matrix = matrix - matrix.mean(axis=0)
        return np.asarray(matrix.T @ matrix)

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return np.asarray(self._matrix[: self.count].sum(axis=0))


class GramSums:
    """Count, column sums and Gram matrix of rows that are not kept.

    Sums are of X less the mean of the first rows, where that is longer than they are wide: taking a
    large mean off a finished Gram matrix would cost the digits that it fills.
    """

    def __init__(self, columns: int) -> None:
        self.count = 0
        self._shift: Float64 | None = None  # [D]
        self._far = False  # whether the shift is not 0
        self._sums = np.zeros(columns)  # of X - shift
        self._gram = np.zeros((columns, columns))  # of X - shift
        self._product = np.empty((columns, columns))
        self._resolution: Resolution | None = None

    def add(self, block: Float64) -> None:
        """Add a block of rows [n, D], which is overwritten by itself less the shift."""
        self.shift(block)
        self.multiply(block)

    def shift(self, rows: Float64) -> None:
        """Take the shift off rows [n, D] in place, and add them to the column sums."""
        if self._shift is None:
            mean = rows.mean(axis=0)
            self._far = bool(mean @ mean > rows.var(axis=0).sum())
            self._shift = mean if self._far else np.zeros_like(mean)
        if self._far:
            rows -= self._shift
        self._sums += np.ones(len(rows)) @ rows  # by BLAS, faster than sum()

    def multiply(self, block: Float64) -> None:
        """Add rows [n, D] that were shifted to the Gram matrix."""
        self._gram += np.matmul(block.T, block, out=self._product)
        self.count += len(block)

    @property
    def columns(self) -> int:
        """D."""
        return len(self._sums)

    def reopen(self) -> bool:
        """Prepare for a second look; whether it needs the rows again, by add_again."""
        self._resolution = Resolution(self.centred_gram(), self.scale)
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
        again, away = self._resolution, math.sqrt(self.count) * self.mean()
        centred = self.centred_gram()
        floor = CENTRING * _norm(centred, away) if center else 0.0
        if again is None or not self.resolved:
            return _of_sums(centred, None if center else away, self.scale, floor)
        factor = again.factor()
        if not center:  # X = (X - mean) + 1 meanᵀ, which are at right angles to each other
            factor = np.vstack((factor, away @ again.axes))
        values = np.asarray(np.linalg.svd(factor, compute_uv=False), dtype=np.float64)
        return _cut(values, max(self.count, len(values)) * EPS, floor)

    @property
    def scale(self) -> float:
        """‖X - shift‖, Frobenius: rounding in the Gram matrix is of its square."""
        return math.sqrt(self._gram.trace())

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

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return self._sums if self._shift is None else self._sums + self.count * self._shift


class SavedSums:
    """The sums of rows that are gone: count, column sums [D] and (X - mean)ᵀ (X - mean) [D, D].

    known: whether centred, singular values [d] and tolerance that were measured while the rows lasted.
    """

    def __init__(
        self, count: int, sums: Float64, centred_gram: Float64,
        known: tuple[bool, Float64, float] | None = None,
    ) -> None:  # fmt: skip
        self.count, self._sums, self._gram, self._known = count, sums, centred_gram, known

    @property
    def columns(self) -> int:
        """D."""
        return len(self._sums)

    @property
    def scale(self) -> float:
        """‖X - mean‖, Frobenius."""
        return math.sqrt(self._gram.trace())

    def __add__(self, other: "SavedSums") -> "SavedSums":
        """The sums of both sets of rows (Chan et al. 1983)."""
        apart = other._sums / other.count - self._sums / self.count
        count = self.count + other.count
        gram = self._gram + other._gram
        gram += np.outer(apart, apart) * (self.count * other.count / count)
        return SavedSums(count, self._sums + other._sums, gram)

    def singular_values(self, center: bool) -> tuple[Float64, float]:
        """Singular values [d], descending, and the relative tolerance below which they are 0."""
        if self._known is not None and self._known[0] == center:
            return self._known[1:]
        away = self._sums / math.sqrt(self.count)
        floor = CENTRING * _norm(self._gram, away) if center else 0.0
        values, tolerance = _of_sums(self._gram, None if center else away, self.scale, floor)
        return values[: min(self.count, len(values))], tolerance

    def centred_gram(self) -> Float64:
        """(X - mean)ᵀ (X - mean) [D, D]."""
        return self._gram

    def column_sums(self) -> Float64:
        """Sums of the columns [D]."""
        return self._sums


class Resolution:
    """A second look at A [n, d], n ≥ d, along the eigenvectors of its Gram matrix that are not clear.

    The Gram matrix knows A V = Q R S V-wise only where s is clear, see count_clear, and is as good as
    a decomposition there; scale² is what it was summed of. For the others, V₂, the rows are read
    again: Y = A V₂ / s₂ has columns of length about 1, whatever the condition of A is, so that R₁₂
    and R₂₂ keep their digits: R₁₂ = S₁⁻¹ V₁ᵀ Aᵀ Y, R₂₂ᵀ R₂₂ = Yᵀ Y - R₁₂ᵀ R₁₂. That is a Cholesky QR
    with the eigenvectors as its preconditioner (after Yamamoto et al. 2015); values are then exact to
    about 1e-11 of the largest, and it costs in proportion to the directions that were not clear.
    """

    def __init__(self, gram: Float64, scale: float) -> None:
        squares, axes = np.linalg.eigh(gram)
        self.axes: Float64 = axes[:, ::-1]  # V [d, d]
        values = np.sqrt(np.maximum(squares[::-1], 0))
        self._scale = np.maximum(values, math.sqrt(len(gram) * EPS) * (scale or 1.0))
        self._clear = count_clear(values, scale)
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


def count_clear(values: Float64, scale: float) -> int:
    """How many of the singular values [d] of a Gram matrix, descending, are exact.

    scale: see CLEAR. A value is off by at most about eps scale² / 2σ, the entropy by Σ |log p| / Σσ of
    that over all values that are not looked at again, which is to be within SURE; errors that were
    measured are several times smaller.
    """
    if not values.size or values[0] == 0:
        return len(values)
    total = float(values.sum())
    known = values[values > CLEAR * scale]
    off = EPS * scale**2 / 2 * np.cumsum(np.log(total / known) / known) / total
    return int((off <= SURE).sum())


def _of_sums(
    centred: Float64, away: Float64 | None, scale: float, floor: float
) -> tuple[Float64, float]:
    """Singular values of X - mean from its Gram matrix, or of X where away [D], √N mean, is given.

    X = (X - mean) + 1 meanᵀ, which are at right angles: where a large mean would hide small values in
    Xᵀ X, they are those of the root of the centred Gram matrix over √N meanᵀ. scale: see CLEAR.
    """
    lost = math.sqrt(len(centred) * EPS) * scale  # below it the sums know nothing
    if away is None:
        values, tolerance = _of_gram(centred, max(floor, lost))
    else:
        values, tolerance = _of_gram(centred + np.outer(away, away))
        hides = away @ away > centred.trace()
        if hides and not values[-1] > CLEAR * _norm(centred, away):
            squares, axes = np.linalg.eigh(centred)
            factor = np.vstack((away @ axes, np.diag(np.sqrt(np.maximum(squares, 0)))))
            values = np.asarray(np.linalg.svd(factor, compute_uv=False), dtype=np.float64)
            values, tolerance = _cut(values, len(factor) * EPS, lost)
    return values, max(tolerance, lost / values[0]) if values[0] > 0 else tolerance


def _norm(centred: Float64, away: Float64) -> float:
    """‖X‖, Frobenius, from its centred Gram matrix and √N mean."""
    return math.sqrt(centred.trace() + float(away @ away))


def _of_gram(gram: Float64, floor: float = 0.0) -> tuple[Float64, float]:
    """Singular values from the Gram matrix of the shorter side."""
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))
    return _cut(values, math.sqrt(len(gram) * EPS), floor)


def _cut(values: Float64, tolerance: float, floor: float) -> tuple[Float64, float]:
    return np.where(values > max(tolerance * values[0], floor), values, 0.0), tolerance
