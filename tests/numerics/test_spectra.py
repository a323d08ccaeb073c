"""One-pass spectra against numpy's SVD in float64, blockwise against whole, and near the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nmlcli.numerics import spectra
from nmlcli.numerics.measures import MEASURES, PREPARATIONS
from nmlcli.numerics.spectra import Accumulator, GramSums, HeldRows, Spectrum

Float64 = NDArray[np.float64]


def power_law(rows: int, columns: int, mean: float = 0.3, decay: float = 0.5, seed: int = 0) -> Float64:
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(columns, columns)))[0]
    scaled = generator.normal(size=(rows, columns)) * np.arange(1, columns + 1.0) ** -decay
    return (scaled @ rotation + mean).astype(np.float32).astype(np.float64)


def accumulate(
    X: Float64, block: int = 4096, preset: str = "raw", kind: type | None = None
) -> Accumulator:
    accumulator = Accumulator(*X.shape, PREPARATIONS[preset])
    if kind is GramSums:
        accumulator.sums = GramSums(X.shape[1])
    for start in range(0, len(X), block):
        accumulator.add(X[start : start + block].astype(np.float32))
    return accumulator


def exact(X: Float64, center: bool = False) -> Float64:
    return np.linalg.svd(X - X.mean(axis=0) if center else X, compute_uv=False)


def entropy(values: Float64) -> float:
    p = values / values.sum()
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize(
    "shape", [(3000, 200), (500, 100), (90, 300), (600, 700), (200, 200), (7, 1), (1, 5)]
)
def test_agrees_with_the_decomposition(shape: tuple[int, int], mean: float, center: bool) -> None:
    X = power_law(*shape, mean=mean)
    got = accumulate(X).spectrum(center)
    wanted = exact(X, center)
    assert got.values.shape == wanted.shape
    if wanted[0] <= 1e-12 * np.linalg.norm(X):  # one row, centred: nothing is left
        assert (got.values == 0).all()
        return
    wanted = np.where(wanted > got.tolerance * wanted[0], wanted, 0)
    np.testing.assert_allclose(got.values**2, wanted**2, rtol=1e-9, atol=1e-14 * wanted[0] ** 2)
    close = 1e-8 if mean and not center else 1e-9  # σ₁ is then 10⁶ times the others
    assert MEASURES["sve"].measure(got) == pytest.approx(entropy(wanted), abs=close)
    assert MEASURES["lsvr"].measure(got) == pytest.approx(-np.log(wanted[0] / wanted.sum()), abs=close)


def test_which_sums_are_kept_depends_on_the_size_alone() -> None:
    assert isinstance(Accumulator(300, 60).sums, HeldRows)
    assert isinstance(Accumulator(100, 10_000).sums, HeldRows)
    assert isinstance(Accumulator(50_000, 64).sums, GramSums)


def test_a_large_mean_does_not_cost_digits_of_the_centred_spectrum() -> None:
    X = power_law(4000, 64) + 0.0
    far = X + 4096.0  # exact in float64
    sums = GramSums(64)
    for start in range(0, 4000, 512):
        sums.add(far[start : start + 512].copy())
    wanted = exact(X, center=True)
    np.testing.assert_allclose(sums.singular_values(True)[0], wanted, rtol=1e-10)


def test_the_state_is_that_of_the_rows_themselves() -> None:
    X = power_law(700, 40, mean=5.0)
    for kind in (HeldRows, GramSums):
        sums = accumulate(X, block=64, kind=kind).sums
        assert isinstance(sums, kind) and sums.count == 700
        np.testing.assert_allclose(sums.gram(), X.T @ X, rtol=1e-12)
        np.testing.assert_allclose(sums.column_sums(), X.sum(axis=0), rtol=1e-12)


@given(block=st.integers(1, 400), preset=st.sampled_from(list(PREPARATIONS)), center=st.booleans())
@settings(max_examples=25, deadline=None)
def test_blocks_do_not_matter(block: int, preset: str, center: bool) -> None:
    X = power_law(300, 30)
    for kind in (HeldRows, GramSums):
        whole = accumulate(X, 300, preset, kind).spectrum(center)
        parts = accumulate(X, block, preset, kind).spectrum(center)
        np.testing.assert_allclose(parts.values, whole.values, rtol=1e-7, atol=1e-9 * whole.values[0])
        assert MEASURES["sve"].measure(parts) == pytest.approx(
            MEASURES["sve"].measure(whole), abs=1e-10
        )


def test_both_ways_agree_and_lost_rank_is_found() -> None:
    generator = np.random.default_rng(2)
    X = generator.integers(-3, 4, (400, 10)) @ generator.integers(-3, 4, (10, 50)) * 1.0
    held, summed = (accumulate(X, 100, kind=kind).spectrum() for kind in (HeldRows, GramSums))
    for spectrum in (held, summed):
        assert MEASURES["rank"].measure(spectrum) == 10
        assert (spectrum.values[10:] == 0).all()
        assert MEASURES["sve"].measure(spectrum) == pytest.approx(entropy(exact(X)[:10]), abs=1e-9)
    assert held.tolerance < summed.tolerance


@pytest.mark.parametrize("shape", [(60, 300), (300, 60)])
def test_small_sets_are_decomposed_where_their_gram_matrix_is_not_enough(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    X = power_law(*shape)
    calls = []
    decompose = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda *a, **k: calls.append(1) or decompose(*a, **k))
    assert MEASURES["rank"].measure(accumulate(X).spectrum()) == 60
    assert not calls
    poor = X * np.where(np.arange(shape[1]) < 30, 1, 1e-9)
    got = accumulate(poor).spectrum()
    assert MEASURES["rank"].measure(got) == 60
    assert calls == [1]
    np.testing.assert_allclose(got.values, exact(poor.astype(np.float32) * 1.0), rtol=1e-6)
    calls.clear()
    monkeypatch.setattr(spectra, "DECOMPOSED", 0)
    assert MEASURES["rank"].measure(accumulate(poor, kind=HeldRows).spectrum()) == 30
    assert not calls


@pytest.mark.parametrize("kind", [HeldRows, GramSums])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e20, 1e-30])
def test_equal_rows_have_no_centred_spectrum(kind: type, value: float) -> None:
    X = np.tile(np.linspace(value, 2 * value, 16, dtype=np.float32), (77, 1)).astype(np.float64)
    for preset in PREPARATIONS:  # scaled rows have more digits than their sums can hold
        assert (accumulate(X, 10, preset, kind).spectrum().centred == 0).all()
    spectrum = accumulate(X, 10, kind=kind).spectrum()
    assert MEASURES["rank"].measure(spectrum) == (value != 0)


def test_centred_is_the_spectrum_itself_where_it_was_asked_for() -> None:
    spectrum = accumulate(power_law(100, 8)).spectrum(center=True)
    assert spectrum.centred is spectrum.values


def test_float16_is_widened_before_it_is_multiplied() -> None:
    X = power_law(300, 8).astype(np.float16)
    accumulator = Accumulator(300, 8)
    accumulator.add(X)
    np.testing.assert_allclose(accumulator.spectrum().values, exact(X.astype(np.float64)), rtol=1e-12)


def test_preparations() -> None:
    X = power_law(50, 12)
    X[[3, 7]] = 0
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    unit = np.divide(X, lengths, where=lengths > 0, out=np.zeros_like(X))
    released = unit - unit.mean(axis=1, keepdims=True)
    for preset, wanted, zeros in (("raw", X, 0), ("l2", unit, 2), ("released", released, 2)):
        accumulator = accumulate(X, 9, preset)
        np.testing.assert_allclose(accumulator.sums.gram(), wanted.T @ wanted, atol=1e-12)
        assert accumulator.zero_rows == zeros
    assert MEASURES["rank"].measure(accumulate(X, 9, "released").spectrum()) == 11


def test_a_spectrum_is_computed_when_asked_for() -> None:
    calls = []

    class Counting(HeldRows):
        def singular_values(self, center: bool) -> tuple[Float64, float]:
            calls.append(center)
            return super().singular_values(center)

    sums = Counting(20, 3)
    sums.add(power_law(20, 3))
    spectrum = Spectrum(sums, center=False)
    for _ in range(2):
        MEASURES["sve"].measure(spectrum)
    assert calls == [False]
    MEASURES["participation_ratio"].measure(spectrum)
    assert calls == [False, True]
