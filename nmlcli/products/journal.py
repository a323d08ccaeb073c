"""Rows on disk as they are made, so that a killed run goes on from them; no product, it never travels.

The first line says in text what the rows are of. Frames follow: how many rows (uint32), a CRC-32 and
the values, little-endian. Each checksum also covers those before it, so that what an older file left
on the disk is not taken for rows. HDF5 is no place for them: killed amid writing, its files do not
open.
"""

import fcntl
import json
import math
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from zlib import crc32

import numpy as np

from nmlcli.errors import InvalidInput, NmlError, first
from nmlcli.products.container import Array, in_blocks
from nmlcli.provenance import Facts, canonical

_MAGIC = b"nml rows 1 "
_HEADER = re.compile(_MAGIC + rb"(\{.*\}) ([0-9a-f]{8})\n")
_LONGEST = 2**16  # bytes by which a header of another run may be longer than ours
_FRAME = struct.Struct("<II")
_LARGEST = 2**26  # bytes of a frame, unless one row is more: a damaged count costs no more memory
_AT_RISK = 2.0  # seconds of rows that a power cut may cost


class _Place(NamedTuple):
    """Where a frame ends. One value, so that an interrupt cannot come between its parts."""

    rows: int
    position: int
    checksum: int


class Journal:
    """Rows on disk, block after block; made by `open`, used in a `with` statement.

    A process that is killed loses no row that `append` came back from, a power cut the last seconds.
    path: the file, which one process holds at a time. shape: of a row, (D,) or (K, D). dtype: of its
    values. In a process that reads blocks and appends, both see the same rows.
    """

    def __init__(
        self, path: Path, handle: int, shape: tuple[int, ...], dtype: "np.dtype[Any]", start: _Place
    ) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._handle, self._start, self._end = handle, start, start
        self._row = math.prod(shape) * dtype.itemsize
        self._flushed = time.monotonic()
        for _, after in self._frames(os.fstat(handle).st_size):
            self._end = after
        os.ftruncate(handle, self._end.position)

    @classmethod
    def open(
        cls, path: str | Path, about: Facts, shape: tuple[int, ...], dtype: "np.dtype[Any]"
    ) -> "Journal":
        """Start a file, or go on with one about the same; what is not whole at its end goes.

        about: all that decides the rows, for JSON. Raises InvalidInput for a file that is no journal or
        about something else, NmlError where another process holds it or it cannot be written.
        """
        path, header = Path(path), _header(about, shape, dtype)
        with _named(path, "write"):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _hold(path, handle)
                if _is_new(path, handle, header):
                    _begin(path, handle, header)
                return cls(path, handle, shape, dtype, _Place(0, len(header), crc32(header)))
            except BaseException:
                os.close(handle)
                raise

    @property
    def rows(self) -> int:
        """How many rows are there."""
        return self._end.rows

    def append(self, block: Array) -> None:
        """Add rows [n, *shape] of the journal's dtype.

        Raises NmlError where the disk is full; after that, as after an interrupt, rows says how many
        are there: those before, and of a block beyond 64 MiB perhaps a part.
        """
        if block.shape[1:] != self.shape or block.dtype != self.dtype:
            raise ValueError(f"a block {block.dtype} {block.shape} is not {self.dtype} {self.shape}")
        most = max(1, _LARGEST // max(1, self._row))
        little = np.ascontiguousarray(block, dtype=self.dtype.newbyteorder("<"))
        with _named(self.path, "write"):
            for start in range(0, len(little), most):
                self._append(little[start : start + most])
            if time.monotonic() - self._flushed > _AT_RISK:
                os.fsync(self._handle)
                self._flushed = time.monotonic()

    def _append(self, block: Array) -> None:
        data, at = block.reshape(-1).view(np.uint8).data, self._end
        checksum = _checksum(len(block), data, at.checksum)
        _write(self._handle, _FRAME.pack(len(block), checksum), at.position)
        _write(self._handle, data, at.position + _FRAME.size)
        self._end = _Place(at.rows + len(block), at.position + _FRAME.size + len(data), checksum)

    def blocks(self, rows: int) -> Iterator[Array]:
        """Iterate row blocks [≤ rows, *shape] in order; raises InvalidInput where some are lost."""
        return in_blocks(self._blocks(), rows)

    def _blocks(self) -> Iterator[Array]:
        rows, end = 0, self._end
        for block, after in self._frames(end.position):
            yield block
            rows = after.rows
        if rows < end.rows:
            wrong = f"{self.path} is damaged from row {rows:,} on"
            raise InvalidInput(wrong, "run it again, which keeps the rows before")

    def _frames(self, stop: int) -> Iterator[tuple[Array, _Place]]:
        """The rows of each frame and where it ends, up to stop or the first that is not whole."""
        at = self._start
        while stop - at.position > _FRAME.size:
            count, checksum = _FRAME.unpack(self._read(_FRAME.size, at.position))
            length, start = count * self._row, at.position + _FRAME.size
            if not count or length > min(stop - start, max(_LARGEST, self._row)):
                return
            data = self._read(length, start)
            if len(data) < length or _checksum(count, data, at.checksum) != checksum:
                return
            at = _Place(at.rows + count, start + length, checksum)
            block = np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(count, *self.shape)
            yield block.astype(self.dtype, copy=False), at

    def _read(self, size: int, position: int) -> bytearray:
        with _named(self.path, "read"):
            return _read(self._handle, size, position)

    def close(self) -> None:
        """Flush the rows to the disk, and let go of the file."""
        if self._handle >= 0:
            with _named(self.path, "write"):
                try:
                    os.fsync(self._handle)
                finally:
                    self._let_go()

    def remove(self) -> None:
        """Delete the file, and let go of it."""
        with _named(self.path, "remove"):
            self.path.unlink(missing_ok=True)  # while it is held, so that nobody takes it up
        self._let_go()

    def _let_go(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _header(about: Facts, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> bytes:
    facts = canonical({"about": about, "dtype": dtype.name, "shape": shape}).encode()
    return b"%s%s %08x\n" % (_MAGIC, facts, crc32(facts))


def _hold(path: Path, handle: int) -> None:
    """Lock a file for this process alone, which ends with the process; see that it is a file."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{path} is no plain file", "give another -o")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(handle).st_nlink > 0  # else it was removed since it was opened
    except BlockingIOError:
        free = False
    except OSError:
        free = True  # a file system without locks
    if not free:
        raise NmlError(f"another run is writing {path}", "wait for it, or give another -o")


def _is_new(path: Path, handle: int, header: bytes) -> bool:
    """Whether a file has no whole header yet; raises InvalidInput where it is not about the same."""
    start = bytes(_read(handle, len(header) + _LONGEST, 0))
    line = start[: start.find(b"\n") + 1]
    if line == header:
        return False
    match = _HEADER.fullmatch(line)
    if match and int(match[2], 16) == crc32(match[1]):
        wrong = f"{path} is of another run ({_differences(match[1], header)})"
        raise InvalidInput(wrong, "repeat that one, or remove the file to start anew")
    # A kill may cut a header short, and a power cut leave zeros in its place; no row is behind it then.
    text = start.rstrip(b"\0")
    short = len(start) <= len(header) and not line and b"\0" not in text
    if short and text[: len(_MAGIC)] == _MAGIC[: len(text)]:
        return True
    if text.startswith(_MAGIC):
        raise InvalidInput(f"{path} is damaged in its first line", "remove it to start anew")
    raise InvalidInput(f"{path} is not of nml", "move it away, or give another -o")


def _differences(held: bytes, header: bytes) -> str:
    """What tells two headers apart, for a message."""
    sides: list[dict[str, Any]] = []
    for text in (held, header[len(_MAGIC) : header.rindex(b" ")]):
        facts = json.loads(text)
        sides.append({**facts.pop("about"), **facts})
    old, new = sides
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return first(
        [f"{name} {canonical(old.get(name))}, not {canonical(new.get(name))}" for name in names]
    )


def _begin(path: Path, handle: int, header: bytes) -> None:
    """Write the header so that it and the file's name are on the disk before any row."""
    os.ftruncate(handle, 0)
    _write(handle, header, 0)
    os.fsync(handle)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _checksum(count: int, data: bytes | bytearray | memoryview, before: int) -> int:
    return crc32(data, crc32(count.to_bytes(4, "little"), before))


def _write(handle: int, data: bytes | memoryview, position: int) -> None:
    view = memoryview(data)
    while len(view):
        count = os.pwrite(handle, view, position)
        view, position = view[count:], position + count


def _read(handle: int, size: int, position: int) -> bytearray:
    """So many bytes from a position, in one call or several; fewer only where the file ends."""
    data, done = bytearray(size), 0
    while done < size and (count := os.preadv(handle, [memoryview(data)[done:]], position + done)):
        done += count
    del data[done:]
    return data


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NmlError(f"cannot {what} {path}: {error.strerror or error}") from error
