"""`eval`: result lines against other libraries' numbers, how sets and heads match, what is refused."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from nmlcli.errors import InvalidInput, ThresholdMissed, UsageError
from nmlcli.products import results
from nmlcli.products.formats import read_features, read_head, write_features, write_head
from nmlcli.products.head import Head
from nmlcli.provenance import Record
from nmlcli.stages.eval import EvalOptions, check_threshold, evaluate
from nmlcli.stages.scoring import MEASURED_KEYS

MODEL = {"name": "resnet10t", "identity": "m" * 32, "layer": "pre_logits"}  # that of make_features
CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
KEYS = [
    "kind", "task", "domain", "split", "role", "rows", "set_noise", "set_realised", "classes_scored",
    "restricted", "seen",
    "method", "preset", "loss", "scale", "options", "seed", "fraction", "selected_by", "accuracy",
    "accuracy_low", "accuracy_high", "top5", "mean_class_accuracy", "macro_f1", "nll", "ece",
    "metric", "score", "sve", "lsvr", "spectrum_preset", "backbone", "backbone_identity",
    "backbone_seed", "layer", "objective", "pretrain_set", "pretrain_noise", "pretrain_ratio",
    "pretrain_realised", "pretrain_noise_seed", "train_set", "train_noise", "train_ratio",
    "train_realised", "head", "features", "identity",
]  # fmt: skip


@pytest.fixture
def make_head(make_features: Any, tmp_path: Path) -> Any:
    """Write an untrained head for the made features; its file's name."""

    def make(
        file: str = "head.safetensors", *, classes: Any = CLASSES, hidden: bool = True, **facts: Any
    ) -> str:
        source = read_features(make_features("train.h5", classes=classes)).record
        generator = np.random.default_rng(len(file))
        widths = [8, 20, 8, len(classes)] if hidden else [8, len(classes)]
        layers = tuple(
            (
                (0.5 * generator.normal(size=(o, i))).astype(np.float32),
                (0.1 * generator.normal(size=o)).astype(np.float32),
            )
            for i, o in pairwise(widths)
        )
        trained = [source.data["identity"], source.identity]  # type: ignore[index]
        record = Record(
            kind="head", identity=file, command="tune", classes=classes, rows=90, columns=8,
            data=source.data, model=source.model, noise=source.noise,
            extra={
                "method": "mlp" if hidden else "lp", "preset": "paper",
                "options": {"lr": 0.01, "cov": 0.5},
                "seed": 3, "loss": "ce", "scale": "none", "activation": "relu", "trained_on": trained,
            },
        )  # fmt: skip
        path = str(tmp_path / file)
        write_head(path, Head(replace(record, **facts), layers, None, None, path))
        return path

    return make


def score(head: str, *sources: str, **options: Any) -> list[dict[str, Any]]:
    return evaluate(head, sources, EvalOptions(**options))


def test_a_line_holds_the_keys_of_the_interface_and_what_provenance_knows(
    make_features: Any, make_head: Any
) -> None:
    (line,) = score(make_head(), make_features("t.h5", name="toy/photo:test", classes=CLASSES, seed=1))
    assert sorted(line) == sorted(KEYS)
    wanted = {
        "kind": "result", "task": "toy", "domain": "photo", "split": "test", "role": "id", "rows": 90,
        "set_noise": "none", "set_realised": 0.0,
        "classes_scored": 7, "restricted": False, "seen": False, "method": "mlp", "preset": "paper",
        "options": "cov=0.5,lr=0.01", "seed": 3, "fraction": 1.0, "metric": "accuracy",
        "backbone": "resnet10t", "pretrain_set": "shapes:train", "pretrain_ratio": 0.3,
        "pretrain_realised": 0.31, "train_set": "toy/photo:train", "train_noise": "none",
        "train_ratio": 0.0, "head": "head.safetensors",
    }  # fmt: skip
    assert {key: line[key] for key in wanted} == wanted
    assert json.loads(results.to_json(line)) == line


@pytest.mark.parametrize("hidden", [True, False])
def test_measures_are_those_of_other_libraries(
    make_features: Any, make_head: Any, hidden: bool
) -> None:
    path = make_features("test.h5", classes=CLASSES, rows=5000, seed=1)
    head, features = make_head(hidden=hidden), read_features(path)
    (line,) = score(head, path)
    z, logits = read_head(head).apply(features.matrix())
    said, truth = logits.argmax(1), features.labels
    chances = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    shares = np.linalg.svd(z.astype(float), compute_uv=False)
    shares = shares / shares.sum()
    wanted = {
        "accuracy": oracle.accuracy_score(truth, said),
        "mean_class_accuracy": oracle.balanced_accuracy_score(truth, said),
        "macro_f1": oracle.f1_score(
            truth, said, average="macro", labels=np.unique(truth), zero_division=0
        ),
        "top5": oracle.top_k_accuracy_score(truth, logits, k=5),
        "nll": oracle.log_loss(truth, chances, labels=range(7)),
        "sve": -(shares * np.log(shares)).sum(),
        "lsvr": -np.log(shares[0]),
    }
    assert {key: line[key] for key in wanted} == pytest.approx(wanted, rel=1e-5)
    assert line["accuracy_low"] < line["accuracy"] == line["score"] < line["accuracy_high"]
    confidence, correct, gap = chances.max(1), said == truth, 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            gap += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert line["ece"] == pytest.approx(gap, abs=1e-6)


