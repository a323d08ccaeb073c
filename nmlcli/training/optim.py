"""Optimisers and learning-rate schedules, as callables of the step number."""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

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
    module: "Module",
    name: str,
    lr: float,
    weight_decay: float,
    momentum: float | None,
    *,
    betas: tuple[float, float] | None = None,
    eps: float | None = None,
) -> Optimizer:
    """An optimiser by timm's name.

    Biases and other vectors do not decay, nor do scalars such as the logit scale of CLIP, nor what the
    network itself names (no_weight_decay: embeddings of positions). momentum: None for 0.9; betas,
    eps: None for those that the optimiser has by itself. Raises UsageError, with the nearest names,
    where timm has no such optimiser, and where it does not take what is given.
    """
    from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

    known = [str(known) for known in list_optimizers()]
    if name not in known:
        near = get_close_matches(name, known)
        some = "take sgd, adamw, lamb, or another that timm.optim.list_optimizers() names"
        remedy = f"did you mean {', '.join(near)}?" if near else some
        raise UsageError(f"timm has no optimiser {name!r}", remedy)
    more = _settings(name, momentum, betas, eps)
    try:
        return create_optimizer_v2(module, name, lr, weight_decay, filter_bias_and_bn=True, **more)
    except (ImportError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"the optimiser {name} cannot be had: {error}") from error


def _settings(
    name: str, momentum: float | None, betas: tuple[float, float] | None, eps: float | None
) -> dict[str, Any]:
    """What is given of these; timm would pass over in silence what an optimiser has not."""
    from timm.optim import get_optimizer_info  # type: ignore[attr-defined]

    info = get_optimizer_info(name)
    if betas is not None and not (info.has_betas and info.num_betas == 2):
        raise UsageError(f"the optimiser {name} has no pair of betas", "leave out --betas")
    if eps is not None and not info.has_eps:
        raise UsageError(f"the optimiser {name} has no eps", "leave out --eps")
    if momentum is not None and not info.has_momentum:
        raise UsageError(f"the optimiser {name} has no momentum", "leave out --momentum")
    given = {"momentum": momentum, "betas": betas, "eps": eps}
    return {key: value for key, value in given.items() if value is not None}


def timm_schedule(
    optimiser: Optimizer,
    name: str,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int,
    *,
    warmup_steps: int | None = None,
) -> Schedule:
    """A schedule of SCHEDULES over all steps S, after a line from 0 over the first ones.

    Over warmup_epochs, or over warmup_steps N where those are given, the rate of step s is s/N of the
    group's; from step N on it is what the schedule has at s/S, so that the warm-up is part of it.
    Call before an optimiser's state is loaded: the rates found now are the ones to fall from. Raises
    UsageError where the warm-up leaves no step.
    """
    from timm.scheduler import create_scheduler_v2  # type: ignore[attr-defined]

    total = epochs * steps_per_epoch
    warmup = warmup_epochs * steps_per_epoch if warmup_steps is None else warmup_steps
    if warmup >= total:
        wrong = f"the warm-up of {warmup} steps leaves none of {total}"
        raise UsageError(wrong, "make it shorter, or give more --epochs")
    # An epoch of one step: timm counts warm-ups in epochs.
    scheduler, _ = create_scheduler_v2(
        optimiser, num_epochs=total, min_lr=0.0, warmup_lr=0.0, warmup_epochs=warmup,
        warmup_prefix=False, step_on_epochs=False, updates_per_epoch=1, **SCHEDULES[name].settings,
    )  # fmt: skip
    schedule: Schedule = scheduler.step_update
    return schedule
