"""Schedules against their formulas, optimisers by name and against their own."""

import json
import logging
import math

import numpy as np
import open_clip
import pytest
import torch

from nmlcli.errors import UsageError
from nmlcli.training.optim import cosine, timm_optimiser, timm_schedule
from nmlcli.training.schedules import SCHEDULES


def rates(schedule, optimiser, steps):
    found = []
    for step in range(steps):
        schedule(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def sgd(lr=0.4):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=lr)


def test_cosine_falls_from_each_group_s_own_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.1)]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    schedule = cosine(optimiser, 10)
    for step in (0, 3, 9, 10, 12):
        schedule(step)
        part = (1 + math.cos(math.pi * min(step, 10) / 10)) / 2
        for group, start in zip(optimiser.param_groups, (0.4, 0.1), strict=True):
            assert group["lr"] == pytest.approx(start * part)


FORMULAS = {
    "cosine": lambda part: 0.2 * (1 + math.cos(math.pi * part)),
    "linear": lambda part: 0.4 * (1 - part),
    "constant": lambda part: 0.4,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_their_formula_after_a_rising_line(name):
    optimiser = sgd()
    schedule = timm_schedule(optimiser, name, epochs=5, steps_per_epoch=4, warmup_epochs=1)
    expected = [0.1 * step for step in range(4)] + [FORMULAS[name](s / 20) for s in range(4, 20)]
    assert rates(schedule, optimiser, 20) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 7, 19])
def test_a_warm_up_of_steps_rises_from_0_and_is_part_of_the_schedule(name, warmup):
    optimiser = sgd()
    schedule = timm_schedule(optimiser, name, 5, 4, 3, warmup_steps=warmup)  # not 3 epochs
    expected = [FORMULAS[name](s / 20) if s >= warmup else 0.4 * s / warmup for s in range(20)]
    assert rates(schedule, optimiser, 20) == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_in_each_unit_is_the_same_to_the_last_bit():
    found = []
    for epochs, steps in ((2, None), (0, 26)):
        optimiser = sgd(0.1)
        schedule = timm_schedule(optimiser, "cosine", 7, 13, epochs, warmup_steps=steps)
        found.append(rates(schedule, optimiser, 91))
    assert found[0] == found[1]


@pytest.mark.parametrize("more", [{"warmup_epochs": 2}, {"warmup_epochs": 0, "warmup_steps": 9}])
def test_a_warm_up_leaves_steps_to_learn_in(more):
    with pytest.raises(UsageError, match=r"the warm-up of \d+ steps leaves none of 8: make it shorter"):
        timm_schedule(sgd(), "cosine", 2, 4, **more)


def test_optimisers_of_timm_spare_biases_from_decay():
    module = torch.nn.Linear(3, 2)
    optimiser = timm_optimiser(module, "adamw", 0.01, 0.5, None)
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert isinstance(optimiser, torch.optim.AdamW)
    assert decays == {id(module.weight): 0.5, id(module.bias): 0.0}


def test_an_unknown_optimiser_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'adamww': did you mean adamw"):
        timm_optimiser(torch.nn.Linear(3, 2), "adamww", 0.01, 0.0, 0.9)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("sgd", {"betas": (0.9, 0.98)}, "sgd has no pair of betas: leave out --betas"),
        ("adan", {"betas": (0.9, 0.98)}, "adan has no pair of betas"),  # it has three
        ("sgd", {"eps": 1e-6}, "sgd has no eps: leave out --eps"),
        ("lion", {"eps": 1e-6}, "lion has no eps"),
        ("adamw", {"betas": (0.9, 1.5)}, "adamw cannot be had"),
    ],
)
def test_an_optimiser_is_not_given_what_it_has_not(name, more, message):
    with pytest.raises(UsageError, match=message):
        timm_optimiser(torch.nn.Linear(3, 2), name, 0.01, 0.0, None, **more)


RATE, DECAY, BETAS, EPS = 0.1, 0.3, (0.6, 0.7), 0.05


def by_adamw(weights, gradients):
    """Loshchilov and Hutter 2019, Algorithm 2; weights [2] tensors, the second does not decay."""
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, together in enumerate(gradients, start=1):
        for i, gradient in enumerate(together):
            first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * gradient
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * gradient**2
            corrected = first[i] / (1 - BETAS[0] ** step), second[i] / (1 - BETAS[1] ** step)
            decayed = weights[i] * (1 - RATE * DECAY * (i == 0))
            weights[i] = decayed - RATE * corrected[0] / (np.sqrt(corrected[1]) + EPS)
    return weights


def by_lamb(weights, gradients):
    """You et al. 2020, Algorithm 2, as apex and timm have it: gradients are first scaled down to a norm
    of 1 in all, and what does not decay takes Adam's step as it is."""
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, together in enumerate(gradients, start=1):
        norm = max(1.0, math.sqrt(sum((gradient**2).sum() for gradient in together)))
        for i, gradient in enumerate(together):
            first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * gradient / norm
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * (gradient / norm) ** 2
            corrected = first[i] / (1 - BETAS[0] ** step), second[i] / (1 - BETAS[1] ** step)
            update = corrected[0] / (np.sqrt(corrected[1]) + EPS)
            if i == 0:
                update = update + DECAY * weights[i]
                update *= np.linalg.norm(weights[i]) / np.linalg.norm(update)
            weights[i] = weights[i] - RATE * update
    return weights


@pytest.mark.parametrize(("name", "transcribed"), [("adamw", by_adamw), ("lamb", by_lamb)])
def test_betas_eps_rate_and_decay_arrive_where_the_papers_have_them(name, transcribed):
    module = torch.nn.Linear(3, 2).double()
    optimiser = timm_optimiser(module, name, RATE, DECAY, None, betas=BETAS, eps=EPS)
    draws = np.random.default_rng(0)
    parameters = [module.weight, module.bias]
    gradients = [[draws.normal(size=p.shape) for p in parameters] for _ in range(4)]
    expected = transcribed([p.detach().numpy().copy() for p in parameters], gradients)
    for together in gradients:
        for parameter, gradient in zip(parameters, together, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        optimiser.step()
    for parameter, wanted in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=1e-6)


def test_what_decays_of_a_network_of_open_clip_is_what_decays_in_open_clip(tmp_path, monkeypatch):
    """As open_clip_train.main divides them, but for the embedding of positions, which its networks
    name as one that does not decay."""
    monkeypatch.setattr(logging.root, "handlers", [logging.NullHandler()])
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 1, "layers": 1}
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 16, "layers": 1}
    path = tmp_path / "decaying.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    module = open_clip.create_model("decaying")
    optimiser = timm_optimiser(module, "adamw", 1e-3, 0.1, None, betas=(0.9, 0.98), eps=1e-6)
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        spared = parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        spared = spared or name in ("positional_embedding", "visual.positional_embedding")
        assert decays.pop(id(parameter)) == (0.0 if spared else 0.1), name
    assert not decays
    assert module.logit_scale.ndim == 0
