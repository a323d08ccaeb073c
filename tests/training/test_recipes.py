"""Recipes: every file says what pretrain takes, and its network, optimiser and policy can be had."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from nmlcli import keyed
from nmlcli.models.clip import build_clip
from nmlcli.models.precision import PRECISIONS
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.stages.pretrain_options import PretrainOptions
from nmlcli.training.augmentation import Draws, Geometry, Strength
from nmlcli.training.optim import timm_optimiser, timm_schedule
from nmlcli.training.pixels import RandomCrops
from nmlcli.training.recipes import FOLDER, OPTIONS, RECIPES, Recipe, architecture_file

every = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
HEAD = 'help = "Something."\n[options]\narch = "resnet18"\nobjective = "supervised"\n'
ABOUT = '[about]\ncommand = "a"\ncost = "b"\nsource = "c"\n'


def test_the_menu_is_the_folder():
    assert list(RECIPES) == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert {"resnet50-in1k", "vit-b16-in1k", "rn50-yfcc15m", "clip-tiny"} < set(RECIPES)
    assert all(name == recipe.name for name, recipe in RECIPES.items())


@every
def test_a_recipe_can_be_read_by_people(recipe):
    assert recipe.text == (FOLDER / f"{recipe.name}.toml").read_text(encoding="utf-8")
    assert max(map(len, recipe.text.splitlines())) <= 80
    assert recipe.text.endswith("\n") and not re.search(r"[ \t]$", recipe.text, re.MULTILINE)
    assert 20 < len(recipe.help) < 80
    words = shlex.split(recipe.about["command"])
    assert words[:4] == ["nml", "pretrain", "--recipe", recipe.name]
    assert "\n" not in recipe.about["command"]
    assert words[words.index("-o") + 1].endswith(".safetensors")
    other = "--labels" if recipe.options["objective"] == "clip" else "--captions"
    assert other not in words
    assert re.search(r"\d+ (hours|minutes)", recipe.about["cost"])
    assert "easured" in recipe.about["cost"]


@every
def test_a_recipe_s_network_is_known_to_its_library(recipe):
    arch = recipe.options["arch"]
    if recipe.options["objective"] == "supervised":
        assert timm.is_model(arch)
    else:
        assert arch in open_clip.list_models() or architecture_file(arch)


@every
def test_a_recipe_s_optimiser_and_schedule_can_be_had_and_end_at_0(recipe):
    options = recipe.options
    module = torch.nn.Linear(2, 2)
    optimiser = timm_optimiser(
        module, options["opt"], options["lr"], options["weight_decay"], options.get("momentum"),
        betas=options.get("betas"), eps=options.get("eps"),
    )  # fmt: skip
    group = optimiser.param_groups[-1]
    assert group["weight_decay"] == options["weight_decay"]
    assert group.get("betas") == options.get("betas", group.get("betas"))
    epochs, steps, warmup = options["epochs"], 1000, options.get("warmup_steps")
    schedule = timm_schedule(
        optimiser, options["sched"], epochs, steps, options.get("warmup_epochs", 0), warmup_steps=warmup
    )
    peak = options.get("warmup_epochs", 0) * steps if warmup is None else warmup
    rates = []
    for step in (0, peak // 2, peak, epochs * steps - 1, epochs * steps):
        schedule(step)
        rates.append(group["lr"] / options["lr"])
    assert rates[0] == (0 if peak else 1)
    assert rates[1] == pytest.approx(0.5 if peak else 1, abs=0.01)
    assert 0.5 < rates[2] <= 1  # the warm-up is part of the schedule
    assert rates[3] < 1e-6
    assert rates[4] == 0


@every
def test_a_recipe_s_images_can_be_made(recipe):
    options = recipe.options
    if options["augment"] != "crop":
        assert not {"scale", "color_jitter", "auto_augment", "reprob"} & options.keys()
        return
    draws = Draws(keyed.hash_ids(["a"]), 0, 0)
    strength = Strength(options["scale"], options["hflip"], policy=options.get("auto_augment"))
    made = RandomCrops(Geometry(options["size"], "bicubic", (124, 116, 104)), draws, strength)
    pixels = np.random.default_rng(0).integers(0, 256, (180, 250, 3), dtype=np.uint8)
    assert made(Image.fromarray(pixels), 0).shape == (3, options["size"], options["size"])


@every
def test_a_recipe_s_words_are_those_of_the_menus_that_it_cannot_see(recipe):
    assert recipe.options["precision"] in PRECISIONS
    assert recipe.options["objective"] in OBJECTIVES
    mixed = {"mixup", "cutmix"} & recipe.options.keys()
    assert not mixed or recipe.options["batch_size"] % 2 == 0
    assert recipe.options["batch_size"] % recipe.options.get("micro_batch", 1) == 0


def test_options_are_those_of_pretrain():
    known = {field.name for each in (PretrainOptions, Strength) for field in fields(each)}
    assert OPTIONS.keys() - known == {"arch", "auto_augment"}
    assert set(OPTIONS["objective"]) == set(OBJECTIVES)


def test_numbers_arrive_as_the_options_take_them():
    recipe = Recipe("one", f"{HEAD}clip = 1\nepochs = 3\nbetas = [0, 0.5]\n{ABOUT}")
    options = recipe.options
    assert (options["clip"], options["epochs"], options["betas"]) == (1.0, 3, (0.0, 0.5))
    assert [type(v) for v in (options["clip"], options["epochs"], *options["betas"])] == [
        float, int, float, float,
    ]  # fmt: skip
    assert recipe.about == {"command": "a", "cost": "b", "source": "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}epoch = 3\n{ABOUT}", r"one.toml: \[options\]: 'epoch' is none of arch, objective"),
        (f"{HEAD}epochs = 3.0\n{ABOUT}", "one.toml: epochs is 3.0, not a whole number"),
        (f"{HEAD}epochs = true\n{ABOUT}", "one.toml: epochs is True, not a whole number"),
        (f'{HEAD}lr = "0.1"\n{ABOUT}', "one.toml: lr is '0.1', not a number"),
        (f"{HEAD}clip = false\n{ABOUT}", "one.toml: clip is False, not a number"),
        (f"{HEAD}opt = 3\n{ABOUT}", "one.toml: opt is 3, not a text"),
        (f"{HEAD}betas = [0.9]\n{ABOUT}", r"one.toml: betas is \[0.9\], not two numbers"),
        (f"{HEAD}betas = 0.9\n{ABOUT}", "one.toml: betas is 0.9, not two numbers"),
        (f'{HEAD}betas = [0.9, "a"]\n{ABOUT}', "one.toml: betas is 'a', not a number"),
        (f'{HEAD}sched = "cos"\n{ABOUT}', "one.toml: sched is 'cos', not one of cosine, linear"),
        (f"{HEAD}loss = [1]\n{ABOUT}", r"one.toml: loss is \[1\], not one of ce, bce"),
        (HEAD.replace("arch", "opt") + ABOUT, r"one.toml: \[options\]: 'arch' is missing"),
        (HEAD, "one.toml: 'about' is missing"),
        (HEAD + ABOUT.replace("cost", "price"), r"one.toml: \[about\]: 'price' is none of command"),
        (HEAD + ABOUT.replace('"b"', "3"), "one.toml: cost is 3, not a text"),
        (HEAD + '[about]\ncommand = "a"', r"one.toml: \[about\]: 'cost' is missing"),
        (f"seed = 3\n{HEAD}{ABOUT}", "one.toml: 'seed' is none of help, options, about"),
        ('help = "x"\noptions = 3\nabout = 3', "one.toml: options is no table"),
        (f"\n{HEAD}{ABOUT}", "one.toml: the first line is '', not help"),
        (f"{HEAD}lr = \n{ABOUT}", "one.toml: Invalid value"),
    ],
)
def test_a_wrong_recipe_is_named_with_its_key(text, message):
    with pytest.raises(ValueError, match=message):
        _ = Recipe("one", text).options
    with pytest.raises(ValueError, match=message):
        _ = Recipe("one", text).about


def test_a_configuration_beside_the_recipes_is_found_by_its_bare_name_only():
    assert architecture_file("clip-tiny.json") == FOLDER / "clip-tiny.json"
    here = str(FOLDER / "clip-tiny.json")
    for other in ("resnet50", "other.json", "clip-tiny.toml", "clip-tiny", "", ".", here):
        assert architecture_file(other) is None
    for other in ("../recipes/clip-tiny.json", "./clip-tiny.json", "recipes/clip-tiny.json"):
        assert architecture_file(other) is None


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_configuration_that_is_shipped_builds_a_network_that_learns_pairs(path):
    assert path.name in {recipe.options["arch"] for recipe in RECIPES.values()}
    network = build_clip(str(path), None, 0)
    assert network.label == path.stem
    size, module = network.preprocessing.size, network.module
    assert size == RECIPES[path.stem].options["size"]
    tokens = torch.stack(network.tokenizer(["a red star on blue", "two cats"], None))
    images, texts, scale = module(torch.rand(2, 3, size, size), tokens)[:3]
    assert images.shape == texts.shape == (2, network.config["embed_dim"])
    assert float(scale.detach()) == pytest.approx(1 / 0.07)
    assert sum(parameter.numel() for parameter in module.parameters()) < 10_000_000


def test_the_menu_is_light():
    """Names and helps are there without numpy, and without a parser of TOML."""
    lines = (
        "import sys; from nmlcli.training.recipes import RECIPES;"
        "[recipe.help for recipe in RECIPES.values()];"
        "sys.exit(', '.join({'numpy', 'torch', 'tomllib'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", lines], env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
