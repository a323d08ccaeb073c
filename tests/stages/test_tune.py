"""`tune`: what the heads are, what their records say, and what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products.formats import read_features, read_head, write_features
from nmlcli.stages.tune import TuneOptions, tune
from nmlcli.tuning.methods import TRAINED

QUICK = {"epochs": 4, "batch_size": 16}
LONGER = {"epochs": 30, "batch_size": 8}


def run(sources: str | list[str], out: Any, **options: Any) -> Path:
    given = {"knobs": QUICK, **options}
    if isinstance(given.get("methods"), str):
        given["methods"] = (given["methods"],)
    tune([sources] if isinstance(sources, str) else sources, str(out), TuneOptions(**given))
    return Path(out)


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("method", TRAINED)
def test_a_head_learns_and_says_what_it_is(
    make_features: Any, tmp_path: Path, method: str, preset: str
) -> None:
    train, test = make_features(), make_features("test.h5", name="toy/photo:test", seed=1)
    head = read_head(
        str(run(train, tmp_path / "head.safetensors", methods=method, preset=preset, knobs=LONGER))
    )
    features = read_features(test)
    assert features.labels is not None
    assert np.mean(head.apply(features.matrix())[1].argmax(1) == features.labels) > 0.9
    record, source = head.record, read_features(train).record
    assert (record.kind, record.command, record.classes) == ("head", "tune", ("ant", "bee", "cat"))
    assert (record.rows, record.columns, record.data) == (90, 8, source.data)
    assert (record.model, record.noise) == (source.model, source.noise)
    assert record.parents[0]["identity"] == source.identity
    wanted = {
        "method": method,
        "preset": preset,
        "seed": 0,
        "scale": "none",
        "loss": "ce",
        "activation": "relu",
    }
    assert {key: record.extra[key] for key in wanted} == wanted
    assert record.extra["options"] == {"batch_size": 8}
    assert record.extra["trained_on"] == [source.data["identity"], source.identity]  # type: ignore[index]


def test_the_same_command_writes_the_same_bytes(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    for preset in ("paper", "released"):
        one, other = (
            run(train, tmp_path / f"{n}.safetensors", preset=preset).read_bytes() for n in "ab"
        )
        assert one == other
        assert run(train, tmp_path / "c.safetensors", preset=preset, seed=1).read_bytes() != one


def test_a_list_of_methods_and_seeds_fills_a_folder(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    folder = run(train, f"{tmp_path}/heads/", methods=("lp", "mlp"), seed=3, seeds=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "lp-s3.safetensors",
        "lp-s4.safetensors",
        "mlp-s3.safetensors",
        "mlp-s4.safetensors",
    ]
    alone = run(train, tmp_path / "alone.safetensors", methods="mlp", seed=4)
    assert alone.read_bytes() == (folder / "mlp-s4.safetensors").read_bytes()
    with pytest.raises(UsageError, match="folder"):
        run(train, tmp_path / "one.safetensors", methods=("lp", "mlp"))


def test_parts_make_one_set(make_features: Any, tmp_path: Path) -> None:
    parts = [make_features(f"{i}.h5", rows=40, offset=40 * i, seed=i) for i in range(2)]
    head = read_head(str(run(parts, tmp_path / "head.safetensors", methods="lp")))
    assert head.record.rows == 80
    assert head.record.noise == {
        **head.record.noise,
        "of": 80,
        "flipped": 0,
        "realised": 0.0,
        "kind": "none",
    }  # type: ignore[dict-item]
    assert len(head.record.extra["trained_on"]) == 4
    with pytest.raises(InvalidInput, match="0000, 0001, 0002 and 37 more"):
        run([parts[0], parts[0]], tmp_path / "head.safetensors")
    other = make_features("other.h5", rows=40, offset=80, model={"name": "vit", "identity": "v" * 32})
    with pytest.raises(InvalidInput, match="another network"):
        run([parts[0], other], tmp_path / "head.safetensors")


def test_parts_are_matched_by_the_names_of_their_classes(make_features: Any, tmp_path: Path) -> None:
    """A head of parts whose classes stand in another order is that of parts in one order."""
    first_part = make_features("a.h5")
    second = read_features(make_features("b.h5", seed=1, offset=90))
    assert second.labels is not None
    matrix = second.matrix()
    turned = replace(
        second,
        labels=2 - second.labels,
        record=replace(second.record, classes=("cat", "bee", "ant")),
        blocks=lambda size: iter([matrix]),
    )
    write_features(str(tmp_path / "turned.h5"), turned)
    heads = [
        read_head(str(run([first_part, str(part)], tmp_path / "head.safetensors", methods="lp")))
        for part in (tmp_path / "b.h5", tmp_path / "turned.h5")
    ]
    assert np.array_equal(heads[0].layers[0][0], heads[1].layers[0][0])


def test_labels_of_a_table_are_laid_over_by_id(make_features: Any, tmp_path: Path) -> None:
    train = make_features(labelled=False, noise=None)
    own = read_features(make_features("labelled.h5"))
    assert own.labels is not None and own.record.classes is not None
    names = [own.record.classes[number] for number in own.labels]
    table = tmp_path / "labels.csv"
    rows = [
        f"{i},{'bee' if k == 7 else n},{n}" for k, (i, n) in enumerate(zip(own.ids, names, strict=True))
    ]
    table.write_text("\n".join(["id,label,clean_label", *reversed(rows)]) + "\n")
    head = read_head(str(run(train, tmp_path / "head.safetensors", methods="lp", labels=str(table))))
    assert head.record.noise is not None
    assert head.record.noise["flipped"] == (names[7] != "bee")
    assert head.record.noise["kind"] is None
    assert [parent["kind"] for parent in head.record.parents] == ["features", "labels"]
    table.write_text("\n".join(["id,label", *(row.rpartition(",")[0] for row in rows[3:])]) + "\n")
    with pytest.raises(InvalidInput, match="0000, 0001, 0002"):
        run(train, tmp_path / "head.safetensors", labels=str(table))


@pytest.mark.parametrize(("scale", "wanted"), [("rms", None), ("2.5", 2.5), ("none", None)])
def test_the_scale_is_part_of_the_head(
    make_features: Any, tmp_path: Path, scale: str, wanted: float | None
) -> None:
    train = make_features(change=lambda features, _: np.multiply(features, 1e-3, out=features))
    head = read_head(
        str(run(train, tmp_path / "head.safetensors", methods="nmtune", scale=scale, knobs=LONGER))
    )
    matrix = read_features(train).matrix().astype(np.float64)
    if scale == "rms":
        wanted = float(np.sqrt(8 / np.mean(np.sum(matrix**2, axis=1))))
    assert head.input_scale == (wanted and pytest.approx(wanted, rel=1e-6))
    assert head.record.extra["scale"] == scale
    if scale == "rms":
        features = read_features(train)
        assert np.mean(head.apply(features.matrix())[1].argmax(1) == features.labels) > 0.9


def test_small_features_are_warned_of(make_features: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("WARNING", "nmlcli")  # whatever a command run before in this process has set
    train = make_features(change=lambda features, _: np.multiply(features, 1e-3, out=features))
    run(train, tmp_path / "head.safetensors", methods="mlp")
    assert not caplog.records
    run(train, tmp_path / "head.safetensors", methods="nmtune")
    assert "--scale rms" in caplog.text
    caplog.clear()
    run(train, tmp_path / "head.safetensors", methods="nmtune", scale="rms")
    assert not caplog.records


def test_the_log_has_a_line_an_epoch_with_every_term(make_features: Any, tmp_path: Path) -> None:
    train, val = make_features(), make_features("val.h5", name="toy/photo:val", seed=2)
    log = tmp_path / "log.jsonl"
    head = run(train, tmp_path / "head.safetensors", methods="nmtune", validation=val, log=str(log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        terms = 0.01 * (line["mse"] + line["cov"] + line["svd"])
        assert line["loss"] == pytest.approx(line["cross_entropy"] + terms, rel=1e-4)
        assert (line["method"], line["seed"]) == ("nmtune", 0)
    features = read_features(val)
    right = np.mean(read_head(str(head)).apply(features.matrix())[1].argmax(1) == features.labels)
    assert lines[-1]["val_accuracy"] == pytest.approx(right)
    assert read_head(str(head)).record.extra["validated_on"] == [
        features.record.data["identity"], features.record.identity,  # type: ignore[index]
    ]  # fmt: skip


def test_the_advance_counts_the_steps_of_all_heads(make_features: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    options = TuneOptions(methods=("lp", "mlp"), knobs=QUICK)
    tune(
        [make_features()],
        f"{tmp_path}/heads/",
        options,
        lambda done, total, **_: seen.append((done, total)),
    )
    assert seen[-1] == (48, 48)  # 90 rows: 6 steps of 16, 4 epochs, 2 heads
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_reuse_keeps_what_is_up_to_date(make_features: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO", "nmlcli")
    train = make_features()
    os.utime(train, (1, 1))
    head = run(train, tmp_path / "head.safetensors", methods="lp")
    before = head.stat().st_mtime_ns
    run(train, head, methods="lp", reuse=True)
    assert head.stat().st_mtime_ns == before
    assert "up to date" in caplog.text
    run(train, head, methods="lp", reuse=True, scale="2")
    assert head.stat().st_mtime_ns > before


def test_released_says_that_cached_features_have_one_view(
    make_features: Any, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("INFO", "nmlcli")
    run(make_features(), tmp_path / "head.safetensors", preset="released")
    assert "one view" in caplog.text


def test_a_scale_that_float32_does_not_hold_is_refused(make_features: Any, tmp_path: Path) -> None:
    for scale in ("1e40", "1e-40"):
        with pytest.raises(UsageError, match="which float32 does not hold: give --scale rms"):
            run(make_features(), tmp_path / "head.h5", methods="lp", scale=scale)


def test_bad_features_are_refused_by_name(make_features: Any, tmp_path: Path) -> None:
    def spoil(features: np.ndarray, _: np.ndarray) -> None:
        features[41, 3] = np.inf

    out = tmp_path / "head.safetensors"
    with pytest.raises(InvalidInput, match=r"train.safetensors: the features of 0041 are not finite"):
        run(make_features(change=spoil), out)
    with pytest.raises(InvalidInput, match="has no labels"):
        run(make_features(labelled=False), out)
    with pytest.raises(InvalidInput, match="all 90 rows are of one class"):
        run(make_features(change=lambda _, labels: labels.fill(1)), out)
    train = make_features()
    narrow = make_features("narrow.h5", columns=6)
    with pytest.raises(InvalidInput, match=r"6 columns, .* 8"):
        run(train, out, validation=narrow)
    with pytest.raises(InvalidInput, match="dog, elk, fox"):
        run(train, out, validation=make_features("val.h5", classes=("dog", "elk", "fox", "gnu")))
    for scale in ("0", "-1", "nan", "inf", "big"):
        with pytest.raises(UsageError, match="--scale"):
            run(train, out, scale=scale)
    with pytest.raises(UsageError, match="suffix"):
        run(train, tmp_path / "head.pt")
    with pytest.raises(NmlError, match=r"folder .*missing does not exist"):
        run(train, tmp_path / "missing" / "head.h5")
    with pytest.raises(UsageError, match="given twice"):
        run("-", out, validation="-")
    with pytest.raises(NmlError, match="no such file"):
        run(str(tmp_path / "missing.h5"), out)
    assert not out.exists()


def test_a_rate_that_explodes_is_told_and_leaves_no_file(make_features: Any, tmp_path: Path) -> None:
    train = make_features(change=lambda features, _: np.multiply(features, 1e18, out=features))
    with pytest.raises(NmlError, match="the loss of step"):
        run(train, tmp_path / "head.safetensors", knobs={**QUICK, "lr": 1e25})
    assert not (tmp_path / "head.safetensors").exists()


@pytest.mark.parametrize("given", ["source", "validation", "labels", "log"])
def test_a_head_in_a_folder_replaces_no_input(make_features: Any, tmp_path: Path, given: str) -> None:
    (tmp_path / "heads").mkdir()
    name = "heads/lp-s1.safetensors"  # of the second head
    file, train = tmp_path / name, make_features(name if given == "source" else "train.h5")
    options: dict[str, Any] = {"methods": "lp", "seeds": 2}
    if given == "validation":
        options["validation"] = make_features(name, seed=2, offset=500)
    elif given == "labels":
        features = read_features(train)
        rows = [f"{one},{'ant' if k % 2 else 'bee'}" for k, one in enumerate(features.ids)]
        table = tmp_path / "labels.csv"
        table.write_text("\n".join(["id,label", *rows]) + "\n")
        file.symlink_to(table)
        options["labels"] = str(table)
    elif given == "log":
        file.write_text('{"method": "lp"}\n')
        options["log"] = str(file)
    before = file.read_bytes()
    with pytest.raises(UsageError, match="are one file" if given == "log" else "overwrite an input"):
        run(train, f"{tmp_path}/heads/", **options)
    assert file.read_bytes() == before
    assert not (tmp_path / "heads/lp-s0.safetensors").exists()


def test_a_log_is_no_head_that_is_still_to_be_made(make_features: Any, tmp_path: Path) -> None:
    log = tmp_path / "heads/lp-s0.safetensors"
    with pytest.raises(UsageError, match="--out and --log are one file"):
        run(make_features(), f"{tmp_path}/heads/", methods="lp", log=str(log))
    assert not log.exists()


def test_reuse_makes_only_the_heads_that_are_missing(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    os.utime(train, (1, 1))
    folder = run(train, f"{tmp_path}/heads/", methods=("lp", "mlp"), seeds=2)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    lost = folder / "mlp-s1.safetensors"
    lost.unlink()
    run(train, f"{tmp_path}/heads/", methods=("lp", "mlp"), seeds=2, reuse=True)
    again = {path for path in folder.iterdir() if path.stat().st_mtime_ns != before[path]}
    assert again == {lost}


def test_heads_that_were_validated_on_other_sets_are_others(make_features: Any, tmp_path: Path) -> None:
    train = make_features()
    identities = {
        read_head(str(run(train, tmp_path / "head.h5", methods="lp", validation=val))).record.identity
        for val in (None, *(make_features(f"v{i}.h5", seed=i, offset=500) for i in (2, 3)))
    }
    assert len(identities) == 3


def test_features_are_not_replaced_by_their_head(make_features):
    train = make_features()
    before = Path(train).read_bytes()
    with pytest.raises(UsageError, match="would overwrite an input"):
        tune([train], train, TuneOptions())
    assert Path(train).read_bytes() == before


@pytest.mark.parametrize("solver", ["adamw", "lbfgs"])
def test_a_log_replaces_logs_alone(make_features: Any, tmp_path: Path, solver: str) -> None:
    train, log = make_features(), tmp_path / "log.jsonl"
    options = {"methods": ("lp",), "solver": solver, "log": str(log)}
    if solver == "lbfgs":
        options |= {"knobs": {}, "l2": "0.01"}
    for _ in range(2):
        run(train, tmp_path / "a.safetensors", **options)
        lines = log.read_bytes()
    assert lines
    log.write_bytes(b"id,label\n")
    with pytest.raises(UsageError, match="would overwrite what is no log"):
        run(train, tmp_path / "a.safetensors", **options)
    assert log.read_bytes() == b"id,label\n"


@pytest.mark.parametrize("solver", ["adamw", "lbfgs"])
def test_a_log_that_is_full_is_named(make_features: Any, tmp_path: Path, solver: str) -> None:
    options: dict[str, Any] = {"methods": ("lp",), "solver": solver, "log": "/dev/full"}
    options |= {"knobs": {}, "l2": "0.01"} if solver == "lbfgs" else {}
    with pytest.raises(NmlError, match="cannot write the log /dev/full: No space left"):
        run(make_features(), tmp_path / "a.safetensors", **options)


def test_a_log_of_several_losses_names_them(make_features: Any, tmp_path: Path) -> None:
    train, val = make_features(), make_features("val.h5", name="toy/photo:val", seed=2)
    log = tmp_path / "log.jsonl"
    run(
        train, tmp_path / "a.safetensors", methods=("lp",), validation=val, log=str(log),
        grid={"loss": ("ce", "gce")},
    )  # fmt: skip
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["criterion"] for line in lines} == {"ce", "gce"}
    assert all(isinstance(line["loss"], float) for line in lines)