def test_classes_are_matched_by_name(make_features: Any, make_head: Any) -> None:
    head = make_head()
    plain = make_features("plain.h5", classes=CLASSES, seed=1)
    (line,) = score(head, plain)
    features = read_features(plain)
    assert features.labels is not None
    matrix, turned = features.matrix(), plain.replace("plain", "turned")
    write_features(
        turned,
        replace(
            features,
            labels=6 - features.labels,
            record=replace(features.record, classes=CLASSES[::-1]),
            blocks=lambda size: iter([matrix]),
        ),
    )
    (other,) = score(head, turned)
    assert {key: value for key, value in line.items() if key != "identity"} == {
        key: value for key, value in other.items() if key != "identity"
    }
    (fewer,) = score(head, make_features("fewer.h5", classes=("elk", "bee")))
    assert fewer["classes_scored"] == 7
    with pytest.raises(InvalidInput, match="owl, yak, zho and 1 more"):
        score(head, make_features("more.h5", classes=("ant", "owl", "yak", "zho", "zzz")))


def test_numbers_are_taken_where_classes_have_no_names(
    make_features: Any, make_head: Any, caplog: Any
) -> None:
    head = make_head()
    (line,) = score(head, make_features("bare.h5", classes=None))
    assert "names no classes" in caplog.text
    (named,) = score(head, make_features("bare.h5", classes=CLASSES[:3]))
    assert line["rows"] == named["rows"]
    with pytest.raises(InvalidInput, match="class number 2, the head 2"):
        score(
            make_head("two.safetensors", classes=("ant", "bee")), make_features("bare.h5", classes=None)
        )


@pytest.mark.parametrize(
    ("name", "role"),
    [("toy/photo:test", "id"), ("toy/sketch:test", "ood"), ("toy:test", None), ("pets:test", None)],
)
def test_the_role_follows_from_the_names(
    make_features: Any, make_head: Any, name: str, role: str | None
) -> None:
    (line,) = score(make_head(), make_features("t.h5", name=name, classes=CLASSES))
    assert line["role"] == role
    (tagged,) = score(
        make_head(), make_features("t.h5", name=name, classes=CLASSES), tags={"role": "far", "run": "7"}
    )
    assert (tagged["role"], tagged["run"]) == ("far", "7")
    assert tagged["identity"] != line["identity"]


def test_a_set_can_be_renamed(make_features: Any, make_head: Any) -> None:
    path = make_features("t.h5", classes=CLASSES)
    (line,) = score(make_head(), f"toy/sketch:val={path}")
    assert (line["task"], line["domain"], line["split"], line["role"]) == (
        "toy",
        "sketch",
        "val",
        "ood",
    )


def test_a_tag_does_not_hide_a_key(make_features: Any, make_head: Any) -> None:
    with pytest.raises(UsageError, match="accuracy"):
        score(make_head(), make_features("t.h5", classes=CLASSES), tags={"accuracy": "1"})


def test_what_was_trained_on_and_noisy_labels_are_warned_of(
    make_features: Any, make_head: Any, caplog: Any
) -> None:
    head = make_head()
    (line,) = score(head, make_features("train.h5", classes=CLASSES))
    assert line["seen"] and "trained or chosen on" in caplog.text
    caplog.clear()
    noise = {"kind": "symmetric", "requested": 0.2, "realised": 0.2, "flipped": 18, "of": 90, "seed": 1}
    (line,) = score(head, make_features("noisy.h5", classes=CLASSES, noise=noise, seed=5))
    assert not line["seen"] and "20.0 % of its labels are noise" in caplog.text
    assert (line["set_noise"], line["set_realised"]) == ("symmetric", 0.2)


