"""Rows of spectra: what is measured of what, where it comes from, and what is not measured again."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.numerics.measures import MEASURES
from nmlcli.products import results
from nmlcli.products.formats import read_features, read_record
from nmlcli.stages.inputs import provenance_keys
from nmlcli.stages.spectrum import SpectrumOptions, measure

PROVENANCE = {
    "task": "toy", "domain": "photo", "split": "train", "backbone": "resnet10t",
    "backbone_identity": "m" * 32, "backbone_seed": 0, "layer": "pre_logits", "objective": "supervised",
    "pretrain_set": "shapes:train", "pretrain_noise": "symmetric", "pretrain_ratio": 0.3,
    "pretrain_realised": 0.31, "pretrain_noise_seed": 4,
}  # fmt: skip


def one(source: str, out: str | None = None, **options) -> dict:
    (row,) = measure([source], out, SpectrumOptions(**options))
    return row


def sve_of(X: np.ndarray) -> float:
    values = np.linalg.svd(X.astype(np.float64), compute_uv=False)
    p = values[values > 1e-12 * values[0]] / values.sum()
    return float(-(p * np.log(p)).sum())


def test_a_row_says_what_was_measured_and_where_it_comes_from(make_features) -> None:
    path = make_features()
    row = one(path)
    assert row["kind"] == "spectrum" and (row["rows"], row["columns"]) == (90, 8)
    assert row["sve"] == pytest.approx(sve_of(read_features(path).matrix()), abs=1e-9)
    assert set(MEASURES) <= set(row) and row["undefined"] is None
    assert {name: row[name] for name in PROVENANCE} == PROVENANCE
    assert row["features"] == read_record(path).identity
    assert (row["spectrum_preset"], row["center"], row["rankme_eps"]) == ("raw", False, 1e-7)
    assert (row["alpha_req_from"], row["alpha_req_to"], row["zero_rows"]) == (4, 8, 0)
    assert all(not isinstance(value, (dict, list)) for value in row.values())
    json.dumps(row, allow_nan=False)


def test_unknown_provenance_is_none(make_features) -> None:
    record = read_record(make_features(model=None))
    keys = provenance_keys(record)
    assert list(keys) == [*PROVENANCE, "features"]
    assert keys["task"] == "toy" and keys["features"] == record.identity
    assert all(keys[name] is None for name in PROVENANCE if name not in ("task", "domain", "split"))


def test_presets_and_centring(make_features) -> None:
    path = make_features()
    X = read_features(path).matrix().astype(np.float64)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    released = unit - unit.mean(axis=1, keepdims=True)
    for preset, wanted in (("raw", X), ("l2", unit), ("released", released)):
        assert one(path, preset=preset)["sve"] == pytest.approx(sve_of(wanted), abs=1e-9)
        centred = one(path, preset=preset, center=True)
        assert centred["sve"] == pytest.approx(sve_of(wanted - wanted.mean(axis=0)), abs=1e-9)
        assert centred["participation_ratio"] == pytest.approx(
            one(path, preset=preset)["participation_ratio"]
        )
    row = one(path, preset="released")
    assert row["rank"] == 7 and row["condition"] is None
    assert row["undefined"] == "condition: infinite, the rank is 7 of 8"
    assert len({one(path, preset=p, center=c)["identity"] for p in ("raw", "l2") for c in (0, 1)}) == 4


def test_files_of_both_kinds_and_a_stream_give_the_same(make_features, monkeypatch) -> None:
    file = make_features("a.safetensors")
    wanted = one(file)
    with Path(file).open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        streamed = one("-")
    assert streamed == {**wanted, "source": "stdin"}
    other = one(make_features("a.h5"))
    assert {name: other[name] for name in MEASURES} == {name: wanted[name] for name in MEASURES}


@pytest.mark.parametrize("suffix", [".safetensors", ".h5"])
def test_the_state_holds_the_sums(make_features, tmp_path, suffix: str) -> None:
    path, out = make_features(), str(tmp_path / f"state{suffix}")
    row = one(path, out, preset="l2")
    X = read_features(path).matrix().astype(np.float64)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    state = (
        load_file(out) if suffix == ".safetensors" else {k: v[()] for k, v in h5py.File(out).items()}
    )
    np.testing.assert_allclose(state["centred_gram"], (X - X.mean(0)).T @ (X - X.mean(0)), rtol=1e-12)
    np.testing.assert_allclose(state["column_sums"], X.sum(axis=0), rtol=1e-10)
    np.testing.assert_allclose(state["singular_values"], np.linalg.svd(X, compute_uv=False), rtol=1e-10)
    assert state["count"] == 90
    record = read_record(out)
    assert (record.kind, record.identity, record.options) == (
        "spectrum",
        row["identity"],
        {"preset": "l2", "center": False},
    )
    assert record.parents[0]["identity"] == row["features"]
    first = Path(out).read_bytes()
    one(path, out, preset="l2")
    assert Path(out).read_bytes() == first


def test_results_are_merged_and_reused(make_features, tmp_path, caplog, monkeypatch) -> None:
    caplog.set_level(logging.INFO, "nmlcli")
    path, file, state = make_features(), str(tmp_path / "r.jsonl"), str(tmp_path / "s.h5")
    row = one(path, results=file)
    one(path, results=file, center=True)
    one(path, results=file)
    assert [line["center"] for line in results.read(file)] == [False, True]
    assert all("source" not in line for line in results.read(file))
    assert "up to date" not in caplog.text

    monkeypatch.setattr("nmlcli.stages.gauges.Accumulator", None)  # nothing is measured
    assert one(path, results=file, reuse=True) == row
    assert f"{path} is up to date in {file}" in caplog.text
    with Path(path).open() as stream, monkeypatch.context() as patch:
        place = os.dup(stream.fileno())
        patch.setattr(sys, "stdin", stream)
        assert one("-", results=file, reuse=True) == {**row, "source": "stdin"}
        # Read to its end, or the writer would meet a closed pipe.
        assert os.lseek(place, 0, os.SEEK_CUR) == Path(path).stat().st_size
        os.close(place)

    monkeypatch.undo()
    assert one(path, state, results=file, reuse=True) == row  # the state was missing
    assert Path(state).exists()
    os.utime(path, (2**31, 2**31))
    monkeypatch.setattr("nmlcli.stages.gauges.Accumulator", None)
    with pytest.raises(TypeError):
        one(path, results=file, reuse=True)


def test_few_rows_are_warned_of(make_features, caplog) -> None:
    list(measure([make_features(rows=79), make_features("b.h5", rows=80)], None, SpectrumOptions()))
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    assert "79 rows for 8 columns" in caplog.text
    assert "the sources have 79 to 80 rows" in caplog.text


def test_zero_features_have_no_measures_and_a_reason(make_features) -> None:
    row = one(make_features(change=lambda features, _: features.fill(0)), preset="l2")
    assert row["sve"] is row["condition"] is row["alpha_req"] is row["alpha_req_from"] is None
    assert (row["rank"], row["sigma_max"], row["zero_rows"]) == (0, 0, 90)
    assert "sve, lsvr" in row["undefined"] and "all values are 0" in row["undefined"]


def test_one_row(make_features) -> None:
    row = one(make_features(rows=1))
    assert (row["sve"], row["lsvr"], row["rank"], row["condition"]) == (0, 0, 1, 1)
    assert row["alpha_req"] is row["participation_ratio"] is None


def spoil(features: np.ndarray, _: np.ndarray) -> None:
    features[17, 3] = np.nan


def test_bad_input_is_named(make_features, tmp_path) -> None:
    with pytest.raises(InvalidInput, match=r"bad\.h5: the features of 0017 are not finite"):
        one(make_features("bad.h5", change=spoil))
    with pytest.raises(InvalidInput, match="no such file"):
        one(str(tmp_path / "none.h5"))
    path, plain = make_features(), SpectrumOptions()
    for arguments, message in (
        (([path], "-", plain), "the rows go to stdout"),
        (([path], str(tmp_path / "s.txt"), plain), "no format has the suffix .txt"),
        (([path], None, SpectrumOptions(preset="rwa")), "no preset 'rwa'"),
        (([path], None, SpectrumOptions(reuse=True)), "--reuse looks for rows"),
        (([path], str(tmp_path / "s.h5"), SpectrumOptions(by_class=True)), "-o holds the state of one"),
        (([path], None, SpectrumOptions(by_class=True, against=path)), "--against compares whole sets"),
        (([path], None, SpectrumOptions(concat=True, against=path)), "--against compares one file"),
        (([path], None, SpectrumOptions(top=3)), "--top says what --against compares"),
        (([path], None, SpectrumOptions(seed=3)), "--seed draws a sample"),
        (([path, path], None, SpectrumOptions(against="-")), "stdin can be compared with one source"),
        ((["-"], None, SpectrumOptions(against="-")), "- is given twice"),
        (([path], None, SpectrumOptions(plot="x.gif")), "no picture has that suffix"),
        (([path], None, SpectrumOptions(plot="x.png", reuse=True, results="r")), "--plot draws what"),
    ):
        with pytest.raises(UsageError, match=message):
            list(measure(*arguments))


def test_progress_counts_rows(make_features) -> None:
    seen = []

    def advance(done, total, **_) -> None:
        seen.append((done, total))

    list(measure([make_features()], None, SpectrumOptions(), advance))
    assert seen == [(90, 90)]


def test_the_command_answers_people_and_programs(make_features, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = make_features()
    assert run(["spectrum", path, path, "--preset", "l2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [one(path, preset="l2")] * 2
    monkeypatch.chdir(Path(path).parent)
    for count in (1, 2, 5):
        assert run(["spectrum", "--table", *[Path(path).name] * count]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert sum(Path(path).name in line for line in lines) == count
        shown = " ".join(lines)
        assert f"{rows[0]['rows']}" in shown and "lsvr" in shown
        assert ("participation" in shown) == (count == 1)
    assert run(["spectrum", path, "--preset", "released", "-o", "-"]) == 2
    assert run(["spectrum", path, "--preset", "relased"]) == 2
    assert "released" in capsys.readouterr().err


@pytest.mark.process
def test_the_command_imports_neither_torch_nor_its_kin(make_features) -> None:
    heavy = ("torch", "timm", "sklearn", "scipy", "PIL", "matplotlib")
    code = (
        "import sys; from nmlcli.cli.main import run;"
        f"assert run(['spectrum', {make_features()!r}]) == 0;"
        f"found = [name for name in {heavy} if name in sys.modules]; assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
