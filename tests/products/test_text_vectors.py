"""Vectors as text: csv and json are the oracles, an API's answers are read, damage is named."""

import base64
import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput
from nmlcli.products import jsonlines
from nmlcli.products.vectors import write_vectors
from tests.products.vectors import IDS, made, matrix, read, refused

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
VALUES[0, 0] = -0.0


def lines(path, objects):
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return path


def encoded(values):
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_json_and_csv_of_others_read_what_was_written(tmp_path, dtype):
    values = VALUES.astype(dtype)
    write_vectors(str(tmp_path / "x.jsonl"), made(values, IDS), "v.ü")
    found = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().split("\n")[:-1]]
    assert [row["id"] for row in found] == list(IDS)
    assert [row["label"] for row in found] == ["ant", "bée, or"] * 2 + ["ant"]
    assert np.array([row["v.ü"] for row in found]).astype(dtype).tobytes() == values.tobytes()
    assert (matrix(read(tmp_path / "x.jsonl", key="v.ü")) == values).all()

    write_vectors(str(tmp_path / "x.csv"), made(values, IDS), "x,")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "label", "clean_label", "x,0", "x,1", "x,2"]
    assert [row[0] for row in rows] == list(IDS)
    assert np.array([row[3:] for row in rows], float).astype(dtype).tobytes() == values.tobytes()
    assert (matrix(read(tmp_path / "x.csv", key="x,")) == values).all()


@settings(deadline=None, max_examples=80)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
            st.sampled_from(["ant", "10", "9"]),
            st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 2),
        ),
        min_size=1, max_size=6, unique_by=lambda row: row[0],
    ),
    size=st.integers(1, 7),
)  # fmt: skip
def test_what_csv_and_json_write_is_read(rows, size):
    names, labels, vectors = (list(column) for column in zip(*rows, strict=True))
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(["f1", "label", "note", "id", "f0"])
            writer.writerows([v[1], label, "f", name, v[0]] for name, label, v in rows)
        objects = [{"label": b, "id": a, "x": None, "embedding": v} for a, b, v in rows]
        for found in (read(path), read(lines(Path(folder, "x.jsonl"), objects))):
            assert found.ids == names and [found.record.classes[i] for i in found.labels] == labels
            order = None if "ant" in labels else int  # whole numbers are in their own order
            assert found.record.classes == tuple(sorted(set(labels), key=order))
            assert matrix(found, size).tobytes() == np.array(vectors, np.float32).tobytes()


def answer(vectors):
    return {
        "data": [{"embedding": v, "index": i, "object": "embedding"} for i, v in enumerate(vectors)]
    }


@pytest.mark.parametrize("form", [list, encoded])
def test_answers_of_an_api(tmp_path, form):
    shown = [form(row.tolist()) for row in VALUES]
    batch = [
        {"id": f"batch_{i}", "custom_id": f"é{i}", "error": None,
         "response": {"status_code": 200, "body": answer([vector])}}
        for i, vector in enumerate(shown)
    ]  # fmt: skip
    plain = [{"object": "list", **answer([vector])} for vector in shown]
    flat = [{"id": f"n{i}", "embedding": vector} for i, vector in enumerate(shown)]
    for objects, ids in ((batch, [f"é{i}" for i in range(5)]), (plain, list("01234")),
                         (flat, [f"n{i}" for i in range(5)])):  # fmt: skip
        found = read(lines(tmp_path / "x.jsonl", objects))
        assert found.ids == ids and (matrix(found) == VALUES).all() and found.labels is None
    found = read(
        lines(tmp_path / "x.jsonl", batch), key="response.body.data.0.embedding", id_column="id"
    )
    assert found.ids == [f"batch_{i}" for i in range(5)] and (matrix(found) == VALUES).all()


def test_an_answer_to_several_inputs_is_several_rows(tmp_path):
    several = answer([row.tolist() for row in VALUES[:4]])
    several["data"].reverse()
    path = lines(tmp_path / "x.jsonl", [several, answer([VALUES[4].tolist()])])
    assert (matrix(read(path)) == VALUES).all() and read(path).ids == list("01234")
    batch = [{"custom_id": "a", "response": {"body": several}}]
    found = read(lines(path, batch))
    assert found.ids == ["a/0", "a/1", "a/2", "a/3"] and (matrix(found) == VALUES[:4]).all()
    several["data"][0]["index"] = 0
    refused(lines(path, [several]), "line 1: the 4 vectors in data have no index each")
    del several["data"][0]["index"]
    refused(lines(path, [several]), "no index each")


