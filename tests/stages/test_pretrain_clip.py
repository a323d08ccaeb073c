"""Pre-training by captions: the same bytes however it is run, readable by open_clip, true measures."""

import json
import math
import random
import signal
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from nmlcli import keyed
from nmlcli.cli.main import run as command
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.numerics.contrastive import contrastive_loss
from nmlcli.products.formats import read_checkpoint
from nmlcli.stages import contrastive as stage
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import settled
from nmlcli.stages.training import Training
from nmlcli.training.distributed import Ranks

TRAIN = "builtin:shapes:train"
ROWS, BATCH, STEPS, EPOCHS = 70, 16, 4, 3
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
VIT = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None}
OPTIONS = settled(
    {
        "objective": "clip", "source": SourceOptions(limit=ROWS), "epochs": EPOCHS, "batch_size": BATCH,
        "lr": 2e-3, "betas": (0.9, 0.98), "eps": 1e-6, "warmup_steps": 2, "workers": 0,
    }
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Configurations of two networks, and a validation set with twins in a table."""
    folder = tmp_path_factory.mktemp("clip")
    for name, vision in (("tiny", VIT), ("resnet", RESNET)):
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    drawn, lines = open_samples(TRAIN, SourceOptions(limit=ROWS + 29)), ["image,text"]
    for row in range(ROWS, len(drawn)):
        drawn.read(row).save(folder / f"{row}.png")
        lines += [f"{row}.png,{drawn.texts[row]}"]
    lines += [f"{ROWS}.png,another caption of the first image", f"80.png,{drawn.texts[ROWS]}"]
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def options(folder):
    return replace(OPTIONS, validation=str(folder / "val.csv"))


@pytest.fixture(scope="module")
def trained(folder, options):
    torch.set_num_threads(1)
    return run(folder, folder, options, name="trained")


def run(into, folder, options, name="a", network="tiny", source=TRAIN):
    out = into / f"{name}.safetensors"
    pretrain(source, str(folder / f"{network}.json"), str(out), options)
    return out


def opened(folder, options, network="tiny", rows=40):
    samples = open_samples(TRAIN, SourceOptions(limit=rows))
    return OBJECTIVES["clip"].open(samples, None, str(folder / f"{network}.json"), options, Ranks())


def test_the_same_command_gives_the_same_bytes(tmp_path, folder, options, trained):
    torch.manual_seed(5)
    again = run(tmp_path, folder, replace(options, workers=3))
    assert again.read_bytes() == trained.read_bytes()
    other = run(tmp_path, folder, replace(options, seed=1, epochs=1))
    assert other.read_bytes() != trained.read_bytes()


@pytest.mark.parametrize("step", [0, random.Random(8).randrange(1, EPOCHS * STEPS - 1)])
def test_interrupted_it_goes_on_to_the_same_bytes(
    tmp_path, folder, options, trained, monkeypatch, step
):
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        interrupt_in(step, patch)
        run(tmp_path, folder, options)
    kept = torch.load(tmp_path / "a.safetensors.state", weights_only=True)
    assert kept["parts"]["progress"]["step"] == step + 1
    out = run(tmp_path, folder, replace(options, resume=True, workers=2))
    assert out.read_bytes() == trained.read_bytes()


def interrupt_in(step, monkeypatch):
    """Press Ctrl-C within the objective of a step."""
    real, count = stage.contrastive, iter(range(10**6))

    def contrastive(module, *more):
        objective = real(module, *more)

        def interrupted(batch):
            if module.training and next(count) == step:
                signal.raise_signal(signal.SIGINT)
            return objective(batch)

        return interrupted

    monkeypatch.setattr(stage, "contrastive", contrastive)


def learned(lesson):
    """Loss, gradients and buffers after the first batch."""
    lesson.module.train()
    values = lesson.objective(lesson.module)(next(iter(lesson.batches(0, 0))))
    values["loss"].backward()
    gradients = {name: each.grad for name, each in lesson.module.named_parameters()}
    return values["loss"].item(), gradients, dict(lesson.module.named_buffers())


def test_micro_batches_are_the_whole_batch_in_loss_and_gradient(folder):
    loss, gradients, _ = learned(opened(folder, OPTIONS))
    in_parts = learned(opened(folder, replace(OPTIONS, micro_batch=5)))
    assert in_parts[0] == pytest.approx(loss, abs=1e-5)
    assert gradients.keys() == in_parts[1].keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(in_parts[1][name], gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_batch_norm_of_an_image_tower_remembers_each_micro_batch_once(folder):
    """As if the parts went through the network one after another, with all activations kept."""
    loss, gradients, buffers = learned(opened(folder, replace(OPTIONS, micro_batch=5), "resnet"))
    plain = opened(folder, OPTIONS, "resnet")
    batch, module = next(iter(plain.batches(0, 0))), plain.module.train()
    parts = [module(batch.images[i : i + 4], batch.tokens[i : i + 4]) for i in range(0, BATCH, 4)]
    images, texts = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    wanted, _ = contrastive_loss(images, texts, module.logit_scale.exp(), batch.keys)
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)
    counted = [name for name in buffers if name.endswith("num_batches_tracked")]
    assert counted
    assert {buffers[name].item() for name in counted} == {4}
    for name, value in module.named_buffers():
        torch.testing.assert_close(buffers[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_the_logit_scale_stays_between_1_and_100(folder):
    options = replace(OPTIONS, epochs=1, lr=1e-4, warmup_steps=0)
    for start, end in ((50.0, math.log(100)), (-3.0, 0.0)):
        lesson = opened(folder, options, rows=BATCH)
        lesson.module.logit_scale.data.fill_(start)
        Training(lesson, options, Ranks()).run(lambda crew: "x", None, lambda *_, **__: None)
        assert lesson.module.logit_scale.item() == pytest.approx(end, abs=1e-6)


def test_open_clip_loads_the_checkpoint_and_agrees_on_its_measures(tmp_path, folder, trained, options):
    """The measures are means over the pairs of batches of about one size, drawn by the seed, twins
    left out."""
    record = read_checkpoint(str(trained)).record
    name = f"{tmp_path.name}-of-a-record"
    (tmp_path / f"{name}.json").write_text(json.dumps(record.model["config"]))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    made = open_clip.create_model_and_transforms(name, pretrained=str(trained))
    module, transform = made[0].eval(), made[2]
    rows = [line.split(",") for line in (folder / "val.csv").read_text().splitlines()[1:]]
    pictures = torch.stack([transform(Image.open(folder / name)) for name, _ in rows])
    tokens = open_clip.get_tokenizer(name)([text for _, text in rows])
    with torch.inference_mode():
        images, texts, scale = module(pictures, tokens)
    losses, right = [], []
    order = keyed.permutation(len(rows), options.seed, "order of the validation set").tolist()
    assert len(rows) % BATCH
    size = math.ceil(len(rows) / math.ceil(len(rows) / BATCH))
    for start in range(0, len(rows), size):
        block = order[start : start + size]
        for i in block:
            others = [j for j in block if j == i or not {*rows[i]} & {*rows[j]}]
            both = []
            for one, many in ((images[i], texts), (texts[i], images)):
                logits = {j: float(scale * (one @ many[j])) for j in others}
                both += [math.log(sum(map(math.exp, logits.values()))) - logits[i]]
                right += [max(logits, key=logits.get) == i] if many is texts else []
            losses += [sum(both) / 2]
    told = record.extra["last_epoch"]
    assert told["val_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert told["val_accuracy"] == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 1


def test_the_record_says_what_was_learned_from_what(folder, trained):
    record = read_checkpoint(str(trained)).record
    config = json.loads((folder / "tiny.json").read_text())
    model = record.model
    assert record.classes is None
    assert (record.rows, model["objective"], model["architecture"]) == (ROWS, "clip", "tiny")
    assert model["config"] == config
    assert model["preprocessing"]["size"] == 16
    assert model["noise"]["realised"] == 0.0  # known to be clean
    assert str(folder) not in json.dumps([record.model, record.options, record.extra])
    told = {name: record.options[name] for name in ("opt", "weight_decay", "betas", "objective")}
    assert told == {"opt": "adamw", "weight_decay": 0.1, "betas": [0.9, 0.98], "objective": "clip"}
    assert (record.options["strength"]["hflip"], record.options["strength"]["scale"]) == (0.0, 0.9)


def test_noise_of_captions_is_recorded_and_that_of_labels_is_not(tmp_path, folder):
    drawn = open_samples(TRAIN, SourceOptions(limit=40))
    lines = ["id,text,clean_text"]
    for row, (name, text) in enumerate(zip(drawn.ids, drawn.texts, strict=True)):
        lines += [f"{name},{'a wrong one' if row < 10 else text},{text}"]
    table = tmp_path / "captions.csv"
    table.write_text("\n".join(lines) + "\n")
    assert drawn.noise["realised"] == 0
    source = SourceOptions(limit=40, captions=str(table))
    out = run(tmp_path, folder, replace(OPTIONS, epochs=2, source=source))
    record = read_checkpoint(str(out)).record
    assert record.model["noise"]["realised"] == pytest.approx(0.25)
    assert (record.noise["flipped"], record.noise["of"]) == (10, 40)


def test_sets_without_captions_say_where_to_bring_them_from(tmp_path, folder, capsys):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / f"{number}.png")
    words = [
        "pretrain",
        str(tmp_path / "pictures"),
        "--objective",
        "clip",
        "-o",
        str(tmp_path / "a.safetensors"),
    ]
    assert command([*words, "-a", str(folder / "tiny.json")]) == 1
    assert capsys.readouterr().err == (
        f"nml pretrain: {tmp_path.name}/pictures has no captions: lay some over it with --captions,"
        " or name a table's column with --text-column\n"
    )
    table = tmp_path / "captions.csv"
    table.write_text("id,text\n0,\n1, \n2,\n")
    assert command([*words, "-a", str(folder / "tiny.json"), "--captions", str(table)]) == 1
    assert "has no captions in column text" in capsys.readouterr().err


def test_empty_captions_are_counted(tmp_path, folder, caplog):
    drawn = open_samples(TRAIN, SourceOptions(limit=20))
    texts = ["", " ", *drawn.texts[2:]]
    assert stage.Matching.check(replace(drawn, texts=texts)) is None
    assert caplog.messages == [f"{drawn.name}: 2 of 20 captions are empty"]
    for wrong, words in (
        (replace(drawn, texts=[""] * 20), "only empty"),
        (drawn.take(np.arange(1)), "a single"),
    ):
        with pytest.raises(InvalidInput, match=words):
            stage.Matching.check(wrong)


def test_tokens_are_open_clips_whether_or_not_they_are_kept(folder, monkeypatch):
    rows, wanted = np.array([7, 0, 39, 7]), open_clip.get_tokenizer("ViT-B-32", context_length=16)
    kept = opened(folder, OPTIONS).captions
    monkeypatch.setattr(stage, "_MEMORY", 10)
    drawn = opened(folder, OPTIONS).captions
    assert kept._held is not None
    assert drawn._held is None
    texts = open_samples(TRAIN, SourceOptions(limit=40)).texts
    for captions in (kept, drawn):
        assert torch.equal(captions.tokens(rows), wanted([texts[row] for row in rows]))


def test_twins_share_a_caption_or_an_image(folder):
    samples = open_samples(str(folder / "val.csv"), SourceOptions())
    keys = stage.Captions(samples, opened(folder, OPTIONS).captions.tokenizer).keys
    texts, images = (
        list(samples.texts),
        [line.split(",")[0] for line in (folder / "val.csv").read_text().splitlines()[1:]],
    )
    for i in range(len(texts)):
        for j in range(len(texts)):
            assert (keys[i] == keys[j]).tolist() == [texts[i] == texts[j], images[i] == images[j]]


def test_a_size_that_the_network_cannot_take_is_found_before_the_first_step(tmp_path, folder):
    with pytest.raises(UsageError, match="no images of 24 pixels after a training at 16"):
        run(tmp_path, folder, replace(OPTIONS, val_size=24))
    assert not [path for path in tmp_path.iterdir() if "safetensors" in path.name]
