"""Moments of columns against scipy's of the whole, whatever the blocks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nmlcli.numerics.moments import Moments


def gathered(X: np.ndarray, block: int) -> Moments:
    moments = Moments(X.shape[1])
    for start in range(0, len(X), block):
        moments.add(X[start : start + block])
    return moments


@given(block=st.integers(1, 500), mean=st.sampled_from([0.0, 3.0, 1e5]), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_moments_are_those_of_the_whole(block: int, mean: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    X = generator.gamma(2.0, size=(400, 6)) * [1, 2, 0.1, 30, 1e-9, 1] + mean
    X[:, 4] -= mean
    skewness, kurtosis = gathered(X, block).skewness_and_kurtosis()
    assert skewness == pytest.approx(stats.skew(X).mean(), rel=1e-6)
    assert kurtosis == pytest.approx(stats.kurtosis(X).mean(), rel=1e-6)


def test_constant_columns_are_left_out_and_counted() -> None:
    X = np.random.default_rng(1).normal(size=(100, 5))
    X[:, [1, 3]] = 0.1
    moments = gathered(X, 30)
    assert moments.constant == 2
    assert moments.skewness_and_kurtosis()[0] == pytest.approx(stats.skew(X[:, [0, 2, 4]]).mean())
    alone = gathered(np.full((7, 2), 0.1), 3)
    assert alone.constant == 2 and all(map(math.isnan, alone.skewness_and_kurtosis()))
