"""MEASURES of a singular spectrum, and the PREPARATIONS of rows that they are taken of.

Notation: σ₁ ≥ … ≥ σ_d the singular values, d = min(N, D), p_i = σ_i / Σσ, λ_i = σ_i²; logarithms are
natural. Measures are of the spectrum as asked for (raw or centred), those marked "centred" always of
the centred one. Light: numpy is imported where it is used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nmlcli.numerics.spectra import Spectrum

    Float64 = NDArray[np.float64]

RANKME_EPS = 1e-7  # of the paper; other code takes other values, or renormalises
FIT_RANGE = (4, 100)  # ranks, from 1, that the power law of alpha_req is fitted to


class UndefinedError(ValueError):
    """A measure that this spectrum has no value of; says why."""


@dataclass(frozen=True)
class Measure:
    """A number of a spectrum. measure raises UndefinedError where there is none."""

    help: str
    measure: "Callable[[Spectrum], float]"


@dataclass(frozen=True)
class Preparation:
    """What is done to each row before measuring: float64 [n, D] in place; returns the zero rows.

    lost: how many dimensions it takes out of the row space, whatever the rows are.
    """

    help: str
    prepare: "Callable[[Float64], int]"
    lost: int = 0


def shares(spectrum: "Spectrum") -> "Float64":
    """p [d]. Raises UndefinedError for a zero matrix."""
    values = spectrum.values
    if values[0] == 0:
        raise UndefinedError("all rows are equal" if spectrum.center else "all values are 0")
    return values / float(values.sum())


def singular_value_entropy(spectrum: "Spectrum") -> float:
    """SVE = -Σ p log p, in [0, log d]. Chen et al. 2024, Definition 2.1."""
    return _entropy(shares(spectrum))


def largest_singular_value_ratio(spectrum: "Spectrum") -> float:
    """LSVR = -log p₁, in [0, log d]; larger is a smaller dominant share. Definition 2.2."""
    return abs(math.log(shares(spectrum)[0]))


def effective_rank(spectrum: "Spectrum") -> float:
    """exp(SVE), in [1, rank]. Roy and Vetterli 2007."""
    return math.exp(singular_value_entropy(spectrum))


def rankme(spectrum: "Spectrum") -> float:
    """exp(-Σ q log q) with q = p + 1e-7 over all d, not renormalised. Garrido et al. 2023."""
    return math.exp(_entropy(shares(spectrum) + RANKME_EPS))


def stable_rank(spectrum: "Spectrum") -> float:
    """Σλ / λ₁ = ‖X‖²_F / ‖X‖²₂, in [1, rank]."""
    squares = (shares(spectrum) / shares(spectrum)[0]) ** 2
    return float(squares.sum())


def participation_ratio(spectrum: "Spectrum") -> float:
    """(Σλ)² / Σλ², centred, in [1, rank]. Gao et al. 2017."""
    squares = _centred(spectrum) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def condition(spectrum: "Spectrum") -> float:
    """σ₁ / σ_d. Undefined where it is infinite, the rank being below d."""
    smallest = shares(spectrum)[-1]
    if smallest == 0:
        rank = numerical_rank(spectrum)
        raise UndefinedError(f"infinite, the rank is {rank} of {len(spectrum.values)}")
    return float(shares(spectrum)[0] / smallest)


def numerical_rank(spectrum: "Spectrum") -> int:
    """How many singular values are above the tolerance."""
    return int((spectrum.values > 0).sum())


def fit_range(spectrum: "Spectrum") -> tuple[int, int]:
    """First and last rank, from 1, of the fit of alpha_req; the last is at most the centred rank."""
    return FIT_RANGE[0], min(FIT_RANGE[1], int((spectrum.centred > 0).sum()))


def fit_power_law(spectrum: "Spectrum") -> tuple[float, float]:
    """Fit λ_i ~ i^-α over fit_range, log λ on log i by least squares weighted 1/i; returns α and R².

    Agrawal et al. 2022. λ are of the centred matrix, and R² is weighted as the fit is. The weights and
    the range 4-100 are those of the authors' code, after Stringer et al. 2019; the paper states none.
    A flat spectrum has R² 1.
    """
    import numpy as np

    _centred(spectrum)
    first, last = fit_range(spectrum)
    if last < first + 2:
        raise UndefinedError(f"the centred rank is {last}, and the fit starts at {first}")
    rank = np.arange(first, last + 1)
    weights = 1 / rank / (1 / rank).sum()
    x, y = np.log(rank), 2 * np.log(spectrum.centred[first - 1 : last])
    x, y = x - weights @ x, y - weights @ y
    slope = (weights * x) @ y / ((weights * x) @ x)
    spread = (weights * y) @ y
    residual = y - slope * x
    return -float(slope), float(1 - (weights * residual) @ residual / spread) if spread > 0 else 1.0


def _entropy(p: "Float64") -> float:
    import numpy as np

    positive = p[p > 0]
    return abs(float(positive @ np.log(positive)))  # abs: of one value it would be -0


def _centred(spectrum: "Spectrum") -> "Float64":
    """Centred singular values relative to the largest. Raises UndefinedError where all are 0."""
    values = spectrum.centred
    if values[0] == 0:
        raise UndefinedError("all rows are equal")
    return values / float(values[0])


MEASURES = {
    "sve": Measure("singular value entropy, -Σ p log p", singular_value_entropy),
    "lsvr": Measure("largest singular value ratio, -log p₁", largest_singular_value_ratio),
    "effective_rank": Measure("exp(SVE)", effective_rank),
    "rankme": Measure("effective rank with ε = 1e-7 in each p", rankme),
    "alpha_req": Measure("exponent of the power law of λ, centred", lambda s: fit_power_law(s)[0]),
    "alpha_req_r2": Measure("R² of that fit", lambda s: fit_power_law(s)[1]),
    "stable_rank": Measure("Σλ / λ₁", stable_rank),
    "participation_ratio": Measure("(Σλ)² / Σλ², centred", participation_ratio),
    "condition": Measure("σ₁ / σ_d", condition),
    "rank": Measure("singular values above the tolerance", numerical_rank),
    "sigma_max": Measure("σ₁", lambda s: float(s.values[0])),
    "sigma_sum": Measure("Σσ", lambda s: float(s.values.sum())),
}


def _to_unit_length(rows: "Float64") -> int:
    """Divide each row by its length; zero rows stay zero and are counted."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    lengths[lengths == 0] = np.inf
    rows /= lengths
    return int(np.isinf(lengths).sum())


def _as_released(rows: "Float64") -> int:
    """To unit length, then less each row's own mean over its D values, as the released code does.

    This takes (1, …, 1) out of the row space, so that the rank is at most D - 1.
    """
    zeros = _to_unit_length(rows)
    rows -= rows.mean(axis=1, keepdims=True)
    return zeros


PREPARATIONS = {
    "raw": Preparation("as they are, Definitions 2.1 and 2.2 as they stand", lambda rows: 0),
    "l2": Preparation("scaled to length 1", _to_unit_length),
    "released": Preparation(
        "to length 1, then less their own mean, as the released code", _as_released, lost=1
    ),
}
