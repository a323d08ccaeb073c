"""The safetensors stream: what is written, the library reads; what is damaged, is refused."""

import io
import json
import os
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load as library_load
from safetensors.numpy import load_file, save_file

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products.container import Rows
from nmlcli.products.features import Features, pack_features, unpack_features
from nmlcli.products.stream import SafetensorsFile, write_safetensors
from nmlcli.provenance import Record

RECORD = Record(
    "features", "0" * 32, "embed", classes=("ant", "bee"), rows=5, columns=3, noise={"kind": "none"}
)
VALUES = np.arange(15, dtype=np.float32).reshape(5, 3) / 7


def make(values=VALUES, ids=("a/1", "é", "", "b", "c"), block=None, **changes):
    """Features over an array, in blocks of the asked size or of a size of their own."""

    def blocks(rows):
        rows = block or rows
        return (values[i : i + rows] for i in range(0, len(values), rows))

    facts = {"labels": np.array([0, 1, 1, 0, 1]), "clean_labels": None, **changes}
    record = Record(**{**RECORD.__dict__, "rows": values.shape[0], "columns": values.shape[1]})
    return Features(record, list(ids), dtype=values.dtype, blocks=blocks, source="made", **facts)


def written(features):
    out = io.BytesIO()
    write_safetensors(out, features.record, *pack_features(features))
    return out.getvalue()


STREAM = written(make(clean_labels=np.array([0, 1, 0, 0, 1])))
HEADER = STREAM[8 : 8 + struct.unpack("<Q", STREAM[:8])[0]]


def read(data):
    """Read a whole stream from memory, as from a pipe: the features and their values."""
    features = unpack_features(SafetensorsFile(io.BytesIO(data), "stdin"))
    list(features.ids)  # that they are unique is seen when they are used
    return features, features.matrix()


def split(stream):
    length = struct.unpack("<Q", stream[:8])[0]
    return json.loads(stream[8 : 8 + length]), stream[8 + length :]


