"""Spectra by class, of samples, of parts and saved states, of Z, and of two sets: against slow
transcriptions of the same."""

import json
import signal
import subprocess
import sys
import threading
import time
from array import array
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import TruncatedSVD

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.keyed import hash_ids, keys
from nmlcli.numerics.measures import MEASURES
from nmlcli.products import results
from nmlcli.products.features import Features
from nmlcli.products.formats import (
    open_container,
    read_features,
    read_record,
    write_features,
    write_head,
)
from nmlcli.products.head import Head
from nmlcli.products.spectrum import unpack_state
from nmlcli.provenance import Record
from nmlcli.stages import gauges
from nmlcli.stages.spectra_sources import work_behind
from nmlcli.stages.spectrum import SpectrumOptions, measure


def lines(sources: list[str], out: str | None = None, **options) -> list[dict]:
    return list(measure(sources, out, SpectrumOptions(**options)))


def one(source: str | list[str], out: str | None = None, **options) -> dict:
    (row,) = lines([source] if isinstance(source, str) else source, out, **options)
    return row


def matrix(path: str) -> np.ndarray:
    return read_features(path).matrix().astype(np.float64)


def entropy(X: np.ndarray) -> float:
    values = np.linalg.svd(X, compute_uv=False)
    p = values[values > max(X.shape) * 2e-16 * values[0]] / values.sum()
    return float(-(p * np.log(p)).sum())


def write_like(path: str, source: str, change) -> str:
    """Features of `source` with something changed: ids, dtype, record."""
    given = read_features(source)
    values = {"matrix": given.matrix(), "ids": list(given.ids), "record": given.record}
    values = {**values, **change(values)}
    X = values["matrix"]
    write_features(path, Features(
        values["record"], values["ids"], given.labels, None, X.dtype,
        lambda size: (X[i : i + size] for i in range(0, len(X), size)), path,
    ))  # fmt: skip
    return path


@pytest.mark.parametrize("memory", [0, 2**28])
@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_a_line_a_class(make_features, monkeypatch, memory: int, suffix: str) -> None:
    monkeypatch.setattr(gauges, "MEMORY", memory)  # a pass a class, or all in one
    path = make_features(f"a{suffix}", rows=400)
    X, labels = matrix(path), read_features(path).labels
    found = lines([path], by_class=True, center=True)
    assert [row["class"] for row in found] == ["ant", "bee", "cat"]
    for number, row in enumerate(found):
        own = X[labels == number]
        assert row["rows"] == len(own)
        assert row["sve"] == pytest.approx(entropy(own - own.mean(axis=0)), abs=1e-9)
    assert len({row["identity"] for row in found}) == 3


def test_by_class_needs_a_file_where_it_needs_passes(make_features, monkeypatch) -> None:
    path = make_features("a.safetensors")
    with Path(path).open() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        assert len(lines(["-"], by_class=True)) == 3
    monkeypatch.setattr(gauges, "MEMORY", 0)
    with Path(path).open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(UsageError, match="stdin has to be read 3 times"):
            lines(["-"], by_class=True)
    with pytest.raises(InvalidInput, match="has no labels"):
        lines([make_features("b.h5", labelled=False)], by_class=True)


