"""Moments of the columns of features, from one pass over blocks of rows, in float64."""

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class Moments:
    """Count, mean and central power sums M₂, M₃, M₄ of every column, block by block.

    Each block is taken about its own mean and merged (Pébay 2008, equations 2.1 and 3.1), so that a
    large mean costs no digits.
    """

    def __init__(self, columns: int) -> None:
        self.count = 0
        self._mean, self._second, self._third, self._fourth = np.zeros((4, columns))
        self._low, self._high = np.full(columns, np.inf), np.full(columns, -np.inf)

    def add(self, block: Float64) -> None:
        """Take a block of rows [n, D]."""
        n, m = self.count, len(block)
        if m == 0:
            return
        np.minimum(self._low, block.min(axis=0), out=self._low)
        np.maximum(self._high, block.max(axis=0), out=self._high)
        mean = block.mean(axis=0)
        away = block - mean
        square = away * away
        second, fourth = square.sum(axis=0), np.einsum("ij,ij->j", square, square)
        third = np.einsum("ij,ij->j", square, away)
        total, step = n + m, mean - self._mean
        self._fourth += (
            fourth
            + step**4 * (n * m * (n * n - n * m + m * m) / total**3)
            + 6 * step**2 * (n * n * second + m * m * self._second) / total**2
            + 4 * step * (n * third - m * self._third) / total
        )
        self._third += (
            third
            + step**3 * (n * m * (n - m) / total**2)
            + 3 * step * (n * second - m * self._second) / total
        )
        self._second += second + step**2 * (n * m / total)
        self._mean += step * (m / total)
        self.count = total

    @property
    def constant(self) -> int:
        """How many columns have one value in all rows."""
        return int((self._low >= self._high).sum())

    def skewness_and_kurtosis(self) -> tuple[float, float]:
        """Means over the columns of M₃ / M₂^1.5 · √N and of N M₄ / M₂² - 3, of all N rows as they are.

        Constant columns have neither and are left out; NaN where all are constant.
        """
        varied = self._low < self._high
        if not varied.any():
            return math.nan, math.nan
        # Relative to the variance, so that tiny columns do not underflow.
        second = self._second[varied] / self.count
        scale = np.sqrt(second)
        skewness = self._third[varied] / self.count / scale / scale / scale
        kurtosis = self._fourth[varied] / self.count / second / second - 3
        return float(skewness.mean()), float(kurtosis.mean())