def failed(status, body, name="b"):
    """A line of a batch that an API could not answer."""
    response = {"status_code": status, "body": body}
    return {"id": "batch_1", "custom_id": name, "response": response, "error": None}


TOLD = "line 2 (b) has no {}, but an error: "


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (failed(400, {"error": {"message": "too\nlong", "type": "x"}}), f"{TOLD}too long:"),
        (failed(500, {}), f"{TOLD}status 500:"),
        (failed(200, {}), "line 2 has no {}, but id, custom_id, response, error:"),
        ({"custom_id": "b", "response": None, "error": {"message": "late"}}, f"{TOLD}late:"),
        ({"custom_id": "b", "error": "late"}, f"{TOLD}late:"),
        ({"error": {"message": 5}}, "line 2 (no id) has no {}, but an error: 5:"),
        (failed(400, {"error": "m" * 5000}, "n" * 5000), f"({'n' * 60}){TOLD[10:]}{'m' * 200}:"),
    ],
)
def test_what_an_api_says_of_a_line_is_told(tmp_path, line, message):
    good = failed(200, answer([[1.5, 2]]), "a")
    key = "response.body.data.0.embedding"
    refused(lines(tmp_path / "x.jsonl", [good, line]), message.format(key))
    first_of_all = message.replace("line 2", "line 1").format("embedding")
    refused(lines(tmp_path / "x.jsonl", [line, good]), first_of_all)


GOOD = {"id": "a", "embedding": [1.5, 2]}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": "b", "embedding": [1.5]}, "line 3 has 1 numbers, others 2"),
        ({"id": "b", "embedding": [1, "2"]}, 'line 3: embedding holds "2", not a number'),
        ({"id": "b", "embedding": [1, None]}, "line 3: embedding holds null"),
        ({"id": "b", "embedding": [True, 2]}, "line 3: embedding holds true"),
        ({"id": "b", "embedding": [[1], [2]]}, "line 3: embedding holds [1]"),
        ({"id": "b", "embedding": [10**400, 1]}, "line 3: embedding holds a number that is too large"),
        ({"id": "b", "embedding": []}, "line 3: embedding is [], not a list"),
        ({"id": "b", "embedding": 3}, "line 3: embedding is 3, not a list of numbers"),
        ({"id": "b", "embedding": None}, "line 3 has no embedding"),
        (
            {"id": "b", "error": {"code": "x"}},
            'line 3 (b) has no embedding, but an error: {"code": "x"}: ask for it again',
        ),
        ({"id": "b", "embedding": "%%%"}, "line 3: embedding is text, but not base64"),
        ({"id": "b", "embedding": "AAAAAA=="}, "line 3 has 1 numbers, others 2"),
        ({"id": "b", "embedding": "AAAAAAA="}, "line 3: embedding is base64 of 5 bytes"),
        ({"id": "b", "embedding": ""}, "base64 of 0 bytes"),
        ({"id": "a", "embedding": [1, 2]}, "ids repeat: a"),
        ({"id": None, "embedding": [1, 2]}, "row 2 has no id in column id"),
        ({"id": 1.5, "embedding": [1, 2]}, "row 2 has a id that is neither text nor a whole number"),
        ({"embedding": [1, 2]}, "row 2 has no id"),
        ({"id": "\ud800", "embedding": [1, 2]}, "line 3 holds half a character"),
        ([1, 2], "line 3 is no JSON object"),
    ],
)
def test_lines_that_are_no_vector_are_named(tmp_path, second, message):
    path = tmp_path / "x.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(second)}\n")
    refused(path, message)


