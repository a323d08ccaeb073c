"""Records and identities: stable, whole, and refused where they are damaged."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.provenance import (
    FORMAT,
    KINDS,
    Record,
    canonical,
    chain,
    hash_file,
    identity_of,
    parse_record,
)

RECORD = Record(
    "features", "0" * 32, "embed", options={"dtype": "float32"}, classes=("ant", "bée"), rows=5,
    columns=3, data={"name": "shapes:test"},
    model={"name": "resnet18", "seed": 1, "noise": {"realised": 0.3}},
    noise={"kind": "symmetric", "requested": 0.2, "realised": 0.2, "flipped": 1, "of": 5, "seed": 0},
    parents=({"kind": "checkpoint", "identity": "1" * 32, "command": "pretrain"},),
    extra={"a": [1, None]},
)  # fmt: skip


def test_a_record_comes_back():
    assert parse_record(RECORD.to_json(), "x") == RECORD
    assert parse_record(RECORD.to_json().encode(), "x") == RECORD
    assert parse_record(Record("head", "0" * 32, "tune").to_json(), "x").classes is None


def test_a_record_is_the_same_bytes_however_it_was_made():
    backwards = Record(**dict(reversed(RECORD.__dict__.items())))
    assert backwards.to_json() == RECORD.to_json() == parse_record(RECORD.to_json(), "x").to_json()
    assert "bée" in RECORD.to_json() and "\n" not in RECORD.to_json() and ": " not in RECORD.to_json()


def test_identities_are_what_they_were():
    """Another value here makes every product anew: a change that belongs into the change log."""
    assert (
        identity_of("corrupt", 1, {"ratio": 0.2, "kind": "symmetric"}, ["a" * 32])
        == (
            hashlib.sha256(
                b'{"command":"corrupt","inputs":["'
                + b"a" * 32
                + b'"],"options":{"kind":"symmetric","ratio":0.2},'
                b'"revision":1}'
            ).hexdigest()[:32]
        )
    )


@pytest.mark.parametrize(
    ("command", "revision", "options", "inputs"),
    [
        ("embed", 1, {"a": 1, "b": 2}, ["x", "y"]),
        ("tune", 2, {"a": 1, "b": 2}, ["x", "y"]),
        ("tune", 1, {"a": 1, "b": 3}, ["x", "y"]),
        ("tune", 1, {"a": 1}, ["x", "y"]),
        ("tune", 1, {"a": 1, "b": "2"}, ["x", "y"]),
        ("tune", 1, {"a": 1, "b": 2.5}, ["x", "y"]),
        ("tune", 1, {"a": 1, "b": 2}, ["y", "x"]),
        ("tune", 1, {"a": 1, "b": 2}, ["xy"]),
        ("tune", 1, {"a": 1, "b": 2}, []),
    ],
)
def test_whatever_changes_the_product_changes_its_identity(command, revision, options, inputs):
    base = identity_of("tune", 1, {"b": 2, "a": 1}, iter(["x", "y"]))
    assert base == identity_of("tune", 1, {"a": 1, "b": 2}, ("x", "y"))
    assert identity_of(command, revision, options, inputs) != base


def test_numbers_that_json_lacks_have_no_identity():
    with pytest.raises(UsageError, match="give finite numbers"):
        identity_of("tune", 1, {"a": float("nan")}, [])


def test_hash_file_is_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()[:32]


def test_chain_names_each_product_once_nearest_first():
    labels = Record("labels", "l", "corrupt")
    checkpoint = Record("checkpoint", "c", "pretrain", parents=chain(labels))
    one = Record("features", "f", "embed", parents=chain(checkpoint, labels))
    two = Record("features", "g", "embed", parents=chain(checkpoint, None))
    parents = chain(one, None, two)
    assert [(p["kind"], p["identity"], p["command"]) for p in parents] == [
        ("features", "f", "embed"), ("checkpoint", "c", "pretrain"), ("labels", "l", "corrupt"),
        ("features", "g", "embed"),
    ]  # fmt: skip
    assert chain() == chain(None) == ()


def changed(**values):
    return canonical({**json.loads(RECORD.to_json()), **values})


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "5", '"features"', "{}", b"\xff", "[" * 100_000, '{"kind": "features"}',
        '{"kind": "features", "format": 1}', RECORD.to_json().replace("0.2", "NaN"),
        RECORD.to_json().replace("ant", "\\ud800"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(text):
    with pytest.raises(InvalidInput, match=r"^x\.h5: its nml record"):
        parse_record(text, "x.h5")


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "photo"}, {"kind": None}, {"kind": []}, {"format": 2}, {"format": "1"}, {"version": 1},
        {"identity": None}, {"identity": 5}, {"command": None}, {"options": None}, {"options": []},
        {"extra": None}, {"rows": "5"}, {"rows": 5.0}, {"rows": True}, {"rows": -1}, {"columns": -1},
        {"classes": "ab"}, {"classes": ["a", "a"]}, {"classes": [1, 2]}, {"data": "x"}, {"model": []},
        {"noise": 0.2}, {"parents": None}, {"parents": ["x"]}, {"parents": [{}]},
        {"parents": [{"identity": 5}]}, {"parents": [{"identity": "x", "kind": "head"}]},
    ],
)  # fmt: skip
def test_damaged_records_are_refused(values):
    with pytest.raises(InvalidInput, match=r"^x\.h5: its nml record"):
        parse_record(changed(**values), "x.h5")


@pytest.mark.parametrize("name", [*Record.__dataclass_fields__])
def test_a_record_has_all_its_fields(name):
    values = json.loads(RECORD.to_json())
    del values[name]
    with pytest.raises(InvalidInput):
        parse_record(json.dumps(values), "x.h5")


def test_fields_of_others_are_left_aside():
    assert parse_record(changed(content="of a table"), "x.csv") == RECORD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([*Record.__dataclass_fields__]), JSON)
def test_any_value_is_refused_or_kept(name, value):
    text = json.dumps({**json.loads(RECORD.to_json()), name: value})
    try:
        record = parse_record(text, "x.h5")
    except InvalidInput as error:
        assert str(error).startswith("x.h5: ")
        return
    assert parse_record(record.to_json(), "x.h5") == record
    assert record.kind in KINDS and record.format == FORMAT and chain(record)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(RECORD.to_json().encode()) - 1), st.integers(0, 255))
def test_changed_bytes_are_refused_or_kept(position, value):
    data = bytearray(RECORD.to_json().encode())
    data[position] = value
    try:
        record = parse_record(bytes(data), "x.h5")
    except InvalidInput:
        return
    assert parse_record(record.to_json(), "x.h5") == record
