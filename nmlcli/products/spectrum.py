"""The state of a spectrum: the sums that it came from, which add up over the parts of a set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Array, Container, require, require_names, require_record
from nmlcli.provenance import Record

Float64 = NDArray[np.float64]

_ARRAYS = ("count", "singular_values", "centred_gram", "column_sums")
_ROUNDING = 1e-8  # of ‖X‖²: what forming sums costs, and the values that are cut to 0


@dataclass(frozen=True)
class SpectrumState:
    """Singular values [d], descending, of N rows as they were measured, and what they came from.

    column_sums: [D] of the prepared rows X; centred_gram: (X - mean)ᵀ (X - mean) [D, D], since in Xᵀ X,
    which is that and column_sumsᵀ column_sums / N, a large mean hides the rest; count: N. record: its
    options say how the rows were prepared and whether the singular values are centred; its extra names
    the features (`features`, their identities), their `precision`, `tolerance` and `zero_rows`.
    source: for messages.
    """

    record: Record
    singular_values: Float64
    centred_gram: Float64
    column_sums: Float64
    count: int
    source: str = "state"


def pack_state(state: SpectrumState) -> dict[str, Array]:
    """The arrays of a state, in the order of the file."""
    values = (state.singular_values, state.centred_gram, state.column_sums)
    arrays = [np.asarray(array, dtype=np.float64) for array in values]
    return {
        "count": np.asarray(state.count, dtype=np.int64),
        **dict(zip(_ARRAYS[1:], arrays, strict=True)),
    }


def unpack_state(container: Container) -> SpectrumState:
    """Read a state; raises InvalidInput where its arrays cannot be those of one set of rows."""
    record, source = require_record(container, "spectrum"), container.source
    require_names(container, _ARRAYS)
    width = require(container, "centred_gram", ("float64",), (None, None)).shape[0]
    require(container, "centred_gram", ("float64",), (width, width))
    require(container, "column_sums", ("float64",), (width,))
    require(container, "singular_values", ("float64",), (None,))
    require(container, "count", ("int64",), ())
    arrays = container.arrays(_ARRAYS)
    count = int(arrays["count"])
    if (record.rows, record.columns) != (count, width) or count < 1 or width < 1:
        shape = f"{record.rows} × {record.columns}"
        raise InvalidInput(f"{source}: its record says {shape}, its sums are of {count} × {width}")
    if len(arrays["singular_values"]) != min(count, width):
        raise InvalidInput(f"{source}: it has {len(arrays['singular_values'])} singular values")
    for name in _ARRAYS[1:]:
        if not np.isfinite(arrays[name]).all():
            raise InvalidInput(f"{source}: {name} holds values that are not finite")
    values, gram, sums = (arrays[name] for name in _ARRAYS[1:])
    state = SpectrumState(record, values, gram, sums, count, source)
    if wrong := _unlikely(state):
        raise InvalidInput(f"{source} is damaged: {wrong}", "measure the features anew")
    return state


def _unlikely(state: SpectrumState) -> str | None:
    """Why no rows can have these sums and values, so far as that is cheap to see; None: they may."""
    told, gram, values = state.record.extra, state.centred_gram, state.singular_values
    features, tolerance = told.get("features", []), told.get("tolerance", 0.0)
    zero_rows, squares = told.get("zero_rows", 0), gram.diagonal()
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows fails its comparison
        total, highest = squares.sum(), squares.max()
        of_mean = float(state.column_sums @ state.column_sums) / state.count
        measured = total if state.record.options.get("center") else total + of_mean
        checks = {
            "its record does not say what the sums are of": isinstance(features, list)
            and all(isinstance(each, str) for each in features),
            "its record tells of no tolerance": type(tolerance) in (int, float) and 0 <= tolerance < 1,
            "its zero rows are no number of its rows": type(zero_rows) is int
            and 0 <= zero_rows <= state.count,
            "its singular values do not descend to 0 or above": (np.diff(values) <= 0).all()
            and values[-1] >= 0,
            "its Gram matrix has a negative diagonal": (squares >= 0).all(),
            "its Gram matrix is not symmetric": all(  # in slices, since it may be large
                (np.abs(gram[k : k + 256] - gram[:, k : k + 256].T) <= 1e-9 * highest).all()
                for k in range(0, len(gram), 256)
            ),
            "its Gram matrix is larger beside its diagonal": max(gram.max(), -gram.min())
            <= highest * (1 + 1e-9),
            "its singular values are not those of its sums": abs((values**2).sum() - measured)
            <= _ROUNDING * measured
            < np.inf,
        }  # fmt: skip
    return next((wrong for wrong, holds in checks.items() if not holds), None)
