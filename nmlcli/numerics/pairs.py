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
            if gram.trace() <= CENTRING**2 * sums.gram().trace():
                raise UndefinedError("all rows are equal")
        norms = [float(np.linalg.norm(gram)) for gram in grams]
        across = float(np.linalg.norm(self._centred_across()))
        return min(1.0, across * (across / norms[0] / norms[1]))

    def principal_angle(self, top: int, center: bool) -> tuple[float, int]:
        """Mean angle, in radians, between the subspaces of the first k left singular vectors.

        k is top, or the lower rank of the two where that is less. U_kᵀ U'_k =
        S_k⁻¹ V_kᵀ Xᵀ Y V'_k S'_k⁻¹ has the cosines as its singular values (Björck and Golub 1973);
        angles below about 1e-7 are rounding. Raises UndefinedError for rank 0.
        """
        across = self._centred_across() if center else self._plain_across()
        turns = [_turn(sums.centred_gram() if center else sums.gram()) for sums in (self._x, self._y)]
        k = min(top, *(turn.shape[1] for turn in turns))
        if k == 0:
            raise UndefinedError("a set has no singular vectors")
        cosines = np.linalg.svd(turns[0][:, :k].T @ across @ turns[1][:, :k], compute_uv=False)
        return float(np.arccos(np.minimum(cosines, 1)).mean()), k

    def _centred_across(self) -> Float64:
        x, y = self._x, self._y
        return self._across - np.outer(x.shifted_sums(), y.shifted_sums()) / x.count

    def _plain_across(self) -> Float64:
        x, y = self._x, self._y
        return self._centred_across() + x.count * np.outer(x.mean(), y.mean())


def _turn(gram: Float64) -> Float64:
    """V S⁻¹ [D, r] of the r singular values above the Gram matrix's tolerance, descending."""
    squares, axes = np.linalg.eigh(gram)
    squares, axes = squares[::-1], axes[:, ::-1]
    rank = int((squares > len(gram) * EPS * squares[0]).sum())
    return np.asarray(axes[:, :rank] / np.sqrt(squares[:rank]))