def test_large_classes_are_summed_and_looked_at_again(make_features, monkeypatch) -> None:
    monkeypatch.setattr("nmlcli.numerics.spectra.HELD", 0)

    def poor(X: np.ndarray, _: np.ndarray) -> None:
        X *= np.geomspace(1, 1e-10, X.shape[1])

    path = make_features("a.h5", rows=600, change=poor)
    labels = read_features(path).labels
    for number, row in enumerate(lines([path], by_class=True)):
        assert row["rank"] == 8
        assert row["sve"] == pytest.approx(entropy(matrix(path)[labels == number]), abs=1e-11)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_sample_is_of_the_smallest_keys(make_features, caplog, seed: int) -> None:
    path = make_features(rows=200)
    ids = read_features(path).ids
    drawn = np.sort(np.argsort(keys(hash_ids(ids), seed, "sample"))[:50])
    row = one(path, sample=50, seed=seed)
    assert (row["rows"], row["sample"], row["seed"]) == (50, 50, seed)
    assert row["sve"] == pytest.approx(entropy(matrix(path)[drawn]), abs=1e-10)
    # The same ids for another network, in whatever order its rows are.
    turned = write_like(
        path.replace("train", "turned"), path,
        lambda v: {"ids": v["ids"][::-1], "matrix": v["matrix"][::-1].copy()},
    )  # fmt: skip
    assert one(turned, sample=50, seed=seed)["sve"] == pytest.approx(row["sve"], abs=1e-12)
    assert one(path, sample=50, seed=seed + 1)["sve"] != row["sve"]
    caplog.clear()
    assert one(path, sample=201)["rows"] == 200
    assert "it has fewer than the 201 rows of the sample" in caplog.text
    by_class = lines([path], sample=20, by_class=True, seed=seed)
    labels = read_features(path).labels
    for number, found in enumerate(by_class):
        own = np.flatnonzero(labels == number)
        order = np.argsort(keys(hash_ids([ids[place] for place in own]), seed, "sample"))
        chosen = own[np.sort(order[:20])]
        assert found["sve"] == pytest.approx(entropy(matrix(path)[chosen]), abs=1e-10)


def parts_of(make_features) -> list[str]:
    return [
        make_features(f"part-{k}.h5", seed=k, offset=1000 * k, rows=rows)
        for k, rows in enumerate((90, 40, 5))
    ]


def test_parts_are_one_set_and_so_are_their_states(make_features, tmp_path) -> None:
    parts = parts_of(make_features)
    X = np.vstack([matrix(part) for part in parts])
    whole = one(parts, concat=True)
    assert (whole["rows"], whole["parts"]) == (135, 3)
    assert whole["sve"] == pytest.approx(entropy(X), abs=1e-9)
    state = str(tmp_path / "whole.safetensors")
    assert one(parts, state) == whole  # -o makes one of several
    states = []
    for k, part in enumerate(parts):
        states.append(str(tmp_path / f"state-{k}.safetensors"))
        one(part, states[-1])
    for center in (False, True):
        wanted = X - X.mean(axis=0) if center else X
        for sources in (states, [state]):
            added = one(sources, concat=True, center=center)
            assert added["sve"] == pytest.approx(entropy(wanted), abs=1e-9)
            assert added["identity"] == one(parts, concat=True, center=center)["identity"]
            assert (added["features"], added["parts"]) == (whole["features"], 3)
    two = [str(tmp_path / "two.h5"), states[2]]
    one(states[:2], two[0])
    assert one(two, concat=True)["sve"] == pytest.approx(entropy(X), abs=1e-9)
    alone, wanted = one(states[0]), one(parts[0])
    assert alone.keys() == wanted.keys()
    centred = {name: pytest.approx(wanted[name]) for name in ("alpha_req", "participation_ratio")}
    assert alone == {**wanted, "source": states[0], **centred, "alpha_req_r2": alone["alpha_req_r2"]}
    record = read_record(state)
    made_of = {parent["identity"] for parent in record.parents}
    assert record.rows == 135 and made_of == {read_record(part).identity for part in parts}
    one(states, again := str(tmp_path / "again.h5"))
    assert made_of < {parent["identity"] for parent in read_record(again).parents}


