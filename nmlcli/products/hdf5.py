"""HDF5 files: named arrays as datasets at the root, the record as a text dataset `nml`.

An HDF5 file can point at other files and ask for more memory than there is, so of a dataset only
what is wholly inside the file is read.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Array, Arrays, Rows, Tensor
from nmlcli.provenance import KEY, Record, parse_record

MOST_DEFLATED = 1100  # no compression of HDF5's own makes less of it; a file that says so is a trap

_END = slice(28, 36)  # where a superblock of version 2 or 3 says how long the file is


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

    def arrays(self, names: Iterable[str]) -> dict[str, Array]:
        """Read those of these arrays that are there."""
        with self._reading():
            return {name: self._checked(name)[()] for name in names if name in self.tensors}

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """Iterate row blocks [≤ rows, …] of one array."""
        with self._reading():
            dataset = self._checked(name)
        for start in range(0, len(dataset), rows):
            with self._reading():
                block = dataset[start : start + rows]
            yield block

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            reason = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
            raise InvalidInput(f"{self.source} is damaged, or not HDF5 ({reason})") from error

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
        stored = dataset.id.get_storage_size()
        if dataset.chunks is None:
            whole = stored == dataset.nbytes
        else:
            wanted = math.prod(-(-n // k) for n, k in zip(dataset.shape, dataset.chunks, strict=True))
            whole = dataset.id.get_num_chunks() == wanted
        if not whole or dataset.nbytes > stored * MOST_DEFLATED:
            wrong = f"{self.source}: {name} is not wholly there"
            raise InvalidInput(wrong, "it was cut short when written")
        return dataset

    def _read_record(self) -> Record:
        dataset = self._checked(KEY)
        if dataset.dtype.kind != "S" or dataset.shape != ():
            raise InvalidInput(f"{self.source}: its nml record is not text")
        return parse_record(bytes(dataset[()]), self.source)


def write_hdf5(path: Path, record: Record, arrays: Arrays, rows: Rows | None = None) -> None:
    """Write the record, the arrays, then the rows in chunks of about 1 MiB.

    HDF5 makes all but the rows in memory and says where those go; they are written past it. It
    crashes where its own writes fail, be it by a full disk or by Ctrl-C.
    """
    skeleton = io.BytesIO()
    # The format of HDF5 1.10 is the first with checksums over all that is not data.
    with h5py.File(skeleton, "w", libver=("v110", "v110")) as file:
        file.create_dataset(KEY, data=np.bytes_(record.to_json().encode()))
        for name, array in arrays.items():
            file.create_dataset(name, data=np.ascontiguousarray(array).reshape(np.shape(array)))
        start = _reserve(file, rows) if rows is not None else 0
    with path.open("wb") as out:
        out.write(skeleton.getbuffer())
        if rows is not None:
            out.seek(start)
            for block in rows.checked(rows.per_mebibyte()):
                out.write(block.reshape(-1).view(np.uint8).data)
        out.truncate(int.from_bytes(skeleton.getbuffer()[_END], "little"))


def _reserve(file: h5py.File, rows: Rows) -> int:
    """Make a dataset without its values; returns the byte of the file from which they lie."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    chunk = min(rows.per_mebibyte(), rows.shape[0])
    dataset = file.create_dataset(
        rows.name, rows.shape, rows.dtype.newbyteorder("<"), chunks=(chunk, *rows.shape[1:]),
        dcpl=creation,
    )  # fmt: skip
    count = dataset.id.get_num_chunks()
    first, last = dataset.id.get_chunk_info(0), dataset.id.get_chunk_info(count - 1)
    if last.byte_offset != first.byte_offset + (count - 1) * first.size:
        raise RuntimeError("HDF5 did not lay the chunks one after another")
    return int(first.byte_offset)