def joined(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def refused(data, *words):
    with pytest.raises(InvalidInput) as caught:
        read(data)
    for word in words:
        assert word in str(caught.value)


def test_the_library_reads_what_was_written():
    held = library_load(STREAM)
    assert list(held) and {k: (v.dtype.name, v.shape) for k, v in held.items()} == {
        "labels": ("int64", (5,)), "clean_labels": ("int64", (5,)), "ids_offsets": ("int64", (6,)),
        "ids_bytes": ("uint8", (8,)), "features": ("float32", (5, 3)),
    }  # fmt: skip
    assert (held["features"] == VALUES).all()
    assert bytes(held["ids_bytes"]) == "a/1ébc".encode() + b"\0"
    assert held["ids_offsets"].tolist() == [0, 3, 5, 5, 6, 7]


def test_header_comes_first_is_aligned_and_holds_one_metadata_key(tmp_path):
    header, _ = split(STREAM)
    assert list(header) == [
        "__metadata__",
        "labels",
        "clean_labels",
        "ids_offsets",
        "ids_bytes",
        "features",
    ]
    assert all(v["data_offsets"][0] % 8 == 0 for k, v in header.items() if k != "__metadata__")
    assert struct.unpack("<Q", STREAM[:8])[0] % 8 == 0
    (tmp_path / "x.safetensors").write_bytes(STREAM)
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert list(file.metadata()) == ["nml"]
        assert json.loads(file.metadata()["nml"])["classes"] == ["ant", "bee"]


def test_stream_gives_back_what_it_got():
    features, values = read(STREAM)
    assert features.record == make().record
    assert features.ids == ["a/1", "é", "", "b", "c"]
    assert features.labels.tolist() == [0, 1, 1, 0, 1]
    assert features.clean_labels.tolist() == [0, 1, 0, 0, 1]
    assert (values == VALUES).all()


@pytest.mark.parametrize("values", [VALUES.astype(np.float16), VALUES[:, ::-1], VALUES.T.copy().T])
def test_types_and_memory_layouts_survive(values):
    features, _ = read(written(make(values)))
    assert features.dtype == values.dtype
    held = library_load(written(make(values)))["features"]
    assert held.dtype == values.dtype and (held == values).all()


def test_same_bytes_whatever_the_blocks():
    assert len({written(make(block=k)) for k in (1, 2, 5, None)}) == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
def test_blocks_have_the_asked_size(rows):
    features = unpack_features(SafetensorsFile(io.BytesIO(STREAM), "stdin"))
    blocks = list(features.blocks(rows))
    assert [len(b) for b in blocks[:-1]] == [rows] * (len(blocks) - 1)
    assert (np.concatenate(blocks) == VALUES).all()


def test_every_prefix_is_refused():
    for length in range(len(STREAM)):
        refused(STREAM[:length])


def test_a_short_stream_says_how_many_rows_came():
    refused(STREAM[:-13], "stdin was cut short: 3 of 5 rows")
    refused(STREAM[: -15 * 4 - 3], "0 of 5 rows")
    refused(b"", "stdin is empty")


def test_a_stream_that_goes_on_is_refused_before_the_last_block():
    features = unpack_features(SafetensorsFile(io.BytesIO(STREAM + b"\0"), "stdin"))
    blocks = features.blocks(3)
    next(blocks)
    with pytest.raises(InvalidInput, match="goes on after its end"):
        next(blocks)


def test_a_stream_is_read_once():
    features, _ = read(STREAM)
    with pytest.raises(NmlError, match="only once"):
        features.matrix()


def change(**entries):
    header, data = split(STREAM)
    for name, facts in entries.items():
        if facts is None:
            del header[name]
        else:
            header[name] = {**header.get(name, {}), **facts} if isinstance(facts, dict) else facts
    return joined(header, data)


@pytest.mark.parametrize(
    "stream",
    [
        change(features={"dtype": "F64"}),
        change(features={"dtype": "I32"}),
        change(features={"dtype": 5}),
        change(features={"dtype": "F33"}),
        change(features={"shape": [5, 4]}),
        change(features={"shape": [3, 5]}),
        change(features={"shape": [15]}),
        change(features={"shape": [5, 3.0]}),
        change(features={"shape": [True, 15]}),
        change(features={"shape": [-5, -3]}),
        change(features={"shape": [2**62, 2**62]}),
        change(features={"shape": [0, 2**63 - 1], "data_offsets": [136, 136]}),
        change(features={"shape": "5,3"}),
        change(features={"shape": [1] * 40 + [15]}),
        change(features={"data_offsets": [136]}),
        change(features={"data_offsets": [144, 204]}),
        change(features={"data_offsets": [128, 188]}),
        change(features={"data_offsets": [-1, 59]}),
        change(features={"more": 1}),
        change(features=[1]),
        change(features=None),
        change(labels=None),
        change(labels={"dtype": "U64"}),
        change(labels={"dtype": "F64"}),
        change(ids_offsets={"shape": [3, 2]}),
        change(ids_bytes={"dtype": "I8"}),
        change(other={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        change(__metadata__={"nml": 5}),
        change(__metadata__={"more": "x"}),
        change(__metadata__={"nml": "{}"}),
        change(__metadata__={"nml": "x"}),
        change(__metadata__={"nml": RECORD.to_json().replace('"rows":5', '"rows":4')}),
        change(__metadata__={"nml": RECORD.to_json().replace('"columns":3', '"columns":4')}),
        change(__metadata__={"nml": RECORD.to_json().replace('["ant","bee"]', '["ant"]')}),
        change(__metadata__=None),
        change(__metadata__=[]),
        joined(b"[]", b""),
        joined(b"{}", b""),
        joined(b"[" * 100_000, b""),
        joined(b"\xff\xfe", b""),
        joined(b' {"a":1}', b""),
        struct.pack("<Q", len(HEADER) + 1) + HEADER + b" " + STREAM[8 + len(HEADER) :],
        struct.pack("<Q", 100_000_001) + b"{" * 100,
        b"id,label\n1,2\n3,4\n",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
)
def test_damaged_headers_are_refused(stream):
    refused(stream, "stdin")


def test_arrays_that_are_not_aligned_are_refused():
    out, packed = io.BytesIO(), np.frombuffer(b"abcde\0\0\0", np.uint8)
    arrays = {"ids_offsets": np.arange(6), "features": VALUES, "ids_bytes": packed}
    write_safetensors(out, RECORD, arrays)
    refused(out.getvalue(), "multiples of 8")
    header = {
        "x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "features": {"dtype": "F32", "shape": [1, 1], "data_offsets": [1, 5]},
    }
    refused(joined(header, b"12345"), "features is not aligned")


def test_names_that_stand_twice_are_refused():
    length = struct.unpack("<Q", STREAM[:8])[0]
    text = STREAM[8 : 8 + length].rstrip()
    entry = text[text.index(b'"labels"') : text.index(b'"clean_labels"')]
    refused(joined(text[:-1] + b"," + entry[:-1] + b"}", STREAM[8 + length :]), "twice")
    doubled = text.replace(b'"__metadata__":{', b'"__metadata__":{"nml":"x",')
    refused(joined(doubled, STREAM[8 + length :]), "twice")


def test_truth_values_are_0_or_1():
    facts = {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}
    held = SafetensorsFile(io.BytesIO(joined({"x": facts}, bytes([0, 1, 1, 0]))), "stdin")
    assert held.arrays("x")["x"].tolist() == [False, True, True, False]
    held = SafetensorsFile(io.BytesIO(joined({"x": facts}, bytes([0, 1, 2, 0]))), "stdin")
    with pytest.raises(InvalidInput, match="truth values other than 0 and 1"):
        held.arrays("x")


def test_names_that_would_make_a_stream_unreadable_are_not_written():
    with pytest.raises(ValueError, match="__metadata__"):
        write_safetensors(io.BytesIO(), RECORD, {"__metadata__": VALUES})
    rows = Rows("x", VALUES.dtype, VALUES.shape, lambda k: iter([VALUES]))
    with pytest.raises(ValueError, match="x would start"):
        write_safetensors(io.BytesIO(), RECORD, {"x": VALUES}, rows)


@pytest.mark.parametrize(
    "offsets",
    [
        {"x": [0, 8], "y": [12, 20]},  # a gap
        {"x": [8, 16], "y": [16, 24]},  # a gap at the start
        {"x": [0, 8], "y": [4, 12]},  # an overlap
        {"x": [0, 8], "y": [0, 8]},  # the same bytes
        {"x": [0, 8], "y": [8, 16]},  # bytes behind the last
    ],
)
def test_gaps_overlaps_and_leftovers_are_refused(tmp_path, offsets):
    header = {n: {"dtype": "F32", "shape": [2], "data_offsets": o} for n, o in offsets.items()}
    data = joined(header, bytes(24))
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(InvalidInput), (tmp_path / "x.safetensors").open("rb") as file:
        SafetensorsFile(file, "x.safetensors", str(tmp_path / "x.safetensors"))
    with pytest.raises(InvalidInput):
        SafetensorsFile(io.BytesIO(data), "stdin").arrays(("x", "y"))


def test_a_header_that_lies_about_sizes_costs_no_memory():
    rows = 2**40
    header, data = split(STREAM)
    header.pop("clean_labels")
    record = Record(**{**RECORD.__dict__, "rows": rows})
    header["__metadata__"]["nml"] = record.to_json()
    position = 0
    for name, dtype, shape, size in (
        ("labels", "I64", [rows], 8), ("ids_offsets", "I64", [rows + 1], 8),
        ("ids_bytes", "U8", [8], 1), ("features", "F32", [rows, 3], 12),
    ):  # fmt: skip
        stop = position + shape[0] * size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, stop]}
        position = stop
    refused(joined(header, data), "cut short: 0 of 1,099,511,627,776 rows")


def pack(offsets, text):
    out = io.BytesIO()
    arrays = {"ids_offsets": np.array(offsets), "ids_bytes": np.frombuffer(text, np.uint8)}
    rows = Rows("features", VALUES.dtype, (5, 3), lambda k: iter([VALUES]))
    write_safetensors(out, RECORD, arrays, rows)
    return out.getvalue()


@pytest.mark.parametrize(
    ("offsets", "text"),
    [
        ([0, 1, 2, 3, 4, 5], b"abcde" + bytes(11)),
        ([0, 1, 2, 3, 4, 5], b"abcdefgh"),
        ([0, 1, 2, 3, 4, 9], b"abcdefgh"),
        ([1, 1, 2, 3, 4, 5], b"abcde\0\0\0"),
        ([0, 2, 1, 3, 4, 5], b"abcde\0\0\0"),
        ([0, -1, 2, 3, 4, 5], b"abcde\0\0\0"),
        ([0, 1, 2, 3, 4, 4], b"abcd\0\0\0\0"[:0]),
        ([0, 1, 2, 3, 4, 5], b"\xc3\xa9cde\0\0\0"),
        ([0, 1, 2, 3, 4, 5], b"abcda\0\0\0"),
        ([0, 1, 2, 3, 4], b"abcd\0\0\0\0"),
        ([0, 0, 0, 0, 0, -(2**62)], b""),
    ],
)
def test_damaged_ids_are_refused(offsets, text):
    refused(pack(offsets, text), "stdin", "ids")


@pytest.mark.parametrize("label", [-1, 2, 2**62])
def test_labels_outside_the_classes_are_refused(label):
    refused(written(make(labels=np.array([0, 1, label, 0, 1]))), "row 2", f"label {label}", "2 classes")
    refused(written(make(clean_labels=np.array([0, 1, label, 0, 1]))), "row 2", "clean label")


def test_nothing_is_no_features():
    for values in (np.zeros((0, 3), np.float32), np.zeros((5, 0), np.float32)):
        with pytest.raises(InvalidInput, match="no features"):
            written(make(values, ids=("a",) * len(values), labels=None))
        out = io.BytesIO()
        write_safetensors(out, RECORD, {"ids_offsets": np.zeros(1, np.int64), "features": values})
        refused(out.getvalue(), "holds no features")


def test_an_id_that_is_not_unicode_is_not_written():
    with pytest.raises(InvalidInput, match="not Unicode"):
        written(make(ids=("a", "b", "c", "d", "\udcff")))


@pytest.mark.parametrize("wrong", [VALUES[:4], np.concatenate([VALUES, VALUES]), VALUES.astype(float)])
def test_blocks_that_are_not_what_was_announced_stop_the_writer(wrong):
    features = make()
    rows = pack_features(features)[1]
    with pytest.raises(ValueError, match="features"):
        write_safetensors(
            io.BytesIO(), RECORD, {}, Rows(rows.name, rows.dtype, rows.shape, lambda k: iter([wrong]))
        )


def same(data):
    """A stream, if it is read at all, gives the numbers that the library gives."""
    try:
        features, values = read(data)
    except NmlError as error:
        assert len(str(error).splitlines()) == 1
        return
    held = library_load(data)
    assert (values == held["features"].astype(np.float32)).all() or np.isnan(values).any()
    assert features.labels is None or (features.labels == held["labels"]).all()
    assert len(features.ids) == len(values) == len(set(features.ids))


def test_mutations_are_refused_or_read_rightly():
    rng = np.random.default_rng(0)
    for number in range(10_000):
        data, start = bytearray(STREAM), int(rng.integers(len(STREAM)))
        length, other = int(rng.integers(1, 64)), int(rng.integers(len(STREAM)))
        if number % 4 == 0:
            data[start : start + length] = data[other : other + length]
        elif number % 4 == 1:  # digits for digits: numbers that a header can hold
            digits = [i for i, byte in enumerate(HEADER, 8) if chr(byte).isdigit()]
            for position in rng.choice(digits, size=2):
                data[position] = ord("0") + int(rng.integers(10))
        else:
            for position in rng.integers(len(data), size=int(rng.integers(1, 5))):
                data[position] = rng.integers(256)
        same(bytes(data))


@settings(max_examples=700, deadline=None)
@given(st.integers(0, len(STREAM)), st.integers(0, len(STREAM)), st.binary(max_size=12))
def test_cut_and_pasted_bytes_are_refused_or_read_rightly(start, stop, pasted):
    same(STREAM[:start] + pasted + STREAM[stop:])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    refused(data, "stdin")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        min_size=1,
        max_size=9,
        unique=True,
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_whatever_ids_there_are_come_back(ids, columns, labelled):
    values = np.arange(len(ids) * columns, dtype=np.float32).reshape(len(ids), columns)
    labels = np.zeros(len(ids), np.int64) if labelled else None
    features, back = read(written(make(values, ids, labels=labels)))
    assert features.ids == ids and (back == values).all() and (features.labels is None) is not labelled


def test_a_pipe_is_read_as_it_comes():
    values = np.random.default_rng(0).standard_normal((3000, 64), dtype=np.float32)
    ids = [str(i) for i in range(3000)]
    reader, writer = os.pipe()

    def feed():
        with open(writer, "wb") as file:  # noqa: PTH123
            features = make(values, ids, labels=None)
            write_safetensors(file, features.record, *pack_features(features))

    thread = threading.Thread(target=feed)
    thread.start()
    features = unpack_features(SafetensorsFile(open(reader, "rb"), "stdin"))  # noqa: PTH123, SIM115
    assert (np.concatenate(list(features.blocks(700))) == values).all()
    thread.join()


def test_a_file_is_read_as_often_as_asked(tmp_path):
    path = str(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(STREAM)
    features = unpack_features(SafetensorsFile(open(path, "rb"), path, path))  # noqa: PTH123, SIM115
    assert (features.matrix() == features.matrix()).all()
    first, second = features.blocks(2), features.blocks(3)  # two at once do not disturb each other
    assert (next(first) == VALUES[:2]).all() and (next(second) == VALUES[:3]).all()
    assert (next(first) == VALUES[2:4]).all() and (next(second) == VALUES[3:]).all()


@pytest.mark.parametrize("data", [STREAM[:-1], STREAM + b"x", STREAM[:100], STREAM[:3]])
def test_the_length_of_a_file_is_checked_when_it_is_opened(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"x\.safetensors"):
        SafetensorsFile(path.open("rb"), str(path), str(path))


def test_foreign_files_need_no_record(tmp_path):
    path = str(tmp_path / "x.safetensors")
    save_file({"embeddings": VALUES, "labels": np.arange(5, dtype=np.int32), "x": np.ones(2)}, path)
    features = unpack_features(SafetensorsFile(open(path, "rb"), path, path))  # noqa: PTH123, SIM115
    assert (features.matrix() == load_file(path)["embeddings"]).all()
    assert features.ids == ["0", "1", "2", "3", "4"] and features.labels.tolist() == [0, 1, 2, 3, 4]
    assert features.record.model is None and len(features.record.identity) == 32
    with pytest.raises(InvalidInput, match="no nml record"):
        read((tmp_path / "x.safetensors").read_bytes())
