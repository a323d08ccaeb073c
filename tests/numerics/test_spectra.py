"""One-pass spectra against numpy's SVD in float64, blockwise against whole, and near the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nmlcli.numerics.measures import MEASURES, PREPARATIONS
from nmlcli.numerics.spectra import Accumulator, Spectrum
from nmlcli.numerics.sums import EPS, GramSums, HeldRows, Resolution, SavedSums

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
        np.testing.assert_allclose(sums.centred_gram(), (X - X.mean(0)).T @ (X - X.mean(0)), rtol=1e-12)
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
def test_held_sets_are_decomposed_where_their_gram_matrix_is_not_enough(
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
        np.testing.assert_allclose(
            accumulator.sums.centred_gram(),
            (wanted - wanted.mean(0)).T @ (wanted - wanted.mean(0)),
            atol=1e-12,
        )
        assert accumulator.zero_rows == zeros
    assert MEASURES["rank"].measure(accumulate(X, 9, "released").spectrum()) == 11


def with_values(rows: int, values: Float64, mean: float = 0.0, seed: int = 3) -> Float64:
    """A matrix [rows, d] with these singular values, in random directions."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.normal(size=(rows, len(values))))[0]
    right = np.linalg.qr(generator.normal(size=(len(values), len(values))))[0]
    return (left * values) @ right.T + mean


def measured(X: Float64, block: int = 4096, center: bool = False) -> Spectrum:
    """As the command measures: what is not clear is looked at once more."""
    accumulator = Accumulator(*X.shape)
    accumulator.sums = GramSums(X.shape[1])
    for start in range(0, len(X), block):
        accumulator.add(X[start : start + block])
    if not accumulator.spectrum(center).clear and accumulator.reopen():
        for start in range(0, len(X), block):
            accumulator.add_again(X[start : start + block])
    return accumulator.spectrum(center)


SPECTRA = {
    **{f"1e{k}": np.logspace(0, -k, 96) for k in (2, 4, 6, 8, 10, 12)},
    "rank 40": np.r_[np.linspace(1, 0.1, 40), np.zeros(56)],
    "a step down to 2e-5": np.r_[1, np.full(95, 2e-5)],
    "below what leaks": np.r_[np.linspace(1, 0.5, 80), np.full(100, 2e-5), np.full(120, 1e-13)],
    "steps": np.r_[np.ones(20), np.full(40, 1e-7), np.full(36, 1e-10)],
}


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("name", SPECTRA)
def test_sums_are_as_exact_as_a_decomposition_whatever_the_condition(name: str, mean: float) -> None:
    X = with_values(3000, SPECTRA[name], mean)
    for block in (4096, 700):
        got = measured(X, block)
        wanted = exact(X)
        wanted = np.where(wanted > 3000 * EPS * wanted[0], wanted, 0)
        assert np.abs(got.values - wanted).max() <= 2e-11 * wanted[0]
        assert MEASURES["sve"].measure(got) == pytest.approx(entropy(wanted), abs=1e-9)
        share = wanted[0] / wanted.sum()
        assert MEASURES["lsvr"].measure(got) == pytest.approx(-np.log(share), abs=1e-9)
    assert MEASURES["rank"].measure(got) == (wanted > 0).sum()
    centred = exact(X, center=True)[:5]
    np.testing.assert_allclose(got.centred[:5], centred, rtol=1e-9, atol=1e-10 * centred[0])


def test_duplicated_and_dead_columns_are_of_no_rank() -> None:
    X = power_law(3000, 40)
    doubled = np.hstack((X, X[:, :7], np.zeros((3000, 3))))
    got = measured(doubled)
    assert MEASURES["rank"].measure(got) == 40
    assert MEASURES["sve"].measure(got) == pytest.approx(entropy(exact(doubled)[:40]), abs=1e-11)


def test_a_second_look_is_only_taken_where_the_first_is_not_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    add = Resolution.add
    monkeypatch.setattr(
        Resolution, "add", lambda self, rows: taken.append(len(rows)) or add(self, rows)
    )
    measured(power_law(3000, 50))
    assert not taken
    # A large mean alone is told apart from the sums.
    assert measured(power_law(3000, 50, mean=1e7), 500).tolerance < 1e-11
    assert not taken
    measured(with_values(3000, SPECTRA["1e8"]))
    assert taken == [3000]
    released = accumulate(power_law(50_000, 30), preset="released")
    assert isinstance(released.sums, GramSums) and released.spectrum().clear  # 0 for certain


def test_sums_that_were_not_read_again_are_what_the_first_pass_knows() -> None:
    X = with_values(3000, SPECTRA["1e10"])
    accumulator = accumulate(X.astype(np.float32).astype(np.float64), kind=GramSums)
    first = accumulator.spectrum()
    assert not first.clear and accumulator.reopen()
    accumulator.add_again(X[:100])
    again = accumulator.spectrum()
    assert again.tolerance == first.tolerance and (again.values == first.values).all()


