"""Vectors in a list column of a Parquet table, in row groups of some MiB; the record in its schema."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import Array
from nmlcli.products.delimited import forget
from nmlcli.products.features import Features
from nmlcli.products.foreign import Matrix, features_of, named, read_beside
from nmlcli.products.parquet import ParquetTable
from nmlcli.products.tables import mapped, missing_column
from nmlcli.products.vectors import Asked
from nmlcli.provenance import KEY

_GROUP = 2**24  # bytes of the vectors of a row group
_FLOATS = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}


def _matrices(table: ParquetTable, column: str, rows: int, width: int | None) -> Iterator[Array]:
    """Iterate a column of lists as matrices [≤ rows, D]; width: D, None: that of each row."""
    start = 0
    with table.reading():
        batches = table.file.iter_batches(rows, columns=[column], use_threads=False)
    while True:
        with table.reading():
            batch = next(batches, None)
            if batch is None:
                break
            cells = batch.column(0)
            values = cells.flatten()
            lengths = np.asarray(cells.value_lengths()) if not cells.null_count else None
        if lengths is None or values.null_count:
            raise InvalidInput(
                f"{table.source}: {column} has nulls in the {len(cells)} rows from row {start + 1}"
            )
        wanted = int(lengths[0]) if width is None else width
        wrong_ones = np.flatnonzero(lengths != wanted)
        if len(wrong_ones):
            row, got = start + int(wrong_ones[0]) + 1, int(lengths[wrong_ones[0]])
            raise InvalidInput(f"{table.source}: row {row} has {got} numbers, others {wanted}")
        yield values.to_numpy(zero_copy_only=False).reshape(len(cells), wanted)
        start += len(cells)
        forget(table.data, 0, len(table.data))
    if start != table.rows:
        raise InvalidInput(f"{table.source} is damaged: {start} of {table.rows} rows are there")


def read_parquet(path: str, source: str, asked: Asked) -> Features:
    """Read a list column, ids and labels beside it. Raises InvalidInput for rows of several widths."""
    table = ParquetTable(mapped(path, source), source)
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
    width = next(_matrices(table, key, 1, None)).shape[1]
    beside, _ = read_beside(table, asked, table.record is not None)

    def blocks(rows: int) -> Iterator[Array]:
        return _matrices(table, key, rows, width)

    matrix = Matrix((table.rows, width), np.dtype(_FLOATS[kind.value_type]), blocks)
    return features_of(source, lambda: table.identity, table.record, beside, matrix)


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
