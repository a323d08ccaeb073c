"""Parquet tables, with pyarrow as the oracle: one column changes, the rest of the file stays."""

import io
import json
import os
import subprocess
import sys
import threading
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products.formats import read_record
from nmlcli.products.labels import read_labels
from nmlcli.products.parquet import ParquetTable
from nmlcli.products.tables import (
    is_table,
    open_table,
    read_table,
    read_table_record,
    save_edited,
    sidecar,
    write_table,
)
from nmlcli.provenance import KEY, Record, hash_file

RECORD = Record(kind="labels", identity="0" * 32, command="corrupt", classes=("a", "b", "c"))
SIZES = (1, 7, 0, 9001, 13)  # rows of the row groups
STARTS = [0, *accumulate(SIZES)]
ROWS = STARTS[-1]
CODECS = {
    "id": "zstd", "label": "gzip", "seen": "none", "image.list.element.bytes": "none",
    "image.list.element.path": "brotli", "score": "lz4", "a.b": "snappy",
}  # fmt: skip
METADATA = {b"huggingface": b'{"info": {}}', b"pandas": b'{"columns": []}', b"own": b"\xff\x00"}
TEXT = ["a", "ü b"]
KINDS = {
    "string": (pa.string(), TEXT),
    "large_string": (pa.large_string(), TEXT),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), TEXT),
    "ordered": (pa.dictionary(pa.int8(), pa.large_string(), ordered=True), TEXT),
    "int8": (pa.int8(), [-3, 7]),
    "int64": (pa.int64(), [2**60, 7]),
    "uint16": (pa.uint16(), [0, 65535]),
}


