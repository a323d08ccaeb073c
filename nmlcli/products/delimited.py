"""CSV and TSV as bytes: cells by position, so that one column can change and no other byte does.

The dialect is the usual one: cells in double quotes may hold delimiters, line ends and doubled
quotes; lines end with LF, CRLF or CR; blank lines are no rows. Values are text; nothing is guessed.
"""

import mmap
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any

from nmlcli.errors import InvalidInput

Bytes = bytes | mmap.mmap

_BOM = b"\xef\xbb\xbf"
_BATCH = 8192  # rows


class Delimited:
    """A table of delimited text whose first row names the columns.

    columns: the names, in order. data: all of its bytes. Raises InvalidInput, naming the line, for a
    row of another length than the header, an unclosed quote, text behind a closing quote, and cells
    that are not UTF-8.
    """

    def __init__(self, data: Bytes, source: str, delimiter: bytes | None = None) -> None:
        self.source = source
        self.data = data
        start = len(_BOM) if data[: len(_BOM)] == _BOM else 0
        while data[start : start + 1] in (b"\r", b"\n"):
            start += 1
        self._delimiter = delimiter or _sniff(_line(data, start))
        # The possessive quantifiers keep hostile input linear: a cell is never tried twice.
        self._cell = rb'(?:[^"%s\r\n][^%s\r\n]*+|"(?:[^"]++|"")*+"|(?!"))' % (
            (re.escape(self._delimiter),) * 2
        )
        header, self._header_end = self._row(start)
        self._header_quoted = header[-1][:1] == b'"'
        self.columns = tuple(self._text(cell, start) for cell in header)
        twice = [name for i, name in enumerate(self.columns) if name in self.columns[:i]]
        if twice:
            raise InvalidInput(f"{source} has two columns {twice[0]}", "rename one")

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[list[str], ...]]:
        """Values of the named columns, a list a column, some thousand rows at a time."""
        wanted = [self.columns.index(name) for name in columns]
        cells = [b"(%s)" % self._cell if i in wanted else self._cell for i in range(len(self.columns))]
        places = [sorted(set(wanted)).index(i) for i in wanted]
        for batch in self._matches(re.escape(self._delimiter).join(cells)):
            groups = list(zip(*map(re.Match.groups, batch), strict=True))
            yield tuple(self._texts(groups[place], batch) for place in places)

    def relabelled(self, column: str, values: Iterator[Any], added: str) -> Iterator[bytes]:
        """The table with new values in a column and its old cells as a column added at the end.

        values: one a row, None where the old one stays. A new cell is quoted if the old one was or
        the value needs it.
        """
        before = self.columns.index(column)
        behind = len(self.columns) - before - 1
        comma = re.escape(self._delimiter)
        pattern = rb"((?:%s%s){%d})(%s)((?:%s%s){%d})" % (
            self._cell, comma, before, self._cell, comma, self._cell, behind,
        )  # fmt: skip
        name = self._quoted(added) if self._header_quoted else self._plain(added)
        yield self.data[: self._header_end] + self._delimiter + name
        yield self.data[self._header_end : self._rows_start]
        for batch in self._matches(pattern):
            heads, olds, tails, ends, _ = zip(*map(re.Match.groups, batch), strict=True)
            cells = list(olds)
            for row, value in enumerate(islice(values, len(batch))):
                if value is not None:
                    quote = self._quoted if olds[row][:1] == b'"' else self._plain
                    cells[row] = quote(value)
            rows = zip(heads, cells, tails, repeat(self._delimiter), olds, ends, strict=False)
            yield b"".join(chain.from_iterable(rows))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The file names that readers take for this form end in one of these."""
        return (".csv", ".tsv") if self._delimiter == b"\t" else (".csv",)

    @property
    def _rows_start(self) -> int:
        end = self._header_end
        while self.data[end : end + 1] in (b"\r", b"\n"):
            end += 1
        return end

    def _matches(self, row: bytes) -> Iterator[list[re.Match[bytes]]]:
        # Blank lines belong to the end of the row before them; what is no row is matched up to the
        # end of the file, so it can only be the last match.
        start = rb"(?!\Z)" if len(self.columns) == 1 else b""  # where a row could be empty
        pattern = re.compile(rb"%s%s([\r\n]++|\Z)|([\s\S]++)" % (start, row))
        matches = pattern.finditer(self.data, self._rows_start)
        while batch := list(islice(matches, _BATCH)):
            if batch[-1][pattern.groups] is not None:
                self._explain(batch[-1].start())
            yield batch

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

    def _texts(self, cells: Sequence[bytes], batch: Sequence[re.Match[bytes]]) -> list[str]:
        joined = b"\n".join(cells)
        try:
            if b'"' not in joined:  # then no cell holds a line end: decode them all at once
                return joined.decode().split("\n")
            return [_unquoted(cell).decode() for cell in cells]
        except UnicodeDecodeError:
            return [self._text(cell, match.start()) for cell, match in zip(cells, batch, strict=True)]

    def _text(self, cell: bytes, position: int) -> str:
        try:
            return _unquoted(cell).decode()
        except UnicodeDecodeError as error:
            line = self._line(position)
            raise InvalidInput(f"{self.source}: line {line} is not UTF-8", "recode it") from error

    def _plain(self, value: str) -> bytes:
        special = value[:1] == '"' or any(c in value for c in ("\r", "\n", self._delimiter.decode()))
        return self._quoted(value) if special else value.encode()

    @staticmethod
    def _quoted(value: str) -> bytes:
        return b'"%s"' % value.replace('"', '""').encode()


def _unquoted(cell: bytes) -> bytes:
    return cell[1:-1].replace(b'""', b'"') if cell[:1] == b'"' else cell


def _line(data: Bytes, start: int) -> bytes:
    ends = [end for end in (data.find(b"\n", start), data.find(b"\r", start)) if end >= 0]
    return data[start : min(ends, default=len(data))]


def _sniff(header: bytes) -> bytes:
    """The delimiter that the header has most of, outside quotes; a comma where it has none."""
    bare = re.sub(rb'"(?:[^"]|"")*+"', b"", header)
    return max((b",", b"\t", b";", b"|"), key=bare.count)
