"""Vectors in a list column of a Parquet table, in row groups of some MiB; the record in its schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import Array
from nmlcli.products.features import Features
from nmlcli.products.foreign import (
    Beside,
    Matrix,
    features_of,
    id_column,
    label_column,
    named,
    names_of,
)
from nmlcli.products.ids import repeated
from nmlcli.products.tables import missing_column
from nmlcli.products.vectors import Asked
from nmlcli.provenance import KEY, Record, parse_record

_CLEAN = "clean_label"
_BATCH = 8192  # rows of the columns beside
_GROUP = 2**24  # bytes of the vectors of a row group
_BUFFER = 2**20  # bytes read at once of a column; else a whole row group's
_FLOATS = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}


class _Table:
    """An opened Parquet file."""

    def __init__(self, path: str, source: str) -> None:
        self.source = source
        with self.reading():
            self._file = pq.ParquetFile(
                path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
            )  # with pre_buffer the whole file would be in memory
            self.schema = self._file.schema_arrow
        self.rows = int(self._file.metadata.num_rows)
        self.columns: tuple[str, ...] = tuple(self.schema.names)
        if twice := repeated(self.columns):
            raise InvalidInput(f"{source} has two columns {twice[0]}", "rename one")

    def batches(self, column: str, rows: int) -> Iterator[Any]:
        """Iterate a column's arrays [≤ rows]."""
        with self.reading():
            batches = self._file.iter_batches(rows, columns=[column], use_threads=False)
        while True:
            with self.reading():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch.column(0)

    def texts(self, column: str | None, what: str, ours: bool) -> list[str] | None:
        """The texts of a column, None of none."""
        if column is None or column not in self.columns:
            return None
        found: list[str] = []
        for cells in self.batches(column, _BATCH):
            with self.reading():
                values = cells.to_pylist()
            found += names_of(values, what, column, self.source, len(found) + 1, ours)
        return found

    def matrices(self, column: str, rows: int, width: int | None) -> Iterator[Array]:
        """Iterate a column of lists as matrices [≤ rows, D]; width: D, None: that of each row."""
        start = 0
        for cells in self.batches(column, rows):
            with self.reading():
                values = cells.flatten()
                lengths = np.asarray(cells.value_lengths()) if not cells.null_count else None
            if lengths is None or values.null_count:
                wrong = (
                    f"{self.source}: {column} has nulls in the {len(cells)} rows from row {start + 1}"
                )
                raise InvalidInput(wrong)
            wanted = int(lengths[0]) if width is None else width
            wrong_ones = np.flatnonzero(lengths != wanted)
            if len(wrong_ones):
                row, got = start + int(wrong_ones[0]) + 1, int(lengths[wrong_ones[0]])
                wrong = f"{self.source}: row {row} has {got} numbers, others {wanted}"
                raise InvalidInput(wrong)
            yield values.to_numpy(zero_copy_only=False).reshape(len(cells), wanted)
            start += len(cells)
        if start != self.rows:
            raise InvalidInput(f"{self.source} is damaged: {start} of {self.rows} rows are there")

    @contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise InvalidInput(f"{self.source} cannot be read as Parquet ({reason})") from error


def read_parquet(path: str, source: str, asked: Asked) -> Features:
    """Read a list column, ids and labels beside it. Raises InvalidInput for rows of several widths."""
    table = _Table(path, source)
    key = "embedding" if asked.key is None else asked.key
    if key not in table.columns:
        raise missing_column(key, table.columns, source, "--key")
    kind = table.schema.field(key).type
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    if not is_list or kind.value_type not in _FLOATS:
        raise InvalidInput(f"{source}: {key} is {kind}, not a list of {first(list(_FLOATS.values()))}")
    if not table.rows:
        raise InvalidInput(f"{source} has no rows")
    width = next(table.matrices(key, 1, None)).shape[1]
    record = _record(table)
    ours = record is not None
    ids = table.texts(id_column(asked, ("id",), table.columns, source), "id", ours)
    labels = table.texts(label_column(asked, "label", table.columns, source), "label", ours)
    clean = None if labels is None else table.texts(_CLEAN, "clean label", ours)
    beside = Beside(ids, labels, clean)

    def blocks(rows: int) -> Iterator[Array]:
        return table.matrices(key, rows, width)

    dtype = np.dtype(_FLOATS[kind.value_type])
    return features_of(source, path, record, beside, Matrix((table.rows, width), dtype, blocks))


def _record(table: _Table) -> Record | None:
    text = (table.schema.metadata or {}).get(KEY.encode())
    return None if text is None else parse_record(text, table.source)


def write_parquet(path: Path, features: Features, key: str) -> None:
    """Write id, label and clean_label as texts and the vectors as lists of one length."""
    columns = named(features)
    if key in columns:
        raise InvalidInput(f"the features cannot be named {key}", "give another --key")
    width = features.columns
    fields = [pa.field(name, pa.string()) for name in columns]
    vectors = pa.list_(pa.from_numpy_dtype(features.dtype), width)
    metadata = {KEY.encode(): features.record.to_json().encode()}
    schema = pa.schema([*fields, pa.field(key, vectors)], metadata)
    start = 0
    with pq.ParquetWriter(
        path, schema, use_dictionary=[name for name in columns if name != "id"]
    ) as writer:
        for block in features.blocks(max(1, _GROUP // (width * features.dtype.itemsize))):
            stop = start + len(block)
            beside = [pa.array(values[start:stop], pa.string()) for values in columns.values()]
            flat = pa.array(np.ascontiguousarray(block).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table([*beside, lists], schema=schema), len(block))
            start = stop
