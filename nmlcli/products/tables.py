"""Tables as files and on stdin: CSV, TSV, JSON Lines and Parquet, and their records."""

import json
import logging
import mmap
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, NmlError, first
from nmlcli.products.delimited import BOM, Bytes, Delimited, plain
from nmlcli.products.formats import TABLES
from nmlcli.products.jsonlines import JsonLines
from nmlcli.provenance import KEY, Record, canonical, hash_file, parse_record

if TYPE_CHECKING:
    from nmlcli.products.parquet import ParquetTable

log = logging.getLogger(__name__)

SUFFIXES = TABLES
_PARQUET = ".parquet"

TextTable = Delimited | JsonLines
EditableTable: TypeAlias = "Delimited | JsonLines | ParquetTable"


@dataclass(frozen=True)
class Table:
    """A table in memory.

    values: a list of N values a column, in order; text from CSV and TSV, what JSON gives from JSON
    Lines (None where a row lacks the key), what Python has for those of Parquet (None for null).
    source: the file's name or `stdin`, for messages.
    """

    values: Mapping[str, list[Any]]
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
        if name not in self.columns:
            raise missing_column(name, self.columns, self.source, option)
        return self.values[name]


def missing_column(name: str, columns: tuple[str, ...], source: str, option: str = "") -> InvalidInput:
    """The error for a column that a table lacks; option: the one that names another column."""
    return InvalidInput(
        f"{source} has no column {name}, but {first(columns, 8) or 'none at all'}",
        f"name the right one with {option}" if option else "",
    )


def is_table(source: str) -> bool:
    """Whether a name is that of a table, stdin, or a pipe that can only be a table."""
    return source == "-" or Path(source).suffix.lower() in SUFFIXES or Path(source).is_fifo()


def open_table(source: str) -> EditableTable:
    """Open a table from a file or stdin (`-`), to be read as often as needed.

    A file is mapped, a pipe is spooled to a temporary file first. The suffix says which form it has;
    without one, a table that starts with `{` is JSON Lines, one that starts with `PAR1` Parquet.
    Raises InvalidInput where it is missing, empty or damaged.
    """
    name = "stdin" if source == "-" else source
    data = mapped(source, name)
    suffix = Path(source).suffix.lower()
    if suffix == _PARQUET or (suffix not in SUFFIXES and data[:4] == b"PAR1"):
        return _open_parquet(data, name)
    if data[:4] == b"\x89HDF" or (data[8:9] == b"{" and b"\0" in data[:8]):
        raise InvalidInput(
            f"{name} is a binary product, no table", "save it to a file and give its name"
        )
    if data.find(b"\0") >= 0:
        raise InvalidInput(f"{name} holds NUL bytes, so it is no UTF-8 text", "recode it")
    sniffed = data[:4096].removeprefix(BOM).lstrip()[:1] == b"{"
    if suffix == ".jsonl" or (sniffed and suffix not in SUFFIXES):
        return JsonLines(data, name)
    return Delimited(data, name, b"\t" if suffix == ".tsv" else None)


def _open_parquet(data: Bytes, name: str) -> "ParquetTable":
    with needing_pyarrow(name):
        from nmlcli.products.parquet import ParquetTable
    return ParquetTable(data, name)


@contextmanager
def needing_pyarrow(name: str) -> Iterator[None]:
    """Where pyarrow, an optional dependency, is imported: raises NmlError where it is missing."""
    try:
        yield
    except ImportError as error:
        raise NmlError(f"{name} needs pyarrow", 'pip install "nmlcli[parquet]"') from error


def mapped(source: str, name: str) -> Bytes:
    """The bytes of a file, mapped, or of stdin (`-`) or a pipe, which is spooled to a temporary file.

    name: for messages. Raises InvalidInput where it cannot be read or holds nothing.
    """
    try:
        if source == "-":
            data = _map(sys.stdin.buffer)
        else:
            with Path(source).open("rb") as file:
                data = _map(file)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror or error}") from error
    if not data[:4096].strip(BOM + b" \t\r\n"):
        raise InvalidInput(f"{name} is empty")
    return data


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
    """Read a whole table from a file or stdin (`-`). Raises InvalidInput where it is damaged.

    Of a Parquet table a column is read, and its damage met, when it is asked for.
    """
    table = open_table(source)
    values: dict[str, list[Any]]
    if isinstance(table, JsonLines):
        objects = list(table.objects())
        names = dict.fromkeys(chain.from_iterable(objects))
        values = {name: [row.get(name) for row in objects] for name in names}
        return Table(values, len(objects), table.source)
    if not isinstance(table, Delimited):
        from nmlcli.products.parquet import Columns

        return Table(Columns(table), table.rows, table.source)
    values = {name: [] for name in table.columns}
    for batch in table.batches(table.columns):
        for column, cells in zip(values.values(), batch, strict=True):
            column += cells
    return Table(values, len(values[table.columns[0]]), table.source)


def write_table(out: str | None, columns: Mapping[str, Sequence[str]], record: Record | None) -> None:
    """Write a table of texts in the form that the name's suffix says, CSV where it says none.

    out: a file, which appears whole or not at all; None or `-` for stdout. record: goes with a file,
    within a Parquet table, beside a text table.
    """
    suffix = Path(out or "").suffix.lower()

    def write(file: BinaryIO) -> None:
        if suffix == _PARQUET:
            with needing_pyarrow(str(out)):
                from nmlcli.products.parquet import write_parquet
            write_parquet(file, columns, record)
        else:
            file.writelines(new_table(columns, suffix))

    _save(out, write, record)


def save_edited(
    out: str | None,
    table: EditableTable,
    column: str,
    values: Iterator[Any],
    added: str | None,
    record: Record,
) -> None:
    """Write a table with one column edited, as its write_edited does, to where write_table writes."""
    _save(out, lambda file: table.write_edited(file, column, values, added, record), record)


def _save(out: str | None, write: Callable[[BinaryIO], None], record: Record | None) -> None:
    if out is None or out == "-":
        write(sys.stdout.buffer)
        return
    with replacing(out) as temporary, temporary.open("wb") as file:
        write(file)
    if record is not None and Path(out).is_file():  # not a pipe or a device
        write_sidecar(out, record)


def new_table(columns: Mapping[str, Sequence[str]], suffix: str = ".csv") -> Iterator[bytes]:
    """A text table of texts in the form that a suffix names, some thousand rows at a time."""
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
    """Write a text table's record beside it, with a hash of the table that it speaks of.

    A Parquet table carries its record within, and none beside it.
    """
    if Path(table).suffix.lower() == _PARQUET:
        return
    values = {**json.loads(record.to_json()), "content": hash_file(table)}
    with replacing(sidecar(table)) as temporary:
        temporary.write_text(canonical(values) + "\n", encoding="utf-8")


def read_table_record(table: str | Path) -> Record | None:
    """The record of a table: within a Parquet table, beside a text table.

    None where there is none, or a text table is no longer the one it speaks of (said as a warning).
    Raises InvalidInput where the record is damaged.
    """
    if Path(table).suffix.lower() == _PARQUET:
        return _open_parquet(mapped(str(table), str(table)), str(table)).record
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
