"""What spectra are guarded by: budgets, what is of one set, what is up to date, damaged states."""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, NmlError
from nmlcli.numerics.measures import MEASURES
from nmlcli.numerics.spectra import footprint
from nmlcli.products.formats import (
    open_container,
    read_features,
    read_record,
    write_head,
    write_spectrum_state,
)
from nmlcli.products.head import Head
from nmlcli.products.spectrum import unpack_state
from nmlcli.provenance import Record
from nmlcli.stages import gauges
from nmlcli.stages.convert import ConvertOptions, convert
from nmlcli.stages.inputs import check_parts
from nmlcli.stages.spectra_sources import work_behind
from nmlcli.stages.spectrum import SpectrumOptions, measure
from tests.stages.conftest import MODEL


def lines(sources: list[str], out: str | None = None, **options) -> list[dict]:
    return list(measure(sources, out, SpectrumOptions(**options)))


def states_of(make_features, tmp_path, **facts) -> list[str]:
    """States of two parts; facts: of the second one."""
    states = []
    for k, more in enumerate(({}, facts)):
        part = make_features(f"part-{k}.h5", seed=k, offset=1000 * k, **more)
        states.append(str(tmp_path / f"state-{k}.safetensors"))
        lines([part], states[-1])
    return states


def head_of(tmp_path: Path, source: str, last: np.ndarray) -> str:
    """A head whose Z is a linear map of the features: those above 0, times `last`."""
    record = read_record(source)
    made = Record("head", "h" * 32, "tune", classes=record.classes, columns=8, model=record.model)
    layers = (
        (np.eye(8, dtype="f4"), np.zeros(8, "f4")),
        (last.astype("f4"), np.zeros(len(last), "f4")),
        (np.ones((3, len(last)), "f4"), np.zeros(3, "f4")),
    )
    path = str(tmp_path / "head.safetensors")
    write_head(path, Head(made, layers, None, None, "head"))
    return path


@pytest.mark.parametrize(("classes_at_once", "passes"), [(4, 1), (3, 2), (2, 2), (1, 4)])
def test_classes_share_a_pass_as_far_as_the_budget_goes(
    make_features, monkeypatch, classes_at_once: int, passes: int
) -> None:
    path = make_features("a.h5", rows=300, classes=("ant", "bee", "cat", "dog"))
    counts = np.bincount(read_features(path).labels).tolist()
    sizes = [footprint(rows, 8) for rows in counts]
    monkeypatch.setattr(gauges, "MEMORY", max(sizes) * classes_at_once)
    seen, gauged = [], gauges._gauged

    def counted(task, batch, advance):
        seen.append(sum(sizes[number] for number in batch))
        yield from gauged(task, batch, advance)

    monkeypatch.setattr(gauges, "_gauged", counted)
    assert len(lines([path], by_class=True)) == 4
    assert len(seen) == passes and max(seen) <= gauges.MEMORY


def test_states_of_other_networks_are_refused(make_features, tmp_path, caplog) -> None:
    for model, words in (
        ({**MODEL, "identity": "n" * 32}, r"state-1\.safetensors is of another network than .*state-0"),
        ({**MODEL, "layer": "layer4"}, r"resnet10t mmmmmmmm layer4, not resnet10t mmmmmmmm pre_logits"),
    ):
        with pytest.raises(InvalidInput, match=words):
            lines(states_of(make_features, tmp_path, model=model), concat=True)
    with pytest.raises(InvalidInput, match=r"has 9 columns, .* 8: take features of the same network"):
        lines(states_of(make_features, tmp_path, columns=9), concat=True)
    caplog.clear()
    states = states_of(make_features, tmp_path)
    lines(states, concat=True)
    assert "not known" not in caplog.text
    states = states_of(make_features, tmp_path, model=None)
    caplog.clear()
    lines([*states, states_of_third(make_features, tmp_path)], concat=True)
    said = [record.getMessage() for record in caplog.records if "not known" in record.getMessage()]
    wanted = f"the network of {states[1]}, {tmp_path}/third.h5 is not known: it fits {states[0]} by"
    assert len(said) == 1 and said[0].startswith(wanted)


def states_of_third(make_features, tmp_path) -> str:
    state = str(tmp_path / "third.h5")
    lines([make_features("part-2.h5", seed=2, offset=2000, model=None)], state)
    return state