@pytest.mark.parametrize("columns", [1, 3, 64, 700])
def test_any_width(columns: int) -> None:
    for rows in (1, 5, 64, 1500):
        X = power_law(rows, columns).astype(np.float16)
        accumulator = Accumulator(rows, columns)
        for start in range(0, rows, 400):
            accumulator.add(X[start : start + 400])
        wanted = exact(X.astype(np.float64))
        wanted = np.where(wanted > max(X.shape) * EPS * wanted[0], wanted, 0)
        got = accumulator.spectrum()
        assert MEASURES["sve"].measure(got) == pytest.approx(entropy(wanted), abs=1e-9)


def reflected(rows: int, values: Float64) -> Float64:
    """X [N, d] of these singular values: reflections of both sides of a diagonal, without an SVD."""
    generator = np.random.default_rng(3)
    u, v = generator.normal(size=rows), generator.normal(size=len(values))
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    right = np.diag(values) - 2 * np.outer(values * v, v)
    X = -2 * np.outer(u, u[: len(values)] @ right)
    X[: len(values)] += right
    return X


@pytest.mark.parametrize("rows", [5000, 1000])
def test_four_thousand_columns(rows: int) -> None:
    wanted = np.arange(1, min(rows, 4096) + 1.0) ** -0.7
    X = reflected(max(rows, 4096), wanted)
    X = np.asarray(X.T if rows < 4096 else X)
    accumulator = Accumulator(*X.shape)
    for start in range(0, rows, 700):
        accumulator.add(X[start : start + 700])
    got = accumulator.spectrum()
    np.testing.assert_allclose(got.values, wanted, rtol=1e-9)
    assert MEASURES["sve"].measure(got) == pytest.approx(entropy(wanted), abs=1e-9)
    share = wanted[0] / wanted.sum()
    assert MEASURES["lsvr"].measure(got) == pytest.approx(-np.log(share), abs=1e-9)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("mean", [3e3, 3e4])
@pytest.mark.parametrize("case", ["late", "first", "halves"])
def test_means_that_the_first_rows_do_not_show(case: str, mean: float, center: bool) -> None:
    generator = np.random.default_rng(8)
    X = generator.normal(size=(8000, 256))
    X[{"late": slice(256, None), "first": slice(300), "halves": slice(0, None, 2)}[case]] += mean
    X = X.astype(np.float32).astype(np.float64)
    wanted = exact(X, center)
    got = measured(X, 700, center)
    assert MEASURES["sve"].measure(got) == pytest.approx(entropy(wanted), abs=1e-9)
    assert MEASURES["lsvr"].measure(got) == pytest.approx(-np.log(wanted[0] / wanted.sum()), abs=1e-9)
    parts = [accumulate(part, kind=GramSums).sums for part in (X[:3000], X[3000:])]
    one, two = (SavedSums(s.count, s.column_sums(), s.centred_gram()) for s in parts)
    np.testing.assert_allclose((one + two).singular_values(center)[0], wanted, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 700, 4095])
def test_the_last_bits_of_sums_do_not_depend_on_the_sizes_of_blocks(rows: int) -> None:
    X = power_law(9000, 200, mean=2.0)
    sums = [accumulate(X, block, kind=GramSums).sums for block in (4096, rows)]
    assert (sums[0].column_sums() == sums[1].column_sums()).all()
    assert (sums[0].centred_gram() == sums[1].centred_gram()).all()


@pytest.mark.parametrize("center", [False, True])
def test_saved_sums_add_up_to_those_of_the_whole(center: bool) -> None:
    X = power_law(900, 24)
    saved = []
    for part in (X[:100], X[100:600], X[600:]):
        sums = accumulate(part).sums
        saved.append(SavedSums(sums.count, sums.column_sums(), sums.centred_gram()))
    joined = saved[0] + saved[1] + saved[2]
    assert (joined.count, joined.columns) == (900, 24)
    np.testing.assert_allclose(joined.singular_values(center)[0], exact(X, center), rtol=1e-9)
    far = accumulate(X + 1e4).sums
    kept = SavedSums(far.count, far.column_sums(), far.centred_gram())
    for center in (False, True):  # a large mean costs no digits
        lasting = exact((X + 1e4).astype(np.float32).astype(np.float64), center)
        np.testing.assert_allclose(kept.singular_values(center)[0], lasting, rtol=1e-9)
    away = X - X.mean(axis=0)
    known = SavedSums(900, X.sum(axis=0), away.T @ away, (False, np.ones(24), 0.5))
    assert known.singular_values(False)[1] == 0.5
    np.testing.assert_allclose(known.singular_values(True)[0], exact(X, True), rtol=1e-9)


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
