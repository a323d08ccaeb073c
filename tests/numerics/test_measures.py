"""Closed forms, bounds and invariances of every measure."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nmlcli.numerics.measures import MEASURES, PREPARATIONS, UndefinedError, fit_power_law, fit_range
from nmlcli.numerics.spectra import Accumulator, Spectrum

Float64 = NDArray[np.float64]

SCALE_FREE = [name for name in MEASURES if not name.startswith("sigma")]


class Given:
    """A spectrum with these singular values, raw and centred."""

    center = False

    def __init__(self, values: list[float] | Float64) -> None:
        self.values = self.centred = np.asarray(values, dtype=np.float64)


def measure(name: str, spectrum: object) -> float:
    return MEASURES[name].measure(spectrum)  # type: ignore[arg-type]


def spectrum_of(X: Float64, center: bool = False) -> Spectrum:
    accumulator = Accumulator(*X.shape)
    accumulator.add(X)
    return accumulator.spectrum(center)


@pytest.mark.parametrize("k", [1, 2, 10, 512])
def test_a_flat_spectrum(k: int) -> None:
    flat = Given(np.full(k, 3.0))
    for name, wanted in {
        "sve": math.log(k), "lsvr": math.log(k), "effective_rank": k, "stable_rank": k,
        "participation_ratio": k, "condition": 1, "rank": k, "sigma_max": 3, "sigma_sum": 3 * k,
    }.items():  # fmt: skip
        assert measure(name, flat) == pytest.approx(wanted, rel=1e-12), name


@pytest.mark.parametrize(
    "d,flat,one",
    [(10, 10.0000130, 1.00001441), (512, 512.13734, 1.00082387), (2048, 2050.78041, 1.00330472)],
)
def test_rankme_is_not_renormalised(d: int, flat: float, one: float) -> None:
    assert measure("rankme", Given(np.ones(d))) == pytest.approx(flat, rel=1e-8)
    assert measure("rankme", Given([1.0] + [0.0] * (d - 1))) == pytest.approx(one, rel=1e-8)


def test_a_geometric_spectrum() -> None:
    geometric = Given(0.9 ** np.arange(50))
    assert measure("sve", geometric) == pytest.approx(3.21837176051083, abs=1e-13)
    assert measure("lsvr", geometric) == pytest.approx(2.29741799127968, abs=1e-13)
    assert measure("stable_rank", geometric) == pytest.approx(5.26301809790059, abs=1e-12)
    assert measure("participation_ratio", geometric) == pytest.approx(9.52580973836789, abs=1e-12)
    assert measure("condition", geometric) == pytest.approx(0.9**-49)


def test_rank_one_and_zeros_behind() -> None:
    one = Given([5.0, 0.0, 0.0])
    for name, wanted in {"sve": 0, "lsvr": 0, "effective_rank": 1, "stable_rank": 1, "rank": 1}.items():
        assert measure(name, one) == wanted
        assert math.copysign(1, measure(name, one)) == 1
    with pytest.raises(UndefinedError, match="infinite, the rank is 1 of 3"):
        measure("condition", one)
    half = Given([2.0] * 4 + [0.0] * 4)
    assert measure("sve", half) == pytest.approx(math.log(4))
    assert measure("participation_ratio", half) == pytest.approx(4)


@pytest.mark.parametrize("alpha", [0.5, 1.3, 2.0])
def test_the_exponent_of_a_power_law_is_found_exactly(alpha: float) -> None:
    law = Given(np.arange(1, 301.0) ** (-alpha / 2))
    assert measure("alpha_req", law) == pytest.approx(alpha, abs=1e-12)
    assert measure("alpha_req_r2", law) == pytest.approx(1)
    assert fit_range(law) == (4, 100)  # type: ignore[arg-type]
    bent = law.values.copy()
    bent[:3], bent[100:] = 1e3, 1e-9  # outside the range
    assert measure("alpha_req", Given(bent)) == pytest.approx(alpha, abs=1e-12)


def test_the_fit_is_weighted_least_squares() -> None:
    values = np.sort(np.random.default_rng(0).uniform(0.1, 5, 60))[::-1]
    rank = np.arange(4, 61)
    y, x = np.log(values[3:] ** 2), np.log(rank)
    slope, cut = np.polyfit(x, y, 1, w=rank**-0.5)
    residual = y - slope * x - cut
    mean = np.average(y, weights=1 / rank)
    r2 = 1 - (residual**2 / rank).sum() / ((y - mean) ** 2 / rank).sum()
    assert fit_power_law(Given(values)) == pytest.approx((-slope, r2))  # type: ignore[arg-type]


def test_too_few_values_for_a_fit_are_named() -> None:
    with pytest.raises(UndefinedError, match="rank is 5, and the fit starts at 4"):
        measure("alpha_req", Given([1.0] * 5 + [0.0]))
    assert measure("alpha_req", Given(np.ones(6))) == pytest.approx(0)


@pytest.mark.parametrize("name", [n for n in SCALE_FREE if n != "rank"])
def test_a_zero_matrix_has_no_measures(name: str) -> None:
    with pytest.raises(UndefinedError, match=r"all values are 0|all rows are equal"):
        measure(name, spectrum_of(np.zeros((5, 8))))


matrices = st.tuples(st.integers(8, 40), st.integers(7, 30), st.integers(0, 2**32 - 1))


@given(matrices, st.booleans(), st.floats(1e-6, 1e6))
@settings(max_examples=40, deadline=None)
def test_invariances_and_bounds(shape: tuple[int, int, int], center: bool, scale: float) -> None:
    rows, columns, seed = shape
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, columns)) * generator.uniform(0.1, 3, columns) + 0.5
    rotation = np.linalg.qr(generator.normal(size=(columns, columns)))[0]
    base = spectrum_of(X, center)
    alike = {
        "scaled": X * scale,
        "rotated": X @ rotation,
        "permuted": X[generator.permutation(rows)],
        "repeated": np.tile(X, (3, 1)),
    }
    full = not (center and rows <= columns)  # else repeating the rows changes d
    for name in SCALE_FREE:
        if name == "condition" and center and rows <= columns:
            continue
        for how, other in alike.items():
            if how != "repeated" or (full and rows >= columns):
                got = measure(name, spectrum_of(other, center))
                assert got == pytest.approx(measure(name, base), rel=1e-7, abs=1e-9), (name, how)
    sve, lsvr, rank = (measure(name, base) for name in ("sve", "lsvr", "rank"))
    assert 0 <= lsvr <= sve <= math.log(rank) + 1e-12
    assert measure("effective_rank", base) >= math.exp(lsvr) - 1e-9
    assert 1 <= measure("stable_rank", base) <= rank + 1e-9
    assert 1 <= measure("participation_ratio", base) <= rank + 1e-9


@given(matrices)
@settings(max_examples=20, deadline=None)
def test_centring_interlaces(shape: tuple[int, int, int]) -> None:
    rows, columns, seed = shape
    X = np.random.default_rng(seed).normal(size=(rows, columns)) + 2
    raw, centred = spectrum_of(X).values, spectrum_of(X, center=True).values
    slack = 1e-9 * raw[0]
    assert (raw + slack >= centred).all()
    assert (centred[:-1] + slack >= raw[1:]).all()


def test_participation_ratio_and_alpha_are_centred_whatever_is_asked() -> None:
    X = np.random.default_rng(0).normal(size=(100, 20)) + 10
    covariance = np.cov(X.T)
    wanted = np.trace(covariance) ** 2 / (covariance**2).sum()
    for center in (False, True):
        assert measure("participation_ratio", spectrum_of(X, center)) == pytest.approx(wanted)
    alphas = [measure("alpha_req", spectrum_of(X, center)) for center in (False, True)]
    assert alphas[0] == alphas[1]
    assert measure("sve", spectrum_of(X)) < measure("sve", spectrum_of(X, center=True)) - 1


def test_raising_the_dominant_share_lowers_lsvr() -> None:
    assert measure("lsvr", Given([3.0, 1.0, 1.0])) < measure("lsvr", Given([2.0, 1.0, 1.0]))


def test_the_menus_are_light_and_explain_themselves() -> None:
    assert all(row.help for row in [*MEASURES.values(), *PREPARATIONS.values()])
    code = "import sys, nmlcli.numerics.measures; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
