"""What sums cost and keep: their memory, what centring leaves over, and a second look at the rows."""

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from nmlcli.numerics import sums as numerics_sums
from nmlcli.numerics.measures import PREPARATIONS
from nmlcli.numerics.spectra import Accumulator, Spectrum, footprint
from nmlcli.numerics.sums import CENTRING, GramSums, HeldRows, SavedSums

Float64 = NDArray[np.float64]


def summed(X: Float64, block: int = 500, preset: str = "raw") -> Accumulator:
    """Rows that only sums are kept of, whatever their number."""
    accumulator = Accumulator(*X.shape, PREPARATIONS[preset])
    accumulator.sums = GramSums(X.shape[1])
    for start in range(0, len(X), block):
        accumulator.add(X[start : start + block].copy())
    return accumulator


def ill_conditioned(rows: int, columns: int, mean: float = 0.0) -> Float64:
    generator = np.random.default_rng(4)
    rotation = np.linalg.qr(generator.normal(size=(columns, columns)))[0]
    return generator.normal(size=(rows, columns)) * np.geomspace(1, 1e-9, columns) @ rotation + mean


@pytest.mark.parametrize(("rows", "columns"), [(6000, 500), (4200, 300), (300, 700), (900, 400)])
def test_the_footprints_of_several_are_not_less_than_they_take(rows: int, columns: int) -> None:
    """A budget of classes rests on them; nor are they so much more that it would hold too few."""
    many, X = 6, ill_conditioned(256, columns).astype(np.float32)
    sizes = [min(256, rows - start) for start in range(0, rows, 256)]
    np.linalg.svd(np.eye(3))  # numpy's own first calls are not counted
    np.linalg.eigh(np.eye(3))
    tracemalloc.start()
    try:
        each = [Accumulator(rows, columns) for _ in range(many)]
        for size in sizes:
            for accumulator in each:
                accumulator.add(X[:size])
        again = [one for one in each if not one.spectrum(True).clear and one.reopen()]
        for size in sizes:
            for accumulator in again:
                accumulator.add_again(X[:size])
        for accumulator in again:
            accumulator.spectrum(True).values.sum()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(again) == (0 if isinstance(each[0].sums, HeldRows) else many)
    assert peak <= many * (footprint(rows, columns) + 2**14) < 1.5 * peak


@pytest.mark.parametrize("preset", ["raw", "l2"])
@pytest.mark.parametrize("mean", [0.1, 1e3, 1e6])
def test_constant_columns_are_0_once_their_means_are_off(mean: float, preset: str) -> None:
    """Rows of one direction are equal but for the last bit, once they are scaled alike: what taking
    their mean off leaves over is rounding, not variance."""
    generator, row = np.random.default_rng(5), mean * (1 + np.arange(12) / 7)
    equal = np.tile(row, (3001, 1))
    nearly = equal * (1 + np.finfo(float).eps * generator.integers(0, 2, equal.shape))
    along = equal * generator.uniform(1, 3, (3001, 1)) if preset == "l2" else equal
    for X in (equal, nearly, along):
        accumulator = summed(X, 300, preset)
        assert (accumulator.spectrum().centred == 0).all()
        accumulator.reopen()
        for start in range(0, 3001, 300):
            accumulator.add_again(X[start : start + 300].copy())
        assert (accumulator.spectrum(center=True).values == 0).all()


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_small_variance_beside_a_large_mean_is_not_taken_for_rounding(mean: float) -> None:
    """The floor of centred values is a share of ‖X‖, not of its square or of a part."""
    noise = np.random.default_rng(0).normal(size=(5000, 6))
    X = mean + noise * 1e-9 * (mean or 1)
    values = summed(X).spectrum(center=True).values
    np.testing.assert_allclose(values, np.linalg.svd(X - X.mean(axis=0), compute_uv=False), rtol=1e-5)


def test_the_norm_is_that_of_the_rows_with_their_mean() -> None:
    """What centring leaves below 8 eps ‖X‖ is rounding, and the mean is most of ‖X‖ here."""
    X = np.random.default_rng(1).normal(size=(9000, 5)) + np.array([1e4, -3, 0, 7e3, 1])
    X[5000:] += 300  # than which the first rows' mean is less
    floors: list[float] = []
    of_sums = numerics_sums._of_sums
    with pytest.MonkeyPatch.context() as patch:
        record = lambda *given: floors.append(given[-1]) or of_sums(*given)  # noqa: E731
        patch.setattr(numerics_sums, "_of_sums", record)
        summed(X, 700).sums.singular_values(True)
    assert floors == [pytest.approx(CENTRING * np.linalg.norm(X), rel=1e-9)]


def saved(X: Float64) -> SavedSums:
    away = X - X.mean(axis=0)
    return SavedSums(len(X), X.sum(axis=0), away.T @ away)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(7, 30), (30, 30), (31, 30)])
def test_saved_sums_have_as_many_values_as_the_rows_or_columns(
    shape: tuple[int, int], center: bool
) -> None:
    X = np.random.default_rng(2).normal(size=shape) + 1
    half = len(X) // 2
    one, two = (saved(part) for part in (X[:half], X[half:]))
    for sums in (one + two, saved(X)):
        values, tolerance = sums.singular_values(center)
        wanted = np.linalg.svd(X - center * X.mean(axis=0), compute_uv=False)
        assert values.shape == wanted.shape == (min(shape),)
        wanted[wanted <= tolerance * wanted[0]] = 0
        np.testing.assert_allclose(values, wanted, rtol=1e-8, atol=1e-7)


def test_zero_rows_are_counted_once_however_often_they_are_looked_at() -> None:
    X = ill_conditioned(3000, 20)
    X[[3, 1500, 2999]] = 0
    accumulator = summed(X, preset="l2")
    assert accumulator.zero_rows == 3
    assert accumulator.reopen()
    for start in range(0, 3000, 700):
        accumulator.add_again(X[start : start + 700].copy())
    assert accumulator.zero_rows == 3 and accumulator.spectrum().resolved


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_a_second_look_finds_what_the_sums_lost(mean: float) -> None:
    X = ill_conditioned(3000, 24, mean)
    wanted = np.linalg.svd(X, compute_uv=False)
    accumulator = summed(X)
    lost = accumulator.spectrum()
    assert not lost.clear and (lost.values == 0).any()
    assert accumulator.reopen()
    for start in range(0, 3000, 1100):
        accumulator.add_again(X[start : start + 1100].copy())
    found = Spectrum(accumulator.sums, False)
    assert found.resolved and np.abs(found.values - wanted).max() <= 2e-11 * wanted[0]
