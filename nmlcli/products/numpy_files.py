"""numpy's own files, .npy and .npz, block by block; nothing in them is ever unpickled.

An .npz is read through the archive's streams, so that a compressed one takes no more memory than a
block; what its directory says of sizes is believed only as far as the file's own size allows.
"""

import math
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.container import Array, Rows, Tensor
from nmlcli.products.features import Features
from nmlcli.products.foreign import (
    Beside,
    Cells,
    Matrix,
    beside_columns,
    features_of,
    of_text,
    refuse_names,
    require_floats,
)
from nmlcli.products.ids import repeated
from nmlcli.products.tables import read_table_record
from nmlcli.products.vectors import Asked
from nmlcli.provenance import KEY, Record, hash_file, parse_record

MOST_DEFLATED = 1100  # deflate makes no less of anything; an archive that says so is a trap
MOST_EMPTY = 2**20  # rows of less than a byte
LONGEST_TEXT = 2**26  # bytes of one text in an array

_DAMAGE = (
    OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, SyntaxError, MemoryError,
    ArithmeticError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
MATRICES = ("features", "embeddings", "embedding")

Open = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Npy:
    """An array in numpy's form: what its header says; its bytes follow from start on."""

    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    by_columns: bool  # Fortran's order
    start: int
    open: Open
    what: str

    def blocks(self, rows: int) -> Iterator[Array]:
        """Iterate row blocks [≤ rows, …] in order."""
        with self.open() as file:
            if self.by_columns and len(self.shape) == 2:
                yield from self._by_columns(file, rows)
                return
            _take(file, self.start, self.what)
            row = math.prod(self.shape[1:])
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                data = _take(file, count * row * self.dtype.itemsize, self.what)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
            with _reading(self.what):
                file.read(1)  # an archive checks its sum at the end

    def _by_columns(self, file: IO[bytes], rows: int) -> Iterator[Array]:
        """The same of an array that lies column by column; an archive's is unpacked to disk first."""
        if not isinstance(file, zipfile.ZipExtFile):  # whose seek reads all that lies before
            yield from self._gathered(file, rows)
            return
        with tempfile.TemporaryFile() as spool:
            with _reading(self.what):
                shutil.copyfileobj(file, spool, 2**20)
            yield from self._gathered(spool, rows)

    def _gathered(self, file: IO[bytes], rows: int) -> Iterator[Array]:
        count, columns = self.shape
        for start in range(0, count, rows):
            height = min(rows, count - start)
            block = np.empty((columns, height), self.dtype)
            for column in range(columns):
                file.seek(self.start + (column * count + start) * self.dtype.itemsize)
                data = _take(file, height * self.dtype.itemsize, self.what)
                block[column] = np.frombuffer(data, self.dtype)
            yield block.T


def open_npy(open_: Open, size: int, what: str) -> Npy:
    """Read an array's header; raises InvalidInput where it is damaged or not as long as it says."""
    with _reading(what, "is not numpy's .npy, or damaged"), open_() as file:
        version = npy_format.read_magic(file)
        readers: dict[tuple[int, int], Any] = {
            (1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0
        }  # fmt: skip
        if version not in readers:
            raise ValueError(f"version {version}")
        shape, by_columns, dtype = readers[version](file)
        start = file.tell()
    if any(n < 0 for n in shape):
        raise InvalidInput(f"{what} has a damaged header")
    if dtype.hasobject:
        require_floats(dtype, shape, what)
    held, wanted = size - start, math.prod(shape) * dtype.itemsize
    if held < wanted:
        raise InvalidInput(f"{what} was cut short: {held:,} of {wanted:,} bytes are there")
    if held > wanted:
        raise InvalidInput(f"{what} goes on for {held - wanted:,} bytes after its end")
    return Npy(dtype, tuple(shape), bool(by_columns), start, open_, what)


class NpzFile:
    """An opened .npz: its arrays' headers. Raises InvalidInput where the archive is damaged."""

    def __init__(self, path: str, source: str) -> None:
        self.source = source
        with _reading(source, "is not numpy's .npz, or damaged"):
            self._archive = zipfile.ZipFile(path)
            members = self._archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if twice := repeated(names):
            raise InvalidInput(f"{source} holds two arrays {twice[0]}")
        self.size = Path(path).stat().st_size
        self._members = dict(zip(names, members, strict=True))
        for name, member in self._members.items():
            _check_member(member, self.size, f"{source}: {name}")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays, in the order of the archive."""
        return tuple(self._members)

    def array(self, name: str) -> Npy:
        """The header of an array."""
        member = self._members[name]

        def open_() -> IO[bytes]:
            with _reading(f"{self.source}: {name}"):
                return self._archive.open(member)

        return open_npy(open_, member.file_size, f"{self.source}: {name}")

    def values(self, name: str | None) -> Cells | None:
        """A one-dimensional array of texts as a list, of whole numbers as it is; None where missing."""
        if name is None or name not in self:
            return None
        array = self.array(name)
        kind, length = array.dtype.kind, array.dtype.itemsize
        if len(array.shape) != 1 or kind not in "USiu" or length > LONGEST_TEXT:
            wanted = "a list of texts or whole numbers"
            raise InvalidInput(f"{array.what} is {array.dtype.name} {list(array.shape)}, not {wanted}")
        blocks = array.blocks(max(1, 2**20 // max(1, length)))
        if kind in "iu":
            return np.concatenate([np.zeros(0, array.dtype), *blocks])
        with _reading(array.what):
            return [
                text.decode() if isinstance(text, bytes) else text
                for block in blocks
                for text in block.tolist()
            ]

    @property
    def record(self) -> Record | None:
        """nml's record, None where there is none."""
        if KEY not in self:
            return None
        array = self.array(KEY)
        if array.dtype.kind != "U" or array.shape != () or array.dtype.itemsize > LONGEST_TEXT:
            raise InvalidInput(f"{self.source}: its nml record is not text")
        whole = Npy(array.dtype, (1,), False, array.start, array.open, array.what)
        with _reading(array.what):
            return parse_record(str(next(whole.blocks(1))[0]), self.source)


def read_npy(path: str, source: str, asked: Asked) -> Features:
    """Read a matrix; its record may lie beside it, ids are row numbers and labels there are none.

    Raises UsageError for a key or a column, since nothing in it has a name.
    """
    if asked.key is not None:
        raise UsageError(f"{source} is one matrix without a name", "leave --key out")
    refuse_names(asked, f"{source} is a matrix alone")
    array = _open_file(path, source)
    shape = require_floats(array.dtype, array.shape, source)
    matrix = Matrix(shape, array.dtype, array.blocks)
    record, _ = of_text(read_table_record(path))
    return features_of(source, partial(hash_file, path), record, Beside(), matrix)


def read_npz(path: str, source: str, asked: Asked) -> Features:
    """Read the arrays features (or the key), labels, clean_labels, ids and classes of an archive."""
    archive = NpzFile(path, source)
    wanted = (asked.key,) if asked.key is not None else MATRICES
    name = next((name for name in wanted if name in archive), None)
    if name is None:
        held = first(archive.names, 8) or "nothing"
        raise InvalidInput(f"{source} has no {wanted[0]}, but {held}", "name the array with --key")
    array = archive.array(name)
    shape = require_floats(array.dtype, array.shape, array.what)
    if shape[0] > archive.size + MOST_EMPTY:  # each row takes memory: its id
        raise InvalidInput(f"{array.what} has {shape[0]:,} rows in {archive.size:,} bytes", "a trap?")
    names = (*beside_columns(asked, archive.names, source, ("ids",), "labels"), "classes")
    ids, labels, clean, classes = (archive.values(each) for each in names)
    beside = Beside(
        None if ids is None else [str(name) for name in ids], labels, clean,
        None if classes is None else tuple(str(name) for name in classes),
    )  # fmt: skip
    if beside.classes and (twice := repeated(beside.classes)):
        raise InvalidInput(f"{source} names a class twice: {first(twice)}")
    matrix = Matrix(shape, array.dtype, array.blocks)
    return features_of(source, partial(hash_file, path), archive.record, beside, matrix)


def _open_file(path: str, source: str) -> Npy:
    file = Path(path)
    return open_npy(lambda: file.open("rb"), file.stat().st_size, source)


def npy_arrays(path: str) -> dict[str, Tensor]:
    """What a matrix's header says of it."""
    array = _open_file(path, path)
    return {"array": Tensor(array.dtype.name, array.shape)}


def npz_arrays(path: str) -> dict[str, Tensor]:
    """What the headers of an archive's arrays say of them, nml's record apart."""
    archive = NpzFile(path, path)
    arrays = {name: archive.array(name) for name in archive.names if name != KEY}
    return {name: Tensor(array.dtype.name, array.shape) for name, array in arrays.items()}


def npz_record(path: str) -> Record | None:
    """The record in an archive."""
    return NpzFile(path, path).record


def write_npy(path: Path, features: Features, _: str) -> None:
    """Write the matrix alone."""
    with path.open("wb") as file:
        _write_matrix(file, features)


def write_npz(path: Path, features: Features, key: str) -> None:
    """Write an archive that numpy loads without pickles: nml, classes, labels, ids, features.

    Raises InvalidInput for an id or class that ends in NUL, which numpy's texts cannot, and for a key
    that would lead out of where the archive is unpacked.
    """
    record = features.record
    texts = {KEY: [record.to_json()], "classes": record.classes, "ids": features.ids}
    labels = {"labels": features.labels, "clean_labels": features.clean_labels}
    if key in texts or key in labels or set(key) & set("/\\\0"):
        raise InvalidInput(f"an array of features cannot be named {key}", "give another --key")
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in texts.items():
            if values is not None:
                with archive.open(_member(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as file:
                    _write_texts(file, values, scalar=name == KEY)
        for name, numbers in labels.items():
            if numbers is not None:
                with archive.open(_member(name), "w", force_zip64=True) as file:
                    npy_format.write_array(file, numbers.astype("<i8"), allow_pickle=False)
        with archive.open(_member(key), "w", force_zip64=True) as file:
            _write_matrix(file, features)


def _member(name: str, compression: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that the bytes are the same again
    member.compress_type = compression
    member.external_attr = 0o644 << 16
    return member


def _write_matrix(file: IO[bytes], features: Features) -> None:
    rows = Rows("features", features.dtype, (features.rows, features.columns), features.blocks)
    _write_header(file, features.dtype.newbyteorder("<").str, rows.shape)
    for block in rows.checked(rows.per_mebibyte()):
        file.write(block.reshape(-1).view(np.uint8).data)


def _write_texts(file: IO[bytes], values: Sequence[str], *, scalar: bool) -> None:
    width = max(1, max(map(len, values), default=1))
    _write_header(file, f"<U{width}", () if scalar else (len(values),))
    step = max(1, 2**18 // width)
    for start in range(0, len(values), step):
        part = values[start : start + step]
        if ended := [text for text in part if text.endswith("\0")]:
            raise InvalidInput(f"an .npz cannot hold {ended[0]!r}", "write .h5 or .parquet")
        file.write(np.array(part, f"<U{width}").tobytes())


def _write_header(file: IO[bytes], descr: str, shape: tuple[int, ...]) -> None:
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)


def _check_member(member: zipfile.ZipInfo, size: int, what: str) -> None:
    """Refuse a member whose size its archive cannot hold, or whose compression has no bounds."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInput(f"{what} is compressed in a way that numpy does not write")
    most = member.compress_size
    if member.compress_type == zipfile.ZIP_DEFLATED:
        most *= MOST_DEFLATED
    if member.compress_size > size or member.file_size > most:
        raise InvalidInput(f"{what} is said to be larger than the archive can hold")


def _take(file: IO[bytes], count: int, what: str) -> bytes:
    with _reading(what):
        data = file.read(count)
    if len(data) < count:
        raise InvalidInput(f"{what} was cut short")
    return data


@contextmanager
def _reading(what: str, wrong: str = "is damaged") -> Iterator[None]:
    try:
        yield
    except InvalidInput:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInput(f"{what} {wrong} ({reason[:200]})") from error
