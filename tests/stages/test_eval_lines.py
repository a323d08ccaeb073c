"""What a result line says of a head and a set: role, seen, names, tags; what makes it another one."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.data.samples import Samples, SetName
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.numerics.metrics import BINS
from nmlcli.products import results
from nmlcli.products.formats import read_features, read_head, write_features
from nmlcli.stages.scoring import Scoring
from nmlcli.stages.tune import TuneOptions, tune
from tests.stages.test_eval import CLASSES, KEYS, make_head, score

__all__ = ["make_head"]  # the fixture

TOY = {"task": "toy", "domain": None}


def rewritten(path: str, **facts: Any) -> str:
    """The same features under another record."""
    features = read_features(path)
    matrix = features.matrix()
    record = replace(features.record, **facts)
    write_features(path, replace(features, record=record, blocks=lambda size: iter([matrix])))
    return path


@pytest.mark.parametrize(
    ("domains", "data", "name", "role"),
    [
        ({"toy": ["photo", "sketch"]}, TOY, "toy/sketch", "id"),
        ({"toy": ["photo", "sketch"]}, TOY, "toy/cartoon", "ood"),
        ({"toy": ["photo", "sketch"], "pets": ["photo"]}, None, "pets/sketch", "ood"),
        ({"toy": ["photo"]}, TOY, "pets/photo", None),
        ({"toy": ["photo", None]}, TOY, "toy/sketch", None),
        ({"toy": [None]}, TOY, "toy", "id"),
        (None, TOY, "toy/sketch", None),  # of several domains, or of none, as older files leave open
        (None, TOY, "toy", "id"),
        (None, {"identity": "d" * 32}, "toy", None),
        (None, None, "toy", None),
    ],
)
def test_the_role_is_told_where_both_domains_are_known(
    make_features: Any, make_head: Any, domains: Any, data: Any, name: str, role: str | None
) -> None:
    head = make_head(data=data, extra={"domains": domains, "method": "lp"})
    (line,) = score(head, f"{name}={make_features('t.h5', classes=CLASSES)}")
    assert line["role"] == role


def test_heads_know_all_domains_that_they_were_tuned_on(make_features: Any, tmp_path: Path) -> None:
    one, other, third = (
        make_features(f"{name}.h5", name=f"toy/{name}:train", seed=seed, offset=100 * seed)
        for seed, name in enumerate(("photo", "sketch", "cartoon"))
    )
    out = str(tmp_path / "head.safetensors")
    for refit, domains in ((False, ["photo", "sketch"]), (True, ["photo", "sketch", "cartoon"])):
        tune([one, other], out, TuneOptions(validation=third, refit=refit, knobs={"epochs": 1}))
        assert read_head(out).record.extra["domains"] == {"toy": domains}
    nameless = rewritten(other, data={"identity": "d" * 32})
    tune([one, nameless], out, TuneOptions(knobs={"epochs": 1}))
    assert read_head(out).record.extra["domains"] is None


def some(labels: list[int], **facts: Any) -> Samples:
    told = {"sizes": np.array([7, 8, 9]), **facts}
    numbers = np.array(labels, dtype=np.int64)
    return Samples(SetName("toy"), "toy", ["a", "b", "c"], numbers, ("x", "y"), lambda rows: [], **told)


def test_samples_are_the_same_under_other_labels() -> None:
    clean, noisy = some([0, 1, 1]), some([0, 0, 1], clean_labels=np.array([0, 1, 1]))
    assert clean.identity != noisy.identity
    assert clean.facts()["samples"] == noisy.facts()["samples"]
    others = [
        some([0, 1, 1], sizes=np.array([7, 8, 8])), some([0, 1, 1], contents=("h",)),
        some([0, 1, 1], texts=["p", "q", "r"]), some([0, 1, 1], texts=["p", "q", "s"]),
        some([0, 1, 1], texts=["p", "q", "s"], texts2=["p", "q", "r"]), clean.take(np.array([0, 1])),
    ]  # fmt: skip
    assert len({each.facts()["samples"] for each in (clean, *others)}) == 7
    assert some([0, 1, 1], sizes=None).facts()["samples"] is None  # ids alone are no samples


def test_a_set_is_seen_under_other_labels(make_features: Any, tmp_path: Path) -> None:
    def named(file: str, identity: str) -> str:
        data = {"name": "toy", **TOY, "split": None, "identity": identity, "samples": "s" * 32}
        return rewritten(make_features(file, offset=500), data=data)

    noisy, clean, val = named("noisy.h5", "n" * 32), named("clean.h5", "c" * 32), make_features("v.h5")
    out, quick = str(tmp_path / "head.safetensors"), {"epochs": 1}
    tune([noisy], out, TuneOptions(knobs=quick))
    assert score(out, clean)[0]["seen"]
    tune([val], out, TuneOptions(validation=noisy, methods=("lp", "mlp"), knobs=quick))
    assert score(out, clean)[0]["seen"]
    tune([val], out, TuneOptions(validation=noisy, refit=True, knobs=quick))
    assert "s" * 32 in read_head(out).record.extra["trained_on"]


@pytest.mark.parametrize("known", ["identity", "data"])
def test_a_set_is_seen_by_either_identity(make_features: Any, make_head: Any, known: str) -> None:
    path = make_features("t.h5", classes=CLASSES, seed=5)
    record = read_features(path).record
    assert record.data is not None
    met = record.identity if known == "identity" else record.data["identity"]
    assert score(make_head(extra={"method": "lp", "trained_on": [met]}), path)[0]["seen"]


def test_what_features_do_not_tell_is_taken_from_the_head(make_features: Any, make_head: Any) -> None:
    (line,) = score(make_head(), make_features("t.h5", classes=CLASSES, model=None))
    assert (line["backbone"], line["pretrain_noise"]) == ("resnet10t", "symmetric")
    assert line["scale"] == "none"


@pytest.mark.parametrize("data", [None, {"identity": "d" * 32}])
def test_a_set_without_a_name_has_that_of_its_file(
    make_features: Any, make_head: Any, tmp_path: Path, data: Any
) -> None:
    (tmp_path / "toy").mkdir()
    path = rewritten(make_features("toy/sketch-test.h5", classes=CLASSES), data=data)
    (line,) = score(make_head(), path)
    assert [line[key] for key in ("task", "domain", "split")] == ["toy", "sketch", "test"]


def test_features_on_stdin_are_named_so(
    make_features: Any, make_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, path = make_head(), rewritten(make_features("t.safetensors", classes=CLASSES), data=None)
    for source, name in (("-", ["stdin", None, None]), ("toy/far:test=-", ["toy", "far", "test"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(path).read_bytes())))
        (line,) = score(head, source)
        assert [line[key] for key in ("task", "domain", "split")] == name


@pytest.mark.parametrize(
    "key", ["versus", "difference", "class_map", "nll_low", "score_high", "resamplings", "class"]
)
def test_tags_do_not_hide_keys_that_some_lines_have(
    make_features: Any, make_head: Any, key: str
) -> None:
    with pytest.raises(UsageError, match=f"--tag {key}"):
        score(make_head(), make_features("t.h5", classes=CLASSES), tags={key: "1"})


def test_what_changes_a_line_makes_it_another_one(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=("ant", "bee"), rows=9)
    files = {name: str(tmp_path / f"{name}.csv") for name in ("fox", "gnu", "said")}
    for name in ("fox", "gnu"):
        Path(files[name]).write_text(f"from,to\n{name},ant\n")
    said = [f"{row:04d},ant\n" for row in range(9)]
    Path(files["said"]).write_text("".join(["id,prediction\n", *said]))
    ways: list[dict[str, Any]] = [
        {}, {"restrict": True}, {"class_map": files["fox"]}, {"class_map": files["gnu"]},
        {"class_map": files["gnu"], "class_map_by": "sum"}, {"tags": {"run": "1"}},
        {"scoring": Scoring("mcc")}, {"scoring": Scoring("f1", positive="ant")},
        {"scoring": Scoring("f1", positive="bee")}, {"scoring": Scoring(resamplings=2)},
        {"scoring": Scoring(resamplings=3)}, {"versus": make_head("b.safetensors")},
        {"versus": make_head("c.safetensors")}, {"versus": files["said"]},
    ]  # fmt: skip
    identities = [score(head, path, **way)[0]["identity"] for way in ways]
    identities.append(score(head, f"toy/other={path}")[0]["identity"])
    # A table is known by what it holds, not by its name.
    Path(files["said"]).write_text("".join(["id,prediction\n", *said[:-1], "0008,bee\n"]))
    identities.append(score(head, path, versus=files["said"])[0]["identity"])
    assert len(set(identities)) == len(ways) + 2


def test_lines_that_are_reused_are_not_scored_again(
    make_features: Any, make_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, path, file = make_head(), make_features("t.h5", classes=CLASSES), str(tmp_path / "r.jsonl")
    (made,) = score(head, path, results=file)
    # Lines of an older version that lack a key, and what is no result line, are made anew.
    for change in ({"role": ...}, {"seen": ...}, {"kind": "spectrum"}):
        changed = {key: value for key, value in {**made, **change}.items() if value is not ...}
        Path(file).write_text(f"{results.to_json(changed)}\n")
        assert score(head, path, results=file, reuse=True) == [made] == results.read(file)
    monkeypatch.setattr("nmlcli.stages.eval.Scores", None)  # nothing is scored
    assert score(head, path, results=file, reuse=True) == [made]
    for more in ({"per_class": True}, {"predictions": str(tmp_path / "p.csv")}):
        with pytest.raises(UsageError, match="--reuse answers from --results"):
            score(head, path, results=file, reuse=True, **more)
    Path(file).write_text('{"identity": ["x"]}\n')
    with pytest.raises(InvalidInput, match="line 1 has an identity that is no text"):
        score(head, path, results=file, reuse=True)


def test_the_document_names_every_key_of_a_line(make_features: Any, make_head: Any) -> None:
    document = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    head, path = make_head(), make_features("t.h5", classes=CLASSES)
    lines = score(head, path, versus=head, per_class=True, scoring=Scoring(resamplings=2))
    keys = {key for line in lines for key in line if key in KEYS or not key.endswith(("_low", "_high"))}
    assert [key for key in keys if f"`{key}`" not in document] == []
    assert f"{BINS} bins" in document
