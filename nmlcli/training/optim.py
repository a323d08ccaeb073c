"""Optimisers and learning-rate schedules, as callables of the step number."""

import math
from collections.abc import Callable

from torch.optim import Optimizer

Schedule = Callable[[int], None]


def cosine(
    optimiser: Optimizer,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
    final: float = 0.0,
) -> Schedule:
    """Half a cosine a step, from each group's own rate towards `final` at step total_steps.

    Over the first warmup_steps the rate rises linearly from warmup_lr. Call before an optimiser's
    state is loaded: the rates found now are the ones to fall from.
    """
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    falling = max(1, total_steps - warmup_steps)

    def schedule(step: int) -> None:
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            if step < warmup_steps:
                group["lr"] = warmup_lr + (rate - warmup_lr) * step / warmup_steps
            else:
                part = min(1.0, (step - warmup_steps) / falling)
                group["lr"] = final + (rate - final) * (1 + math.cos(math.pi * part)) / 2

    return schedule
