"""Parquet tables: one column changes, and everything else of the file is as it was.

Only this module and parquet_vectors import pyarrow, an optional dependency, so they are imported where
a Parquet file is met. The record lies in the schema's metadata.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nmlcli.errors import InvalidInput
from nmlcli.products.delimited import Bytes, hash_bytes
from nmlcli.products.ids import repeated
from nmlcli.provenance import KEY, Record, parse_record

_BATCH = 8192  # rows
# What pyarrow's reader calls otherwise than its writer; its UNKNOWN is LZ4 in Hadoop's framing.
_CODECS = {"UNCOMPRESSED": "NONE", "UNKNOWN": "LZ4"}


class ParquetTable:
    """A Parquet file as a table.

    columns: the names of the topmost fields, in order. data: all of its bytes. file, schema: as pyarrow
    has them. Values are what Python has for them, None for null, dictionaries decoded. Raises
    InvalidInput where the file is damaged or has two columns of one name.
    """

    suffixes = (".parquet",)  # the file names that readers take for this form end so

    def __init__(self, data: Bytes, source: str) -> None:
        self.source = source
        self.data = data
        with self.reading():
            self.file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            self.schema = self.file.schema_arrow
        self.columns: tuple[str, ...] = tuple(self.schema.names)
        if twice := repeated(self.columns):
            raise InvalidInput(f"{source} has two columns {twice[0]}", "rename one")

    @property
    def identity(self) -> str:
        """A hash of all bytes."""
        return hash_bytes(self.data)

    @property
    def record(self) -> Record | None:
        """The record in the schema's metadata. Raises InvalidInput where it is damaged."""
        text = (self.schema.metadata or {}).get(KEY.encode())
        return None if text is None else parse_record(text, self.source)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.file.metadata.num_rows)

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[list[Any], ...]]:
        """Values of the named columns, a list a column, some thousand rows at a time."""
        with self.reading():
            for batch in self.file.iter_batches(_BATCH, columns=list(columns)):
                yield tuple(_values(batch.column(name)) for name in columns)

    def write_edited(
        self, file: BinaryIO, column: str, values: Iterator[Any], added: str | None, record: Record
    ) -> None:
        """Write the table with new values in a column, and its old ones as a column added at the end.

        values: one a row, None where the old one stays. added: None for no such column. Types, fields,
        metadata, row groups and each column's codec stay, and whether it is encoded by a dictionary.
        """
        place = self.columns.index(column)
        schema = self.schema
        if added is not None:
            schema = schema.append(schema.field(place).with_name(added).remove_metadata())
        metadata = {**(schema.metadata or {}), KEY.encode(): record.to_json().encode()}
        schema = schema.with_metadata(metadata)
        sink = _Sink(file)
        writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **self._encoding(schema, place))
        try:
            for group in range(self.file.num_row_groups):
                size = self.file.metadata.row_group(group).num_rows
                given = list(islice(values, size))
                with self.reading():
                    arrays = self.file.read_row_group(group).columns
                    olds = arrays[place]
                    arrays[place] = self._edited(olds, given)
                if added is not None:
                    arrays.append(olds)
                writer.write_table(pa.table(arrays, schema=schema), max(1, size))
            writer.close()
        except BaseException:
            sink.broken = True
            raise

    def _edited(self, olds: pa.ChunkedArray, values: list[Any]) -> pa.Array:
        """A column of the same type with new values; those of a dictionary are added at its end."""
        kind = olds.type
        pairs = zip(_values(olds), values, strict=True)
        new = [old if value is None else value for old, value in pairs]
        try:
            if not pa.types.is_dictionary(kind):
                return pa.array(new, kind)
            cells = pa.array(new, kind.value_type)
            known = [chunk.dictionary for chunk in olds.chunks]
            entries = pc.unique(pa.concat_arrays([*known, cells])).drop_null()
            places = pc.index_in(cells, entries).cast(kind.index_type)
            return pa.DictionaryArray.from_arrays(places, entries, ordered=kind.ordered)
        except (pa.ArrowException, OverflowError) as error:
            raise InvalidInput(f"{self.source}: {kind} cannot hold the new values ({error})") from error

    def _encoding(self, schema: pa.Schema, place: int) -> dict[str, Any]:
        """How the columns of an edited table are encoded, by their paths: as they are here."""
        groups = [self.file.metadata.row_group(i) for i in range(self.file.num_row_groups)]
        # Leaves are matched by their order: old writers name the paths of nested ones otherwise.
        empty = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), empty)
        leaves = pq.ParquetFile(empty.getvalue()).schema
        old = [self.file.schema.column(i).path for i in range(len(self.file.schema))]
        numbers = [*range(len(old)), old.index(self.columns[place])]
        codecs, dictionaries = {}, []
        for leaf, number in enumerate(numbers[: len(leaves)]):
            path = leaves.column(leaf).path
            chunks = [group.column(number) for group in groups]
            if chunks:
                codecs[path] = _CODECS.get(chunks[0].compression, chunks[0].compression)
            if any("DICTIONARY" in encoding for chunk in chunks for encoding in chunk.encodings):
                dictionaries.append(path)
        return {"compression": codecs, "use_dictionary": dictionaries}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say of what pyarrow cannot read which file it is."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InvalidInput(f"{self.source} cannot be read as Parquet ({reason})") from error


class Columns(Mapping[str, list[Any]]):
    """The values of a table's columns, read when first asked for: others may hold images."""

    def __init__(self, table: ParquetTable) -> None:
        self._table = table
        self._read: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._table.columns:
            raise KeyError(name)
        if name not in self._read:
            batches = self._table.batches([name])
            self._read[name] = [value for (values,) in batches for value in values]
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.columns)

    def __len__(self) -> int:
        return len(self._table.columns)


class _Sink:
    """A file that takes nothing more once something failed: pyarrow ends what it was writing in any
    case, and on a pipe half a table would look like a whole one.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.broken = False

    def write(self, data: bytes) -> None:
        if not self.broken:
            self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_parquet(file: BinaryIO, columns: Mapping[str, Sequence[str]], record: Record | None) -> None:
    """Write a new table of texts."""
    fields = [pa.field(name, pa.string()) for name in columns]
    metadata = {} if record is None else {KEY.encode(): record.to_json().encode()}
    arrays = [pa.array(values, pa.string()) for values in columns.values()]
    pq.write_table(pa.table(arrays, schema=pa.schema(fields, metadata)), file)


def _values(column: Any) -> list[Any]:
    """The values of an array or chunked array; a dictionary is decoded first, which is far quicker."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values: list[Any] = column.to_pylist()
    return values
