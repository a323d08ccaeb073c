"""`tune`: shares of the rows, choice by validation, and what the heads' records say of it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products.formats import read_features, read_head
from nmlcli.stages.selection import Candidate, Outcome, best_of
from nmlcli.stages.tune import tune
from nmlcli.stages.tune_options import TuneOptions
from nmlcli.tuning.methods import settle

QUICK = {"epochs": 3, "batch_size": 16}
RATES = {"lr": (1e-5, 0.1, 1e-3)}


def run(source: str, out: Any, **options: Any) -> tuple[Path, list[Any]]:
    rankings: list[Any] = []
    asked = TuneOptions(**{"knobs": QUICK, "methods": ("lp",), **options})
    tune([source], str(out), asked, show=rankings.append)
    return Path(out), rankings


def extra(file: Path) -> Any:
    return read_head(str(file)).record.extra


def test_a_share_is_trained_on_and_recorded(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    head = read_head(str(run(train, tmp_path / "a.h5", fraction=0.2)[0]))
    assert (head.record.rows, head.record.extra["fraction"]) == (18, 0.2)
    assert head.record.noise is not None
    assert (head.record.noise["of"], head.record.noise["flipped"]) == (18, 0)
    again = run(train, tmp_path / "b.h5", fraction=0.2)[0]
    assert again.read_bytes() == (tmp_path / "a.h5").read_bytes()
    whole = read_head(str(run(train, tmp_path / "c.h5")[0]))
    assert (whole.record.rows, whole.record.extra["fraction"]) == (90, 1.0)
    assert whole.record.extra["selected_by"] is None
    assert head.record.identity != whole.record.identity


def test_a_split_stays_for_all_seeds(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    folder = run(train, f"{tmp_path}/heads/", val_fraction=0.2, seed=5, seeds=2)[0]
    alone = run(train, tmp_path / "alone.safetensors", val_fraction=0.2, seed=5)[0]
    assert alone.read_bytes() == (folder / "lp-s5.safetensors").read_bytes()
    other = run(train, tmp_path / "other.safetensors", val_fraction=0.2, seed=6)[0]
    assert other.read_bytes() != (folder / "lp-s6.safetensors").read_bytes()
    record = read_head(str(alone)).record
    assert record.rows == 72
    assert record.extra["validated_on"] == record.extra["trained_on"]


def test_a_list_of_methods_for_one_file_keeps_the_best(make_features: Any, tmp_path: Path) -> None:
    train, val = make_features(), make_features("val.h5", name="toy/photo:val", seed=2)
    head, (ranking,) = run(train, tmp_path / "head.safetensors", methods=("mlp", "lp"), validation=val)
    assert {line["method"] for line in ranking} == {"mlp", "lp"}
    accuracies = [line["val_accuracy"] for line in ranking]
    assert accuracies == sorted(accuracies, reverse=True)
    told = extra(head)
    assert (told["method"], told["selected_by"]) == (ranking[0]["method"], "val_accuracy")
    assert told["candidates"] == ranking
    alone = run(train, tmp_path / "alone.h5", methods=(told["method"],), validation=val)[0]
    one, other = (read_head(str(file)).layers for file in (head, alone))
    assert all(
        np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )
    features = read_features(val)
    right = np.mean(read_head(str(head)).apply(features.matrix())[1].argmax(1) == features.labels)
    assert ranking[0]["val_accuracy"] == pytest.approx(right)


def test_the_mean_over_the_seeds_decides_never_a_seed(make_features: Any, tmp_path: Path) -> None:
    train, val = make_features(), make_features("val.h5", name="toy/photo:val", seed=2)
    log = tmp_path / "log.jsonl"
    given = {"validation": val, "grid": RATES, "seeds": 3, "log": str(log)}
    folder, (ranking,) = run(train, f"{tmp_path}/heads/", **given)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 3 * 3 * 3  # rates, seeds, epochs
    for line in ranking:
        own = [each["val_accuracy"] for each in lines
               if each["epoch"] == 3 and each["lr"] == line["lr"]]  # fmt: skip
        assert line["val_accuracy"] == pytest.approx(np.mean(own))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"lp-s{seed}.safetensors" for seed in range(3)]
    best = max(ranking, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    assert ranking[0] == best
    for seed in range(3):
        told = extra(folder / f"lp-s{seed}.safetensors")
        assert (told["seed"], told["options"].get("lr", 0.1)) == (seed, best["lr"])
    with pytest.raises(UsageError, match="3 heads do not go into one file"):
        run(train, tmp_path / "one.h5", **given)


def test_a_refit_is_the_chosen_setting_on_all_rows(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    head = run(train, tmp_path / "a.h5", val_fraction=0.3, grid=RATES, refit=True)[0]
    record = read_head(str(head)).record
    assert (record.rows, record.extra["refit"]) == (90, True)
    assert record.noise is not None and record.noise["of"] == 90
    val = make_features("val.h5", name="toy/photo:val", seed=2, offset=500)
    other = run(train, tmp_path / "b.h5", validation=val, refit=True)[0]
    record, features = read_head(str(other)).record, read_features(val).record
    assert record.rows == 180
    assert record.noise is not None and record.noise["of"] == 180
    assert {features.identity, features.data["identity"]} <= {*record.extra["trained_on"]}  # type: ignore[index]
    plain = run(train, tmp_path / "c.h5", validation=val)[0]
    assert not np.array_equal(read_head(str(plain)).layers[0][0], read_head(str(other)).layers[0][0])


def test_equals_are_told_apart_by_the_loss(make_features: Any, tmp_path: Path) -> None:
    train = make_features(change=lambda features, labels: features.__iadd__(9 * np.eye(3, 8)[labels]))
    _, (ranking,) = run(train, tmp_path / "a.h5", val_fraction=0.3, grid={"lr": (0.05, 0.1)})
    assert [line["val_accuracy"] for line in ranking] == [1.0, 1.0]
    assert ranking[0]["val_loss"] < ranking[1]["val_loss"]


def test_a_grid_of_one_value_is_a_setting(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    one = run(train, tmp_path / "a.h5", grid={"lr": (0.03,)})[0]
    other = run(train, tmp_path / "b.h5", knobs={**QUICK, "lr": 0.03})[0]
    assert one.read_bytes() == other.read_bytes()
    assert extra(one)["selected_by"] is None


def test_settings_that_a_method_lacks_do_not_multiply_it(make_features: Any, tmp_path: Path) -> None:
    given = {"methods": ("lp", "nmtune"), "val_fraction": 0.3, "grid": {"cov": (0.0, 1.0)}}
    _, (ranking,) = run(make_features(), tmp_path / "a.h5", **given)
    assert sorted(line["method"] for line in ranking) == ["lp", "nmtune", "nmtune"]


def test_losses_can_be_chosen_from(make_features: Any, tmp_path: Path) -> None:
    grid = {"loss": ("ce", "gce", "elr"), "gce_q": (0.3, 0.7)}
    head, (ranking,) = run(make_features(), tmp_path / "a.h5", val_fraction=0.3, grid=grid)
    assert len(ranking) == 4
    assert extra(head)["loss"] == ranking[0]["loss"]


def test_a_candidate_that_explodes_is_out(make_features: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("WARNING", "nmlcli")
    train = make_features(change=lambda features, _: np.multiply(features, 1e18, out=features))
    grid = {"lr": (1e25, 1e-3)}
    _, (ranking,) = run(train, tmp_path / "a.h5", val_fraction=0.3, grid=grid)
    assert [line["lr"] for line in ranking] == [1e-3, 1e25]
    assert ranking[1]["val_accuracy"] is None
    assert "lp lr=1e+25: the loss of epoch 1 is" in caplog.text
    with pytest.raises(NmlError, match="no training came to an end"):
        run(train, tmp_path / "b.h5", val_fraction=0.3, grid={"lr": (1e25, 1e26)})


def test_reuse_knows_what_changes_a_choice(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    os.utime(train, (1, 1))
    given: dict[str, Any] = {"val_fraction": 0.3, "grid": RATES, "reuse": True, "seeds": 2}
    folder = run(train, f"{tmp_path}/heads/", **given)[0]
    file = folder / "lp-s0.safetensors"

    def made_again(**more: Any) -> bool:
        before = file.stat().st_mtime_ns
        run(train, f"{tmp_path}/heads/", **{**given, **more})
        return file.stat().st_mtime_ns > before

    assert not made_again()
    for more in (
        {"grid": {"lr": (0.1, 1e-3)}}, {"val_fraction": 0.2}, {"refit": True}, {"fraction": 0.5},
        {"seeds": 3}, {"knobs": {**QUICK, "loss": "gce"}}, {"scale": "rms"},
    ):  # fmt: skip
        assert made_again(**more), more
        assert not made_again(**more)
    (folder / "lp-s1.safetensors").unlink()
    assert made_again(scale="rms")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grid": RATES}, "--grid needs rows to validate on: give --val FEATURES or --val-fraction F"),
        ({"refit": True}, "--refit needs rows to validate on"),
        ({"validation": "x.h5", "val_fraction": 0.1}, "exclude each other"),
        ({"grid": {"lr": (1.0,)}, "knobs": {"lr": 1.0}}, "--lr is in --grid too"),
        ({"grid": {"cov": (1.0,)}}, "--cov does not apply to lp"),
        ({"grid": {"lr": (-1.0, 1.0)}, "val_fraction": 0.5}, "--lr is -1.0: give at least 0"),
        ({"val_fraction": 1.0}, "--val-fraction is 1"),
        ({"fraction": 0.0}, "--fraction is 0"),
        ({"methods": ()}, "--method names no method: give some of lp, mlp, nmtune"),
        ({"seed": 2**63 - 1, "seeds": 2}, "--seeds 2 goes beyond the last seed"),
        ({"log": "-"}, "--log - is no file"),
        ({"log": ""}, "--log names no file"),
        ({"validation": ""}, "--val names no file"),
        ({"labels": ""}, "--labels names no file"),
        ({"views": True}, "--views does not apply to --preset paper: it is for released"),
        ({"views": True, "preset": "released"}, "--views does not apply to lp"),
    ],
)
def test_what_does_not_go_together_is_refused(
    make_features: Any, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        run(make_features(), tmp_path / "head.h5", **options)
    assert not (tmp_path / "head.h5").exists()


def one_each(_: np.ndarray, labels: np.ndarray) -> None:
    labels[:] = np.arange(len(labels))


def test_all_shares_are_validated_on_the_same_rows(make_features: Any, tmp_path: Path) -> None:
    """A training that learns nothing has the same loss on the same rows, whatever it is trained on."""
    train, losses = make_features(), []
    for number, fraction in enumerate((1.0, 0.5, 0.2)):
        log, given = tmp_path / f"{number}.jsonl", {"knobs": {**QUICK, "lr": 0.0}}
        file = run(
            train, tmp_path / "a.h5", fraction=fraction, val_fraction=0.3, log=str(log), **given
        )[0]
        losses.append(json.loads(log.read_text().splitlines()[-1])["val_loss"])
        assert read_head(str(file)).record.rows == {1.0: 63, 0.5: 32, 0.2: 13}[fraction]
    assert len({*losses}) == 1


def test_rows_that_are_trained_on_say_little_in_validation(
    make_features: Any, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("WARNING", "nmlcli")
    train = make_features()
    val = make_features("val.h5", name="toy/photo:val", seed=2, offset=88)
    with pytest.raises(InvalidInput, match=r"val.h5 holds ids that are trained on: 0088, 0089: leave"):
        run(train, tmp_path / "a.h5", validation=val, refit=True)
    run(train, tmp_path / "a.h5", validation=val)
    assert "val.h5 holds ids that are trained on: 0088, 0089;" in caplog.text
    caplog.clear()
    apart = make_features("apart.h5", name="toy/photo:val", seed=2, offset=90)
    run(train, tmp_path / "a.h5", validation=apart, refit=True)
    assert not caplog.records


def test_a_candidate_of_which_one_seed_failed_is_out() -> None:
    settings = settle("lp", "paper", {})[0]
    good, bad = (Candidate("lp", settings, {}, {"lr": rate}) for rate in (0.1, 1.0))

    def outcome(accuracy: float) -> Outcome:
        return Outcome((), None, {"val_accuracy": accuracy, "val_loss": 1.0})

    tried = [(bad, 0, outcome(0.9)), (bad, 1, None), (good, 0, outcome(0.5)), (good, 1, outcome(0.5))]
    kept, heads, ranking = best_of(tried, lambda ranking: None)
    assert (kept, [*heads]) == (good, [0, 1])
    assert [line["val_accuracy"] for line in ranking] == [0.5, None]
    with pytest.raises(NmlError, match="no training came to an end"):
        best_of(tried[:2], lambda ranking: None)


def test_a_share_of_a_class_may_be_too_small_to_split(make_features: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no class has two rows"):
        run(make_features("few.h5", rows=3, change=one_each), tmp_path / "head.h5", val_fraction=0.5)
    assert extra(run(make_features(), tmp_path / "b.h5", fraction=0.01)[0])["fraction"] == 0.01


def test_the_last_batch_may_be_one_row_in_every_part(make_features: Any, tmp_path: Path) -> None:
    knobs = {"epochs": 2, "batch_size": 71}  # 72 rows to train on
    run(make_features(), tmp_path / "a.h5", val_fraction=0.2, knobs=knobs, methods=("nmtune",))
