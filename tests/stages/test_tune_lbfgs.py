"""`tune --solver lbfgs`: the minimum, L2 by validation, features that are read anew in each pass."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import read_features, read_head
from nmlcli.stages import full_batch
from nmlcli.stages.tune import tune
from nmlcli.stages.tune_options import TuneOptions


def run(sources: str | list[str], out: Any, **options: Any) -> tuple[Path, list[Any]]:
    rankings: list[Any] = []
    asked = TuneOptions(**{"methods": ("lp",), "solver": "lbfgs", **options})
    tune([sources] if isinstance(sources, str) else sources, str(out), asked, show=rankings.append)
    return Path(out), rankings


def noisy(features: np.ndarray, labels: np.ndarray) -> None:
    labels[::5] = (labels[::5] + 1) % 3


def objective(file: Path, train: str, l2: float) -> float:
    """The mean cross-entropy and L2 of a head, in float64."""
    features = read_features(train)
    weight, bias = (array.astype(np.float64) for array in read_head(str(file)).layers[0])
    logits = features.matrix().astype(np.float64) @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[np.arange(len(logits)), features.labels]
    return float((np.log(np.exp(logits).sum(1)) - own).mean() + l2 / 2 * (weight**2).sum())


@pytest.mark.parametrize("scale", ["none", "3"])
def test_the_head_is_scikit_learns_minimum(make_features: Any, tmp_path: Path, scale: str) -> None:
    from sklearn.linear_model import LogisticRegression

    train, l2 = make_features(change=noisy), 0.01
    file = run(train, tmp_path / "head.h5", l2=str(l2), scale=scale)[0]
    factor = 1.0 if scale == "none" else 3.0
    features = read_features(train)
    model = LogisticRegression(C=1 / (l2 * 90), tol=1e-8, max_iter=10_000)
    model.fit(features.matrix().astype(np.float64) * factor, features.labels)
    head = read_head(str(file))
    np.testing.assert_allclose(head.layers[0][0], model.coef_ - model.coef_.mean(0), atol=2e-3)
    logits = head.apply(features.matrix())[1]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = model.predict_proba(features.matrix().astype(np.float64) * factor)
    np.testing.assert_allclose(shares, wanted, atol=1e-3)
    told = head.record.extra
    assert told["options"] == {"solver": "lbfgs", "l2": l2}
    assert (told["method"], told["loss"], told["selected_by"]) == ("lp", "ce", None)


def test_auto_takes_the_value_that_validates_best(make_features: Any, tmp_path: Path) -> None:
    train = make_features(change=noisy)
    val = make_features("val.h5", name="toy/photo:val", seed=2, offset=500)
    log = tmp_path / "log.jsonl"
    file, (ranking,) = run(train, tmp_path / "head.h5", l2="auto", validation=val, log=str(log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["l2"] for line in lines] == sorted((line["l2"] for line in ranking), reverse=True)
    assert len({line["l2"] for line in ranking}) == len(ranking) > 3
    best = max(lines, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    told = read_head(str(file)).record.extra
    assert told["options"]["l2"] == best["l2"] == ranking[0]["l2"]
    assert told["selected_by"] == "val_accuracy"
    features = read_features(val)
    right = read_head(str(file)).apply(features.matrix())[1].argmax(1) == features.labels
    assert ranking[0]["val_accuracy"] == pytest.approx(np.mean(right))
    shares = np.log(np.exp(logits := read_head(str(file)).apply(features.matrix())[1]).sum(1))
    losses = shares - logits[np.arange(len(logits)), features.labels]
    assert ranking[0]["val_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert {"passes", "iterations", "gradient", "loss"} <= lines[0].keys()
    again = run(train, tmp_path / "again.h5", l2="auto", validation=val)[0]
    assert again.read_bytes() == file.read_bytes()


def test_a_grid_of_l2_is_a_path_too(make_features: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"grid": {"l2": (1e-3, 1.0)}, "val_fraction": 0.3}
    file, (ranking,) = run(make_features(change=noisy), tmp_path / "a.h5", **given)
    assert {line["l2"] for line in ranking} == {1e-3, 1.0}
    refit = run(make_features(change=noisy), tmp_path / "b.h5", **given, refit=True)[0]
    record = read_head(str(refit)).record
    assert (record.rows, read_head(str(file)).record.rows) == (90, 63)
    alone = run(make_features(change=noisy), tmp_path / "c.h5", l2=str(ranking[0]["l2"]))[0]
    l2 = ranking[0]["l2"]
    train = make_features(change=noisy)
    assert objective(refit, train, l2) == pytest.approx(objective(alone, train, l2), rel=1e-6)


def test_the_seed_moves_the_split_and_the_share(make_features: Any, tmp_path: Path) -> None:
    train = make_features(change=noisy)
    for given in ({"val_fraction": 0.3}, {"fraction": 0.5}):
        heads = [
            read_head(str(run(train, tmp_path / "a.h5", l2="1", seed=seed, **given)[0])).layers[0][0]
            for seed in (1, 2)
        ]
        assert not np.array_equal(*heads), given


@pytest.mark.parametrize("end", ["strongest", "weakest", None])
def test_the_best_at_an_end_of_the_path_is_told(
    make_features: Any, tmp_path: Path, monkeypatch: Any, caplog: Any, end: str | None
) -> None:
    caplog.set_level("INFO", "nmlcli")
    l2s = {"strongest": (0.01, 1e3, 1e4), "weakest": (1e4, 1e3, 0.01), None: (1e4, 0.01, 1e-9)}[end]
    if end == "strongest":
        l2s = (0.01, 1e-8, 1e-9)
    monkeypatch.setattr("nmlcli.stages.tune.usual_l2s", lambda mean_square: l2s)
    given: dict[str, Any] = {"l2": "auto", "val_fraction": 0.3}
    run(make_features(change=noisy), tmp_path / "a.h5", **given)
    told = [record.getMessage() for record in caplog.records if "of the path" in record.getMessage()]
    assert len(told) == (end is not None)
    if end is not None:
        assert told[0].startswith(f"--l2 auto: the best, 0.01, is the {end} of the path: try ")


@pytest.mark.parametrize("given", [{"l2": "1"}, {"l2": "auto", "val_fraction": 0.3}])
@pytest.mark.parametrize(("factor", "scale"), [(1e25, "none"), (1.0, "1e30")])
def test_features_that_float32_cannot_square_are_told(
    make_features: Any, tmp_path: Path, given: dict[str, Any], factor: float, scale: str
) -> None:
    train = make_features(change=lambda features, _: np.multiply(features, factor, out=features))
    with pytest.raises(InvalidInput, match="too large for float32: give --scale rms"):
        run(train, tmp_path / "a.h5", scale=scale, **given)
    run(train, tmp_path / "a.h5", scale="rms", **given)


def test_reuse_knows_the_solver_and_its_l2(make_features: Any, tmp_path: Path) -> None:
    train = make_features(change=noisy)
    os.utime(train, (1, 1))
    out = tmp_path / "head.h5"

    def made_again(**options: Any) -> bool:
        before = out.stat().st_mtime_ns if out.exists() else 0
        run(train, out, **options, reuse=True)
        return out.stat().st_mtime_ns > before

    auto: dict[str, Any] = {"l2": "auto", "val_fraction": 0.3}
    quick: dict[str, Any] = {"solver": "adamw", "knobs": {"epochs": 1}}
    for options in ({"l2": "1"}, {"l2": "2"}, auto, {**auto, "refit": True}, quick):
        assert made_again(**options), options
        assert not made_again(**options), options


@pytest.mark.parametrize("scale", ["none", "rms"])
def test_streamed_features_give_the_same_head(
    make_features: Any, tmp_path: Path, monkeypatch: Any, caplog: Any, scale: str
) -> None:
    caplog.set_level("INFO", "nmlcli")
    files = [make_features(f"{i}.h5", rows=3000, offset=3000 * i, seed=i) for i in range(2)]
    given: dict[str, Any] = {"l2": "auto", "val_fraction": 0.3, "refit": True, "scale": scale}
    held = run(files, tmp_path / "a.safetensors", **given)[0].read_bytes()
    assert "in each pass" not in caplog.text

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("features are held")

    monkeypatch.setattr(full_batch, "HELD", 10_000)
    monkeypatch.setattr(full_batch, "gathered", refused)
    streamed = run(files, tmp_path / "b.safetensors", **given)[0].read_bytes()
    assert "are read from their files in each pass" in caplog.text
    assert streamed == held


def test_a_stream_on_stdin_is_held(make_features: Any, tmp_path: Path) -> None:
    train = make_features(change=noisy)
    code = (
        "import sys; from nmlcli.stages import full_batch; full_batch.HELD = 1;"
        "from nmlcli.stages.tune import tune; from nmlcli.stages.tune_options import TuneOptions;"
        "tune(['-'], sys.argv[1], TuneOptions(methods=('lp',), solver='lbfgs', l2='auto',"
        " val_fraction=0.3)); assert 'torch' not in sys.modules"
    )
    out = tmp_path / "head.safetensors"
    with Path(train).open("rb") as stdin:
        subprocess.run([sys.executable, "-c", code, str(out)], stdin=stdin, check=True, timeout=60)
    wanted = run(train, tmp_path / "b.safetensors", l2="auto", val_fraction=0.3)[0]
    assert out.read_bytes() == wanted.read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "--solver lbfgs needs --l2: give a number, or auto with --val-fraction F"),
        ({"l2": "auto"}, "--l2 auto needs rows to validate on"),
        ({"l2": "strong"}, "--l2 is strong: give a number or auto"),
        ({"l2": "-1"}, "--l2 is -1.0: give at least 0"),
        ({"l2": "nan"}, "--l2 is nan: give a finite number"),
        ({"l2": "inf"}, "--l2 is inf: give a finite number"),
        ({"l2": "1", "grid": {"l2": (1.0,)}}, "--l2 is in --grid too"),
        ({"l2": "auto", "val_fraction": 0.1, "grid": {"l2": (1.0,)}}, "--l2 is in --grid too"),
        ({"l2": "1", "methods": ("lp", "mlp")}, "--solver lbfgs does not train mlp: it is for lp"),
        ({"l2": "1", "seeds": 2}, "--seeds has no effect with --solver lbfgs"),
        ({"l2": "1", "knobs": {"lr": 0.1}}, "--lr does not apply to --solver lbfgs: it is for adamw"),
        ({"l2": "1", "knobs": {"loss": "gce"}}, "--loss does not apply to --solver lbfgs"),
        ({"l2": "1", "solver": "adamw"}, "--l2 does not apply to --solver adamw: it is for lbfgs"),
        ({"l2": "auto", "solver": "adamw"}, "--l2 does not apply to --solver adamw"),
    ],
)
def test_what_does_not_apply_is_refused(
    make_features: Any, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        run(make_features(), tmp_path / "head.h5", **options)
    assert not (tmp_path / "head.h5").exists()
