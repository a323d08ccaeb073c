"""`tune`: losses for noisy labels, and augmented views."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import read_features, read_head, write_features
from nmlcli.stages.corrupt import CorruptOptions, corrupt
from nmlcli.stages.inputs import open_labelled
from nmlcli.stages.realised import clean_labels, transition
from nmlcli.stages.tune import tune
from nmlcli.stages.tune_options import TuneOptions
from nmlcli.tuning.criteria import LOSSES

QUICK = {"epochs": 3, "batch_size": 16}


def run(source: str, out: Path, **options: Any) -> Any:
    asked = TuneOptions(
        **{"methods": ("lp",), **options, "knobs": {**QUICK, **options.get("knobs", {})}}
    )
    return tune([source], str(out), asked)[0]


@pytest.fixture
def noisy(make_features: Any, tmp_path: Path) -> tuple[str, str]:
    """Features, and a table of labels for them of which 30 % are wrong."""
    train = make_features(rows=300)
    features = read_features(train)
    assert features.labels is not None and features.record.classes is not None
    names = [features.record.classes[number] for number in features.labels]
    table = tmp_path / "labels.csv"
    rows = [f"{name},{label}" for name, label in zip(features.ids, names, strict=True)]
    table.write_text("\n".join(["id,label", *rows]) + "\n")
    out = str(tmp_path / "noisy.csv")
    corrupt(str(table), out, CorruptOptions(kind="pairflip", ratio="0.3"))
    return train, out


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_says_its_loss_and_logs_its_terms(
    noisy: tuple[str, str], tmp_path: Path, loss: str
) -> None:
    train, labels = noisy
    log = tmp_path / "log.jsonl"
    given: dict[str, Any] = {"labels": labels, "knobs": {"loss": loss}, "log": str(log)}
    record = run(train, tmp_path / "a.safetensors", **given, methods=("nmtune",))
    assert record.extra["loss"] == loss
    assert "loss" not in record.extra["options"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    terms = {"ce": ["cross_entropy"], "label-smoothing": ["label_smoothing"], "gce": ["gce"],
             "forward": ["forward"], "elr": ["cross_entropy", "elr"]}[loss]  # fmt: skip
    assert {*terms, "loss", "mse", "cov", "svd", "epoch"} <= lines[0].keys()
    again = run(train, tmp_path / "b.safetensors", **given, methods=("nmtune",))
    assert again.identity == record.identity
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    os.utime(train, (1, 1))
    os.utime(labels, (1, 1))
    before = (tmp_path / "a.safetensors").stat().st_mtime_ns
    run(train, tmp_path / "a.safetensors", **given, methods=("nmtune",), reuse=True)
    assert (tmp_path / "a.safetensors").stat().st_mtime_ns == before


def test_the_transition_is_the_realised_one(noisy: tuple[str, str]) -> None:
    train, labels = noisy
    whole = open_labelled([train], labels)
    clean = clean_labels(whole, labels)
    assert clean is not None
    np.testing.assert_array_equal(clean, read_features(train).labels)
    matrix = transition(whole, clean)
    wanted = np.array([[np.mean(whole.labels[clean == a] == b) for b in range(3)] for a in range(3)])
    np.testing.assert_allclose(matrix, wanted)
    assert matrix[0, 2] == 0 < matrix[0, 1]
    assert np.mean(whole.labels != clean) == pytest.approx(0.3)


def test_features_may_hold_their_clean_labels(noisy: tuple[str, str], tmp_path: Path) -> None:
    train, labels = noisy
    whole, features = open_labelled([train], labels), read_features(train)
    clean = clean_labels(whole, labels)
    matrix = features.matrix()
    file = str(tmp_path / "both.h5")
    record = replace(features.record, noise=whole.noise)
    both = replace(features, record=record, labels=whole.labels, clean_labels=clean)
    write_features(file, replace(both, blocks=lambda size: iter([matrix])))
    one, other = (tmp_path / f"{name}.h5" for name in "ab")
    run(file, one, knobs={"loss": "forward"})
    run(train, other, labels=labels, knobs={"loss": "forward"})
    np.testing.assert_array_equal(read_head(str(one)).layers[0][0], read_head(str(other)).layers[0][0])


def test_a_class_without_rows_stays_in_the_transition(make_features: Any) -> None:
    def lacking(_: Any, labels: np.ndarray) -> None:
        labels[labels == 1] = 0

    whole = open_labelled([make_features(change=lacking)], None)
    np.testing.assert_array_equal(transition(whole, clean_labels(whole, None)), np.eye(3))


def test_forward_is_cross_entropy_where_labels_are_known_to_be_clean(
    make_features: Any, tmp_path: Path
) -> None:
    train = make_features()
    for loss in ("ce", "forward"):
        run(train, tmp_path / f"{loss}.h5", knobs={"loss": loss})
    one, other = (read_head(str(tmp_path / f"{loss}.h5")).layers for loss in ("ce", "forward"))
    np.testing.assert_allclose(one[0][0], other[0][0], atol=1e-5)


def test_forward_needs_labels_whose_noise_is_known(make_features: Any, tmp_path: Path) -> None:
    out = tmp_path / "head.h5"
    unknown = make_features("unknown.h5", noise=None)
    with pytest.raises(
        InvalidInput, match="before the noise are not known: take labels from nml corrupt"
    ):
        run(unknown, out, knobs={"loss": "forward"})
    table = tmp_path / "labels.csv"
    features = read_features(unknown)
    rows = [f"{name},{'ab'[i % 2]}nt" for i, name in enumerate(features.ids)]
    table.write_text("\n".join(["id,label", *(row.replace("bnt", "bee") for row in rows)]) + "\n")
    with pytest.raises(InvalidInput, match="are not known"):
        run(unknown, out, labels=str(table), knobs={"loss": "forward"})
    os.mkfifo(tmp_path / "pipe")
    for pipe in ("-", str(tmp_path / "pipe")):
        with pytest.raises(UsageError, match="is read twice, which a pipe cannot be"):
            run(unknown, out, labels=pipe, knobs={"loss": "forward"})
    assert not out.exists()


def test_forward_finds_the_classes_that_the_noise_moves(make_features: Any, tmp_path: Path) -> None:
    """Of a noise that goes one way round, T the other way round would find other classes."""
    train = make_features(rows=300)
    features = read_features(train)
    assert features.labels is not None
    clean, moved = features.labels, np.arange(300) % 20 < 9  # 45 %
    matrix, noisy = features.matrix(), np.where(moved, (clean + 1) % 3, clean)
    file = str(tmp_path / "both.h5")
    both = replace(features, labels=noisy, clean_labels=clean, blocks=lambda size: iter([matrix]))
    write_features(file, both)
    run(file, tmp_path / "head.h5", knobs={"loss": "forward", "epochs": 20})
    found = read_head(str(tmp_path / "head.h5")).apply(matrix)[1].argmax(1)
    assert np.mean(found == clean) > 0.9


def test_forward_does_not_train_on_rows_whose_noise_is_not_counted(
    noisy: tuple[str, str], make_features: Any, tmp_path: Path
) -> None:
    train, labels = noisy
    given: dict[str, Any] = {"labels": labels, "knobs": {"loss": "forward"}}
    val = make_features("val.h5", seed=2, offset=500)
    with pytest.raises(UsageError, match="--loss forward knows nothing of the noise of --val"):
        run(train, tmp_path / "a.h5", **given, validation=val, refit=True)
    run(train, tmp_path / "a.h5", **given, validation=val)
    run(train, tmp_path / "a.h5", **given, val_fraction=0.3, refit=True)


def test_noise_among_a_share_is_recounted(noisy: tuple[str, str], tmp_path: Path) -> None:
    train, labels = noisy
    noise = run(train, tmp_path / "a.h5", labels=labels, fraction=0.2).noise
    whole = open_labelled([train], labels)
    assert (noise["kind"], noise["requested"], noise["of"]) == ("pairflip", 0.3, 60)
    assert noise["realised"] == noise["flipped"] / 60
    assert 0 < noise["flipped"] < 60
    refit = run(train, tmp_path / "b.h5", labels=labels, val_fraction=0.2, refit=True).noise
    assert refit == whole.noise


@pytest.fixture
def viewed(make_features: Any, tmp_path: Path) -> str:
    return with_views(make_features(), str(tmp_path / "views.h5"), 2)


def with_views(source: str, out: str, count: int, spoiled: int | None = None) -> str:
    features = read_features(source)
    matrix = features.matrix()
    noise = np.random.default_rng(1).normal(size=(len(matrix), count, matrix.shape[1])) * 0.1
    views = (matrix[:, None] + noise).astype(np.float32)
    if spoiled is not None:
        views[spoiled, 0, 0] = np.nan

    def blocks(size: int) -> Any:
        return (views[start : start + size] for start in range(0, len(views), size))

    record = replace(features.record, identity=f"{count:032d}")
    write_features(out, replace(features, record=record, views=blocks, num_views=count))
    return out


def test_released_trains_on_the_views_that_features_hold(
    viewed: str, make_features: Any, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("INFO", "nmlcli")
    for method in ("mlp", "nmtune"):
        two, one, paper, split = (
            run(viewed, tmp_path / f"{name}.h5", methods=(method,), **more)
            for name, more in {
                "two": {"preset": "released"},
                "one": {"preset": "released", "views": False},
                "paper": {},
                "split": {"preset": "released", "val_fraction": 0.3, "refit": True, "fraction": 0.9},
            }.items()
        )
        assert two.extra["views"] == split.extra["views"] == 2
        assert two.identity != one.identity
        assert "views" not in one.extra and "views" not in paper.extra
        heads = [read_head(str(tmp_path / f"{name}.h5")).layers[0][0] for name in ("two", "one")]
        assert not np.array_equal(*heads)
    assert "one view" not in caplog.text
    assert "views" not in run(viewed, tmp_path / "lp.h5", preset="released").extra


def test_views_are_scaled_as_the_features_are(viewed: str, tmp_path: Path) -> None:
    features = read_features(viewed)
    assert features.views is not None
    larger = str(tmp_path / "larger.h5")
    matrix, views = 4 * features.matrix(), 4 * np.concatenate([*features.views(1000)])
    blocks = {"blocks": lambda size: iter([matrix]), "views": lambda size: iter([views])}
    write_features(larger, replace(features, **blocks))
    given: dict[str, Any] = {"preset": "released", "methods": ("nmtune",)}
    run(viewed, tmp_path / "a.h5", **given, scale="4")
    run(larger, tmp_path / "b.h5", **given)
    one, other = (read_head(str(tmp_path / f"{name}.h5")).layers for name in "ab")
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])


def test_views_that_are_missing_damaged_or_of_no_use_are_told(
    viewed: str, make_features: Any, tmp_path: Path
) -> None:
    out, plain = tmp_path / "head.h5", make_features()
    given: dict[str, Any] = {"preset": "released", "methods": ("nmtune",)}
    with pytest.raises(InvalidInput, match=r"train.\w+ holds no two views of each sample: give"):
        run(plain, out, **given, views=True)
    lacking = make_features("lacking.h5", offset=500)
    with pytest.raises(InvalidInput, match=r"^\S*lacking.h5 holds no two views"):
        tune([viewed, lacking], str(out), TuneOptions(**given, views=True))
    three = with_views(lacking, str(tmp_path / "three.h5"), 3)
    with pytest.raises(InvalidInput, match=r"three.h5 holds 3 views a sample, \S*views.h5 2"):
        tune([viewed, three], str(out), TuneOptions(**given, views=True))
    with pytest.raises(InvalidInput, match="holds no two views"):
        run(with_views(plain, str(tmp_path / "one.h5"), 1), out, **given, views=True)
    with pytest.raises(UsageError, match="--loss elr follows one view of a row: give --no-views"):
        run(viewed, out, **given, knobs={"loss": "elr"})
    run(viewed, out, **given, knobs={"loss": "elr"}, views=False)
    with pytest.raises(InvalidInput, match="the views of 0041 are not finite"):
        run(with_views(plain, str(tmp_path / "bad.h5"), 2, spoiled=41), out, **given)
    with pytest.raises(InvalidInput, match="holds 0 views a sample"):
        run(viewed, out, **given, validation=make_features("v.h5", seed=1, offset=500), refit=True)
