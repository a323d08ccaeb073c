"""safetensors as a file and as a stream: written header first, read strictly and in order.

The library maps files into memory, so it cannot read a pipe; and it takes duplicate names and
unknown fields in silence. Everything it refuses is refused here too.
"""

import fcntl
import json
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products.container import Array, Arrays, Rows, Tensor
from nmlcli.provenance import KEY, Record, parse_record

LONGEST_HEADER = 100_000_000  # the library's limit too
PIECE = 2**24  # bytes read at once, so that a header's lie about sizes costs no memory
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32",
    "F64": "float64", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3", "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}  # fmt: skip
_NAMES = {name: short for short, name in _DTYPES.items()}
_SIZES = {"bfloat16": 2, "float8_e4m3": 1, "float8_e5m2": 1}


class SafetensorsFile:
    """An opened safetensors file, or a stream where path is None; keeps the protocol `Container`.

    Raises InvalidInput, naming source, where the header is damaged or the file is not as long as
    its header says; of a stream the length is known, and checked, when its last bytes are read.
    """

    def __init__(self, file: BinaryIO, source: str, path: str | None = None) -> None:
        self.source = source
        self.path = path
        self._file = file
        self._header_length = 0
        self._position = 0  # in the data
        size = None if path is None else os.fstat(file.fileno()).st_size
        if path is None:
            _widen(file)
        weakref.finalize(self, file.close)
        self.tensors: Mapping[str, Tensor]
        self.tensors, metadata = self._read_header(size)
        self._total = max((tensor.stop for tensor in self.tensors.values()), default=0)
        if KEY in metadata and len(metadata) > 1:
            raise InvalidInput(f"{source} has metadata beside its nml record")
        self.record = parse_record(metadata[KEY], source) if KEY in metadata else None
        held = self._total if size is None else size - self._header_length
        if held < self._total:
            raise self._cut_short(held)
        if held > self._total:
            raise InvalidInput(f"{source} goes on for {held - self._total:,} bytes after its end")

    def arrays(self, names: Iterable[str]) -> dict[str, Array]:
        """Read those of these arrays that are there."""
        wanted = set(names)
        return {name: self._read(name, t) for name, t in self.tensors.items() if name in wanted}

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """Iterate row blocks [≤ rows, …] of one array; of a stream this works once."""
        tensor = self.tensors[name]
        count, *shape = tensor.shape
        row = math.prod(shape) * _itemsize(tensor.dtype)
        for start in range(0, count, rows):
            self._seek(tensor.start + start * row)
            try:
                block = np.empty((min(rows, count - start), *shape), dtype=tensor.dtype)
            except (MemoryError, ValueError) as error:
                raise InvalidInput(f"{self.source}: rows of {name} are {row:,} bytes long") from error
            self._fill(block.reshape(-1).view(np.uint8).data)
            if start + rows >= count:
                self._finish()
            yield block

    def _read_header(self, size: int | None) -> tuple[dict[str, Tensor], dict[str, str]]:
        start = self._file.read(8)
        if not start:
            raise InvalidInput(f"{self.source} is empty")
        if start == HDF5_SIGNATURE:
            raise InvalidInput(f"{self.source} is HDF5, not safetensors", "give it as a file named .h5")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= LONGEST_HEADER:
            lines = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
            remedy = "`nml convert --from jsonl` makes features of JSON Lines" if lines else ""
            raise InvalidInput(f"{self.source} is not a safetensors file", remedy)
        if size is not None and length > size - 8:
            raise InvalidInput(f"{self.source} was cut short within its header")
        text = self._file.read(length)
        if len(text) < length:
            raise InvalidInput(f"{self.source} was cut short within its header")
        self._header_length = 8 + length
        try:
            if length % 8 or not text.startswith(b"{"):
                raise ValueError("it is not aligned")
            return _parse_header(text.decode())
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{self.source} has a damaged safetensors header ({error})") from error

    def _read(self, name: str, tensor: Tensor) -> Array:
        if tensor.dtype in _SIZES:
            raise InvalidInput(f"{self.source}: {name} is {tensor.dtype}, which cannot be read here")
        self._seek(tensor.start)
        data = self._take(tensor.stop - tensor.start)
        self._finish()
        if tensor.dtype == "bool" and data and max(data) > 1:
            raise InvalidInput(f"{self.source}: {name} holds truth values other than 0 and 1")
        return np.frombuffer(data, dtype=tensor.dtype).reshape(tensor.shape)

    def _seek(self, position: int) -> None:
        if self.path is not None:
            self._file.seek(self._header_length + position)
        elif position < self._position:
            raise NmlError(
                f"{self.source} can be read only once and in order",
                "save it to a file and give its name",
            )
        else:
            while self._position < position:
                self._take(min(PIECE, position - self._position))
        self._position = position

    def _take(self, count: int) -> bytearray:
        data = bytearray()
        while len(data) < count:
            piece = self._file.read(min(PIECE, count - len(data)))
            if not piece:
                raise self._cut_short(self._position)
            data += piece
            self._position += len(piece)
        return data

    def _fill(self, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            count = self._file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._cut_short(self._position)
            filled += count
            self._position += count

    def _finish(self) -> None:
        """At the end of the data, see that a stream ends there."""
        if self._position == self._total and self._file.read(1):
            raise InvalidInput(f"{self.source} goes on after its end", "one stream holds one product")

    def _cut_short(self, held: int) -> InvalidInput:
        tensor = self.tensors.get("features")
        in_features = tensor is not None and len(tensor.shape) > 1 and held < tensor.stop
        if tensor is None or not in_features:
            return InvalidInput(
                f"{self.source} was cut short: {held:,} of {self._total:,} bytes are there"
            )
        rows = max(0, held - tensor.start) // ((tensor.stop - tensor.start) // tensor.shape[0])
        return InvalidInput(
            f"{self.source} was cut short: {rows:,} of {tensor.shape[0]:,} rows are there"
        )


def open_safetensors(path: str) -> SafetensorsFile:
    """Open a file."""
    return SafetensorsFile(Path(path).open("rb"), path, path)


def write_safetensors(file: BinaryIO, record: Record, arrays: Arrays, rows: Rows | None = None) -> None:
    """Write the header, then the arrays in their order, then the rows, block by block."""
    named = [(name, np.asarray(array)) for name, array in arrays.items()]
    parts = [] if rows is None else rows.chained()
    shapes = [(name, array.dtype, array.shape) for name, array in named]
    shapes += [(part.name, part.dtype, part.shape) for part in parts]
    header: dict[str, Any] = {"__metadata__": {KEY: record.to_json()}}
    position = 0
    for name, dtype, shape in shapes:
        if position % dtype.itemsize or name in header:
            raise ValueError(f"{name} would start at {position}, or is there twice")
        stop = position + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [position, stop]
        }  # fmt: skip
        position = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    _widen(file)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in named:
        file.write(_bytes_of(array))
    for part in parts:
        for block in part.checked(part.per_mebibyte()):
            file.write(_bytes_of(block))


