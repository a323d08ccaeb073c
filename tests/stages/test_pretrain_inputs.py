"""`nml pretrain`: what it is given stays as it was, and is told of by its own name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import read_checkpoint
from nmlcli.stages.classifier import open_head
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import settled

SMALL = ["-a", "test_vit", "--size", "32", "--epochs", "1", "--batch-size", "4", "--workers", "0", "-q"]
CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def images(tmp_path):
    """A table of twelve images of three classes with captions."""
    draws = np.random.default_rng(0)
    rows = []
    for number in range(12):
        pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number},{number}.png,{'abc'[number % 3]},a photo of {number}")
    path = tmp_path / "images.csv"
    path.write_text("\n".join(["id,image,label,text", *rows]) + "\n")
    return path


def command(words):
    return run(["pretrain", *map(str, words)])


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{data} -o a.safetensors --log {data}", "--log {data} would overwrite an input"),
        ("{data} --labels l.csv -o a.safetensors --log l.csv", "--log l.csv would overwrite an input"),
        ("{data} --val v.csv -o a.safetensors --log v.csv", "--log v.csv would overwrite an input"),
        ("{data} --labels l.safetensors -o l.safetensors", "-o l.safetensors would overwrite an input"),
        ("{data} -o a.safetensors --log results.jsonl", "results.jsonl would overwrite what is no log"),
        ("{data} -o a.safetensors --log -", "--log writes to a file, not to stdout"),
        (
            "{data} -o a.safetensors --log a.safetensors.state",
            "--log a.safetensors.state is the file of a state",
        ),
        ("{data} -o folder.safetensors", "-o folder.safetensors is a folder"),
        ("{data} -o no/a.safetensors", "folder no does not exist"),
        ("{data} -o a.safetensors --log no/a.jsonl", "folder no does not exist"),
        ("{data} -o a.h5", "a checkpoint cannot be written to a.h5: use .safetensors"),
    ],
)
def test_nothing_that_is_there_is_lost(images, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    for name in ("l.csv", "v.csv", "l.safetensors"):
        (tmp_path / name).write_bytes(images.read_bytes())
    (tmp_path / "results.jsonl").write_text('{"kind": "result"}\n')
    (tmp_path / "folder.safetensors").mkdir()
    before = snapshot(tmp_path)
    assert command([*words.format(data=images).split(), *SMALL]) in (1, 2)
    assert said.format(data=images) in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def test_a_shard_of_a_pattern_is_an_input(images, tmp_path, monkeypatch, capsys):
    import tarfile

    monkeypatch.chdir(tmp_path)
    for shard in range(2):
        with tarfile.open(f"part-{shard}.tar", "w") as tar:
            for number in range(4):
                tar.add(f"{4 * shard + number}.png", f"{'ab'[number % 2]}/{4 * shard + number}.png")
    before = snapshot(tmp_path)
    assert command(["part-{0..1}.tar", *SMALL, "-o", "a.safetensors", "--log", "part-1.tar"]) == 2
    assert "part-1.tar would overwrite" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def options_of(**given):
    return settled({"size": 32, "epochs": 1, "batch_size": 4, "workers": 0, **given})


def test_a_column_of_images_that_is_missing_is_named(images, tmp_path, capsys):
    words = [images, "--objective", "clip", "-a", "RN50", "--image-column", "imag"]
    assert command([*words, "-o", tmp_path / "a.safetensors", "-q"]) == 1
    assert "no column imag" in capsys.readouterr().err


def test_a_validation_set_may_be_of_one_image_and_class(images, tmp_path):
    small = tmp_path / "one.csv"
    small.write_text("id,image,label\nz,0.png,b\n")
    out = tmp_path / "a.safetensors"
    record = pretrain(str(images), "test_vit", str(out), options_of(validation=str(small)))
    assert record.extra["last_epoch"]["val_accuracy"] in (0.0, 1.0)


def test_a_validation_set_is_of_the_classes_that_are_trained_on(images, tmp_path):
    options = options_of(validation=str(images))
    options = replace(options, source=replace(options.source, classes=("a", "c")))
    record = pretrain(str(images), "test_vit", str(tmp_path / "a.safetensors"), options)
    assert record.classes == ("a", "c")
    assert record.extra["validation"]["identity"] == record.data["identity"]  # all of them, both times


def test_what_a_validation_set_lacks_is_asked_of_it(images, tmp_path):
    bare = tmp_path / "bare.csv"
    bare.write_text("id,image\nz,0.png\ny,1.png\n")
    for objective, lack in (
        ("supervised", "labels: give --val a set with labels"),
        ("clip", "captions: give --val a set with captions"),
    ):
        options = options_of(objective=objective, validation=str(bare))
        with pytest.raises(InvalidInput, match=f"bare has no {lack}$"):
            pretrain(str(images), "test_vit", str(tmp_path / "a.safetensors"), options)


def test_pairs_that_are_all_alike_teach_nothing(images, tmp_path):
    path = tmp_path / "same.csv"
    lines = [line.rsplit(",", 1)[0] for line in images.read_text().splitlines()[1:]]
    for what, rows in (
        ("caption", [f"{line},a photo" for line in lines]),
        ("image", [f"{n},0.png,a,photo {n}" for n in range(4)]),
    ):
        path.write_text("\n".join(["id,image,label,text", *rows]) + "\n")
        with pytest.raises(InvalidInput, match=f"/same have one {what}: there is nothing"):
            pretrain(str(path), "RN50", str(tmp_path / "a.safetensors"), options_of(objective="clip"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preprocess_cfg": {"mean": [0.5]}}, "states no mean and std of three colours"),
        (
            {"text_cfg": {"vocab_size": 100}},
            "takes 100 different tokens, and its tokenizer makes 49408",
        ),
        ({"text_cfg": {"layers": 0}}, "open_clip cannot build c: "),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_told(images, tmp_path, change, said):
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    for part, values in change.items():
        config.setdefault(part, {}).update(values)
    path = tmp_path / "c.json"
    hub = {"model_cfg": config, "preprocess_cfg": config.pop("preprocess_cfg", {})}
    path.write_text(json.dumps(hub if hub["preprocess_cfg"] else config))
    with pytest.raises((InvalidInput, UsageError), match=said):
        pretrain(str(images), str(path), str(tmp_path / "a.safetensors"), options_of(objective="clip"))


def test_a_network_says_the_loss_that_it_was_trained_by(images, tmp_path):
    for loss, smoothing, wanted in (
        ("bce", 0.1, "bce"),
        ("ce", 0.1, "label-smoothing"),
        ("ce", 0.0, "ce"),
    ):
        out = str(tmp_path / "a.safetensors")
        pretrain(str(images), "test_vit", out, options_of(loss=loss, label_smoothing=smoothing))
        assert open_head(out).record.extra["loss"] == wanted


def test_a_record_tells_no_options_of_another_objective(images, tmp_path):
    path, out = tmp_path / "c.json", tmp_path / "a.safetensors"
    path.write_text(json.dumps(CONFIG))
    pretrain(str(images), str(path), str(out), options_of(objective="clip"))
    options = read_checkpoint(str(out)).record.options
    assert not {"loss", "mixup", "cutmix", "label_smoothing", "drop_path"} & options.keys()
    assert {"lr", "strength"} <= options.keys()


@pytest.mark.parametrize("name", ["lr", "clip", "mixup"])
def test_an_infinite_option_is_named(images, tmp_path, name):
    with pytest.raises(UsageError, match=f"^--{name} is infinite or not a number: give finite"):
        pretrain(str(images), "test_vit", str(tmp_path / "a.safetensors"), options_of(**{name: np.inf}))
    assert not Path(f"{tmp_path}/a.safetensors.state").exists()
