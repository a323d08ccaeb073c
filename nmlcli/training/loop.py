"""The only training loop; what is trained on what, and to what end, its caller decides."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nmlcli.allocator import keep_freed_memory
from nmlcli.errors import NmlError
from nmlcli.progress import Advance, silent

Batch = TypeVar("Batch")
Scalars = dict[str, Tensor]
Means = dict[str, float]

_SHOW_EVERY = 0.1  # seconds between two calls of advance: each waits for the device
_SHOWN_STEPS = 20  # what is shown is the mean over the latest steps


class NotFinite(NmlError):  # noqa: N818
    """A loss or weights are infinite or not a number; the training cannot go on."""

    def __init__(self, wrong: str) -> None:
        super().__init__(wrong, "lower the learning rate, train in float32, or look for huge inputs")


@dataclass(frozen=True)
class Piece(Generic[Batch]):
    """A part of a batch, its share of it, and a context to compute it in."""

    batch: Batch
    share: float
    around: AbstractContextManager[None] = field(default_factory=nullcontext)


class Progress:
    """How far a training is: the steps done in all, and what each step of this epoch showed.

    It has a state, so that the means over an epoch with an interrupt are the same to the last digit.
    shared: makes the scalars of one process those of all that train together.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        shared: Callable[[Scalars], Scalars] = lambda values: values,
    ) -> None:
        self.step, self.device, self.shared = 0, device, shared
        self.values: dict[str, list[Tensor]] = defaultdict(list)

    def epoch(self, steps_per_epoch: int) -> int:
        """The epoch that this is in, until what follows its last step is done too."""
        return (self.step - len(self.values.get("loss", ()))) // max(1, steps_per_epoch)

    def add(self, values: Scalars) -> None:
        """Count a step, with its loss and other scalars."""
        for name, value in self.shared(values).items():
            self.values[name].append(value.detach())
        self.step += 1

    def means(self, latest: int = 0) -> Means:
        """Means over the latest steps (0: over this epoch's), in float64; one wait for the device.

        Raises NotFinite where the loss is not finite.
        """
        values = {name: each[-latest:] for name, each in self.values.items()}
        kept = [torch.stack(each).double().mean() for each in values.values()]
        means = dict(zip(values, torch.stack(kept).tolist() if kept else [], strict=True))
        if not math.isfinite(means.get("loss", 0.0)):
            losses = self.values["loss"]
            bad = int(torch.nonzero(~torch.isfinite(torch.stack(losses)))[0])
            raise NotFinite(f"the loss of step {self.step - len(losses) + bad} is {losses[bad].item()}")
        return means

    def state_dict(self) -> dict[str, Any]:
        """The steps done, and the shown scalars [steps of this epoch] by their names."""
        return {"step": self.step, "values": {n: torch.stack(v) for n, v in self.values.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave."""
        values = {name: list(each.to(self.device).unbind()) for name, each in state["values"].items()}
        self.step, self.values = int(state["step"]), defaultdict(list, values)


def fit(
    objective: Callable[[Batch], Scalars],
    batches: Callable[[int], Iterable[Batch]],
    optimiser: torch.optim.Optimizer,
    *,
    schedule: Callable[[int], None],
    epochs: int,
    steps_per_epoch: int,
    progress: Progress | None = None,
    autocast: AbstractContextManager[None] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    clip: float | None = None,
    pieces: Callable[[Batch], Iterable["Piece[Batch]"]] | None = None,
    around_step: Callable[[], AbstractContextManager[None]] = nullcontext,
    after_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, Means], None] | None = None,
    advance: Advance = silent,
) -> None:
    """Minimise an objective over epochs of batches.

    objective(batch) gives "loss", a scalar with its gradient, and other detached scalars.
    batches(epoch) iterates one epoch, the first one from where progress stands. schedule(step) sets
    the learning rates before that step, counted from 0 over all epochs. clip bounds the norm of the
    gradient. pieces(batch) are what is computed at a time: gradient and scalars of the batch are the
    means over them, by their shares. around_step() is entered for each step; after_step is part of it,
    and at its end progress counts it. after_epoch gets the epoch and the mean of every scalar over its
    steps. Raises NotFinite, naming the step, where the loss is not finite.
    """
    keep_freed_memory()
    scaler = scaler or torch.amp.GradScaler(enabled=False)  # which passes everything through
    progress = progress or Progress()
    total, start = epochs * steps_per_epoch, progress.epoch(steps_per_epoch)
    shown = time.monotonic()
    for epoch in range(start, epochs):
        if epoch > start:
            progress.values = defaultdict(list)
        for batch in batches(epoch):
            with around_step():
                schedule(progress.step)
                optimiser.zero_grad(set_to_none=True)
                values = _learned(objective, batch, pieces, scaler, autocast or nullcontext())
                _update(optimiser, scaler, clip)
                if after_step is not None:
                    after_step(progress.step)
                progress.add(values)
            if time.monotonic() - shown > _SHOW_EVERY:
                advance(progress.step, total, **progress.means(_SHOWN_STEPS))
                shown = time.monotonic()
        means = progress.means()
        advance(progress.step, total, **means)
        if after_epoch is not None:
            after_epoch(epoch, means)


def _learned(
    objective: Callable[[Batch], Scalars],
    batch: Batch,
    pieces: Callable[[Batch], Iterable["Piece[Batch]"]] | None,
    scaler: torch.amp.GradScaler,
    autocast: AbstractContextManager[None],
) -> Scalars:
    """Add the gradient of a batch to the parameters'; returns its scalars."""
    if pieces is None:
        with autocast:
            values = objective(batch)
        scaler.scale(values["loss"]).backward()  # type: ignore[no-untyped-call]
        return values
    means: Scalars = {}
    for piece in pieces(batch):
        with piece.around:
            with autocast:
                values = objective(piece.batch)
            scaler.scale(piece.share * values["loss"]).backward()  # type: ignore[no-untyped-call]
        for name, value in values.items():
            part = piece.share * value.detach()
            means[name] = means[name] + part if name in means else part
    return means


def _update(optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: float | None) -> None:
    if clip is not None:
        scaler.unscale_(optimiser)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimiser)
    scaler.update()