def _widen(file: BinaryIO) -> None:
    """Let a pipe hold 1 MiB, where the system can, so that its two ends wait less for each other."""
    with suppress(AttributeError, OSError, ValueError):
        fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, 2**20)


def _bytes_of(array: Array) -> memoryview:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _itemsize(dtype: str) -> int:
    return _SIZES.get(dtype) or np.dtype(dtype).itemsize


def _parse_header(text: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Check a header in full; raises ValueError saying what is wrong with it."""
    header = json.loads(text, object_pairs_hook=_once)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    tensors = [(name, _parse_tensor(name, facts)) for name, facts in header.items()]
    tensors.sort(key=lambda pair: (pair[1].start, pair[1].stop))
    position = 0
    for name, tensor in tensors:
        if tensor.start != position:
            raise ValueError(f"{name} starts at {tensor.start}, not {position}")
        if position % _itemsize(tensor.dtype):
            raise ValueError(f"{name} is not aligned")
        position = tensor.stop
    return dict(tensors), metadata


def _parse_tensor(name: str, facts: Any) -> Tensor:
    if not isinstance(facts, dict) or set(facts) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} has not the fields dtype, shape, data_offsets")
    dtype = _DTYPES.get(facts["dtype"]) if isinstance(facts["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{name} is of no known type")
    shape, offsets = facts["shape"], facts["data_offsets"]
    for sizes in (shape, offsets):
        if not isinstance(sizes, list) or not all(type(n) is int and 0 <= n < 2**63 for n in sizes):
            raise ValueError(f"{name} has sizes that are not numbers from 0 on")
    if len(shape) > 32 or math.prod(filter(None, shape)) * _itemsize(dtype) >= 2**63:
        raise ValueError(f"{name} is too large")
    if len(offsets) != 2 or math.prod(shape) * _itemsize(dtype) != offsets[1] - offsets[0]:
        raise ValueError(f"{name} has another size than its shape says")
    return Tensor(dtype, tuple(shape), offsets[0], offsets[1])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands there twice")
    return values