def test_text_that_is_damaged_is_named(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    good = json.dumps(GOOD).encode()
    for data, message in (
        (b"", "is empty"), (b"\n \n", "is empty"), (good + b"\n{", "line 2 is not JSON"),
        (good + b"\n\xff\n", "is not UTF-8"), (b'{"embedding": [1], "embedding": [2]}', "named twice"),
        (b'{"id": "a", "vec": [1]}', "line 1 has no embedding, but id, vec"), (b"{}", "but nothing"),
        (b"[" * 100_000, "line 1 is not JSON"),
    ):  # fmt: skip
        path.write_bytes(data)
        refused(path, message)
    path.write_bytes(good)
    refused(path, "line 1 has no x.y", "--key", key="x.y")
    refused(path, "has no column name, but id, embedding", "--id-column", id_column="name")
    monkeypatch.setattr(jsonlines, "LONGEST_LINE", 20)
    refused(path, "line 1 is longer than 20")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,f0\n", "has no rows"),
        ("id,x0\na,1\n", "has no column f0, but id, x0"),
        ("id,f0,f2\na,1,2\n", "has no column f1"),
        ("f0,f0\n1,2\n", "two columns f0"),
        ("id,f0\na,1\nb\n", "line 3 has 1 cells, the header 2"),
        ("id,f0\na,1\n\nb,x\n", "row 2: f0 is 'x', not a number"),
        ("id,f0\na,1_0\n", "row 1: f0 is '1_0', not a number"),
        ("id,f0\na,1\nb,\xef\xbc\x91\n", "row 2: f0 is '１', not a number"),
        ("id,f0\na,\xd9\xa1\n", "row 1: f0 is '١', not a number"),
        ("id,f0\na,\n", "row 1: f0 is '', not a number"),
        ("id,f0\na,1\na,2\n", "ids repeat: a"),
        ("id,f0\n,1\n", "row 1 has no id"),
        ("id,f0,label\na,1,\n", "row 1 has no label"),
        ('id,f0\n"a,1\n', "line 2 opens a quote and never closes it"),
        ('id,f0\n"a"b,1\n', "line 2 has text behind a closing quote"),
        ("id,f0\n" + "a" * 300_000 + ",1\nb,x\n", "row 2: f0 is 'x', not a number"),
        ("f0,x\n" + "1,a\n" * 200_000 + ",b\n", "row 200001: f0 is '', not a number"),
        ("id,f0\na,1\n\xff,1\n", "line 3 is not UTF-8"),
    ],
)
def test_csv_that_is_damaged_is_named(tmp_path, text, message):
    (tmp_path / "x.csv").write_bytes(text.encode("latin-1"))
    refused(tmp_path / "x.csv", message)


def test_columns_that_are_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("name,dim_0,dim_1,kind\nu,1,2,10\nv,3,4,9\n")
    found = read(path, key="dim_", id_column="name", label_column="kind")
    assert found.ids == ["u", "v"] and matrix(found).tolist() == [[1, 2], [3, 4]]
    assert found.record.classes == ("9", "10") and found.labels.tolist() == [1, 0]
    assert read(path, key="dim_").ids == ["0", "1"]
    with pytest.raises(InvalidInput, match="no column id2, but name"):
        read(path, key="dim_", id_column="id2")
    assert read(path, key="dim_", id_column="id2", lenient=True).ids == ["0", "1"]
    with pytest.raises(InvalidInput, match=r"no column kind2.*--label-column"):
        read(path, key="dim_", label_column="kind2")
    nested = {"meta": {"uid": 7, "kind": "ant"}, "embedding": [1]}
    found = read(lines(tmp_path / "x.jsonl", [nested]), id_column="meta.uid", label_column="meta.kind")
    assert found.ids == ["7"] and found.record.classes == ("ant",)


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path):
    path = lines(tmp_path / "x.jsonl", [GOOD, {**GOOD, "id": "b"}])
    found = read(path)
    with path.open("r+b") as file:  # in place, and as long as before
        file.write(path.read_bytes().replace(b"[1.5, 2]", b"[1.5002]"))
    with pytest.raises(InvalidInput, match="changed while it was read"):
        matrix(found)


def test_the_keys_of_a_product_stay_apart(tmp_path):
    for suffix in (".jsonl", ".parquet"):
        with pytest.raises(InvalidInput, match="cannot be named label"):
            write_vectors(str(tmp_path / f"x{suffix}"), made(VALUES), "label")
    assert list(tmp_path.iterdir()) == []