def test_states_add_up_their_rows_of_zeros_and_their_noise(make_features, tmp_path) -> None:
    def some(X: np.ndarray, _: np.ndarray) -> None:
        X[:7] = 0

    def few(X: np.ndarray, _: np.ndarray) -> None:
        X[:2] = 0

    noise = {"kind": "symmetric", "requested": 0.1, "realised": 0.1, "flipped": 9, "of": 90, "seed": 1}
    parts = [
        make_features("a.h5", change=some, noise=noise),
        make_features("b.h5", change=few, noise={**noise, "flipped": 18, "realised": 0.2}, offset=100),
    ]
    states = [str(tmp_path / f"s{k}.h5") for k in range(2)]
    for part, state in zip(parts, states, strict=True):
        lines([part], state, preset="l2")
    (whole,) = lines(parts, concat=True, preset="l2")
    (added,) = lines(states, str(tmp_path / "sum.h5"), concat=True)
    assert whole["zero_rows"] == added["zero_rows"] == 9
    told = read_record(str(tmp_path / "sum.h5")).noise
    assert told == {**noise, "flipped": 27, "of": 180, "realised": 0.15}
    lines(parts, str(tmp_path / "whole.h5"), preset="l2")
    assert read_record(str(tmp_path / "whole.h5")).noise == told


def test_parts_of_two_splits_are_of_none(make_features, tmp_path) -> None:
    parts = [make_features("a.h5"), make_features("b.h5", name="toy/photo:test", offset=100)]
    out = str(tmp_path / "s.h5")
    (row,) = lines(parts, out)
    assert (row["task"], row["domain"], row["split"]) == ("toy", "photo", None)
    data = read_record(out).data
    assert (data["name"], data["split"]) == ("toy/photo:train, toy/photo:test", None)
    assert data["identity"] not in [read_record(part).data["identity"] for part in parts]


def test_unlike_classes_matter_by_class_alone_and_say_what_to_do(make_features) -> None:
    parts = [make_features("a.h5"), make_features("b.h5", classes=("ant", "bee", "dog"), offset=100)]
    assert lines(parts, concat=True)[0]["rows"] == 180
    words = r"b\.h5 has labels of classes that .*a\.h5 lacks \(dog\): give both one list: nml convert"
    with pytest.raises(InvalidInput, match=words):
        lines(parts, concat=True, by_class=True)


def test_the_remedy_for_unlike_classes_is_one(make_features, tmp_path) -> None:
    names, parts = tmp_path / "names.txt", []
    names.write_text("ant\nbee\ncat\ndog\n")
    for name, facts in {"a": {}, "b": {"classes": ("ant", "bee", "dog"), "offset": 100}}.items():
        parts.append(str(tmp_path / f"{name}-all.h5"))
        convert(make_features(f"{name}.h5", **facts), parts[-1], ConvertOptions(classes=str(names)))
    found = lines(parts, concat=True, by_class=True)
    assert [row["class"] for row in found] == ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz", ".jsonl", ".parquet"])
