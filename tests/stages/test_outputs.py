"""What counts as up to date."""

import os

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products.features import Features
from nmlcli.products.formats import write_features
from nmlcli.provenance import Record
from nmlcli.stages.outputs import check_apart, check_out, check_place, check_results, up_to_date


@pytest.fixture
def out(tmp_path):
    """A product of identity `made`, written at a known time."""
    matrix = np.ones((2, 3), dtype=np.float32)
    record = Record(kind="features", identity="made", command="embed", rows=2, columns=3)
    path = tmp_path / "out.h5"
    ids = ["a", "b"]
    write_features(
        str(path), Features(record, ids, None, None, matrix.dtype, lambda rows: iter([matrix]), "test")
    )
    os.utime(path, (1000, 1000))
    return path


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "input.csv"
    path.write_text("x")
    os.utime(path, (900, 900))
    return path


def test_the_same_identity_and_older_inputs(out, source, caplog):
    caplog.set_level("INFO")
    assert up_to_date(str(out), "made", [source])
    assert caplog.messages == [f"{out} is up to date"]


def test_another_identity(out, source):
    assert not up_to_date(str(out), "other", [source])


def test_a_newer_input(out, source):
    os.utime(source, (1001, 1001))
    assert not up_to_date(str(out), "made", [source])


def test_inputs_that_are_no_files_count_through_the_identity_alone(out):
    assert up_to_date(str(out), "made", ["-", "builtin:shapes:train"])


@pytest.mark.parametrize("name", [None, "-", "missing.h5"])
def test_what_is_not_there_is_made(name):
    assert not up_to_date(name, "made")


def test_what_cannot_be_read_is_made_again(out):
    out.write_bytes(out.read_bytes()[:100])
    assert not up_to_date(str(out), "made")
    out.write_bytes(b"")
    assert not up_to_date(str(out), "made")


def test_places_of_products(tmp_path):
    (tmp_path / "in.csv").write_text("x")
    (tmp_path / "old.txt").write_text("x")
    (tmp_path / "link.h5").symlink_to(tmp_path / "in.csv")
    for out in (None, "-", "/dev/null", f"{tmp_path}/new.h5", f"{tmp_path}/new.SAFETENSORS"):
        check_out(out, [f"{tmp_path}/in.csv", None, "-"])
        check_place(out, [f"{tmp_path}/in.csv"])
    for out, kind, words in (
        ("", UsageError, "-o .* is a folder: give the name of a file"),
        ("none/", UsageError, "-o .*none/ is a folder"),
        ("link.h5", UsageError, r"-o .*link\.h5 would overwrite an input"),
        ("new.txt", UsageError, r"no format has the suffix \.txt: use \.safetensors, \.h5"),
        ("old.txt", UsageError, r"no format has the suffix \.txt"),  # though it is there
        ("new", UsageError, r"no format has the suffix \(none\)"),
        ("none/new.h5", NmlError, "folder .*none does not exist: make it first"),
    ):
        with pytest.raises(kind, match=words):
            check_out(f"{tmp_path}/{out}", ["builtin:x", f"{tmp_path}/in.csv"])
    check_place(f"{tmp_path}/old.txt", [])
    check_out(f"{tmp_path}/new.csv", suffixes={".csv": 1})
    with pytest.raises(UsageError, match=r"--log .*in\.csv would overwrite an input"):
        check_place(f"{tmp_path}/in.csv", [f"{tmp_path}/in.csv"], "--log")
    with pytest.raises(NmlError, match=r"folder .*none does not exist"):
        check_place(f"{tmp_path}/none/x.txt", [])


def test_results_are_merged_into_result_lines_alone(tmp_path):
    mine = tmp_path / "r.jsonl"
    for out in (None, str(mine), "/dev/null"):
        check_results(out, [])
    with pytest.raises(UsageError, match="not to stdout"):
        check_results("-", [])
    mine.write_text('{"kind": "result"}\n\n')
    check_results(str(mine), [])
    with pytest.raises(UsageError, match=r"--results .*r\.jsonl would overwrite an input"):
        check_results(str(mine), [mine])
    mine.write_text("{}\n[]\n")
    with pytest.raises(InvalidInput, match=r"r\.jsonl: line 2 is not a JSON object"):
        check_results(str(mine), [])


def test_two_outputs_are_two_files(tmp_path):
    one, two = str(tmp_path / "a"), str(tmp_path / "b")
    check_apart(results=one, predictions=two)
    check_apart(results=None, predictions=None, log="-", out="-")
    (tmp_path / "link").symlink_to(one)
    with pytest.raises(UsageError, match="--results and --predictions are one file"):
        check_apart(results=one, predictions=str(tmp_path / "link"))
