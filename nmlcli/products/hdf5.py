"""HDF5 files: named arrays as datasets at the root, the record as a text dataset `nml`.

An HDF5 file can point at other files and ask for more memory than there is, so of a dataset only
what is wholly inside the file is read.

Every array carries HDF5's own Fletcher-32 checksums, chunk by chunk (a single value and the record
lie in their dataset's header, which has one), so that any program that reads the file notices a
changed byte. They cost 0.2 s a gigabyte of reading; a digest of our own (CRC-32) would cost as much,
and nobody else could check it. A stream cannot have them: its header comes first, and nothing may
come after its last value.
"""

import io
import math
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Array, Arrays, Rows, Tensor
from nmlcli.provenance import KEY, Record, parse_record

MOST_DEFLATED = 1100  # no compression of HDF5's own makes less of it; a file that says so is a trap

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ENDS = (40, 44, 28, 28)  # the byte at which a superblock, by its version, says how long the file is
_CHECKSUM = 4  # bytes behind each chunk
_COMPACT = 60_000  # bytes that still fit into a dataset's header


class Hdf5File:
    """An opened HDF5 file; keeps the protocol `Container`.

    Raises InvalidInput, naming source, where the file is damaged or a dataset is not plain.
    """

    def __init__(self, path: str) -> None:
        self.source = path
        self.path: str | None = path
        with self._reading():
            # Products are replaced whole, never changed, so that locks would only be in the way.
            self._file = h5py.File(path, "r", locking=False)
            held = {name: self._file[name] for name in self._file if self._is_dataset(name)}
            self.record = self._read_record() if held.pop(KEY, None) is not None else None
            self.tensors: Mapping[str, Tensor] = {
                name: Tensor(dataset.dtype.name, tuple(dataset.shape or ()))
                for name, dataset in held.items()
            }
        if self.record is not None:
            self._check_length()

    def arrays(self, names: Iterable[str]) -> dict[str, Array]:
        """Read those of these arrays that are there."""
        with self._reading():
            return {name: self._checked(name)[()] for name in names if name in self.tensors}

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """Iterate row blocks [≤ rows, …] of one array."""
        with self._reading():
            dataset = self._checked(name)
        for start in range(0, len(dataset), rows):
            last = min(start + rows, len(dataset)) - 1
            with self._reading(f"rows {start:,} to {last:,} of {name}: "):
                block = dataset[start : start + rows]
            yield block

    @contextmanager
    def _reading(self, what: str = "") -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            reason = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
            if "filter returned failure" in reason or "Fletcher32" in reason:
                reason = "their checksum is wrong, or they cannot be unpacked"
            raise InvalidInput(f"{self.source} is damaged, or not HDF5 ({what}{reason})") from error

    def _is_dataset(self, name: str) -> bool:
        link = self._file.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            wrong = f"{self.source}: {name} is a link to elsewhere"
            raise InvalidInput(wrong, "only plain files are read")
        return isinstance(self._file[name], h5py.Dataset)

    def _checked(self, name: str) -> Any:
        """A dataset whose bytes are all in this file, uncompressed or believably compressed."""
        dataset = self._file[name]
        if dataset.external is not None or dataset.is_virtual:
            wrong = f"{self.source}: {name} lies in another file"
            raise InvalidInput(wrong, "only plain files are read")
        if dataset.dtype.kind not in "iufbS" or dataset.shape is None:
            raise InvalidInput(f"{self.source}: {name} is {dataset.dtype}, which cannot be read here")
        stored, unpacked = dataset.id.get_storage_size(), dataset.nbytes
        if dataset.chunks is None:
            whole = stored == unpacked
        else:
            wanted = math.prod(-(-n // k) for n, k in zip(dataset.shape, dataset.chunks, strict=True))
            whole = dataset.id.get_num_chunks() == wanted
            unpacked = wanted * math.prod(dataset.chunks) * dataset.dtype.itemsize  # may be more
        if not whole or unpacked > stored * MOST_DEFLATED:
            wrong = f"{self.source}: {name} is not wholly there"
            raise InvalidInput(wrong, "it was cut short when written")
        return dataset

    def _check_length(self) -> None:
        """Refuse what stands before or after a file of ours, which HDF5 would pass over."""
        path = Path(self.source)
        with path.open("rb") as file:
            start = file.read(64)
        version = start[len(_SIGNATURE)]
        if not start.startswith(_SIGNATURE) or version >= len(_ENDS):
            raise InvalidInput(f"{self.source} does not start as an HDF5 file of nml does")
        beyond = path.stat().st_size - int.from_bytes(start[_ENDS[version] :][:8], "little")
        if beyond:
            raise InvalidInput(f"{self.source} goes on for {beyond:,} bytes after its end")

    def _read_record(self) -> Record:
        dataset = self._checked(KEY)
        if dataset.dtype.kind != "S" or dataset.shape != ():
            raise InvalidInput(f"{self.source}: its nml record is not text")
        return parse_record(bytes(dataset[()]), self.source)


def write_hdf5(path: Path, record: Record, arrays: Arrays, rows: Rows | None = None) -> None:
    """Write the record, the arrays, then the rows in chunks of about 1 MiB.

    HDF5 crashes where its own writes fail, be it by a full disk or by Ctrl-C. So it makes all but the
    rows in memory, without their values, and says where those go; they are written past it.
    """
    parts = [] if rows is None else rows.chained()
    with path.open("wb") as out:
        if not any(part.compress for part in parts):
            sizes = [[_chunk_bytes(p)] * -(-p.shape[0] // p.chunk_rows()) for p in parts]
            chunks = (data for part in parts for data in _encoded(part))
            _fill(out, *_skeleton(record, arrays, parts, sizes), chunks)
            return
        # How large a chunk becomes is known once it is made, and where it lies once all are.
        with tempfile.TemporaryFile(dir=path.parent) as spool:
            sizes = [[spool.write(data) for data in _encoded(part)] for part in parts]
            spool.seek(0)
            chunks = (spool.read(size) for part in sizes for size in part)
            _fill(out, *_skeleton(record, arrays, parts, sizes), chunks)


def _fill(out: BinaryIO, image: memoryview, places: Sequence[int], chunks: Iterable[bytes]) -> None:
    """Write a skeleton and each chunk to its place."""
    out.write(image)
    for place, data in zip(places, chunks, strict=True):
        out.seek(place)
        out.write(data)
    out.truncate(int.from_bytes(image[_ENDS[2] :][:8], "little"))


def _skeleton(
    record: Record, arrays: Arrays, parts: Sequence[Rows], sizes: Sequence[Sequence[int]]
) -> tuple[memoryview, list[int]]:
    """A file without the values of its rows, and where the chunks of each part belong in it.

    sizes: the bytes of each chunk of each part as stored.
    """
    dummy = np.zeros(max((size for of_part in sizes for size in of_part), default=1), dtype=np.uint8)
    image = _Hollow(dummy)
    # The format of HDF5 1.10 is the first with checksums over all that is not data.
    with _interrupts_later(), h5py.File(image, "w", libver=("v110", "v110")) as file:
        _create(file, KEY, np.asarray(np.bytes_(record.to_json().encode())))
        for name, array in arrays.items():
            _create(file, name, np.asarray(array))
        chunks = [
            (dataset.id, (number * part.chunk_rows(), *[0] * (len(part.shape) - 1)), size)
            for part, of_part in zip(parts, sizes, strict=True)
            for dataset in [_create_rows(file, part)]
            for number, size in enumerate(of_part)
        ]
        # A dataset's index is made with its first chunk, and belongs before the bulk.
        for dataset, corner, size in sorted(chunks, key=lambda chunk: chunk[1][0] > 0):
            dataset.write_direct_chunk(corner, dummy[:size])
        places = [dataset.get_chunk_info_by_coord(corner).byte_offset for dataset, corner, _ in chunks]
    return image.getbuffer(), places


class _Hollow(io.BytesIO):
    """Keeps what is written, but for one array, which stands for values that are written elsewhere."""

    def __init__(self, dummy: NDArray[np.uint8]) -> None:
        super().__init__()
        self._dummy = dummy.ctypes.data

    def write(self, data: Any) -> int:
        """Keep data, where it is not the dummy; HDF5 hands that down uncopied."""
        passed_over = np.frombuffer(data, dtype=np.uint8).ctypes.data == self._dummy
        return len(data) if passed_over else super().write(data)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: an exception in a call from inside HDF5 would crash it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for signal_, handler in before.items():
            signal.signal(signal_, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _chunk_bytes(rows: Rows) -> int:
    return rows.chunk_rows() * math.prod(rows.shape[1:]) * rows.dtype.itemsize + _CHECKSUM


def _create(file: h5py.File, name: str, array: Array) -> None:
    """Make a dataset with its values, and with a checksum where there is something to check."""
    if not array.ndim and array.nbytes < _COMPACT:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)  # create_dataset would undo it
        creation.set_obj_track_times(False)
        kind, space = h5py.h5t.py_create(array.dtype), h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(file.id, name.encode(), kind, space, creation)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    elif not array.size or not array.ndim:
        file.create_dataset(name, data=array)
    else:
        rows = Rows(name, array.dtype, array.shape, lambda _: iter((array,)))
        _create_rows(file, rows)[...] = np.ascontiguousarray(array)


def _create_rows(file: h5py.File, rows: Rows) -> h5py.Dataset:
    """Make a dataset of row chunks without values."""
    filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if rows.compress else {}
    chunks, little = (rows.chunk_rows(), *rows.shape[1:]), rows.dtype.newbyteorder("<")
    return file.create_dataset(rows.name, rows.shape, little, chunks=chunks, fletcher32=True, **filters)


def _encoded(rows: Rows) -> Iterator[bytes]:
    """Iterate the chunks of rows as they are stored.

    HDF5 applies the filters, in a file of one chunk that never leaves memory.
    """
    with h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False) as file:
        count = rows.chunk_rows()
        one = _create_rows(file, replace(rows, shape=(count, *rows.shape[1:])))
        for block in _whole(rows.checked(count), count):
            one.id.write(h5py.h5s.ALL, h5py.h5s.ALL, block)
            mask, data = one.id.read_direct_chunk((0,) * len(rows.shape))
            if mask:
                raise RuntimeError("HDF5 left out a filter")
            yield data


def _whole(pieces: Iterator[Array], count: int) -> Iterator[Array]:
    """Iterate blocks of count rows, the last filled up with zeros, from pieces of any sizes."""
    block, filled = np.empty(0), 0
    for piece in (some[i : i + count] for some in pieces for i in range(0, len(some), count)):
        if len(piece) == count and not filled:
            yield piece
            continue
        if not block.size:
            block = np.zeros((count, *piece.shape[1:]), dtype=piece.dtype)
        fitting = min(count - filled, len(piece))
        block[filled : filled + fitting] = piece[:fitting]
        filled += len(piece)
        if filled >= count:
            yield block
            filled -= count
            block[:filled] = piece[fitting:]
    if filled:
        block[filled:] = 0
        yield block