def content(kind, names):
    """A table with what a table may have, under the codecs above."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [
        pa.field("id", pa.large_string(), nullable=False, metadata={b"PARQUET:field_id": b"5"}),
        pa.field("image", pa.list_(image), metadata={b"of": b"a list"}),
        pa.field("label", kind, metadata={b"names": b"x"}),
        pa.field("score", pa.float32()),
        pa.field("seen", pa.timestamp("ns", tz="UTC")),
        pa.field("a.b", pa.dictionary(pa.int32(), pa.string())),
    ]
    rows = range(ROWS)
    columns = [
        [f"{row:05}" for row in rows],
        [[{"bytes": b"\0\xff" * (row % 3), "path": f"{row}.png"}] * (row % 4) or None for row in rows],
        [names[row % 2] for row in rows],
        [None if row % 5 == 1 else row / 7 for row in rows],
        [None if row % 7 == 2 else row * 10**9 + 1 for row in rows],
        [None if row % 3 == 0 else str(row % 11) for row in rows],
    ]
    schema = pa.schema(fields, METADATA)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
    return pa.table(arrays, schema=schema)


def written(table, **options):
    """The bytes of a table in row groups of odd sizes."""
    chosen = {"compression": CODECS, "use_dictionary": ["label", "image.list.element.path"], **options}
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, **chosen) as writer:
        for start, size in zip(STARTS, SIZES, strict=False):
            writer.write_table(table.slice(start, size), row_group_size=max(1, size))
    return buffer.getvalue()


def edited(data, values, added="clean", column="label"):
    buffer = io.BytesIO()
    ParquetTable(data, "t.parquet").write_edited(buffer, column, iter(values), added, RECORD)
    return buffer.getvalue()


def layout(data):
    """Of each row group its rows, and of its columns path, codec and whether they have a dictionary."""
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return [
        (
            group.num_rows,
            [
                (chunk.path_in_schema, chunk.compression, "RLE_DICTIONARY" in chunk.encodings)
                for chunk in map(group.column, range(group.num_columns))
            ],
        )
        for group in groups
    ]


@pytest.mark.parametrize("added", ["clean", None])
@pytest.mark.parametrize("kind", KINDS)
def test_one_column_changes_and_all_else_stays(kind, added):
    type_, names = KINDS[kind]
    third = "neu" if isinstance(names[0], str) else 5
    given = [(None, names[0], third)[row % 3] for row in range(ROWS)]
    before = written(content(type_, names))

    after = edited(before, given, added)

    old, new = pq.read_table(io.BytesIO(before)), pq.read_table(io.BytesIO(after))
    new.validate(full=True)
    assert new.column_names == [*old.column_names, *([added] if added else [])]
    for field in old.schema:
        assert new.schema.field(field.name).equals(field, check_metadata=True)
        if field.name != "label":
            assert new[field.name].equals(old[field.name])
    labels = old["label"].to_pylist()
    wanted = [label if value is None else value for label, value in zip(labels, given, strict=True)]
    assert new["label"].to_pylist() == wanted
    if added:
        assert new[added].to_pylist() == labels
        assert new.schema.field(added).type == old.schema.field("label").type
        assert b"names" not in (new.schema.field(added).metadata or {})
    metadata = dict(new.schema.metadata)
    assert json.loads(metadata.pop(KEY.encode())) == json.loads(RECORD.to_json())
    assert metadata == METADATA
    extended = [
        (rows, columns + [("clean", *columns[3][1:])] * (added is not None))
        for rows, columns in layout(before)
    ]
    assert layout(after) == extended
    assert layout(before)[0][1][3][0] == "label"
    assert after == edited(before, given, added)


def test_a_view_of_text_is_edited_as_well():
    table = pa.table({"label": pa.array(["a", "b", None], pa.string_view())})
    before = io.BytesIO()
    pq.write_table(table, before)

    new = pq.read_table(io.BytesIO(edited(before.getvalue(), ["b", None, None])))

    assert new["label"].to_pylist() == ["b", "b", None]
    assert new["clean"].to_pylist() == ["a", "b", None]


def test_the_codes_of_a_dictionary_stay():
    labels = pa.DictionaryArray.from_arrays(
        pa.array([1, 0, None, 1], pa.int8()), ["z", "a", "unused"], ordered=True
    )
    before = io.BytesIO()
    pq.write_table(pa.table({"label": labels}), before)

    new = pq.read_table(io.BytesIO(edited(before.getvalue(), ["q", None, None, "z"])))

    assert new["label"].to_pylist() == ["q", "z", None, "z"]
    assert new["label"].combine_chunks().dictionary.to_pylist() == ["z", "a", "unused", "q"]
    assert new["clean"].combine_chunks().dictionary.to_pylist() == ["z", "a", "unused"]
    assert new.schema.field("label").type == pq.read_schema(io.BytesIO(before.getvalue())).field(0).type


@pytest.mark.parametrize("store_schema", [True, False])
def test_codecs_stay_where_an_old_writer_named_lists_otherwise(store_schema):
    options = {"use_compliant_nested_type": False, "store_schema": store_schema}
    table = pa.table({"x": [[1], [2, 3]], "label": ["a", "b"], "y": ["c", "d"]})
    before = io.BytesIO()
    pq.write_table(table, before, compression={"x.list.item": "zstd", "y": "gzip"}, **options)

    after = edited(before.getvalue(), ["b", "a"])

    codecs = [codec for _, codec, _ in layout(after)[0][1]]
    assert codecs == ["ZSTD", "UNCOMPRESSED", "GZIP", "UNCOMPRESSED"]
    assert pq.read_table(io.BytesIO(after))["x"].to_pylist() == [[1], [2, 3]]


def test_no_rows_and_no_row_groups():
    table = pa.table({"label": pa.array([], pa.string())})
    for groups in (0, 1):
        before = io.BytesIO()
        with pq.ParquetWriter(before, table.schema) as writer:
            for _ in range(groups):
                writer.write_table(table)

        after = edited(before.getvalue(), [])

        assert len(layout(after)) == groups
        assert pq.read_table(io.BytesIO(after)).column_names == ["label", "clean"]


def test_a_row_group_of_a_million_rows_stays_one():
    rows = (1 << 20) + 1
    before = io.BytesIO()
    pq.write_table(pa.table({"label": pa.array([1] * rows, pa.int8())}), before, row_group_size=rows)

    after = edited(before.getvalue(), [2] * rows)

    assert [size for size, _ in layout(after)] == [rows]


def test_a_pipe_takes_an_edited_table():
    before = written(content(*KINDS["dictionary"]))
    reading, writing = os.pipe()
    got = []

    def drain():
        with os.fdopen(reading, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=drain)
    reader.start()
    with os.fdopen(writing, "wb") as file:
        ParquetTable(before, "t").write_edited(file, "label", iter([None] * ROWS), "clean", RECORD)
    reader.join()

    assert got[0] == edited(before, [None] * ROWS)


def test_a_closed_pipe_is_said_as_one():
    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

    table = ParquetTable(written(content(*KINDS["string"])), "t.parquet")

    with pytest.raises(BrokenPipeError):
        table.write_edited(Closed(), "label", iter([None] * ROWS), "clean", RECORD)


@pytest.fixture
def damaged():
    """A file with checksums, in whose last row group a bit is flipped that only they tell of."""
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    data = bytearray(written(content(*KINDS["int64"]), **options))
    label = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(len(SIZES) - 1).column(3)
    data[label.data_page_offset + label.total_compressed_size - 5] ^= 4
    return bytes(data)


def test_damage_is_found_and_half_a_table_never_looks_whole(damaged):
    table, buffer = ParquetTable(damaged, "t.parquet"), io.BytesIO()

    with pytest.raises(InvalidInput, match=r"^t\.parquet cannot be read as Parquet"):
        list(table.batches(["label"]))
    with pytest.raises(InvalidInput, match=r"^t\.parquet cannot be read as Parquet"):
        table.write_edited(buffer, "label", iter([None] * ROWS), "clean", RECORD)

    assert len(buffer.getvalue()) > 1000
    assert not buffer.closed
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(buffer)


def test_every_truncation_is_refused(tmp_path):
    data = written(content(*KINDS["dictionary"]).slice(0, 300))
    path = tmp_path / "t.parquet"
    for length in [*range(40), *range(40, len(data) - 40, 211), *range(len(data) - 40, len(data))]:
        path.write_bytes(data[:length])
        with pytest.raises(
            InvalidInput, match=r"t\.parquet (is empty|cannot be read as Parquet)"
        ) as caught:
            read_table(str(path))
        assert "\n" not in str(caught.value)
    path.write_bytes(data)
    assert len(read_table(str(path))) == 300


def test_a_damaged_footer_is_one_line():
    data = bytearray(written(content(*KINDS["string"])))
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[footer : footer + 8] = b"\xff" * 8

    with pytest.raises(InvalidInput, match=r"^t cannot be read as Parquet \([^\n]*\)$"):
        ParquetTable(bytes(data), "t")


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table([pa.array([1])] * 3, names=["a", "b", "a"]), path)

    with pytest.raises(InvalidInput, match=r"t\.parquet has two columns a: rename one"):
        open_table(str(path))


def test_a_table_without_columns_lacks_every_column(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({}), path)

    with pytest.raises(InvalidInput, match="no column label, but none at all"):
        read_table(str(path)).column("label")


def test_what_is_no_parquet_file_and_what_is_no_utf8(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("id,label\n1,a\n")
    with pytest.raises(InvalidInput, match=r"t\.parquet cannot be read as Parquet"):
        read_table(str(path))
    with pytest.raises(InvalidInput, match="cannot read"):
        read_table(str(tmp_path / "none.parquet"))
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xe9"]).buffers())
    pq.write_table(pa.table({"label": bad}), path)
    with pytest.raises(InvalidInput, match=r"t\.parquet cannot be read as Parquet"):
        read_table(str(path)).column("label")


@pytest.mark.parametrize(("kind", "value"), [("int8", 300), ("int8", "x"), ("string", 5)])
def test_a_value_that_does_not_fit_is_refused(kind, value):
    with pytest.raises(InvalidInput, match=f"t.parquet: {KINDS[kind][0]} cannot hold"):
        edited(written(content(*KINDS[kind])), [value] * ROWS)


def test_a_table_is_read_as_python_values(tmp_path):
    path = tmp_path / "t.parquet"
    table = content(*KINDS["ordered"])
    path.write_bytes(written(table))

    read = read_table(str(path))

    assert read.columns == tuple(table.column_names)
    plain = table.column_names[:4]
    assert {name: read.column(name) for name in plain} == table.select(plain).to_pydict()
    assert len(read) == ROWS
    opened = open_table(str(path))
    assert opened.identity == hash_file(path)
    assert opened.source == str(path)
    assert opened.suffixes == (".parquet",)
    sizes = [len(labels) for labels, _ in opened.batches(["label", "a.b"])]
    assert sum(sizes) == ROWS
    assert max(sizes) <= 8192


def test_a_parquet_file_may_come_through_a_pipe(tmp_path, monkeypatch):
    data, pipe = written(content(*KINDS["dictionary"])), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert is_table(str(pipe))
    assert isinstance(open_table(str(pipe)), ParquetTable)
    writer.join()

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert len(read_table("-")) == ROWS
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data[:-9])))
    with pytest.raises(InvalidInput, match=r"^stdin cannot be read as Parquet"):
        read_table("-")


def test_the_record_lies_within(tmp_path):
    path, out = tmp_path / "t.parquet", tmp_path / "out.parquet"
    path.write_bytes(written(content(*KINDS["string"])))
    assert read_table_record(path) is None

    save_edited(str(out), open_table(str(path)), "label", iter([None] * ROWS), None, RECORD)

    assert read_table_record(out) == read_record(str(out)) == RECORD
    assert not sidecar(out).exists()
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({KEY: "{"}), path)
    with pytest.raises(InvalidInput, match=r"t\.parquet: its nml record is not JSON"):
        read_record(str(path))


def test_a_new_table_is_read_back_with_its_record(tmp_path):
    columns = {"id": ["007", "ü", ""], "label": ["a", "b", "a"], "clean_label": ["a", "b", "c"]}
    path, again = tmp_path / "t.parquet", tmp_path / "u.PARQUET"

    write_table(str(path), columns, RECORD)
    write_table(str(again), columns, RECORD)

    assert pq.read_table(path).to_pydict() == columns
    assert set(pq.read_schema(path).types) == {pa.string()}
    assert again.read_bytes() == path.read_bytes()
    assert sorted(tmp_path.iterdir()) == [path, again]
    write_table(str(path), {**columns, "id": ["1", "2", "3"]}, RECORD)
    labels = read_labels(str(path))
    assert labels.record == RECORD
    assert labels.labels.tolist() == [0, 1, 0]
    write_table(str(path), columns, None)
    assert read_record(str(path)) is None


def test_integer_labels_are_classes_in_numerical_order(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"label": pa.array([10, 9, 10], pa.int8())}), path)

    labels = read_labels(str(path))

    assert labels.classes == ("9", "10")
    assert list(labels.ids) == ["0", "1", "2"]
    assert labels.labels.tolist() == [1, 0, 1]


def test_without_pyarrow_one_line_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.delitem(sys.modules, "nmlcli.products.parquet")
    monkeypatch.delattr("nmlcli.products.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = f'{path} needs pyarrow: pip install "nmlcli[parquet]"'

    for work in (read_table, read_record, lambda name: write_table(name, {"id": ["1"]}, None)):
        with pytest.raises(NmlError) as caught:
            work(str(path))
        assert str(caught.value) == said
    assert path.read_bytes() == b"PAR1"
    assert list(tmp_path.iterdir()) == [path]


def test_text_tables_load_neither_pyarrow_nor_numpy():
    code = (
        "import sys, nmlcli.products.tables as t; t.read_table('-'); "
        "sys.exit(any(name in sys.modules for name in ('pyarrow', 'numpy')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], input=b"a,b\n1,2\n", check=False).returncode == 0
    )
