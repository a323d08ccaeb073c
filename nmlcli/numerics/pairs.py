"""Two sets of features of the same rows compared: linear CKA and principal angles, in one pass.

Notation: X [N, D] and Y [N, D'], rows paired.
"""

import numpy as np
from numpy.typing import NDArray

from nmlcli.numerics.measures import UndefinedError
from nmlcli.numerics.sums import CENTRING, EPS, GramSums

Float64 = NDArray[np.float64]


class PairSums:
    """Gram matrices of X and of Y, and the one across, Xᵀ Y, of rows that are not kept.

    All are of X and Y less the means of their first blocks; see GramSums.
    """

    def __init__(self, columns: int, others: int) -> None:
        self._x, self._y = GramSums(columns), GramSums(others)
        self._across = np.zeros((columns, others))

    def add(self, x: Float64, y: Float64) -> None:
        """Take a block of X [n, D] and of Y [n, D'], which are overwritten."""
        self._x.add(x)
        self._y.add(y)
        self._across += x.T @ y

    def cka(self) -> float:
        """‖Xcᵀ Yc‖² / (‖Xcᵀ Xc‖ ‖Ycᵀ Yc‖), centred, Frobenius norms, in [0, 1].

        Kornblith et al. 2019, the biased estimator. Raises UndefinedError where all rows are equal.
        """
        grams = [sums.centred_gram() for sums in (self._x, self._y)]
        for sums, gram in zip((self._x, self._y), grams, strict=True):
            mean = sums.mean()
            if gram.trace() <= CENTRING**2 * (gram.trace() + sums.count * float(mean @ mean)):
                raise UndefinedError("all rows are equal")
        norms = [float(np.linalg.norm(gram)) for gram in grams]
        across = float(np.linalg.norm(self._centred_across()))
        return min(1.0, across * (across / norms[0] / norms[1]))

    def principal_angle(self, top: int, center: bool) -> tuple[float, int]:
        """Mean angle, in radians, between the subspaces of the first k left singular vectors.

        k is top, or the lower rank of the two where that is less. U_cᵀ U'_c =
        S_c⁻¹ V_cᵀ X_cᵀ Y_c V'_c S'_c⁻¹, of the centred sets, has the cosines as its singular values
        (Björck and Golub 1973). Of X itself, [1/√N, U_c] is a basis, in which U is that of √N meanᵀ
        over S_c V_cᵀ: a large mean costs no digits. Angles below about 1e-7 are rounding. Raises
        UndefinedError for rank 0.
        """
        sides = [_roots(sums.centred_gram()) for sums in (self._x, self._y)]
        (scale, axes), (its_scale, its_axes) = sides
        cosines = (axes / scale).T @ self._centred_across() @ (its_axes / its_scale)
        bases = [np.eye(len(scale)), np.eye(len(its_scale))]
        if not center:
            bases = [_basis(sums, *side) for sums, side in zip((self._x, self._y), sides, strict=True)]
            cosines = np.pad(cosines, ((1, 0), (1, 0)))
            cosines[0, 0] = 1.0
        k = min(top, *(basis.shape[1] for basis in bases))
        if k == 0:
            raise UndefinedError("a set has no singular vectors")
        turned = bases[0][:, :k].T @ cosines @ bases[1][:, :k]
        angles = np.arccos(np.minimum(np.linalg.svd(turned, compute_uv=False), 1))
        return float(angles.mean()), k

    def _centred_across(self) -> Float64:
        x, y = self._x, self._y
        return self._across - np.outer(x.shifted_sums(), y.shifted_sums()) / x.count


def _roots(gram: Float64) -> tuple[Float64, Float64]:
    """Singular values [r] above the Gram matrix's tolerance, descending, and their vectors V [D, r]."""
    squares, axes = np.linalg.eigh(gram)
    squares, axes = squares[::-1], axes[:, ::-1]
    rank = int((squares > len(gram) * EPS * squares[0]).sum())
    return np.sqrt(squares[:rank]), axes[:, :rank]


def _basis(sums: GramSums, scale: Float64, axes: Float64) -> Float64:
    """The left singular vectors of X [1 + r, rank], in terms of 1/√N and those of the centred X."""
    factor = np.vstack((np.sqrt(sums.count) * sums.mean(), scale[:, None] * axes.T))
    left, values, _ = np.linalg.svd(factor, full_matrices=False)
    return np.asarray(left[:, values > max(factor.shape) * EPS * values[0]])