def test_a_state_keeps_what_a_second_look_found(make_features, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("nmlcli.numerics.spectra.HELD", 0)

    def poor(X: np.ndarray, _: np.ndarray) -> None:
        X *= np.geomspace(1, 1e-10, X.shape[1])

    path, state = make_features(rows=200, change=poor), str(tmp_path / "s.safetensors")
    row = one(path, state)
    assert row["rank"] == 8 and row["tolerance"] < 1e-12
    assert row["sve"] == pytest.approx(entropy(matrix(path)), abs=1e-12)
    saved = one(state)
    for name in ("sve", "lsvr", "rank", "condition", "tolerance", "features"):
        assert saved[name] == row[name]
    assert saved["identity"] != row["identity"]  # its centred measures are of the sums alone
    assert one(state, center=True)["tolerance"] > 1e-8
    caplog.clear()
    with Path(path).open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        once = one("-")
    assert once["tolerance"] > 1e-8 and once["rank"] < 8
    assert "are not told from 0, since a stream comes once" in caplog.text


def test_what_is_not_of_one_set_is_refused(make_features, tmp_path) -> None:
    parts = parts_of(make_features)
    states = {}
    for name, options in {"raw": {}, "l2": {"preset": "l2"}}.items():
        states[name] = str(tmp_path / f"{name}.h5")
        one(parts[0], states[name], **options)
    other = str(tmp_path / "other.h5")
    one(parts[1], other)
    half = write_like(
        str(tmp_path / "half.h5"), parts[1], lambda v: {"matrix": v["matrix"].astype("f2")}
    )
    halved = str(tmp_path / "halved.h5")
    one(half, halved)
    wide = make_features("wide.h5", columns=9, offset=5000)
    network = make_features("network.h5", model={"name": "other", "identity": "z" * 32}, offset=6000)
    for sources, message in (
        ([parts[0], parts[0]], r"part-0\.h5 and .*part-0\.h5 both hold 0000, 0001, 0002 and 87 more"),
        ([parts[0], half], r"half\.h5 is float16, .*part-0\.h5 is float32"),
        ([parts[0], wide], "9 columns"),
        ([parts[0], network], "another network"),
        ([parts[0], other], "is a state, .* holds features"),
        ([states["raw"], states["l2"]], r"raw\.h5 \(preset raw\) and .*l2\.h5 \(preset l2\) were not"),
        ([states["raw"], states["raw"]], "holds features that are in the states before it"),
        ([states["raw"], halved], r"halved\.h5 is float16, .*raw\.h5 is float32"),
    ):
        with pytest.raises(InvalidInput, match=message):
            one(sources, concat=True)
    for options in (
        {"by_class": True},
        {"sample": 3},
        {"head": "h"},
        {"against": "f"},
        {"moments": True},
    ):
        with pytest.raises(UsageError, match="is a state, and --"):
            one(states["raw"], **options)
    with pytest.raises(UsageError, match="were prepared as l2, not released"):
        one(states["l2"], preset="released")
    assert one(states["l2"])["spectrum_preset"] == "l2"


def make_head(tmp_path: Path, source: str, width: int = 6) -> tuple[str, Head]:
    generator = np.random.default_rng(9)
    layers = tuple(
        (generator.normal(size=(o, i)).astype("f4"), generator.normal(size=o).astype("f4"))
        for i, o in ((8, 20), (20, width), (width, 3))
    )
    record = read_record(source)
    made = Record("head", "h" * 32, "tune", classes=record.classes, columns=8, model=record.model)
    path, head = str(tmp_path / "head.safetensors"), Head(made, layers, None, None, "head")
    write_head(path, head)
    return path, head


def test_of_a_head_z_is_measured(make_features, tmp_path, caplog) -> None:
    source = make_features(rows=200)
    path, head = make_head(tmp_path, source)
    (W1, b1), (W2, b2), _ = (tuple(map(np.float64, layer)) for layer in head.layers)
    Z = np.maximum(matrix(source) @ W1.T + b1, 0) @ W2.T + b2
    row = one(source, head=path)
    assert (row["columns"], row["head"]) == (6, "h" * 32)
    assert row["sve"] == pytest.approx(entropy(Z), abs=1e-6)
    assert row["identity"] != one(source)["identity"]
    with pytest.raises(InvalidInput, match="columns"):
        one(make_features("wide.h5", columns=9), head=path)


def test_moments_are_those_of_scipy(make_features) -> None:
    def still(X: np.ndarray, _: np.ndarray) -> None:
        X[:, 2] = 0.1

    path = make_features(rows=300, change=still)
    row, X = one(path, moments=True), np.delete(matrix(path), 2, axis=1)
    assert row["skewness"] == pytest.approx(stats.skew(X).mean(), abs=1e-9)
    assert row["kurtosis"] == pytest.approx(stats.kurtosis(X).mean(), abs=1e-9)
    assert row["constant_columns"] == 1
    plain = one(path)
    assert {name: row[name] for name in MEASURES} == {name: plain[name] for name in MEASURES}
    assert row["identity"] != plain["identity"]
    alone = one(make_features("one.h5", rows=1), moments=True)
    assert alone["skewness"] is None and "all columns are constant" in alone["undefined"]


def test_against_a_twin(make_features, tmp_path) -> None:
    path, twin = make_features(rows=200), make_features("twin.h5", rows=200, seed=3, columns=12)
    X, Y = matrix(path), matrix(twin)
    row = one(path, against=twin, top=3)
    Xc, Yc = X - X.mean(axis=0), Y - Y.mean(axis=0)
    norms = np.linalg.norm(Xc.T @ Xc) * np.linalg.norm(Yc.T @ Yc)
    assert row["cka"] == pytest.approx(np.linalg.norm(Xc.T @ Yc) ** 2 / norms, abs=1e-12)
    for center, (A, B) in {False: (X, Y), True: (Xc, Yc)}.items():
        u, v = (np.linalg.svd(each, full_matrices=False)[0][:, :3] for each in (A, B))
        angles = np.arccos(np.linalg.svd(u.T @ v)[1])
        got = one(path, against=twin, top=3, center=center)
        assert got["principal_angle"] == pytest.approx(angles.mean(), abs=1e-8)
    assert one(path, against=twin)["principal_angle_k"] == 8  # not the 10 of the default
    assert one(path, against=path)["cka"] == pytest.approx(1, abs=1e-12)
    drawn = np.sort(np.argsort(keys(hash_ids(read_features(path).ids), 0, "sample"))[:60])
    A, B = X[drawn] - X[drawn].mean(axis=0), Y[drawn] - Y[drawn].mean(axis=0)
    wanted = np.linalg.norm(A.T @ B) ** 2 / np.linalg.norm(A.T @ A) / np.linalg.norm(B.T @ B)
    assert one(path, against=twin, sample=60)["cka"] == pytest.approx(wanted, abs=1e-10)
    with pytest.raises(InvalidInput, match="0000 / 0500, 0001 / 0501, 0002 / 0502 and 197 more"):
        one(path, against=make_features("other.h5", rows=200, offset=500))
    with pytest.raises(InvalidInput, match="199 rows"):
        one(path, against=make_features("less.h5", rows=199))


def test_every_option_that_changes_the_result_is_in_the_identity(make_features) -> None:
    path = make_features()
    asked = (
        {}, {"center": True}, {"preset": "l2"}, {"sample": 50}, {"sample": 50, "seed": 1},
        {"sample": 51}, {"moments": True}, {"against": path}, {"against": path, "top": 2},
    )  # fmt: skip
    assert len({one(path, **options)["identity"] for options in asked}) == len(asked)
    assert one(path, against=path)["identity"] == one(path, against=path, top=10)["identity"]


def test_lines_of_classes_are_reused_together(make_features, tmp_path, monkeypatch) -> None:
    path, file = make_features(), str(tmp_path / "r.jsonl")
    made = lines([path], by_class=True, results=file)
    monkeypatch.setattr(gauges, "Accumulator", None)
    assert lines([path], by_class=True, results=file, reuse=True) == made
    kept = results.read(file)[:2]
    Path(file).write_text("".join(results.to_json(line) + "\n" for line in kept))
    with pytest.raises(TypeError):
        lines([path], by_class=True, results=file, reuse=True)


def test_unequal_sources_are_warned_of(make_features, tmp_path, caplog) -> None:
    path = make_features(rows=100)
    half = write_like(str(tmp_path / "half.h5"), path, lambda v: {"matrix": v["matrix"].astype("f2")})
    lines([path, half])
    assert "the sources are float16 and float32" in caplog.text and "rows" not in caplog.text


def test_released_is_what_the_papers_code_measures(make_features) -> None:
    path = make_features(rows=500, columns=24)
    X = matrix(path)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    X = (X - X.mean(axis=1, keepdims=True)).astype(np.float32)
    values = TruncatedSVD(n_components=24, random_state=0).fit(X).singular_values_.astype(np.float64)
    p = values[:-1] / values[:-1].sum()
    row = one(path, preset="released")
    assert row["sve"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-6)
    assert row["lsvr"] == pytest.approx(-np.log(p[0]), abs=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_of_all_spectra(make_features, tmp_path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"plot{suffix}"
    sources = [make_features(), make_features("b.h5", seed=2, columns=11)]
    lines(sources, plot=str(out))
    first = out.read_bytes()
    lines(sources, plot=str(out))
    assert out.read_bytes() == first
    if suffix == ".svg":
        text = first.decode()
        assert "<!-- train -->" in text and "<!-- b -->" in text and "<!-- tail, 6–11 -->" in text


def test_the_command_takes_every_option(make_features, tmp_path, capsys) -> None:
    path, twin = make_features(), make_features("twin.h5", seed=3)
    words = [
        "spectrum",
        path,
        "--sample",
        "50",
        "--seed",
        "1",
        "--moments",
        "--against",
        twin,
        "--top",
        "2",
    ]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out) == one(
        path, sample=50, seed=1, moments=True, against=twin, top=2
    )
    assert run([*words, "--table"]) == 0
    card = capsys.readouterr().out
    for shown in ("cka", "principal angle", "skewness", "tolerance", "rankme eps", "█"):
        assert shown in card
    assert run(["spectrum", path, "--by-class", "--table"]) == 0
    table = capsys.readouterr().out
    assert "bee" in table and "█" in table and "skewness" not in table
    state = str(tmp_path / "s.h5")
    assert run(["spectrum", *parts_of(make_features), "-o", state]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert unpack_state(open_container(state)).count == 135


def test_work_is_done_behind_the_reading_and_errors_of_both_end_it() -> None:
    done, threads = [], set()

    def work(block: int) -> None:
        threads.add(threading.current_thread())
        if block == 7:
            raise ValueError("work")
        done.append(block)

    def blocks(stop: int):
        for number in range(10):
            if number == stop:
                raise KeyError("reading")
            assert len(done) >= number - 3  # at most so many wait
            yield number

    work_behind(iter(range(5)), work, 2)
    assert done == [0, 1, 2, 3, 4] and threading.current_thread() not in threads
    done.clear()
    with pytest.raises(KeyError, match="reading"):
        work_behind(blocks(3), work, 2)
    assert done == [0, 1, 2][: len(done)]
    done.clear()
    with pytest.raises(ValueError, match="work"):
        work_behind(blocks(99), work, 2)
    assert done[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.process
def test_ctrl_c_while_it_waits_for_a_pipe(make_features) -> None:
    path = make_features(rows=9000)
    words = [sys.executable, "-m", "nmlcli", "spectrum", "-q"]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    data = Path(path).read_bytes()
    process.stdin.write(data[: len(data) - 1000])
    process.stdin.flush()
    waiting = array("i", [1])
    while waiting[0]:  # until it has read what there is
        ioctl(process.stdin, FIONREAD, waiting)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130, error
    assert b"Traceback" not in error and b"Fatal" not in error


def test_no_input_is_lost(make_features):
    one, two = make_features(), make_features("b.safetensors")
    before = Path(one).read_bytes()
    for options, out in (
        (SpectrumOptions(), one),
        (SpectrumOptions(against=two), two),
        (SpectrumOptions(results=one), None),
    ):
        with pytest.raises(UsageError, match="would overwrite an input"):
            list(measure([one], out, options))
    assert Path(one).read_bytes() == before


def test_rows_of_an_affine_set_are_looked_at_again(tmp_path, monkeypatch):
    """Raw values are all clear, one of the centred ones is rounding alone."""
    monkeypatch.setattr("nmlcli.numerics.spectra.HELD", 0)
    generator = np.random.default_rng(0)
    rows = np.exp(generator.normal(size=(3000, 12)) * np.linspace(2, 0.1, 12))
    matrix = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    record = Record("features", "a" * 32, "embed", rows=3000, columns=12)
    ids = [str(i) for i in range(3000)]
    write_features(
        str(tmp_path / "f.h5"),
        Features(record, ids, None, None, matrix.dtype, lambda size: iter([matrix]), "f"),
    )

    (row,) = measure([str(tmp_path / "f.h5")], None, SpectrumOptions())

    wide = matrix.astype(np.float64)
    values = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    ranks = np.arange(4, 13)
    weights = 1 / ranks / (1 / ranks).sum()
    x, y = np.log(ranks), 2 * np.log(values[3:12])
    x, y = x - weights @ x, y - weights @ y
    assert row["alpha_req"] == pytest.approx(-(weights * x) @ y / ((weights * x) @ x), rel=1e-4)


def test_states_of_samples_do_not_add_up(make_features, tmp_path):
    states = []
    for number in range(2):
        part = make_features(f"p{number}.safetensors", offset=100 * number)
        states.append(str(tmp_path / f"s{number}.safetensors"))
        lines([part], states[-1], sample=20)
    with pytest.raises(InvalidInput, match="samples do not add up"):
        lines(states, concat=True)


def test_what_sums_alone_cannot_tell_is_another_line_than_that_of_the_rows(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("nmlcli.numerics.spectra.HELD", 0)
    generator = np.random.default_rng(0)
    matrix = (generator.normal(size=(500, 8)) * 10.0 ** -np.arange(8) + 100).astype(np.float32)
    record = Record("features", "a" * 32, "embed", rows=500, columns=8)
    ids = [str(i) for i in range(500)]
    features = Features(record, ids, None, None, matrix.dtype, lambda size: iter([matrix]), "f")
    write_features(str(tmp_path / "f.h5"), features)
    rows = one(str(tmp_path / "f.h5"), str(tmp_path / "s.h5"))

    sums = one(str(tmp_path / "s.h5"))

    assert sums["identity"] != rows["identity"]
    assert "are not told from 0 by sums alone" in caplog.text
    clear = make_clear(tmp_path)
    assert one(clear, str(tmp_path / "t.h5"))["identity"] == one(str(tmp_path / "t.h5"))["identity"]


def make_clear(tmp_path):
    matrix = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    record = Record("features", "b" * 32, "embed", rows=500, columns=8)
    ids = [str(i) for i in range(500)]
    features = Features(record, ids, None, None, matrix.dtype, lambda size: iter([matrix]), "f")
    write_features(str(tmp_path / "c.h5"), features)
    return str(tmp_path / "c.h5")


def test_a_zero_matrix_is_drawn_all_the_same(tmp_path):
    matrix = np.zeros((30, 4), dtype=np.float32)
    record = Record("features", "b" * 32, "embed", rows=30, columns=4)
    ids = [str(i) for i in range(30)]
    features = Features(record, ids, None, None, matrix.dtype, lambda size: iter([matrix]), "f")
    write_features(str(tmp_path / "z.h5"), features)
    assert one(str(tmp_path / "z.h5"), plot=str(tmp_path / "z.png"))["sve"] is None
    assert (tmp_path / "z.png").stat().st_size > 1000


def test_places_are_looked_at_before_any_work(make_features, tmp_path):
    for options in ({"plot": "/none/x.png"}, {"results": "/none/x.jsonl"}):
        with pytest.raises(NmlError, match="folder /none does not exist"):
            lines([make_features()], **options)


def test_what_is_no_file_of_results_is_refused_before_any_work(make_features, tmp_path):
    state = str(tmp_path / "s.safetensors")
    lines([make_features()], state)
    before = Path(state).read_bytes()
    rows = measure([make_features()], None, SpectrumOptions(results=state))
    with pytest.raises(InvalidInput, match=r"s\.safetensors: line 1 is not a JSON object"):
        next(rows)
    assert Path(state).read_bytes() == before


@pytest.mark.parametrize("preset", ["raw", "l2"])
def test_a_twin_leaves_the_measures_as_they_are_and_is_prepared_alike(
    make_features, monkeypatch, preset
):
    monkeypatch.setattr("nmlcli.numerics.spectra.HELD", 0)
    own = make_features()
    twin = make_features(
        "twin.safetensors", change=lambda X, _: np.multiply(X, 3 + np.arange(8), out=X)
    )

    beside, alone = one(own, against=twin, preset=preset), one(own, preset=preset)

    assert {name: beside[name] for name in MEASURES} == {name: alone[name] for name in MEASURES}
    X, Y = (read_features(path).matrix().astype(np.float64) for path in (own, twin))
    if preset == "l2":
        X, Y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (X, Y))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    cka = np.linalg.norm(X.T @ Y) ** 2 / np.linalg.norm(X.T @ X) / np.linalg.norm(Y.T @ Y)
    assert beside["cka"] == pytest.approx(cka, rel=1e-9)