def test_a_folder_of_heads_reads_each_set_once(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "heads"
    folder.mkdir()
    for name in ("heads/b.safetensors", "heads/a.safetensors"):
        make_head(name, hidden=name.endswith("b.safetensors"))
    make_features("heads/features.h5")  # passed over
    sets = [make_features(f"{n}.h5", name=f"toy/{n}:test", classes=CLASSES) for n in ("x", "y")]
    steps: list[int] = []
    lines = evaluate(str(folder), sets, EvalOptions(), lambda done, total, **_: steps.append(done))
    assert [(line["domain"], line["head"][6]) for line in lines] == [
        ("x", "a"),
        ("x", "b"),
        ("y", "a"),
        ("y", "b"),
    ]
    assert steps == [90, 180]
    alone = score(str(folder / "a.safetensors"), sets[1])
    assert alone == [lines[2]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no heads"):
        score(str(tmp_path / "empty"), sets[0])


def test_lines_are_merged_and_reused(
    make_features: Any, make_head: Any, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("INFO", "nmlcli")
    head, path, file = (
        make_head(),
        make_features("t.h5", classes=CLASSES),
        str(tmp_path / "results.jsonl"),
    )
    made = score(head, path, results=file)
    assert results.read(file) == made == score(head, path, results=file, reuse=True)
    assert "up to date" in caplog.text
    score(head, path, results=file)
    assert len(results.read(file)) == 1
    score(head, path, results=file, tags={"run": "2"})
    assert len(results.read(file)) == 2
    with pytest.raises(UsageError, match="--results"):
        score(head, path, reuse=True)


def test_predictions_need_no_labels(make_features: Any, make_head: Any, tmp_path: Path) -> None:
    head, table = make_head(), tmp_path / "said.csv"
    bare = make_features("bare.h5", classes=CLASSES, labelled=False, seed=1)
    with pytest.raises(InvalidInput, match="no labels"):
        score(head, bare)
    assert score(head, bare, predictions=str(table)) == []
    said = list(csv.DictReader(table.open()))
    logits = read_head(head).apply(read_features(bare).matrix())[1]
    assert [row["prediction"] for row in said] == [CLASSES[k] for k in logits.argmax(1)]
    assert [row["id"] for row in said[:2]] == ["0000", "0001"] and {row["label"] for row in said} == {
        ""
    }
    (line,) = score(head, make_features("full.h5", classes=CLASSES, seed=1), predictions=str(table))
    rows = list(csv.DictReader(table.open()))
    assert np.mean([row["label"] == row["prediction"] for row in rows]) == pytest.approx(
        line["accuracy"]
    )
    assert all(1 / 7 <= float(row["confidence"]) <= 1 for row in rows)
    with pytest.raises(UsageError, match="no format has the suffix"):
        score(head, bare, predictions=str(tmp_path / "said.h5"))
    with pytest.raises(UsageError, match="one set"):
        score(head, bare, bare, predictions=str(table))


def test_per_class_lines_average_to_the_whole(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES, rows=400)
    whole, *classes = score(
        head, path, per_class=True, results=str(tmp_path / "r.jsonl"), tags={"run": "7"}
    )
    assert [line["class"] for line in classes] == list(CLASSES)
    told = set(whole) - {key for key, value in whole.items() if key in MEASURED_KEYS}
    assert all(told - {"identity"} <= set(line) and line["kind"] == "class" for line in classes)
    assert classes[0]["run"] == "7" and not {"nll", "identity"} & set(classes[0])
    assert np.mean([line["accuracy"] for line in classes]) == pytest.approx(
        whole["mean_class_accuracy"]
    )
    assert np.mean([line["f1"] for line in classes]) == pytest.approx(whole["macro_f1"])
    assert sum(line["rows"] for line in classes) == 400
    assert results.read(str(tmp_path / "r.jsonl")) == [whole]


def test_a_missed_threshold_is_told(make_features: Any, make_head: Any) -> None:
    lines = score(make_head(), make_features("t.h5", classes=CLASSES))
    check_threshold(lines, 0.0)
    with pytest.raises(ThresholdMissed, match="toy/photo:train") as error:
        check_threshold(lines, 1.0)
    assert error.value.exit_code == 3


def test_features_that_do_not_fit_are_refused(make_features: Any, make_head: Any, caplog: Any) -> None:
    head = make_head()
    with pytest.raises(InvalidInput, match=r"has 5 columns, .* 8"):
        score(head, make_features("narrow.h5", classes=CLASSES, columns=5))
    for other in ({"identity": "v" * 32}, {"layer": "blocks.3"}):
        with pytest.raises(InvalidInput, match="another network"):
            score(head, make_features("other.h5", classes=CLASSES, model={**MODEL, **other}))
    assert not caplog.records
    score(head, make_features("unknown.h5", classes=CLASSES, model=None))
    assert "by its width alone" in caplog.text

    def spoil(features: np.ndarray, _: np.ndarray) -> None:
        features[7, 2] = np.nan

    with pytest.raises(InvalidInput, match="0007"):
        score(head, make_features("nan.h5", classes=CLASSES, change=spoil))
    with pytest.raises(UsageError, match="given twice"):
        score("-", "toy=-")
    with pytest.raises(InvalidInput, match="not a head"):
        score(make_features("t.h5"), make_features("t.h5"))


@pytest.mark.process
def test_eval_does_without_torch(make_features: Any, make_head: Any) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES)
    code = (
        "import sys\n"
        "from nmlcli.cli.main import run\n"
        f"code = run(['eval', {head!r}, {path!r}, '--json'])\n"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'timm', 'sklearn')))\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["kind"] == "result"


def test_results_that_are_none_are_refused_before_any_work(
    make_head: Any, make_features: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmlcli.stages.eval.Scores", None)  # nothing is scored
    (tmp_path / "r.jsonl").write_text("accuracy,0.5\n")
    with pytest.raises(InvalidInput, match=r"r\.jsonl: line 1 is not a JSON object"):
        evaluate(make_head(), [make_features()], EvalOptions(results=str(tmp_path / "r.jsonl")))
    assert (tmp_path / "r.jsonl").read_text() == "accuracy,0.5\n"
