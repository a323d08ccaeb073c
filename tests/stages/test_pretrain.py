"""Pre-training: the same bytes however it is run, readable by timm, honest about its set."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, NmlError, Terminated, UsageError
from nmlcli.products.formats import read_checkpoint
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import PretrainOptions
from nmlcli.stages.training import Training
from nmlcli.training.augmentation import Strength
from nmlcli.training.distributed import Ranks

TRAIN, VAL = "builtin:shapes:train", "builtin:shapes:val"
OPTIONS = PretrainOptions(
    source=SourceOptions(limit=70), epochs=3, batch_size=16, lr=0.05, size=16, workers=0
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(tmp_path, name="a", options=OPTIONS, source=TRAIN, architecture="test_resnet", **keywords):
    out = tmp_path / f"{name}.safetensors"
    pretrain(source, architecture, str(out), options, **keywords)
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run(tmp_path_factory.mktemp("trained"))


def test_the_same_command_gives_the_same_bytes(tmp_path, trained):
    torch.manual_seed(5)
    np.random.seed(5)
    assert run(tmp_path, options=replace(OPTIONS, workers=3)).read_bytes() == trained.read_bytes()
    assert run(tmp_path, options=replace(OPTIONS, seed=1)).read_bytes() != trained.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_state_of_another_command_is_not_taken(tmp_path):
    def stop(done, total, **values):
        if "epoch" in values:
            raise Terminated

    with pytest.raises(Terminated):
        run(tmp_path, advance=stop)
    with pytest.raises(InvalidInput, match="other data or options"):
        run(tmp_path, options=replace(OPTIONS, lr=0.06, resume=True))


def test_timm_loads_the_checkpoint_and_agrees_on_its_accuracy(tmp_path):
    folder = tmp_path / "val"
    drawn = open_samples(VAL, SourceOptions(limit=60))
    for row, label in enumerate(drawn.labels):
        (folder / drawn.classes[label]).mkdir(parents=True, exist_ok=True)
        drawn.read(row).save(folder / drawn.classes[label] / f"{row}.png")
    out = run(tmp_path, options=replace(OPTIONS, validation=str(folder)))
    record = read_checkpoint(str(out)).record
    classes = len(record.classes)
    overlay = {"file": str(out), "num_classes": classes}
    module = timm.create_model(
        "test_resnet", pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay
    )
    facts = record.model["preprocessing"]
    transform = create_transform(
        input_size=(3, facts["size"], facts["size"]),
        mean=facts["mean"],
        std=facts["std"],
        interpolation=facts["interpolation"],
        crop_pct=facts["crop_pct"],
    )
    samples = open_samples(str(folder), SourceOptions(limit=60))
    labels = [record.classes.index(samples.classes[label]) for label in samples.labels]
    images = torch.stack([transform(image) for image in samples.images(np.arange(len(samples)))])
    with torch.inference_mode():
        logits = module.eval()(images)
    accuracy = (logits.argmax(1).numpy() == labels).mean()
    assert record.extra["last_epoch"]["val_accuracy"] == pytest.approx(accuracy)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
    assert record.extra["last_epoch"]["val_loss"] == pytest.approx(loss, rel=1e-4)


def test_the_record_says_what_was_learned_from_what(trained):
    record = read_checkpoint(str(trained)).record
    assert (record.kind, record.command, record.rows) == ("checkpoint", "pretrain", 70)
    assert record.model["identity"] == record.identity
    assert record.model["objective"] == "supervised"
    assert record.model["data"] == record.data
    assert record.noise["realised"] == 0.0
    assert record.model["noise"] == record.noise
    assert record.options["lr"] == 0.05
    assert not {"workers", "log", "resume", "reuse", "source"} & set(record.options)


def test_noise_of_labels_laid_over_is_recorded(tmp_path):
    samples = open_samples(TRAIN, SourceOptions(limit=70))
    table = tmp_path / "labels.csv"
    classes = samples.classes
    rows = [
        f"{name},{classes[(label + (i < 7)) % len(classes)]},{classes[label]}"
        for i, (name, label) in enumerate(zip(samples.ids, samples.labels, strict=True))
    ]
    table.write_text("\n".join(["id,label,clean_label", *rows]) + "\n")
    out = run(tmp_path, options=replace(OPTIONS, source=SourceOptions(limit=70, labels=str(table))))
    assert read_checkpoint(str(out)).record.model["noise"]["realised"] == pytest.approx(0.1)


def test_a_small_set_is_learned_by_heart(tmp_path):
    options = replace(
        OPTIONS, epochs=15, augment="none", weight_decay=0.0, source=SourceOptions(limit=32)
    )
    assert (
        read_checkpoint(str(run(tmp_path, options=options))).record.extra["last_epoch"]["accuracy"]
        > 0.9
    )


def test_what_is_up_to_date_is_left_alone(tmp_path, trained):
    before = trained.stat().st_mtime_ns
    reuse = replace(OPTIONS, reuse=True)
    assert pretrain(TRAIN, "test_resnet", str(trained), reuse) is None
    assert trained.stat().st_mtime_ns == before
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(trained.read_bytes())
    assert pretrain(TRAIN, "test_resnet", str(copy), replace(reuse, seed=4)) is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            replace(OPTIONS, augment="shift", strength=Strength(reprob=0.1), asked=("reprob",)),
            "add --augment crop",
        ),
        (
            replace(OPTIONS, strength=Strength(color_jitter=0.4), asked=("color_jitter",)),
            "the augmentation shift does not do what --color-jitter asks for",
        ),
        (replace(OPTIONS, lr=float("inf")), "give finite numbers"),
        (replace(OPTIONS, batch_size=15, mixup=0.2), "an even --batch-size"),
        (replace(OPTIONS, warmup_epochs=3), "more --epochs"),
        (replace(OPTIONS, opt="sgdx"), "did you mean sgd"),
        (replace(OPTIONS, augment="crop", strength=Strength(policy="best")), "no augmentation policy"),
    ],
)
def test_options_that_cannot_be_met(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        run(tmp_path, options=options)
    assert not [*tmp_path.iterdir()]  # no state was begun, so none was replaced


def test_names_that_cannot_be_met(tmp_path):
    with pytest.raises(UsageError, match=r"'resnet10x': did you mean resnet10t"):
        run(tmp_path, architecture="resnet10x")
    with pytest.raises(UsageError, match=r"use \.safetensors"):
        pretrain(TRAIN, "test_resnet", str(tmp_path / "a.h5"), OPTIONS)
    with pytest.raises(UsageError, match="--out and --log are one file"):
        pretrain(
            TRAIN,
            "test_resnet",
            str(tmp_path / "a.safetensors"),
            replace(OPTIONS, log=str(tmp_path / "." / "a.safetensors")),
        )
    with pytest.raises(UsageError, match="no state to resume"):
        pretrain(TRAIN, "test_resnet", None, replace(OPTIONS, resume=True))


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    steps = []
    with pytest.raises(NmlError, match="does not exist"):
        pretrain(
            TRAIN,
            "test_resnet",
            str(tmp_path / "none" / "a.safetensors"),
            OPTIONS,
            lambda done, total, **values: steps.append(done),
        )
    assert not steps


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    with pytest.raises(NmlError, match=r"the loss of step \d+ is (nan|inf)"):
        run(tmp_path, options=replace(OPTIONS, lr=1e20, clip=None))


def test_sets_that_teach_nothing(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16)).save(flat / f"{number}.png")
    with pytest.raises(InvalidInput, match="has no labels"):
        run(tmp_path, source=str(flat))
    with pytest.raises(InvalidInput, match="classes that are not among"):
        run(tmp_path, options=replace(OPTIONS, validation="builtin:textures:val"))


def test_labels_outside_the_classes_name_the_sample(monkeypatch, tmp_path):
    import nmlcli.stages.pretrain as stage

    samples = open_samples(TRAIN, SourceOptions(limit=70))
    labels = samples.labels.copy()
    labels[5] = 99
    monkeypatch.setattr(stage, "open_samples", lambda *_: replace(samples, labels=labels))
    with pytest.raises(InvalidInput, match=f"{samples.ids[5]} has label 99"):
        run(tmp_path)


def test_a_set_too_large_for_memory_gives_the_same_bytes(tmp_path, trained, monkeypatch):
    import nmlcli.stages.images as images

    monkeypatch.setattr(images, "_MEMORY", 1000)
    assert run(tmp_path).read_bytes() == trained.read_bytes()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_train(tmp_path, precision):
    out = run(tmp_path, options=replace(OPTIONS, precision=precision, epochs=1, size=32))
    assert all(value.isfinite().all() for value in read_checkpoint(str(out)).weights.values())


def test_ordinary_and_averaged_weights_differ():
    samples = open_samples(TRAIN, SourceOptions(limit=40))
    options = replace(OPTIONS, ema=0.9, epochs=2)
    lesson = OBJECTIVES["supervised"].open(samples, None, "test_resnet", options, Ranks())
    training = Training(lesson, options, Ranks())
    training.run(lambda crew: "x", None, lambda *_, **__: None)
    plain, kept = lesson.module.state_dict(), training.weights()
    assert plain.keys() == kept.keys()
    assert not torch.equal(plain["fc.weight"], kept["fc.weight"])
