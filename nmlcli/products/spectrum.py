"""The state of a spectrum: the sums that it came from, which add up over the parts of a set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Array, Container, require, require_names, require_record
from nmlcli.provenance import Record

Float64 = NDArray[np.float64]

_ARRAYS = ("count", "singular_values", "gram", "column_sums")


@dataclass(frozen=True)
class SpectrumState:
    """Singular values [d], descending, of N rows as they were measured, and what they came from.

    gram: Xᵀ X [D, D]; column_sums: [D], of the prepared rows X, never centred; count: N. record: its
    options say how the rows were prepared and whether the singular values are centred; its extra names
    the features (`features`, their identities), their `dtype`, `tolerance` and `zero_rows`.
    source: for messages.
    """

    record: Record
    singular_values: Float64
    gram: Float64
    column_sums: Float64
    count: int
    source: str = "state"


def pack_state(state: SpectrumState) -> dict[str, Array]:
    """The arrays of a state, in the order of the file."""
    values = (state.singular_values, state.gram, state.column_sums)
    arrays = [np.asarray(array, dtype=np.float64) for array in values]
    return {
        "count": np.asarray(state.count, dtype=np.int64),
        **dict(zip(_ARRAYS[1:], arrays, strict=True)),
    }


def unpack_state(container: Container) -> SpectrumState:
    """Read a state; raises InvalidInput where its arrays do not fit one another or are not finite."""
    record, source = require_record(container, "spectrum"), container.source
    require_names(container, _ARRAYS)
    width = require(container, "gram", ("float64",), (None, None)).shape[0]
    require(container, "gram", ("float64",), (width, width))
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
    gram, values = arrays["gram"], arrays["singular_values"]
    if (np.diff(values) > 0).any() or values[-1] < 0 or (gram.diagonal() < 0).any():
        raise InvalidInput(f"{source}: its singular values or its Gram matrix are damaged")
    told = record.extra
    lists, whole = told.get("features", []), told.get("zero_rows", 0)
    named = isinstance(lists, list) and all(isinstance(each, str) for each in lists)
    if not named or type(whole) is not int or whole < 0:
        raise InvalidInput(f"{source}: its record does not say what the sums are of")
    if not np.array_equal(gram, gram.T) and not np.allclose(gram, gram.T, rtol=1e-9):
        raise InvalidInput(f"{source}: its Gram matrix is not symmetric")
    return SpectrumState(
        record, arrays["singular_values"], gram, arrays["column_sums"], count, source
    )  # fmt: skip
