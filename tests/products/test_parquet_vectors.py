"""Vectors in Parquet: pyarrow is the oracle; columns of other types and widths are refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nmlcli.products import parquet_vectors
from nmlcli.products.vectors import write_vectors
from tests.products.vectors import IDS, made, matrix, read, refused

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def written(path, vectors, key="embedding", **columns):
    pq.write_table(pa.table({**columns, key: vectors}), path)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_pyarrow_reads_what_was_written(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(parquet_vectors, "_GROUP", 2 * 3 * np.dtype(dtype).itemsize)
    path, values = tmp_path / "x.parquet", VALUES.astype(dtype)
    write_vectors(str(path), made(values, IDS))
    table = pq.read_table(path)
    assert table.column_names == ["id", "label", "clean_label", "embedding"]
    assert table["id"].to_pylist() == list(IDS)
    assert table["label"].to_pylist() == ["ant", "bée, or"] * 2 + ["ant"]
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    assert flat.dtype == dtype and (flat.reshape(5, 3) == values).all()
    assert pq.ParquetFile(path).num_row_groups == 3
    assert b'"identity":"ffff' in table.schema.metadata[b"nml"]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda value: pa.list_(value, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_lists_of_every_kind_are_read(tmp_path, kind, dtype, size):
    values = VALUES.astype(dtype)
    vectors = pa.array(list(values), kind(pa.from_numpy_dtype(dtype)))
    labels = pa.array(["b", "a", "b", "c", "a"]).dictionary_encode()
    path = tmp_path / "x.parquet"
    table = pa.table({"label": labels, "embedding": vectors, "id": pa.array(range(5))})
    pq.write_table(table, path, row_group_size=2)
    found = read(path)
    wanted = values.astype(np.float16 if dtype == "float16" else np.float32)
    held = matrix(found, size)
    assert held.dtype == wanted.dtype and (held == wanted).all()
    assert found.ids == list("01234") and found.record.classes == ("a", "b", "c")
    assert found.labels.tolist() == [1, 0, 1, 2, 0]


def test_what_is_no_column_of_vectors_is_refused(tmp_path):
    path, lists = tmp_path / "x.parquet", VALUES.tolist()
    for vectors, message in (
        ([[1.0, 2], [1]], "row 2 has 1 numbers, others 2"),
        ([[1.0, 2], [1, 2], None], "has nulls in the 3 rows from row 1"),
        ([[1.0, 2], [1, None]], "has nulls"),
        ([None, [1.0]], "has nulls"),
        (pa.array([[], []], pa.list_(pa.float32())), "holds no features: it is 2 × 0"),
        ([[1, 2]], "embedding is list<"),
        ([[[1.0]]], "embedding is list<"),
        (["AAAA"], "embedding is string, not a list of"),
        ([1.0], "embedding is double"),
        (pa.array([], pa.list_(pa.float32())), "has no rows"),
    ):
        refused(written(path, vectors), message)
    refused(written(path, lists), "has no column x, but embedding", "--key", key="x")
    refused(path, "has no column name, but embedding", "--id-column", id_column="name")
    assert read(path, id_column="name", lenient=True).ids == list("01234")
    assert read(written(path, lists, "v", name=list("edcba")), key="v", id_column="name").ids == list(
        "edcba"
    )
    refused(path, "has no column kind, but", "--label-column", key="v", label_column="kind")
    refused(written(path, lists, id=list("abcab")), "ids repeat: a, b")
    refused(written(path, lists, id=["a", None, "c", "d", "e"]), "row 2 has no id in column id")
    refused(written(path, lists, id=[0.5, 1, 2, 3, 4]), "neither text nor a whole number")
    path.write_bytes(b"PAR1")
    refused(path, "cannot be read as Parquet")


def test_rows_that_are_said_to_be_there_and_are_not(tmp_path):
    """By the number of all rows; that of a row group is pyarrow's to check."""
    path = written(tmp_path / "x.parquet", [[1.0, 2]] * 100)
    data = path.read_bytes()
    told, place = b"\x16\xc8\x01", data.rfind(b"PAR1")  # a number of 64 bits, 2 × 100 as a varint
    start = data.index(told, place - int.from_bytes(data[-8:-4], "little") - 4)
    path.write_bytes(data[:start] + b"\x16\xca\x01" + data[start + 3 :])
    assert read(path).rows == 101
    refused(path, "is damaged: 100 of 101 rows are there")


def test_rows_of_another_width_deep_in_a_file_are_named(tmp_path):
    path = written(tmp_path / "x.parquet", [[1.0, 2]] * 20_000 + [[1.0]])
    refused(path, "row 20001 has 1 numbers, others 2")
