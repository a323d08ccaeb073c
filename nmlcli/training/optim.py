"""Optimisers and learning-rate schedules, as callables of the step number."""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from torch.optim import Optimizer

from nmlcli.errors import UsageError
from nmlcli.training.schedules import SCHEDULES

if TYPE_CHECKING:
    from torch.nn import Module

Schedule = Callable[[int], None]


def cosine(optimiser: Optimizer, total_steps: int) -> Schedule:
    """Half a cosine, step by step, from each group's own rate to 0 at step total_steps."""
    rates = [float(group["lr"]) for group in optimiser.param_groups]

    def schedule(step: int) -> None:
        part = min(1.0, step / max(1, total_steps))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * part)) / 2

    return schedule


def timm_optimiser(
    module: "Module", name: str, lr: float, weight_decay: float, momentum: float
) -> Optimizer:
    """An optimiser by timm's name; biases and other vectors do not decay.

    Raises UsageError, with the nearest names, where timm has no such optimiser.
    """
    from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

    known = [str(known) for known in list_optimizers()]
    if name not in known:
        near = get_close_matches(name, known)
        remedy = f"did you mean {', '.join(near)}?" if near else f"choose from {', '.join(known)}"
        raise UsageError(f"timm has no optimiser {name!r}", remedy)
    try:
        return create_optimizer_v2(module, name, lr, weight_decay, momentum, filter_bias_and_bn=True)
    except (ImportError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"the optimiser {name} cannot be had: {error}") from error


def timm_schedule(
    optimiser: Optimizer, name: str, epochs: int, steps_per_epoch: int, warmup_epochs: int
) -> Schedule:
    """A schedule of SCHEDULES over all steps, after a line from 0 over the first warmup_epochs.

    Call before an optimiser's state is loaded: the rates found now are the ones to fall from.
    """
    from timm.scheduler import create_scheduler_v2  # type: ignore[attr-defined]

    scheduler, _ = create_scheduler_v2(
        optimiser, num_epochs=epochs, min_lr=0.0, warmup_lr=0.0, warmup_epochs=warmup_epochs,
        warmup_prefix=False, step_on_epochs=False, updates_per_epoch=steps_per_epoch,
        **SCHEDULES[name].settings,
    )  # fmt: skip
    schedule: Schedule = scheduler.step_update
    return schedule
