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
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Array, Arrays, Rows, Tensor, in_blocks
from nmlcli.provenance import KEY, Record, parse_record

MOST_DEFLATED = 1100  # no compression of HDF5's own makes less of it; a file that says so is a trap

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ENDS = (40, 44, 28, 28)  # the byte at which a superblock, by its version, says how long the file is
_LARGE = 2**26  # bytes that are not read at once only because they lie in one chunk
_COMPACT = 60_000  # bytes that still fit into a dataset's header


class Hdf5File:
    """An opened HDF5 file; keeps the protocol `Container`.

    Raises InvalidInput, naming source, where the file is damaged or a dataset is not plain.
    """

    def __init__(self, path: str) -> None:
        self.source = path
        self.path: str | None = path
        with self._reading():
            # Products are replaced whole, never changed, so that locks would only be in the way. Each
            # chunk is read once, so that a cache of them would only be a copy more.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=0)
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
        yield from in_blocks(self._chunks(name, dataset, _whole_chunks(dataset, rows)), rows)

    def _chunks(self, name: str, dataset: h5py.Dataset, step: int) -> Iterator[Array]:
        for start in range(0, len(dataset), step):
            last = min(start + step, len(dataset)) - 1
            with self._reading(f"rows {start:,} to {last:,} of {name}: "):
                block = dataset[start : start + step]
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


def is_compressed(path: str) -> bool | None:
    """Whether arrays in a file are compressed, which no record tells; None where it is damaged."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            held = [each for each in file.values() if isinstance(each, h5py.Dataset)]
            return any(dataset.compression is not None for dataset in held)
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def write_hdf5(file: BinaryIO, record: Record, arrays: Arrays, rows: Rows | None = None) -> None:
    """Write the record, the arrays, then the rows in chunks of about 1 MiB, into an empty file.

    HDF5 may crash where its own writes fail, be it by a full disk or by Ctrl-C: it writes into a sink
    that never fails, and what went wrong is raised when the call of HDF5 has come back.
    """
    parts = [] if rows is None else rows.chained()
    with _Sink(file.name, "r+") as sink:
        with sink.calls():
            # The format of HDF5 1.10 is the first with checksums over all that is not data. Without a
            # cache each chunk is written when it comes.
            out = h5py.File(sink, "w", libver=("v110", "v110"), rdcc_nbytes=0)
        try:
            with sink.calls():
                _create(out, KEY, np.asarray(np.bytes_(record.to_json().encode())))
                for name, array in arrays.items():
                    _create(out, name, np.asarray(array))
                datasets = [_create_rows(out, part) for part in parts]
            for part, dataset in zip(parts, datasets, strict=True):
                start, count = 0, part.chunk_rows()
                for block in in_blocks(part.checked(count), count):
                    with sink.calls():
                        dataset[start : start + len(block)] = block
                    start += len(block)
        finally:
            with sink.calls():
                out.close()


class _Sink(io.FileIO):
    """A file that never fails to be written: after the first failure, what comes is lost in silence."""

    failure: OSError | None = None

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Around calls of HDF5: raises what failed, or Ctrl-C and SIGTERM, at their end."""
        try:
            with _interrupts_later():
                yield
        finally:
            if self.failure is not None:
                raise self.failure

    def write(self, data: Any) -> int:
        """Write all of data."""
        view = memoryview(data)
        while len(view) and self.failure is None:
            try:
                view = view[super().write(view) :]
            except OSError as error:
                self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Make the file that long."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


def _whole_chunks(dataset: h5py.Dataset, rows: int) -> int:
    """About so many rows, but no chunk in two reads of them unless its rows are large."""
    chunk = rows if dataset.chunks is None else dataset.chunks[0]
    if chunk > rows and chunk * dataset.nbytes > _LARGE * len(dataset):
        return rows
    return max(chunk, rows - rows % chunk)


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
