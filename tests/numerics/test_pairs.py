"""CKA and principal angles against slow transcriptions, and their invariances."""

import numpy as np
import pytest

from nmlcli.numerics.measures import UndefinedError
from nmlcli.numerics.pairs import PairSums

GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=(300, 12)) * np.linspace(1, 0.1, 12) + 3
Y = X[:, :7] @ GENERATOR.normal(size=(7, 9)) + 0.3 * GENERATOR.normal(size=(300, 9))


def gathered(x: np.ndarray, y: np.ndarray, block: int = 64) -> PairSums:
    sums = PairSums(x.shape[1], y.shape[1])
    for start in range(0, len(x), block):
        sums.add(x[start : start + block].copy(), y[start : start + block].copy())
    return sums


def slow_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the kernels [N, N] of the samples."""
    middle = np.eye(len(x)) - 1 / len(x)
    K, L = middle @ x @ x.T @ middle, middle @ y @ y.T @ middle
    return float((K * L).sum() / np.linalg.norm(K) / np.linalg.norm(L))


def slow_angle(x: np.ndarray, y: np.ndarray, k: int) -> float:
    u, v = (np.linalg.svd(each, full_matrices=False)[0][:, :k] for each in (x, y))
    return float(np.arccos(np.clip(np.linalg.svd(u.T @ v)[1], 0, 1)).mean())


@pytest.mark.parametrize("block", [1, 64, 300])
@pytest.mark.parametrize("rows", [300, 8])
def test_both_are_those_of_the_whole(block: int, rows: int) -> None:
    x, y = X[:rows], Y[:rows]
    sums = gathered(x, y, block)
    assert sums.cka() == pytest.approx(slow_cka(x, y), abs=1e-10)
    for k in (1, 3, 5):
        assert sums.principal_angle(k, center=False) == (
            pytest.approx(slow_angle(x, y, k), abs=1e-7),
            k,
        )
        centred = slow_angle(x - x.mean(axis=0), y - y.mean(axis=0), k)
        assert sums.principal_angle(k, center=True)[0] == pytest.approx(centred, abs=1e-7)


def test_invariances_and_limits() -> None:
    rotation = np.linalg.qr(GENERATOR.normal(size=(12, 12)))[0]
    turned = gathered(X, 5 * (X + 7) @ rotation)
    assert turned.cka() == pytest.approx(1, abs=1e-12)
    assert gathered(X, 5 * X @ rotation).principal_angle(4, False)[0] == pytest.approx(0, abs=1e-6)
    apart = np.linalg.qr(GENERATOR.normal(size=(300, 8)))[0]
    angle, k = gathered(apart[:, :4], apart[:, 4:]).principal_angle(10, False)
    assert (angle, k) == (pytest.approx(np.pi / 2), 4)  # no more than the rank


def test_equal_rows_have_neither() -> None:
    same = gathered(np.full((40, 3), 0.1), Y[:40])
    with pytest.raises(UndefinedError, match="all rows are equal"):
        same.cka()
    with pytest.raises(UndefinedError, match="no singular vectors"):
        gathered(np.zeros((40, 3)), Y[:40]).principal_angle(3, False)


@pytest.mark.parametrize("mean", [1e3, 1e6, 1e8])
def test_a_large_mean_costs_the_angles_no_digits(mean: float) -> None:
    x, y = X + mean, Y - mean
    for k in (1, 3, 5):
        for center in (False, True):
            away = [each - each.mean(axis=0) if center else each for each in (x, y)]
            angle = gathered(x, y).principal_angle(k, center)[0]
            assert angle == pytest.approx(slow_angle(*away, k), abs=1e-6)
