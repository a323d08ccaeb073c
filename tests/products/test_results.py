"""Result lines: read strictly, merged by identity, safe with other writers."""

import io
import json
import math
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products import results

VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
LINES = st.lists(st.dictionaries(st.text(min_size=1), VALUES, max_size=5), max_size=6)


@settings(deadline=None)
@given(LINES)
def test_what_is_merged_is_read_back(tmp_path_factory, lines):
    path = str(tmp_path_factory.mktemp("results") / "r.jsonl")
    plain = [{k: v for k, v in line.items() if k != "identity"} for line in lines]
    results.merge(path, plain)
    assert results.read(path) == plain


def test_a_line_made_again_takes_its_place(tmp_path):
    path = str(tmp_path / "r.jsonl")
    results.merge(path, [{"identity": "a", "x": 1}, {"identity": "b", "x": 2}])
    results.merge(path, [{"identity": "c", "x": 3}, {"identity": "a", "x": 4}])
    assert [(line["identity"], line["x"]) for line in results.read(path)] == [
        ("a", 4),
        ("b", 2),
        ("c", 3),
    ]


def test_numbers_of_numpy_and_those_that_are_not_finite(tmp_path):
    path = str(tmp_path / "r.jsonl")
    line = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": math.nan,
        "d": [math.inf, 1.0],
        "e": {"f": np.True_},
    }
    results.merge(path, [line])
    assert results.read(path) == [{"a": 0.5, "b": 3, "c": None, "d": [None, 1.0], "e": {"f": True}}]


@pytest.mark.parametrize(
    ("text", "number"), [('{"a": 1}\n{"a": \n', 2), ("[1]\n", 1), ('\n\n{"a": 1}\nnull\n', 4)]
)
def test_a_damaged_line_is_named_and_the_file_left_alone(tmp_path, text, number):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=f"r.jsonl: line {number} is not a JSON object"):
        results.read(str(path))
    with pytest.raises(InvalidInput):
        results.merge(str(path), [{"a": 2}])
    assert path.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_missing_file_and_a_missing_folder(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        results.read(str(tmp_path / "none.jsonl"))
    with pytest.raises(NmlError, match="make the folder first"):
        results.merge(str(tmp_path / "none" / "r.jsonl"), [{}])


@pytest.mark.parametrize("identity", ['["x"]', "{}", "7"])
def test_an_identity_is_a_text(tmp_path, identity):
    path = tmp_path / "r.jsonl"
    path.write_text(f'{{"identity": "a"}}\n{{"identity": null}}\n{{"identity": {identity}}}\n')
    with pytest.raises(InvalidInput, match="line 3 has an identity that is no text"):
        results.merge(str(path), [{"identity": "b"}])


def test_stdin_is_read(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b'{"a": "\xc3\xa4"}\n'))
    monkeypatch.setattr("sys.stdin", stdin)
    assert results.read("-") == [{"a": "ä"}]


def test_a_link_is_followed(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.jsonl", tmp_path / "link.jsonl"
    real.write_text('{"identity": "a"}\n')
    link.symlink_to(real)
    locked = []
    monkeypatch.setattr(results.fcntl, "flock", lambda handle, _: locked.append(os.fstat(handle)))
    results.merge(str(link), [{"identity": "b"}])
    # Writers that come by another name hold the same lock.
    assert [each.st_ino for each in locked] == [real.parent.stat().st_ino]
    assert link.is_symlink()
    assert [line["identity"] for line in results.read(str(real))] == ["a", "b"]


def _write(path: str, writer: int, rounds: int) -> None:
    for number in range(rounds):
        results.merge(path, [{"identity": f"{writer}-{number}"}, {"identity": "shared", "by": writer}])


@pytest.mark.process
def test_no_line_of_many_writers_is_lost(tmp_path):
    path, writers, rounds = str(tmp_path / "r.jsonl"), 4, 25
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(path, w, rounds)) for w in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    identities = [json.loads(line)["identity"] for line in Path(path).read_text().splitlines()]
    assert len(identities) == len(set(identities)) == writers * rounds + 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.jsonl"]
