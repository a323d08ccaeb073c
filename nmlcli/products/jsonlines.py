"""JSON Lines as bytes: one object a line, one value of which can change and no other byte does."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

from nmlcli.errors import InvalidInput
from nmlcli.products.delimited import BOM, Bytes, forget, hash_bytes
from nmlcli.provenance import Record

LONGEST_LINE = 2**26  # bytes

_BATCH = 8192  # rows
_KEPT = 2**22  # bytes of a mapped file
_SPACE = re.compile(r"[ \t\r\n]*")


class JsonLines:
    """A table of JSON objects, one a line; blank lines are no rows.

    columns: the keys of the first object, in order. data: all of its bytes. Values are what JSON
    gives; None where a row has no such key. Raises InvalidInput, naming the line, for what is no
    object or names a key twice.
    """

    suffixes = (".jsonl",)  # the file names that readers take for this form end so

    def __init__(self, data: Bytes, source: str) -> None:
        self.source = source
        self.data = data
        self._start = len(BOM) if data[: len(BOM)] == BOM else 0
        first_row = next(self.objects(), None)
        self.columns = tuple(first_row) if first_row else ()

    def objects(self) -> Iterator[dict[str, Any]]:
        """The rows as objects."""
        return (row for _, row in self.numbered())

    def numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows as objects with the numbers of their lines."""
        for number, line in self._lines():
            if line.strip():
                yield number, self._object(line, number)

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[list[Any], ...]]:
        """Values of the named keys, a list a key, some thousand rows at a time."""
        rows = self.objects()
        while batch := list(islice(rows, _BATCH)):
            yield tuple([row.get(name) for row in batch] for name in columns)

    @property
    def identity(self) -> str:
        """A hash of all bytes."""
        return hash_bytes(self.data)

    def write_edited(
        self, file: BinaryIO, column: str, values: Iterator[Any], added: str | None, record: Record
    ) -> None:
        """Write what relabelled gives; text has no room for a record."""
        file.writelines(self.relabelled(column, values, added))

    def relabelled(self, column: str, values: Iterator[Any], added: str | None) -> Iterator[bytes]:
        """The table with new values under a key and the old ones under a key added at the end.

        values: one a row, None where the old one stays. added: None for no such key. Raises
        InvalidInput for a row without the key, or with the added one.
        """
        yield self.data[: self._start]
        lines = self._lines()
        while batch := list(islice(lines, _BATCH)):
            yield b"".join(
                self._relabelled(line, number, column, next(values), added) if line.strip() else line
                for number, line in batch
            )

    def _relabelled(
        self, line: bytes, number: int, column: str, value: Any, added: str | None
    ) -> bytes:
        if value is None and added is None:
            return line
        text = line.decode()
        spans, key_ends = _spans(text)
        if added in spans:
            raise InvalidInput(f"{self.source}: line {number} already has {added}")
        if column not in spans:
            raise InvalidInput(f"{self.source}: line {number} has no {column}")
        start, end = spans[column]
        old = text[start:end]
        new = old if value is None else json.dumps(value, ensure_ascii=False)
        last = max(end for _, end in spans.values())
        colon = text[key_ends[column] : start]
        comma = ", " if colon.endswith(" ") else ","
        addition = "" if added is None else f"{comma}{json.dumps(added)}{colon}{old}"
        return f"{text[:start]}{new}{text[end:last]}{addition}{text[last:]}".encode()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        position, number, kept = self._start, 0, 0
        while position < len(self.data):
            end = self.data.find(b"\n", position) + 1 or len(self.data)
            number += 1
            if end - position > LONGEST_LINE:
                raise InvalidInput(
                    f"{self.source}: line {number} is longer than {LONGEST_LINE:,} bytes"
                )
            yield number, self.data[position:end]
            position = end
            if position - kept > _KEPT:
                forget(self.data, kept, position)
                kept = position

    def _object(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line.decode(), object_pairs_hook=_unique)
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{self.source}: line {number} is not UTF-8", "recode it") from error
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise InvalidInput(f"{self.source}: line {number} is not JSON ({reason})") from error
        if not isinstance(value, dict):
            raise InvalidInput(f"{self.source}: line {number} is no JSON object")
        if rb"\u" in line and not _is_text(value):
            raise InvalidInput(
                f"{self.source}: line {number} holds half a character", "mend its escapes"
            )
        return value


def _is_text(value: Any) -> bool:
    """Whether a value can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is named twice")
    return values


def _spans(text: str) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Where the values of an object start and end in its valid JSON text, and where the keys end."""
    decode = json.JSONDecoder().raw_decode
    spans, key_ends = {}, {}
    position = text.index("{") + 1
    while True:
        key, end = decode(text, _skip(text, position))
        key_ends[key] = end
        start = _skip(text, _skip(text, end) + 1)  # behind the colon
        _, end = decode(text, start)
        spans[key] = (start, end)
        position = _skip(text, end)
        if text[position] == "}":
            return spans, key_ends
        position += 1


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
