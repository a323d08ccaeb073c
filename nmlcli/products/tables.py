"""Tables as files and on stdin: CSV, TSV and JSON Lines, and the record that lies beside one."""

import json
import logging
import mmap
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, first
from nmlcli.products.delimited import BOM, Bytes, Delimited, plain
from nmlcli.products.jsonlines import JsonLines
from nmlcli.provenance import KEY, Record, canonical, hash_file, parse_record

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".jsonl")

TextTable = Delimited | JsonLines


@dataclass(frozen=True)
class Table:
    """A table in memory.

    values: a list of N values a column, in order; text from CSV and TSV, what JSON gives from JSON
    Lines (None where a row lacks the key). source: the file's name or `stdin`, for messages.
    """

    values: dict[str, list[Any]]
    rows: int
    source: str

    def __len__(self) -> int:
        return self.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self.values)

    def column(self, name: str, option: str = "") -> list[Any]:
        """The values of a column. Raises InvalidInput, naming the columns that there are."""
        if name not in self.values:
            raise missing_column(name, self.columns, self.source, option)
        return self.values[name]


def missing_column(name: str, columns: tuple[str, ...], source: str, option: str = "") -> InvalidInput:
    """The error for a column that a table lacks; option: the one that names another column."""
    return InvalidInput(
        f"{source} has no column {name}, but {first(columns, 8) or 'none at all'}",
        f"name the right one with {option}" if option else "",
    )


def is_table(source: str) -> bool:
    """Whether a name is that of a text table, stdin, or a pipe that can only be a table."""
    return source == "-" or Path(source).suffix.lower() in SUFFIXES or Path(source).is_fifo()


def open_table(source: str) -> TextTable:
    """Open a table from a file or stdin (`-`), to be read as often as needed.

    A file is mapped, a pipe is spooled to a temporary file first. The suffix says which form it has;
    without one, a table that starts with `{` is JSON Lines. Raises InvalidInput where it is missing,
    empty or binary.
    """
    name = "stdin" if source == "-" else source
    data = _mapped(source, name)
    if not data[:4096].strip(BOM + b" \t\r\n"):
        raise InvalidInput(f"{name} is empty")
    if data.find(b"\0") >= 0:
        raise InvalidInput(f"{name} holds NUL bytes, so it is no UTF-8 text", "recode it")
    suffix = Path(source).suffix.lower()
    sniffed = data[:4096].removeprefix(BOM).lstrip()[:1] == b"{"
    if suffix == ".jsonl" or (sniffed and suffix not in SUFFIXES):
        return JsonLines(data, name)
    return Delimited(data, name, b"\t" if suffix == ".tsv" else None)


def _mapped(source: str, name: str) -> Bytes:
    try:
        if source == "-":
            return _map(sys.stdin.buffer)
        with Path(source).open("rb") as file:
            return _map(file)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror or error}") from error


def _map(file: BinaryIO) -> Bytes:
    try:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.tell() == 0
    except OSError:  # no file of the system, as in a test
        return file.read()
    if regular:
        size = os.fstat(file.fileno()).st_size
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(file, spool, 1 << 20)
        spool.flush()
        return mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) if spool.tell() else b""


def read_table(source: str) -> Table:
    """Read a whole table from a file or stdin (`-`). Raises InvalidInput where it is damaged."""
    table = open_table(source)
    values: dict[str, list[Any]]
    if isinstance(table, JsonLines):
        objects = list(table.objects())
        names = dict.fromkeys(chain.from_iterable(objects))
        values = {name: [row.get(name) for row in objects] for name in names}
        return Table(values, len(objects), table.source)
    values = {name: [] for name in table.columns}
    for batch in table.batches(table.columns):
        for column, cells in zip(values.values(), batch, strict=True):
            column += cells
    return Table(values, len(values[table.columns[0]]), table.source)


def new_table(columns: Mapping[str, Sequence[str]], suffix: str = ".csv") -> Iterator[bytes]:
    """A table of texts in the form that a suffix names, some thousand rows at a time."""
    rows = zip(*columns.values(), strict=True)
    if suffix == ".jsonl":
        objects = (dict(zip(columns, row, strict=True)) for row in rows)
        lines = (json.dumps(o, ensure_ascii=False).encode() for o in objects)
    else:
        delimiter = b"\t" if suffix == ".tsv" else b","
        table = chain([tuple(columns)], rows)
        lines = (delimiter.join(plain(cell, delimiter) for cell in row) for row in table)
    while batch := b"".join(line + b"\n" for line in islice(lines, 8192)):
        yield batch


def sidecar(path: str | Path) -> Path:
    """Where the record of a table lies: `FILE.nml.json`."""
    return Path(f"{path}.{KEY}.json")


def write_sidecar(table: str | Path, record: Record) -> None:
    """Write a table's record beside it, with a hash of the table that it speaks of."""
    values = {**json.loads(record.to_json()), "content": hash_file(table)}
    with replacing(sidecar(table)) as temporary:
        temporary.write_text(canonical(values) + "\n", encoding="utf-8")


def read_sidecar(table: str | Path) -> Record | None:
    """The record beside a table; None where there is none, or the table is no longer the one it
    speaks of (said as a warning). Raises InvalidInput where the record is damaged.
    """
    path = sidecar(table)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    record = parse_record(text, str(path))
    if json.loads(text).get("content") != hash_file(table):
        log.warning("%s has changed since %s was written, which is left aside", table, path.name)
        return None
    return record
