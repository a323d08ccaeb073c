"""Options of pre-training: where each one arrives, and what a wrong one is told."""

import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import pytest
import timm
import torch

from nmlcli.cli.main import run as command
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import UsageError
from nmlcli.products.formats import read_checkpoint
from nmlcli.stages import supervised
from nmlcli.stages import training as stage
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import PretrainOptions, settled
from nmlcli.stages.training import Training
from nmlcli.training.distributed import Ranks
from nmlcli.training.loop import fit
from nmlcli.training.recipes import FOLDER, RECIPES, Recipe

TRAIN = "builtin:shapes:train"
OPTIONS = PretrainOptions(
    source=SourceOptions(limit=48), epochs=2, batch_size=16, lr=0.05, size=32, workers=0, augment="none"
)
WORDS = ["pretrain", TRAIN, "--limit", "48", "-q"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def opened(options, architecture="test_vit", ranks=None, rows=48):
    samples = open_samples(TRAIN, SourceOptions(limit=rows))
    return OBJECTIVES[options.objective].open(samples, None, architecture, options, ranks or Ranks())


def trained(options, architecture="test_vit"):
    """The weights that are kept, and what was told last."""
    training = Training(opened(options, architecture), options, Ranks())
    told = training.run(lambda crew: "x", None, lambda *_, **__: None)
    return training.weights(), told


def learned(lesson, options):
    """The shown scalars and the gradients of the first batch."""
    gradients, told = {}, {}

    def after_step(step):
        gradients.update({name: each.grad for name, each in lesson.module.named_parameters()})

    lesson.module.train()
    fit(
        lesson.objective(lesson.module), lambda epoch: islice(lesson.batches(0, 0), 1),
        torch.optim.SGD(lesson.module.parameters(), lr=0.0), schedule=lambda step: None, epochs=1,
        steps_per_epoch=1, after_step=after_step, after_epoch=lambda epoch, means: told.update(means),
        pieces=(lambda each: lesson.pieces(each, lesson.module)) if options.micro_batch else None,
    )  # fmt: skip
    return told, gradients


@pytest.mark.parametrize("micro_batch", [1, 5, 16, 99])
@pytest.mark.parametrize("more", [{}, {"loss": "bce", "mixup": 0.5, "label_smoothing": 0.1}])
def test_micro_batches_are_the_whole_batch(micro_batch, more):
    options = replace(OPTIONS, **more)
    values, gradients = learned(opened(options), options)
    in_parts = replace(options, micro_batch=micro_batch)
    found, others = learned(opened(in_parts), in_parts)
    for name, value in values.items():
        assert found[name] == pytest.approx(value, abs=1e-6)
    assert len(gradients) > 20
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_micro_batches_are_computed_one_at_a_time(monkeypatch):
    sizes, real = [], supervised.supervised

    def watched(*arguments):
        objective = real(*arguments)

        def watch(batch):
            sizes.append(len(batch.images))
            return objective(batch)

        return watch

    monkeypatch.setattr(supervised, "supervised", watched)
    trained(replace(OPTIONS, micro_batch=5, epochs=1))
    assert sizes == [4] * 12


def test_the_average_follows_steps_not_micro_batches():
    whole = trained(replace(OPTIONS, ema=0.9))[0]
    parts = trained(replace(OPTIONS, ema=0.9, micro_batch=4))[0]
    plain = trained(replace(OPTIONS))[0]
    far = 0.0
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6, msg=name)
        far = max(far, (plain[name] - value).abs().max().item())
    assert far > 1e-4


def test_the_average_follows_closely_at_first(monkeypatch):
    """Against its formula: step s, from 0, leaves the lesser of the decay and 1 - (1 + s)^(-2/3)."""
    seen, options = [], replace(OPTIONS, ema=0.6)
    lesson = opened(options)
    monkeypatch.setattr(
        lesson, "after_step", lambda: seen.append(lesson.module.head.weight.detach().clone())
    )
    training = Training(lesson, options, Ranks())
    training.run(lambda crew: "x", None, lambda *_, **__: None)
    average = torch.zeros_like(seen[0])
    for step, weight in enumerate(seen):
        kept = min(0.6, 1 - (1 + step) ** (-2 / 3))
        average = kept * average + (1 - kept) * weight
    assert len(seen) == 6
    torch.testing.assert_close(training.weights()["head.weight"], average)