def test_vectors_of_others_are_sent_to_convert(make_features, tmp_path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = str(tmp_path / f"x{suffix}")
    convert(make_features(), path, ConvertOptions())
    for options in ({}, {"against": path}):
        with pytest.raises(InvalidInput, match=rf"x\{suffix} is no product: `nml convert` makes"):
            lines([make_features() if options else path], **options)


@pytest.mark.parametrize("which", ["head", "against"])
def test_a_newer_head_or_twin_is_measured_again(make_features, tmp_path, monkeypatch, which) -> None:
    path, file = make_features(), str(tmp_path / "r.jsonl")
    other = make_features("twin.h5", seed=3)
    other = head_of(tmp_path, path, np.eye(8)) if which == "head" else other
    made = lines([path], results=file, **{which: other})
    monkeypatch.setattr(gauges, "Accumulator", None)  # nothing is measured
    for source in (path, other, file):
        os.utime(source, (2000, 2000))
    assert lines([path], results=file, reuse=True, **{which: other}) == made
    os.utime(other, (2001, 2001))
    with pytest.raises(TypeError):
        lines([path], results=file, reuse=True, **{which: other})


def test_a_stale_state_is_made_again_though_its_row_is_known(make_features, tmp_path) -> None:
    path, file, state = make_features(), str(tmp_path / "r.jsonl"), str(tmp_path / "s.h5")
    lines([path], state, preset="l2")  # of another command
    lines([path], results=file)
    stale = Path(state).read_bytes()
    (row,) = lines([path], state, results=file, reuse=True)
    assert read_record(state).identity == row["identity"] and Path(state).read_bytes() != stale
    before = Path(state).stat().st_mtime_ns
    lines([path], state, results=file, reuse=True)
    assert Path(state).stat().st_mtime_ns == before
    for source, seconds in ((state, 2000), (path, 2001), (file, 2002)):  # the row is new, the state old
        os.utime(source, (seconds, seconds))
    lines([path], state, results=file, reuse=True)
    assert Path(state).stat().st_mtime > 3000


def test_z_is_looked_at_again(make_features, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nmlcli.numerics.spectra.HELD", 0)
    source = make_features(rows=300)
    last = np.diag(np.geomspace(1, 1e-9, 8))
    (row,) = lines([source], head=head_of(tmp_path, source, last))
    Z = np.maximum(read_features(source).matrix(), 0) @ last.astype("f4")
    values = np.linalg.svd(Z.astype(np.float64), compute_uv=False)
    assert row["rank"] == 8 and row["tolerance"] < 1e-12
    p = values / values.sum()
    assert row["sve"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-9)
    assert row["condition"] == pytest.approx(values[0] / values[-1], rel=1e-3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_z_that_is_not_finite_names_its_head(make_features, tmp_path) -> None:
    source = make_features()
    head = head_of(tmp_path, source, np.full((8, 8), 3e38))
    with pytest.raises(InvalidInput, match=r"head\.safetensors makes values that are not finite"):
        lines([source], head=head)


def test_a_failure_ends_the_work_that_waits() -> None:
    """What is queued behind a failure is dropped, not done before the failure is told."""
    done, queued = [], threading.Event()

    def work(block: int) -> None:
        if block == 0:
            queued.wait(10)  # until the others stand in line
            raise ValueError("work")
        time.sleep(0.05)
        done.append(block)

    def blocks():
        yield from range(8)
        queued.set()

    with pytest.raises(ValueError, match="work"):
        work_behind(blocks(), work, 10)
    assert len(done) <= 1  # one may have begun


VALUES = (None, True, -1, 0, 3, 0.5, -0.5, 1e300, "", "x", [], ["x"], [3], {}, {"x": 1})


def damaged(generator: np.random.Generator, state: str, out: str) -> str:
    """One thing in a state changed: a byte, a number of an array, or a fact of its record."""
    kind = generator.choice(["byte", "cut", "number", "fact"])
    if kind in ("byte", "cut"):
        data = bytearray(Path(state).read_bytes())
        place = int(generator.integers(len(data)))
        if kind == "cut":
            del data[place:]
        else:
            data[place] ^= 1 << int(generator.integers(8))
        Path(out).write_bytes(data)
        return out
    good = unpack_state(open_container(state))
    if kind == "fact":
        name = str(generator.choice(["extra", "options", "model", "data", "noise"]))
        facts = dict(getattr(good.record, name))
        facts[str(generator.choice(sorted(facts)))] = VALUES[int(generator.integers(len(VALUES)))]
        write_spectrum_state(out, replace(good, record=replace(good.record, **{name: facts})))
        return out
    name = str(generator.choice(["centred_gram", "column_sums", "singular_values"]))
    array = getattr(good, name).copy()
    wild = (np.nan, np.inf, -np.inf, -1.0, 1e308, -1e308, 1e-310, array.flat[0] * 2, -array.flat[0])
    array.flat[int(generator.integers(array.size))] = wild[int(generator.integers(len(wild)))]
    write_spectrum_state(out, replace(good, **{name: array}))
    return out


@pytest.mark.parametrize("suffix", [".safetensors", ".h5"])
@pytest.mark.filterwarnings("error")
def test_damaged_states_are_refused_in_a_line_or_measured(make_features, tmp_path, suffix) -> None:
    state, out = str(tmp_path / f"good{suffix}"), str(tmp_path / f"bad{suffix}")
    lines([make_features(rows=60)], state)
    generator = np.random.default_rng(7)
    refused = 0
    for _ in range(250):
        damaged(generator, state, out)
        try:
            for options in ({}, {"center": True}):
                (row,) = lines([out], **options)
                json.dumps(row, allow_nan=False)
        except NmlError as error:  # anything else is a crash
            assert "\n" not in str(error) and "bad" in str(error), error
            refused += 1
    assert refused > 125


def test_arrays_that_no_rows_can_have_are_refused(make_features, tmp_path, capsys) -> None:
    state, out = str(tmp_path / "good.h5"), str(tmp_path / "bad.h5")
    lines([make_features(rows=60)], state)
    good = unpack_state(open_container(state))
    gram, values, sums = good.centred_gram, good.singular_values, good.column_sums
    negative, lopsided, wide = gram.copy(), gram.copy(), gram.copy()
    negative[0, 0] = -1
    lopsided[0, 1] += 1e-3
    wide[0, 1] = wide[1, 0] = 10 * gram.max()
    extra = good.record.extra
    for change, words in (
        ({"centred_gram": negative}, "a negative diagonal"),
        ({"centred_gram": lopsided}, "is not symmetric"),
        ({"centred_gram": wide}, "larger beside its diagonal"),
        ({"centred_gram": 2 * gram}, "its singular values are not those of its sums"),
        ({"centred_gram": np.full_like(gram, np.inf)}, "centred_gram holds values that are not finite"),
        ({"column_sums": 50 * sums}, "its singular values are not those of its sums"),
        ({"singular_values": values[::-1].copy()}, "do not descend"),
        ({"singular_values": np.r_[values[:-1], -1e-3]}, "do not descend to 0"),
        ({"singular_values": values * 1.1}, "are not those of its sums"),
        ({"singular_values": np.r_[values[:-1], np.nan]}, "not finite"),
        ({"count": 0}, "its record says 60 × 8, its sums are of 0 × 8"),
        ({"count": 0, "record": replace(good.record, rows=0)}, "its sums are of 0 × 8"),
        ({"count": 5, "record": replace(good.record, rows=5)}, "it has 8 singular values"),
        ({"count": 5, "record": replace(good.record, rows=5), "singular_values": values[:5]},
         "not those of its sums"),
        *(({"record": replace(good.record, extra={**extra, **told})}, words) for told, words in (
            ({"zero_rows": 61}, "its zero rows are no number"), ({"zero_rows": -1}, "zero rows"),
            ({"zero_rows": "7"}, "zero rows"), ({"tolerance": "x"}, "tells of no tolerance"),
            ({"tolerance": None}, "tolerance"), ({"tolerance": -1.0}, "tolerance"),
            ({"features": "x"}, "what the sums are of"), ({"features": [3]}, "what the sums are of"),
        )),
    ):  # fmt: skip
        write_spectrum_state(out, replace(good, **change))
        with pytest.raises(InvalidInput, match=words) as caught:
            unpack_state(open_container(out))
        assert out in str(caught.value) and "\n" not in str(caught.value)
        assert run(["spectrum", out]) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("change", [None, "zeros", "one row", "equal", "small", "large", "far"])
@pytest.mark.parametrize("options", [{}, {"center": True}, {"preset": "released"}, {"preset": "l2"}])
def test_no_state_of_rows_is_taken_for_damaged(make_features, tmp_path, change, options) -> None:
    def become(X: np.ndarray, _: np.ndarray) -> None:
        if change in ("zeros", "equal"):
            X[:] = 0 if change == "zeros" else np.arange(1, 9) / 7
        X *= {"small": 1e-30, "large": 1e30}.get(change, 1)
        X += 1e6 if change == "far" else 0

    out, again = str(tmp_path / "s.h5"), str(tmp_path / "t.h5")
    path = make_features(rows=1 if change == "one row" else 200, change=become)
    for held in (2**20, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nmlcli.numerics.spectra.HELD", held)
            (row,) = lines([path], out, **options)
            saved = lines([out], again, center=options.get("center", False))
            assert {name: saved[0][name] for name in ("sve", "rank")} == {
                name: row[name] for name in ("sve", "rank")
            }
            lines([again], center=True)
            assert set(MEASURES) <= set(saved[0])


def test_one_source_needs_no_ids(make_features) -> None:
    """Those of ten million rows would take a while, and are only for comparing parts."""
    good = read_features(make_features())

    class Untouched(list):
        def __iter__(self):
            raise AssertionError("ids were read")

    check_parts([replace(good, ids=Untouched(good.ids))])
    with pytest.raises(AssertionError, match="ids were read"):
        check_parts([replace(good, ids=Untouched(good.ids)), good])
