"""The only training loop; what is trained on what, and to what end, its caller decides."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from nmlcli.errors import NmlError
from nmlcli.progress import Advance, silent

Batch = TypeVar("Batch")
Scalars = dict[str, Tensor]
Means = dict[str, float]

_SHOW_EVERY = 0.1  # seconds between two calls of advance: each waits for the device
_SHOWN_STEPS = 20  # what is shown is the mean over the latest steps


def fit(
    objective: Callable[[Batch], Scalars],
    batches: Callable[[int], Iterable[Batch]],
    optimiser: torch.optim.Optimizer,
    *,
    schedule: Callable[[int], None],
    epochs: int,
    steps_per_epoch: int,
    start_epoch: int = 0,
    autocast: AbstractContextManager[None] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    clip: float | None = None,
    after_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, Means], None] | None = None,
    advance: Advance = silent,
) -> None:
    """Minimise an objective over epochs of batches.

    objective(batch) gives "loss", a scalar with its gradient, and other detached scalars.
    batches(epoch) iterates one epoch. schedule(step) sets the learning rates before that step,
    counted from 0 over all epochs. clip bounds the norm of the gradient. after_epoch gets the epoch
    and the mean of every scalar over its steps. Raises NmlError, naming the step, where the loss
    is not finite.
    """
    scaler = scaler or torch.amp.GradScaler(enabled=False)  # which passes everything through
    total = epochs * steps_per_epoch
    step = start_epoch * steps_per_epoch
    shown = time.monotonic()
    for epoch in range(start_epoch, epochs):
        history: dict[str, list[Tensor]] = defaultdict(list)
        for batch in batches(epoch):
            schedule(step)
            optimiser.zero_grad(set_to_none=True)
            with autocast or nullcontext():
                values = objective(batch)
            _update(values["loss"], optimiser, scaler, clip)
            for name, value in values.items():
                history[name].append(value.detach())
            if after_step is not None:
                after_step(step)
            step += 1
            if time.monotonic() - shown > _SHOW_EVERY:
                advance(step, total, **_means(history, step, _SHOWN_STEPS))
                shown = time.monotonic()
        means = _means(history, step)
        advance(step, total, **means)
        if after_epoch is not None:
            after_epoch(epoch, means)


def _update(
    loss: Tensor, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: float | None
) -> None:
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if clip is not None:
        scaler.unscale_(optimiser)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimiser)
    scaler.update()


def _means(history: dict[str, list[Tensor]], done: int, latest: int = 0) -> Means:
    """Means over the latest steps (0: over this epoch's), in float64; one wait for the device.

    Raises NmlError where the loss is not finite; `done` steps are done in all.
    """
    kept = [torch.stack(values[-latest:]).double().mean() for values in history.values()]
    means = dict(zip(history, torch.stack(kept).tolist() if kept else [], strict=True))
    if not math.isfinite(means.get("loss", 0.0)):
        losses = history["loss"]
        bad = int(torch.nonzero(~torch.isfinite(torch.stack(losses)))[0])
        wrong = f"the loss of step {done - len(losses) + bad} is {losses[bad].item()}"
        raise NmlError(wrong, "lower the learning rate, train in float32, or look for huge inputs")
    return means
