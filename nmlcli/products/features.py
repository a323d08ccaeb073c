"""Features of samples: the artefact between `embed` and everything behind it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import (
    Array,
    Arrays,
    Container,
    Rows,
    require,
    require_names,
    require_record,
)
from nmlcli.products.labels import repeated
from nmlcli.provenance import Record, hash_file

FloatBlock = NDArray[np.float32] | NDArray[np.float16]

_BESIDE = ("labels", "clean_labels", "ids_offsets", "ids_bytes")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32")


@dataclass(frozen=True)
class Features:
    """Features of N samples, read block by block, so that N is never bound by memory.

    record: rows N, columns D, classes, the network and the set. ids: unique texts [N]. labels:
    int64 [N] or None. clean_labels: int64 [N] where they are known and differ from the labels.
    dtype: float32 or float16. blocks(rows): iterate row blocks [≤ rows, D] in order, of that dtype;
    of a stream they can be read once. source: the file's name or `stdin`, for messages.
    """

    record: Record
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    clean_labels: NDArray[np.int64] | None
    dtype: np.dtype[np.float32] | np.dtype[np.float16]
    blocks: Callable[[int], Iterator[FloatBlock]]
    source: str

    @property
    def rows(self) -> int:
        """N, the number of samples."""
        return len(self.ids)

    @property
    def columns(self) -> int:
        """D, the width of the features."""
        return self.record.columns or 0

    def matrix(self) -> NDArray[np.float32]:
        """All features as one float32 array [N, D]."""
        out = np.empty((self.rows, self.columns), dtype=np.float32)
        start = 0
        for block in self.blocks(4096):
            out[start : start + len(block)] = block
            start += len(block)
        return out


def pack_features(features: Features) -> tuple[dict[str, Array], Rows]:
    """The arrays of features in the order of the file, and the features themselves as rows."""
    if not features.rows or not features.columns:
        raise InvalidInput(f"{features.source} has no features", "there is nothing to write")
    arrays: dict[str, Array] = {}
    for name, numbers in (("labels", features.labels), ("clean_labels", features.clean_labels)):
        if numbers is not None:
            if numbers.shape != (features.rows,):
                raise ValueError(f"{name} {numbers.shape} of {features.rows} rows")
            arrays[name] = numbers.astype(np.int64, copy=False)
    arrays["ids_offsets"], arrays["ids_bytes"] = pack_ids(features.ids)
    rows = Rows("features", features.dtype, (features.rows, features.columns), features.blocks)
    return arrays, rows


def unpack_features(container: Container) -> Features:
    """Read all but the features themselves from a file, strictly; raises InvalidInput.

    Without a record (a foreign file) `features` or `embeddings` are enough: labels may be of any
    integer type, ids default to row numbers, and the network is not known.
    """
    record = container.record
    if record is not None:
        require_record(container, "features")
    name = "embeddings" if record is None and "embeddings" in container.tensors else "features"
    tensor = require(container, name, ("float32", "float16"), (None, None))
    rows, columns = tensor.shape
    if not rows or not columns:
        raise InvalidInput(f"{container.source} holds no features", f"it is {rows} × {columns}")
    if record is None:
        if container.path is None:
            remedy = "save it to a file and give its name"
            raise InvalidInput(f"{container.source} has no nml record", remedy)
        # Its identity is a hash of its bytes; the rest is not known.
        record = Record("features", hash_file(container.path), "", rows=rows, columns=columns)
    else:
        _check_own(container, record, (rows, columns))
    arrays = container.arrays(_BESIDE)
    return Features(
        record=record,
        ids=read_ids(container, arrays, rows),
        labels=_read_labels(container, arrays, "labels", record),
        clean_labels=_read_labels(container, arrays, "clean_labels", record),
        dtype=np.dtype(np.float16) if tensor.dtype == "float16" else np.dtype(np.float32),
        blocks=lambda count: container.blocks(name, count),
        source=container.source,
    )


def pack_ids(ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Ids as offsets int64 [N+1] and bytes uint8, UTF-8 one after another, zero-padded to 8."""
    try:
        texts = [text.encode() for text in ids]
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the id {error.object!r} is not Unicode", "rename the file") from error
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    joined = b"".join(texts)
    return offsets, np.frombuffer(joined + bytes(-len(joined) % 8), dtype=np.uint8)


def read_ids(container: Container, arrays: Arrays, rows: int) -> list[str]:
    """The ids of N rows from a file's arrays, row numbers where it has none.

    Raises InvalidInput where they are damaged or not unique.
    """
    if "ids_offsets" not in arrays and "ids_bytes" not in arrays:
        return [str(row) for row in range(rows)]
    require(container, "ids_offsets", ("int64",), (rows + 1,))
    require(container, "ids_bytes", ("uint8",), (None,))
    source, offsets, packed = container.source, arrays["ids_offsets"], arrays["ids_bytes"]
    end = int(offsets[-1])
    in_order = offsets[0] == 0 and (np.diff(offsets) >= 0).all()
    if not in_order or len(packed) != end + -end % 8 or packed[end:].any():
        raise InvalidInput(f"{source}: its ids are damaged")
    text = packed.tobytes()
    try:
        ids = [text[a:b].decode() for a, b in pairwise(offsets.tolist())]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{source}: its ids are damaged (not UTF-8)") from error
    if twice := repeated(ids):
        raise InvalidInput(f"{source}: ids are not unique", first(twice))
    return ids


def _check_own(container: Container, record: Record, shape: tuple[int, int]) -> None:
    require_names(container, ("features", *_BESIDE))
    for name in ("ids_offsets", "ids_bytes"):
        require(container, name, ("int64", "uint8"), (None,))
    if (record.rows, record.columns) != shape:
        raise InvalidInput(
            f"{container.source}: its record says {record.rows} × {record.columns}, "
            f"its features are {shape[0]} × {shape[1]}"
        )
    if any(tensor.start % 8 for tensor in container.tensors.values()):
        raise InvalidInput(f"{container.source}: its arrays do not start at multiples of 8")


def _read_labels(
    container: Container, arrays: dict[str, Array], name: str, record: Record
) -> NDArray[np.int64] | None:
    if name not in arrays:
        return None
    require(container, name, _INTEGERS if container.record is None else ("int64",), (record.rows,))
    labels: NDArray[np.int64] = arrays[name].astype(np.int64, copy=False)
    bound = len(record.classes) if record.classes is not None else np.iinfo(np.int64).max
    wrong = np.flatnonzero((labels < 0) | (labels >= bound))
    if len(wrong):
        row = int(wrong[0])
        raise InvalidInput(
            f"{container.source}: row {row} has the {name.removesuffix('s').replace('_', ' ')} "
            f"{labels[row]}, outside of its {bound} classes"
        )
    return labels
