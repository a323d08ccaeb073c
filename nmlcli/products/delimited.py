"""CSV and TSV as bytes: cells by position, so that one column can change and no other byte does.

The dialect is the usual one: cells in double quotes may hold delimiters, line ends and doubled
quotes; lines end with LF, CRLF or CR; blank lines are no rows. Values are text; nothing is guessed.
"""

import mmap
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from nmlcli.errors import InvalidInput

Bytes = bytes | mmap.mmap

_BOM = b"\xef\xbb\xbf"
_BATCH = 8192  # rows


class Delimited:
    """A table of delimited text whose first row names the columns.

    columns: the names, in order. Raises InvalidInput, naming the line, for a row of another length
    than the header, an unclosed quote, text behind a closing quote, and cells that are not UTF-8.
    """

    def __init__(self, data: Bytes, source: str, delimiter: bytes | None = None) -> None:
        self.source = source
        self._data = data
        start = len(_BOM) if data[: len(_BOM)] == _BOM else 0
        while data[start : start + 1] in (b"\r", b"\n"):
            start += 1
        self._delimiter = delimiter or _sniff(_line(data, start))
        # The possessive quantifiers keep hostile input linear: a cell is never tried twice.
        self._cell = rb'(?:"(?:[^"]++|"")*+"|(?!")[^%s\r\n]*+)' % re.escape(self._delimiter)
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
        groups = [sorted(set(wanted)).index(i) + 1 for i in wanted]
        for batch in self._matches(re.escape(self._delimiter).join(cells)):
            yield tuple([self._text(m[group], m) for m in batch] for group in groups)

    def relabelled(
        self, column: str, batches: Iterable[tuple[Sequence[str], Sequence[bool]]], added: str
    ) -> Iterator[bytes]:
        """The table with new values in a column and its old cells as a column added at the end.

        batches: values of the column and whether they differ from the old ones, in the batches that
        batches() gives. A changed cell is quoted if the old one was or the value needs it.
        """
        before = self.columns.index(column)
        behind = len(self.columns) - before - 1
        comma = re.escape(self._delimiter)
        pattern = rb"((?:%s%s){%d})(%s)((?:%s%s){%d})" % (
            self._cell, comma, before, self._cell, comma, self._cell, behind,
        )  # fmt: skip
        name = self._quoted(added) if self._header_quoted else self._plain(added)
        yield self._data[: self._header_end] + self._delimiter + name
        yield self._data[self._header_end : self._rows_start]
        delimiter = self._delimiter
        for batch, (values, changed) in zip(self._matches(pattern), batches, strict=True):
            rows: list[bytes] = []
            for match, value, differs in zip(batch, values, changed, strict=True):
                head, old, tail, end, _ = match.groups()
                new = self._like(old, value) if differs else old
                rows += (head, new, tail, delimiter, old, end)
            yield b"".join(rows)

    @property
    def _rows_start(self) -> int:
        end = self._header_end
        while self._data[end : end + 1] in (b"\r", b"\n"):
            end += 1
        return end

    def _matches(self, row: bytes) -> Iterator[list[re.Match[bytes]]]:
        # Blank lines belong to the end of the row before them; what is no row is matched up to the
        # end of the file, so it can only be the last match.
        pattern = re.compile(rb"(?!\Z)%s([\r\n]++|\Z)|([\s\S]++)" % row)
        matches = pattern.finditer(self._data, self._rows_start)
        while batch := list(islice(matches, _BATCH)):
            if batch[-1][pattern.groups] is not None:
                self._explain(batch[-1].start())
            yield batch

    def _row(self, position: int) -> tuple[list[bytes], int]:
        """The cells of the row at a position, and where it ends."""
        cell, cells = re.compile(self._cell), []
        while True:
            match = cell.match(self._data, position)
            if match is None:
                raise InvalidInput(
                    f"{self.source}: line {self._line(position)} opens a quote and never closes it"
                )
            cells.append(match[0])
            position = match.end()
            if self._data[position : position + 1] != self._delimiter:
                break
            position += 1
        if self._data[position : position + 1] not in (b"", b"\r", b"\n"):
            line = self._line(position)
            raise InvalidInput(f"{self.source}: line {line} has text behind a closing quote")
        return cells, position

    def _explain(self, position: int) -> None:
        got = len(self._row(position)[0])
        line, wanted = self._line(position), len(self.columns)
        raise InvalidInput(f"{self.source}: line {line} has {got} cells, the header {wanted}")

    def _line(self, position: int) -> int:
        return len(re.findall(rb"\r\n|\n|\r", self._data[:position])) + 1

    def _text(self, cell: bytes, where: "re.Match[bytes] | int") -> str:
        if cell[:1] == b'"':
            cell = cell[1:-1].replace(b'""', b'"')
        try:
            return cell.decode()
        except UnicodeDecodeError as error:
            position = where if isinstance(where, int) else where.start()
            raise InvalidInput(
                f"{self.source}: line {self._line(position)} is not UTF-8", "recode it"
            ) from error

    def _like(self, old: bytes, value: str) -> bytes:
        return self._quoted(value) if old[:1] == b'"' else self._plain(value)

    def _plain(self, value: str) -> bytes:
        special = value[:1] == '"' or any(c in value for c in ("\r", "\n", self._delimiter.decode()))
        return self._quoted(value) if special else value.encode()

    @staticmethod
    def _quoted(value: str) -> bytes:
        return b'"%s"' % value.replace('"', '""').encode()


def _line(data: Bytes, start: int) -> bytes:
    ends = [end for end in (data.find(b"\n", start), data.find(b"\r", start)) if end >= 0]
    return data[start : min(ends, default=len(data))]


def _sniff(header: bytes) -> bytes:
    """The delimiter that the header has most of, outside quotes; a comma where it has none."""
    bare = re.sub(rb'"(?:[^"]|"")*+"', b"", header)
    return max((b",", b"\t", b";", b"|"), key=bare.count)
