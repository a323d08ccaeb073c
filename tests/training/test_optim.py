"""Schedules against their formulas, optimisers by name."""

import math

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


def test_optimisers_of_timm_spare_biases_from_decay():
    module = torch.nn.Linear(3, 2)
    optimiser = timm_optimiser(module, "adamw", 0.01, 0.5, 0.9)
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert isinstance(optimiser, torch.optim.AdamW)
    assert decays == {id(module.weight): 0.5, id(module.bias): 0.0}


def test_an_unknown_optimiser_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'adamww': did you mean adamw"):
        timm_optimiser(torch.nn.Linear(3, 2), "adamww", 0.01, 0.0, 0.9)
