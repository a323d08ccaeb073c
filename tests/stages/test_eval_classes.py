"""Which classes compete: `--restrict`, `--class-map`, and scores of the task's own metric."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from nmlcli.errors import InvalidInput, ThresholdMissed, UsageError
from nmlcli.products import results
from nmlcli.products.formats import read_features, read_head, write_features, write_head
from nmlcli.stages.eval import check_threshold
from nmlcli.stages.scoring import Scoring
from tests.stages.test_eval import CLASSES, make_head, score

__all__ = ["make_head"]  # the fixture


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_restricted_classes_compete_among_themselves(make_features: Any, make_head: Any) -> None:
    head, path = (
        make_head(hidden=False),
        make_features("few.h5", classes=("fox", "ant", "elk"), rows=300),
    )
    (wide,) = score(head, path)
    (line,) = score(head, path, restrict=True)
    features = read_features(path)
    logits = read_head(head).apply(features.matrix())[1][:, [0, 4, 5]]  # ant, elk, fox
    labels = np.array([2, 0, 1])[features.labels]
    assert line["accuracy"] == np.mean(logits.argmax(axis=1) == labels) > wide["accuracy"]
    assert line["nll"] == pytest.approx(oracle.log_loss(labels, softmax(logits), labels=range(3)))
    assert (line["classes_scored"], line["restricted"], line["top5"]) == (3, True, None)
    assert (wide["classes_scored"], wide["restricted"]) == (7, False)
    assert line["identity"] != wide["identity"]
    assert (line["sve"], line["lsvr"]) == (wide["sve"], wide["lsvr"])


@pytest.mark.parametrize("restrict", [False, True])
@pytest.mark.parametrize("pool", ["max", "sum"])
def test_classes_that_stand_for_one_are_pooled(
    make_features: Any, make_head: Any, tmp_path: Path, pool: str, restrict: bool
) -> None:
    table = tmp_path / "map.csv"
    table.write_text("from,to\ndog,pet\ncat,pet\nant,insect\nbee,insect\n")
    head, path = (
        make_head(hidden=False),
        make_features("v.h5", classes=("insect", "pet", "fox"), rows=300),
    )
    options = {"class_map": str(table), "class_map_by": pool, "restrict": restrict}
    (line,) = score(head, path, **options)
    features = read_features(path)
    logits = read_head(head).apply(features.matrix())[1].astype(float)
    shares = softmax(logits)
    groups = [[0, 1], [2, 3], [5], *([] if restrict else [[4], [6]])]
    pooled = np.stack(
        [shares[:, g].max(axis=1) if pool == "max" else shares[:, g].sum(axis=1) for g in groups],
        axis=1,
    )
    pooled /= pooled.sum(axis=1, keepdims=True)
    labels = features.labels
    assert labels is not None
    assert line["accuracy"] == np.mean(pooled.argmax(axis=1) == labels)
    assert line["nll"] == pytest.approx(-np.log(pooled[np.arange(300), labels]).mean(), rel=1e-5)
    assert (line["classes_scored"], line["class_map"]) == (len(groups), pool)
    other = {"max": "sum", "sum": "max"}[pool]
    (turned,) = score(head, path, **{**options, "class_map_by": other})
    assert turned["identity"] != line["identity"]


def test_maps_that_do_not_fit_are_refused(make_features: Any, make_head: Any, tmp_path: Path) -> None:
    table, head = tmp_path / "map.csv", make_head(hidden=False)
    path = make_features("few.h5", classes=("ant", "bee"))

    def mapped(text: str, features: str = path) -> None:
        table.write_text(text)
        score(head, features, class_map=str(table))

    with pytest.raises(InvalidInput, match="lacks classes of the map: owl, yak, zho and 1 more"):
        mapped("from,to\nowl,ant\nyak,ant\nzho,ant\nzzz,ant\n")
    with pytest.raises(InvalidInput, match="more than once: cat"):
        mapped("from,to\ncat,ant\ncat,bee\n")
    with pytest.raises(InvalidInput, match=r"no column to, .* from \(head"):
        mapped("from,too\ncat,ant\n")
    with pytest.raises(InvalidInput, match="row 2 has no class in column to"):
        mapped("from,to\ncat,ant\ndog,\n")
    with pytest.raises(InvalidInput, match="not among the 6: ant"):
        mapped("from,to\nant,bee\n")
    with pytest.raises(InvalidInput, match="names no classes"):
        mapped("from,to\ncat,ant\n", make_features("bare.h5", classes=None))
    with pytest.raises(InvalidInput, match="no class in common"):
        score(head, make_features("far.h5", classes=("owl", "yak")), restrict=True)
    with pytest.raises(UsageError, match="--class-map FILE"):
        score(head, path, class_map_by="sum")


def test_the_score_is_the_metric_that_was_asked_for(make_features: Any, make_head: Any) -> None:
    head, path = (
        make_head(hidden=False, classes=("0", "1")),
        make_features("two.h5", classes=("0", "1"), rows=300),
    )
    features = read_features(path)
    assert features.labels is not None
    logits = read_head(head).apply(features.matrix())[1]
    said = logits.argmax(axis=1)
    wanted = {
        "accuracy": oracle.accuracy_score(features.labels, said),
        "mean-class": oracle.balanced_accuracy_score(features.labels, said),
        "mcc": oracle.matthews_corrcoef(features.labels, said),
        "f1": oracle.f1_score(features.labels, said),
        "pearson": np.corrcoef(features.labels, softmax(logits)[:, 1])[0, 1],
    }
    found = set()
    for metric, value in wanted.items():
        (line,) = score(head, path, scoring=Scoring(metric))
        assert (line["metric"], line["score"]) == (metric, pytest.approx(value, rel=1e-6)), metric
        found.add(line["identity"])
    assert len(found) == len(wanted)
    (line,) = score(head, path, scoring=Scoring("f1", positive="0"))
    assert line["score"] == pytest.approx(oracle.f1_score(features.labels, said, pos_label=0))


def test_ratings_are_the_mean_of_the_classes_as_numbers(make_features: Any, make_head: Any) -> None:
    classes = ("0.5", "1", "2.25", "10")
    head, path = (
        make_head(hidden=False, classes=classes),
        make_features("sts.h5", classes=classes, rows=300),
    )
    features, values = read_features(path), np.array([0.5, 1, 2.25, 10])
    ratings = softmax(read_head(head).apply(features.matrix())[1]) @ values
    (line,) = score(head, path, scoring=Scoring("pearson"))
    assert line["score"] == pytest.approx(np.corrcoef(ratings, values[features.labels])[0, 1], rel=1e-6)


def test_metrics_that_do_not_apply_are_refused(make_features: Any, make_head: Any) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=CLASSES)
    with pytest.raises(InvalidInput, match="classes that are numbers, not ant, bee, cat and 4 more"):
        score(head, path, scoring=Scoring("pearson"))
    with pytest.raises(InvalidInput, match=r"no class 1 .* --positive, of ant"):
        score(head, path, scoring=Scoring("f1"))
    with pytest.raises(InvalidInput, match="--positive owl"):
        score(head, path, scoring=Scoring("f1", positive="owl"))
    with pytest.raises(UsageError, match="--metric mcc is of all classes"):
        score(head, path, scoring=Scoring("mcc", positive="ant"))


def test_the_threshold_is_of_the_score(make_features: Any, make_head: Any) -> None:
    lines = score(
        make_head(hidden=False), make_features("t.h5", classes=CLASSES), scoring=Scoring("mcc")
    )
    check_threshold(lines, lines[0]["score"])
    with pytest.raises(ThresholdMissed, match=r"mcc -?0\.\d{4} is below 0.99"):
        check_threshold(lines, 0.99)
    with pytest.raises(ThresholdMissed, match="mcc is not defined"):
        check_threshold([{**lines[0], "score": float("nan")}], -1)


def test_intervals_come_where_they_are_asked_for(make_features: Any, make_head: Any) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=CLASSES, rows=400)
    (plain,) = score(head, path)
    (line,) = score(head, path, scoring=Scoring("mcc", resamplings=300))
    for key in ("top5", "mean_class_accuracy", "macro_f1", "nll", "ece", "score"):
        assert f"{key}_low" not in plain
        assert line[f"{key}_low"] < line[f"{key}_high"], key
    assert line["macro_f1_low"] < line["macro_f1"] < line["macro_f1_high"]
    assert (line["accuracy_low"], line["resamplings"]) == (plain["accuracy_low"], 300)
    assert score(head, path, scoring=Scoring("mcc", resamplings=300)) == [line]
    assert "NaN" not in results.to_json(line)
    two = make_features("u.h5", classes=("ant", "bee"))
    (few,) = score(
        make_head("two.safetensors", classes=("ant", "bee")), two, scoring=Scoring(resamplings=9)
    )
    assert "top5_low" not in few and "nll_low" in few
    (none,) = score(make_head("two.safetensors", classes=("ant", "bee")), two, scoring=Scoring("top5"))
    assert none["score"] is None  # of two classes all are among five


def test_labels_without_names_are_those_of_classes_that_are_numbers(
    make_features: Any, make_head: Any, caplog: Any
) -> None:
    """A set whose labels 1, 2 were never named, and a head of classes that are called so."""
    named = make_features("named.h5", classes=("1", "2", "3"), rows=300)
    head = make_head(hidden=False, classes=("1", "2", "3"))

    def shift(labels: np.ndarray, by: int) -> str:
        features, path = read_features(named), named.replace("named", f"bare{by}")
        matrix, record = features.matrix(), replace(features.record, classes=None)
        blocks = {"labels": labels + by, "record": record, "blocks": lambda size: iter([matrix])}
        write_features(path, replace(features, **blocks))
        return path

    labels = read_features(named).labels
    assert labels is not None
    (line,) = score(head, named)
    assert score(head, shift(labels, 1))[0]["accuracy"] == line["accuracy"]
    assert "names no classes" not in caplog.text
    with pytest.raises(InvalidInput, match="not among the 3: 0"):
        score(head, shift(labels, 0))


def test_it_is_said_which_of_the_two_has_no_names(
    make_features: Any, make_head: Any, caplog: Any
) -> None:
    head = make_head(hidden=False)
    nameless = read_head(head)
    write_head(head, replace(nameless, record=replace(nameless.record, classes=None)))
    path = make_features("t.h5", classes=CLASSES)
    score(head, path)
    assert f"{head} names no classes" in caplog.text
    with pytest.raises(InvalidInput, match=r"head\.safetensors names no classes: they are matched"):
        score(head, path, restrict=True)


def test_a_map_to_classes_that_a_set_lacks_is_told(
    make_features: Any, make_head: Any, tmp_path: Path, caplog: Any
) -> None:
    table, head = tmp_path / "map.csv", make_head(hidden=False)
    path = make_features("t.h5", classes=("ant", "pet", "owl"), seed=1, change=lambda _, y: y.fill(1))
    table.write_text("from,to\ncat,pet\ndog,pets\n")
    (line,) = score(head, path, class_map=str(table), restrict=True)
    assert caplog.messages[-1].endswith("lacks classes that the map leads to: pets")
    assert line["classes_scored"] == 2  # ant and pet; pets, of the map alone, is no class of the set
    table.write_text("from,to\ncat,puts\ndog,pets\n")
    with pytest.raises(InvalidInput, match="no class that the map leads to: puts, pets"):
        score(head, path, class_map=str(table))


def test_top_5_is_told_where_there_are_more_than_5_classes(make_features: Any, make_head: Any) -> None:
    for count, told in ((5, False), (6, True)):
        classes = CLASSES[:count]
        path = make_features(f"{count}.h5", classes=classes, rows=300)
        head = make_head(f"{count}.safetensors", classes=classes)
        (line,) = score(head, path, scoring=Scoring("top5", resamplings=5))
        assert (line["top5"] is not None) == (line["score"] is not None) == told
        assert ("score_low" in line) == ("top5_low" in line) == told


def test_a_score_has_its_own_interval(make_features: Any, make_head: Any) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=CLASSES, rows=300)
    (line,) = score(head, path, scoring=Scoring("macro-f1", resamplings=20))
    ends = [(line[f"{key}_low"], line[f"{key}_high"]) for key in ("score", "macro_f1")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["inf", "nan"])
def test_a_rating_is_a_finite_number(make_features: Any, make_head: Any, name: str) -> None:
    classes = ("1", "2", name)
    head, path = make_head(classes=classes), make_features("t.h5", classes=classes)
    with pytest.raises(InvalidInput, match="classes that are numbers, not 1, 2"):
        score(head, path, scoring=Scoring("pearson"))


def test_a_linear_head_with_a_residual_has_a_spectrum_of_its_own(
    make_features: Any, make_head: Any
) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=CLASSES)
    (plain,) = score(head, path)
    residual = np.arange(8, dtype=np.float32)
    write_head(head, replace(read_head(head), residual=residual))
    (line,) = score(head, path)
    shares = np.linalg.svd(
        read_features(path).matrix() * (1 + residual).astype(float), compute_uv=False
    )
    shares /= shares.sum()
    assert line["sve"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-5)
    assert line["sve"] != pytest.approx(plain["sve"], rel=1e-2)


def test_a_spectrum_that_is_not_defined_is_none(make_features: Any, make_head: Any) -> None:
    path = make_features("t.h5", classes=CLASSES, change=lambda features, _: features.fill(0))
    (line,) = score(make_head(hidden=False), path)
    assert (line["sve"], line["lsvr"]) == (None, None)