def test_drop_path_reaches_the_network_in_training_alone():
    lesson = opened(replace(OPTIONS, drop_path=0.3))
    rates = [each.drop_prob for each in lesson.module.modules() if hasattr(each, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)
    module, images = lesson.module, torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        torch.manual_seed(0)
        dropped = module.train()(images)
        kept = module.eval()(images)
        plain = opened(OPTIONS).module.eval()(images)
    assert torch.equal(kept, plain)
    assert not torch.allclose(dropped, kept)


def test_betas_eps_and_warm_up_reach_the_optimiser(monkeypatch):
    rates, real = [], stage.timm_schedule
    options = replace(
        OPTIONS, opt="adamw", lr=0.01, betas=(0.8, 0.95), eps=1e-5, warmup_steps=4, sched="constant"
    )
    made = []

    def watched(optimiser, *arguments, **keywords):
        schedule = real(optimiser, *arguments, **keywords)
        made.append(optimiser)

        def watch(step):
            schedule(step)
            rates.append(optimiser.param_groups[0]["lr"])

        return watch

    monkeypatch.setattr(stage, "timm_schedule", watched)
    trained(options)
    assert rates == pytest.approx([0.0, 0.0025, 0.005, 0.0075, 0.01, 0.01])
    for group in made[0].param_groups:
        assert (tuple(group["betas"]), group["eps"]) == ((0.8, 0.95), 1e-5)


def test_the_record_tells_every_option_that_changes_the_weights(tmp_path):
    out = str(tmp_path / "a.safetensors")
    words = (
        "--opt adamw --lr 0.01 --betas 0.8,0.95 --eps 1e-5 --warmup-steps 1 --micro-batch 8 --epochs 1"
        " --batch-size 16 --size 32 --val-size 48 --drop-path 0.1 --loss bce --label-smoothing 0.2"
    )
    assert command([*WORDS, "-a", "test_convnext", *words.split(), "--workers", "0", "-o", out]) == 0
    record = read_checkpoint(out).record
    wanted = {
        "opt": "adamw", "lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-5, "warmup_steps": 1,
        "micro_batch": 8, "epochs": 1, "batch_size": 16, "size": 32, "val_size": 48, "drop_path": 0.1,
        "loss": "bce", "label_smoothing": 0.2, "objective": "supervised", "compile": False,
    }  # fmt: skip
    assert {name: record.options[name] for name in wanted} == wanted
    assert record.model["preprocessing"]["size"] == 48


def test_val_size_is_that_of_images_after_the_training(tmp_path):
    """The validation is timm's, at its size; the training is that of the size alone."""
    val = tmp_path / "val"
    drawn = open_samples("builtin:shapes:val", SourceOptions(limit=30))
    for row, label in enumerate(drawn.labels):
        (val / drawn.classes[label]).mkdir(parents=True, exist_ok=True)
        drawn.read(row).save(val / drawn.classes[label] / f"{row}.png")
    out = tmp_path / "a.safetensors"
    options = replace(OPTIONS, source=SourceOptions(limit=64), epochs=1, size=32, val_size=48)
    pretrain(TRAIN, "test_convnext", str(out), replace(options, validation=str(val)))
    found = read_checkpoint(str(out))
    samples, classes = open_samples(str(val), SourceOptions()), found.record.classes
    module = timm.create_model("test_convnext", num_classes=len(classes)).eval()
    module.load_state_dict(found.weights)
    facts = found.record.model["preprocessing"]
    transform = timm.data.create_transform(
        (3, 48, 48), mean=facts["mean"], std=facts["std"], interpolation=facts["interpolation"],
        crop_pct=1.0,
    )  # fmt: skip
    with torch.inference_mode():
        logits = module(torch.stack([transform(samples.read(row)) for row in range(len(samples))]))
    labels = torch.tensor([classes.index(samples.classes[label]) for label in samples.labels])
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert found.record.extra["last_epoch"]["val_loss"] == pytest.approx(loss, rel=1e-5)
    pretrain(TRAIN, "test_convnext", str(out), replace(options, val_size=None))
    for name, value in read_checkpoint(str(out)).weights.items():
        assert torch.equal(value, found.weights[name])


def test_a_network_of_a_fixed_size_takes_no_other_one_afterwards(tmp_path):
    with pytest.raises(UsageError, match=r"no images of 48 pixels after a training at 32: leave out"):
        pretrain(TRAIN, "test_vit", str(tmp_path / "a.safetensors"), replace(OPTIONS, val_size=48))
    assert opened(replace(OPTIONS, val_size=32)).preprocessing.size == 32


def test_a_compiled_network_keeps_its_names_and_its_steps(monkeypatch):
    """With the compiler's last part left out, which takes a minute; see the slow test below."""
    monkeypatch.setattr(torch, "compile", lambda module: real(module, backend="aot_eager"))
    compiled = trained(replace(OPTIONS, compile=True, micro_batch=8))
    monkeypatch.undo()
    same(compiled, trained(OPTIONS))


real = torch.compile


def same(compiled, plain):
    assert compiled[0].keys() == plain[0].keys()
    for name, value in plain[0].items():
        torch.testing.assert_close(compiled[0][name], value, rtol=1e-4, atol=1e-4, msg=name)
    assert compiled[1] == pytest.approx(plain[1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler")
def test_what_is_compiled_for_real_trains_alike():
    same(trained(replace(OPTIONS, compile=True)), trained(OPTIONS))


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch, capsys):
    from torch._dynamo.exc import TorchDynamoException

    def broken(*_):
        raise TorchDynamoException("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda module: broken)
    words = [
        *WORDS,
        "-a",
        "test_vit",
        "--size",
        "32",
        "--compile",
        "-o",
        str(tmp_path / "a.safetensors"),
    ]
    assert command(words) == 2
    assert capsys.readouterr().err == (
        "nml pretrain: torch cannot compile here: InvalidCxxCompiler: No working C++ compiler found:"
        " leave out --compile\n"
    )


def test_an_objective_has_defaults_below_what_is_given():
    plain, clip = settled({}), settled({"objective": "clip"})
    assert plain == PretrainOptions()
    assert (plain.opt, plain.weight_decay, plain.strength.hflip, plain.rate) == ("sgd", 5e-4, 0.5, 0.1)
    told = (clip.opt, clip.weight_decay, clip.strength.hflip, clip.strength.scale, clip.rate)
    assert told == ("adamw", 0.1, 0.0, 0.9, 1e-3)
    given = settled({"objective": "clip", "opt": "sgd", "hflip": 0.5, "auto_augment": "original"})
    assert (given.opt, given.strength.hflip, given.rate) == ("sgd", 0.5, 0.1)
    assert given.strength.policy == "original"
    assert clip.crops() == ""
    usual = {"objective": "clip", "scale": 0.08, "hflip": 0.5, "augment": "none"}
    assert settled({"auto_augment": "original", "hflip": 0.0}, usual).strength.scale == 0.08


def test_only_what_is_asked_for_has_to_have_an_effect():
    asked = {"objective": "clip", "scale": 0.9, "auto_augment": "original", "hflip": 0.0}
    assert settled(asked).crops() == "--scale, --auto-augment"
    assert settled({**asked, "augment": "none"}).crops() == "--scale, --auto-augment, --hflip"
    assert settled({"augment": "none"}, {"scale": 0.3, "hflip": 0.1}).crops() == ""


@pytest.mark.parametrize("name", OBJECTIVES["supervised"].takes)
def test_options_of_another_objective_are_refused(name):
    settled({name: 0.1})
    option = name.replace("_", "-")
    with pytest.raises(UsageError, match=f"--{option} does not apply .* clip: it is for supervised"):
        settled({"objective": "clip", name: 0.1})


def test_a_recipe_gives_what_is_not_given(tmp_path):
    out = tmp_path / "a.safetensors"
    words = ["--recipe", "resnet10t-32px", "--epochs", "1", "--limit", "64", "--workers", "0", "-q"]
    assert command(["pretrain", TRAIN, *words, "-o", str(out)]) == 0
    record = read_checkpoint(str(out)).record
    recipe = dict(RECIPES["resnet10t-32px"].options)
    assert record.model["architecture"] == recipe.pop("arch")
    assert recipe.pop("epochs") > record.options["epochs"] == 1
    strength = record.options["strength"]
    assert strength["hflip"] == recipe.pop("hflip")
    assert {name: record.options[name] for name in recipe} == recipe
    assert recipe


def seen(monkeypatch, words):
    """The options and the architecture that a command comes to."""
    import nmlcli.stages.pretrain as stage

    found = {}

    def run(name, architecture, out, options, advance):
        found.update(architecture=architecture, options=options)

    monkeypatch.setattr(stage, "pretrain", run)
    assert command(["pretrain", TRAIN, "-q", "-o", "a.safetensors", *words.split()]) == 0
    return found["architecture"], found["options"]


def test_a_recipe_names_the_configuration_beside_it(monkeypatch):
    architecture, options = seen(monkeypatch, "--recipe clip-tiny")
    assert architecture == str(FOLDER / "clip-tiny.json")
    assert (options.objective, options.betas) == ("clip", RECIPES["clip-tiny"].options["betas"])
    assert seen(monkeypatch, "--recipe clip-tiny -a RN50")[0] == "RN50"


@pytest.mark.parametrize(
    ("recipe", "words", "wanted"),
    [
        ("steps", "", (0, 50)),
        ("steps", "--warmup-epochs 2", (2, None)),
        ("steps", "--warmup-epochs 0", (0, None)),
        ("steps", "--warmup-steps 7", (0, 7)),
        ("epochs", "", (3, None)),
        ("epochs", "--warmup-steps 7", (0, 7)),
        ("epochs", "--warmup-epochs 1", (1, None)),
    ],
)
def test_a_warm_up_that_is_given_replaces_the_recipes(monkeypatch, recipe, words, wanted):
    for name, line in (("steps", "warmup_steps = 50"), ("epochs", "warmup_epochs = 3")):
        text = f'help = "x"\n[options]\narch = "test_vit"\nobjective = "supervised"\n{line}\n'
        about = '[about]\ncommand = "x"\ncost = "x"\nsource = "x"\n'
        monkeypatch.setitem(RECIPES, name, Recipe(name, text + about))
    options = seen(monkeypatch, f"--recipe {recipe} {words}")[1]
    assert (options.warmup_epochs, options.warmup_steps) == wanted


def test_recipes_are_listed_and_shown(capsys):
    assert command(["pretrain", "--recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*RECIPES]
    assert max(map(len, lines)) <= 100
    for name, row in RECIPES.items():
        assert command(["pretrain", "--recipe", "show", name]) == 0
        assert capsys.readouterr().out.rstrip() == row.text.rstrip()


NAMES = ", ".join(RECIPES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--recipe show", f"--recipe show lacks the name of a recipe: give one of {NAMES}"),
        ("builtin:shapes:train", "-a is missing: name a network with -a NAME, or a --recipe"),
        (
            "builtin:shapes:train --recipe resnet10t-32p",
            "no recipe is named 'resnet10t-32p': did you mean resnet10t-32px?",
        ),
        (
            "builtin:shapes:train -a test_vit --betas 0.9",
            "--betas is 0.9: give two numbers: 0.9,0.98",
        ),
        (
            "builtin:shapes:train -a test_vit --betas 0.9,1",
            "--betas is 0.9,1: give numbers from 0 to below 1",
        ),
        (
            "builtin:shapes:train -a test_vit --betas 0.9,nan",
            "--betas is 0.9,nan: give numbers from 0 to below 1",
        ),
        (
            "builtin:shapes:train -a test_vit --betas 0.9,0.99 --opt sgd",
            "the optimiser sgd has no pair of betas: leave out --betas",
        ),
        (
            "builtin:shapes:train -a RN50 --objective clip --mixup 0.1",
            "--mixup does not apply to --objective clip: it is for supervised",
        ),
        (
            "builtin:shapes:train -a test_vit --warmup-epochs 1 --warmup-steps 0",
            "--warmup-epochs and --warmup-steps exclude each other: give one of them",
        ),
        (
            "builtin:shapes:train -a test_vit --opt adamw --momentum 0.8",
            "the optimiser adamw has no momentum: leave out --momentum",
        ),
        (
            "builtin:shapes:train -a test_vit --captions words.csv",
            "--captions does not apply to --objective supervised: it is for clip",
        ),
        (
            "builtin:shapes:train -a RN50 --objective clip --labels labels.csv",
            "--labels does not apply to --objective clip: it is for supervised",
        ),
        (
            "builtin:shapes:train -a test_vit --augment none --hflip 0.1",
            "the augmentation none does not do what --hflip asks for: add --augment crop, or leave out"
            " --hflip",
        ),
        (
            "builtin:shapes:train -a test_vit --clip 0",
            "--clip 0 leaves no gradient: give a length above 0, or leave it out",
        ),
        (
            "builtin:shapes:train -a test_vit --clip nan",
            "--clip nan leaves no gradient: give a length above 0, or leave it out",
        ),
        (
            "builtin:shapes:train -a test_vit --label-smoothing 1",
            "--label-smoothing 1 leaves nothing of the labels: give a share below 1",
        ),
        (
            "builtin:shapes:train -a test_vit --scale 0.08",
            "the augmentation shift does not do what --scale asks for: add --augment crop, or leave out"
            " --scale",
        ),
        (
            "builtin:shapes:train -a test_vit --root photos",
            "--root does not apply to builtin:shapes:train: it is for tables",
        ),
        (
            "builtin:shapes:train -a test_vit --opt adamm",
            "timm has no optimiser 'adamm': did you mean adam, radam, nadam?",
        ),
        (
            "builtin:shapes:train -a test_vit --opt zzz",
            "timm has no optimiser 'zzz': take sgd, adamw, lamb, or another that"
            " timm.optim.list_optimizers() names",
        ),
        (
            "builtin:shapes:train -a test_resnet --micro-batch 1",
            "batch norm takes two images at a time, and some are computed by 1: give a larger"
            " --batch-size or --micro-batch",
        ),
        ("- -a test_vit --val -", "- is given twice: stdin can be read once"),
        (
            "builtin:shapes:train -a test_vit --warmup-steps 9",
            "the warm-up of 9 steps leaves none of 2: make it shorter, or give more --epochs",
        ),
    ],
)
def test_what_cannot_be_met_is_one_line(tmp_path, capsys, words, said):
    small = ["--limit", "20", "--size", "32", "--epochs", "2", "-o", str(tmp_path / "a.safetensors")]
    assert command(["pretrain", *words.split(), *small]) == 2
    assert capsys.readouterr().err == f"nml pretrain: {said}\n"
    assert not [*tmp_path.iterdir()]


def test_a_batch_is_shared_evenly_or_not_at_all():
    """By two of mixed pairs in each process; a smaller set is one batch."""
    for ranks, batch, more, words in (
        (
            3,
            16,
            {},
            "a batch of 16 cannot be shared by 3 processes: give a --batch-size that 3 divides",
        ),
        (4, 12, {"mixup": 0.1}, "4 processes share a batch of 12: give a --batch-size that 8 divides"),
    ):
        with pytest.raises(UsageError, match=words):
            opened(replace(OPTIONS, batch_size=batch, **more), ranks=Ranks(0, ranks))
    for rows, ranks, more, size in ((47, 3, {}, 45), (47, 2, {"mixup": 0.1}, 44), (47, 1, {}, 47)):
        options = replace(OPTIONS, batch_size=96, **more)
        lesson = opened(options, ranks=Ranks(0, ranks), rows=rows)
        assert (lesson.batch_size, lesson.steps) == (size, 1)


def test_one_stdin_is_not_shared(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (["-"], [TRAIN, "--labels", "-"], [TRAIN, "--val", "-"]):
        words = ["pretrain", *words, "-a", "test_vit", "-o", str(tmp_path / "a.safetensors")]
        assert command(words) == 2
        said = "nml pretrain: several processes cannot read one stdin: name a file\n"
        assert capsys.readouterr().err == said


def test_parts_of_several_processes_are_the_batch_of_one():
    """Rows and pixels, each sample once, from any step on."""
    samples = open_samples(TRAIN, SourceOptions(limit=50))
    options = replace(OPTIONS, augment="shift", batch_size=12)

    def batches(ranks, step):
        lesson = OBJECTIVES["supervised"].open(samples, None, "test_vit", options, ranks)
        return list(lesson.batches(1, step))

    whole = batches(Ranks(), 4)
    assert len(whole) == 4
    for step in (4, 6):
        parts = [batches(Ranks(rank, 3), step) for rank in range(3)]
        for number, batch in enumerate(whole[step - 4 :]):
            for name in ("images", "labels"):
                found = torch.cat([getattr(part[number], name) for part in parts])
                assert torch.equal(found, getattr(batch, name))


def test_every_sample_of_a_validation_set_is_in_one_batch_of_one_process(monkeypatch):
    samples = open_samples(TRAIN, SourceOptions(limit=41))
    for size, count in ((16, 2), (7, 3), (50, 2), (41, 4)):
        rows = []
        for rank in range(count):
            lesson = OBJECTIVES["supervised"].open(
                samples, samples, "test_vit", replace(OPTIONS, batch_size=12), Ranks(rank, count)
            )
            rows += [found.tolist() for found, _ in lesson.feed.validation_batches(size)]
        alike = math.ceil(41 / math.ceil(41 / size))  # but for the last one
        blocks = [list(range(41))[start : start + alike] for start in range(0, 41, alike)]
        assert sorted(rows) == blocks  # as one process has them, since pairs of a batch depend on it


def test_an_epoch_is_a_json_line(tmp_path):
    log = tmp_path / "a.jsonl"
    words = ["-a", "test_vit", "--size", "32", "--epochs", "1", "--log", str(log), "--workers", "0"]
    assert command([*WORDS, *words, "-o", str(tmp_path / "a.safetensors")]) == 0
    (line,) = log.read_text().splitlines()
    assert {"epoch", "loss", "accuracy", "lr"} <= json.loads(line).keys()


def test_a_validation_is_of_the_first_processs_statistics():
    """Running ones are each process's own while it trains; the average of weights has them too."""
    told = []

    class Watched(Ranks):
        def share_buffers(self, module):
            told.append(module)
            module.get_buffer("bn1.running_mean").fill_(3.0)

    samples = open_samples(TRAIN, SourceOptions(limit=32))
    for more in ({}, {"ema": 0.5}):
        options = replace(OPTIONS, epochs=1, **more)
        lesson = OBJECTIVES["supervised"].open(samples, samples, "test_resnet", options, Ranks())
        training = Training(lesson, options, Watched())
        measured = training.run(lambda crew: "x", None, lambda *_, **__: None)
        assert told.pop() is training.kept
        assert training.weights()["bn1.running_mean"].unique().tolist() == [3.0]
        assert lesson.validate(training.kept)["val_loss"] == measured["val_loss"]


def test_sets_are_opened_once_the_processes_have_met(tmp_path, monkeypatch):
    """So that only the first one makes remarks on them."""
    import nmlcli.stages.pretrain as stage
    from nmlcli.training import distributed

    met = []

    @contextmanager
    def joined():
        met.append(True)
        yield Ranks()

    def open_samples(*_):
        raise Opened(met)

    monkeypatch.setattr(distributed, "joined", joined)
    monkeypatch.setattr(stage, "open_samples", open_samples)
    with pytest.raises(Opened, match="True"):
        pretrain(TRAIN, "test_vit", str(tmp_path / "a.safetensors"), OPTIONS)


class Opened(Exception):  # noqa: N818
    pass
