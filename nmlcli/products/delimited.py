"""CSV and TSV as bytes: cells by position, so that one column can change and no other byte does.

The dialect is the usual one: cells in double quotes may hold delimiters, line ends and doubled
quotes; lines end with LF, CRLF or CR; blank lines are no rows. Values are text; nothing is guessed.
"""

import hashlib
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate, chain, islice, repeat
from operator import add
from typing import Any, BinaryIO

from nmlcli.errors import InvalidInput
from nmlcli.provenance import Record

Bytes = bytes | mmap.mmap

BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 18  # bytes


@dataclass
class _Block:
    """Some rows: their bytes, their line ends, their cells row by row; where they start and stop."""

    rows: list[bytes]
    ends: list[bytes]
    cells: list[bytes]
    start: int
    stop: int


class Delimited:
    """A table of delimited text whose first row names the columns.

    columns: the names, in order. data: all of its bytes. Raises InvalidInput, naming the line, for a
    row of another length than the header, an unclosed quote, text behind a closing quote, and cells
    that are not UTF-8.
    """

    def __init__(self, data: Bytes, source: str, delimiter: bytes | None = None) -> None:
        self.source = source
        self.data = data
        start = _skip_ends(data, len(BOM) if data[: len(BOM)] == BOM else 0)
        header_line = re.compile(rb"[^\r\n]*").match(data, start)
        self._delimiter = delimiter or _sniff(header_line[0] if header_line else b"")
        # The possessive quantifiers keep hostile input linear: a cell is never tried twice.
        self._cell = rb'(?:[^"%s\r\n][^%s\r\n]*+|"(?:[^"]++|"")*+"|(?!"))' % (
            (re.escape(self._delimiter),) * 2
        )
        header, self._header_end = self._row(start)
        self._rows_start = _skip_ends(data, self._header_end)
        self._header_quoted = header[-1][:1] == b'"'
        self.columns = tuple(self._text(cell, start) for cell in header)
        twice = [name for i, name in enumerate(self.columns) if name in self.columns[:i]]
        if twice:
            raise InvalidInput(f"{source} has two columns {twice[0]}", "rename one")

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[list[str], ...]]:
        """Values of the named columns, a list a column, some thousand rows at a time."""
        places, width = [self.columns.index(name) for name in columns], len(self.columns)
        for block in self._blocks():
            if len(places) == width:  # of many columns it is far quicker to decode all at once
                texts = self._texts(block.cells, block)
                yield tuple(texts[place::width] for place in places)
            else:
                yield tuple(self._texts(block.cells[place::width], block) for place in places)

    def relabelled(self, column: str, values: Iterator[Any], added: str | None) -> Iterator[bytes]:
        """The table with new values in a column and its old cells as a column added at the end.

        values: one a row, None where the old one stays. added: None for no such column. A new cell is
        quoted if the old one was or the value needs it.
        """
        place, width = self.columns.index(column), len(self.columns)
        bare = lru_cache(1 << 16)(partial(plain, delimiter=self._delimiter))
        yield self.data[: self._header_end]
        if added is not None:
            yield self._delimiter + (quoted(added) if self._header_quoted else bare(added))
        yield self.data[self._header_end : self._rows_start]
        for block in self._blocks():
            rows, olds = block.rows, block.cells[place::width]
            for row, value in enumerate(islice(values, len(rows))):
                if value is not None:
                    cells = block.cells[row * width : (row + 1) * width]
                    cells[place] = (quoted if cells[place][:1] == b'"' else bare)(value)
                    rows[row] = self._delimiter.join(cells)
            more = () if added is None else (repeat(self._delimiter), olds)
            yield b"".join(chain.from_iterable(zip(rows, *more, block.ends, strict=False)))

    def write_edited(
        self, file: BinaryIO, column: str, values: Iterator[Any], added: str | None, record: Record
    ) -> None:
        """Write what relabelled gives; text has no room for a record."""
        file.writelines(self.relabelled(column, values, added))

    @property
    def identity(self) -> str:
        """A hash of all bytes."""
        return hash_bytes(self.data)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The file names that readers take for this form end in one of these."""
        return (".csv", ".tsv") if self._delimiter == b"\t" else (".csv",)

    def _blocks(self) -> Iterator["_Block"]:
        """The rows, a chunk at a time: split where that is enough, matched where it is not."""
        position = self._rows_start
        while position < len(self.data):
            stop = self.data.rfind(b"\n", position, position + _CHUNK) + 1
            block = self._split(position, stop) or self._matched(position, stop)
            forget(self.data, position, block.stop)
            position = block.stop
            yield block

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        # Blank lines belong to the end of the row before them; the last group is what is no row.
        row = re.escape(self._delimiter).join([b"(%s)" % self._cell] * len(self.columns))
        return re.compile(rb"%s([\r\n]++|\Z)|([\s\S])" % row)

    def _split(self, position: int, stop: int) -> "_Block | None":
        """The rows of a stretch of whole lines; None where it has quotes, blank lines or odd ends."""
        chunk = self.data[position:stop]
        end = b"\r\n" if b"\r" in chunk else b"\n"
        lines = chunk.split(end)[:-1]
        width = len(self.columns)
        if b'"' in chunk or width == 1 or chunk.count(b"\r") not in (0, len(lines)):
            return None
        if chunk.count(b"\n") != len(lines) or self.data[stop : stop + 1] in (b"\r", b"\n"):
            return None
        if set(map(bytes.count, lines, repeat(self._delimiter))) != {width - 1}:
            return None
        cells = self._delimiter.join(lines).split(self._delimiter)
        return _Block(lines, [end] * len(lines), cells, position, stop)

    def _matched(self, position: int, stop: int) -> "_Block":
        """The rows from a position up to a stop, or what fits into a chunk, whatever they hold."""
        block = _Block([], [], [], position, position)
        stop = stop or position + _CHUNK
        for match in self._pattern.finditer(self.data, position):
            *cells, end, rest = match.groups()
            if rest is not None:
                self._explain(match.start())
            block.rows.append(self._delimiter.join(cells))
            block.ends.append(end)
            block.cells += cells
            block.stop = match.end()
            if block.stop >= min(stop, len(self.data)):
                break
        return block

    def _row(self, position: int) -> tuple[list[bytes], int]:
        """The cells of the row at a position, and where it ends."""
        cell, cells = re.compile(self._cell), []
        while True:
            match = cell.match(self.data, position)
            if match is None:
                raise InvalidInput(
                    f"{self.source}: line {self._line(position)} opens a quote and never closes it"
                )
            cells.append(match[0])
            position = match.end()
            if self.data[position : position + 1] != self._delimiter:
                break
            position += 1
        if self.data[position : position + 1] not in (b"", b"\r", b"\n"):
            line = self._line(position)
            raise InvalidInput(f"{self.source}: line {line} has text behind a closing quote")
        return cells, position

    def _explain(self, position: int) -> None:
        got = len(self._row(position)[0])
        line, wanted = self._line(position), len(self.columns)
        raise InvalidInput(f"{self.source}: line {line} has {got} cells, the header {wanted}")

    def _line(self, position: int) -> int:
        return len(re.findall(rb"\r\n|\n|\r", self.data[:position])) + 1

    def _texts(self, cells: Sequence[bytes], block: "_Block") -> list[str]:
        joined = b"\n".join(cells)
        try:
            if b'"' not in joined:  # then no cell holds a line end: decode them all at once
                return joined.decode().split("\n")
            return [_unquoted(cell).decode() for cell in cells]
        except UnicodeDecodeError:
            starts = accumulate(map(len, map(add, block.rows, block.ends)), initial=block.start)
            each = len(cells) // len(block.rows)
            places = (start for start in starts for _ in range(each))
            return [self._text(cell, place) for cell, place in zip(cells, places, strict=False)]

    def _text(self, cell: bytes, position: int) -> str:
        try:
            return _unquoted(cell).decode()
        except UnicodeDecodeError as error:
            line = self._line(position)
            raise InvalidInput(f"{self.source}: line {line} is not UTF-8", "recode it") from error


def plain(value: str, delimiter: bytes = b",") -> bytes:
    """A cell of a value, in quotes where it needs them."""
    special = value[:1] == '"' or any(c in value for c in ("\r", "\n", delimiter.decode()))
    return quoted(value) if special else value.encode()


def quoted(value: str) -> bytes:
    """A cell of a value in quotes."""
    return b'"%s"' % value.replace('"', '""').encode()


def forget(data: Bytes, start: int, stop: int) -> None:
    """Let go of a stretch of a mapped file: what was read counts as this process's memory."""
    if isinstance(data, mmap.mmap):
        start -= start % mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, start, stop - start)


def hash_bytes(data: Bytes) -> str:
    """The identity of a table: a hash of its bytes, 32 hex digits, as hash_file gives of a file."""
    found = hashlib.sha256()
    for start in range(0, len(data), _CHUNK):
        found.update(data[start : start + _CHUNK])
        forget(data, start, min(start + _CHUNK, len(data)))
    return found.hexdigest()[:32]


def _unquoted(cell: bytes) -> bytes:
    return cell[1:-1].replace(b'""', b'"') if cell[:1] == b'"' else cell


def _skip_ends(data: Bytes, position: int) -> int:
    while data[position : position + 1] in (b"\r", b"\n"):
        position += 1
    return position


def _sniff(header: bytes) -> bytes:
    """The delimiter that the header has most of, outside quotes; a comma where it has none."""
    bare = re.sub(rb'"(?:[^"]|"")*+"', b"", header)
    return max((b",", b"\t", b";", b"|"), key=bare.count)
