"""Linear probes tuned side by side: those of one seed share a matrix product a step.

A step of one linear probe costs more in calls than in arithmetic. Heads with layers of their own gain
nothing by this and are `heads.train`'s business.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nmlcli.progress import Advance, silent
from nmlcli.training.loop import Means, NotFinite, Scalars, fit
from nmlcli.tuning.criteria import LOSSES, Circumstances
from nmlcli.tuning.heads import SCHEDULES, TrainableHead, batch_indices, steps_per_epoch
from nmlcli.tuning.presets import Settings

Batches = list[tuple[Tensor, Tensor, Tensor]]  # of each seed: features [B, D], labels, rows' numbers

# Weights of a classifier from which on its products outweigh the calls, and of all in a step; numbers
# that losses may remember of rows.
_LARGE, _MANY, _REMEMBERED = 1 << 16, 1 << 20, 1 << 26


@dataclass(frozen=True)
class Probe:
    """A linear probe to be tuned, and the keys of its draws."""

    head: TrainableHead
    settings: Settings
    seed: int


def together(settings: Sequence[Settings], rows: int, width: int, classes: int) -> Iterator[slice]:
    """Cut heads in a row into runs to tune at once: linear probes with equal batches and epochs.

    rows: N. width: D. classes: C. Whatever else gains nothing is a run of its own.
    """
    weights = width * classes
    start = 0
    for end in range(1, len(settings) + 1):
        most = _MANY // weights if weights < _LARGE and not settings[start].layers else 1
        if LOSSES[settings[start].loss].by_row:
            most = min(most, _REMEMBERED // (rows * classes))
        full = end - start >= most
        if full or end == len(settings) or _shape(settings[end]) != _shape(settings[start]):
            yield slice(start, end)
            start = end


def train_together(
    probes: Sequence[Probe],
    features: Tensor,
    labels: Tensor,
    *,
    transition: NDArray[np.float64] | None = None,
    after_epoch: Callable[[int, Sequence[Means]], None] | None = None,
    advance: Advance = silent,
) -> None:
    """Train linear probes, a run of `together`, on features [N, D] float32 and labels [N] in memory.

    Each comes out as from `heads.train`: to the byte where no other has its seed, else but for the
    order of sums in a shared product. after_epoch gets the means of each; a probe whose loss is not
    finite does not move the others. Raises NotFinite where that is so of all.
    """
    settings = probes[0].settings
    steps = steps_per_epoch(len(features), settings.batch_size)
    shares = [[p for p in probes if p.seed == seed] for seed in dict.fromkeys(p.seed for p in probes)]
    about = Circumstances(len(features), probes[0].head.classifier.out_features, transition)
    criteria = {id(p): LOSSES[p.settings.loss].build(p.settings, about) for p in probes}

    def batches(epoch: int) -> Iterator[Batches]:
        size = settings.batch_size
        cut = [batch_indices(len(features), size, share[0].seed, epoch) for share in shares]
        for indices in zip(*cut, strict=True):
            yield [(features.index_select(0, i), labels.index_select(0, i), i) for i in indices]

    def objective(batch: Batches) -> Scalars:
        told: dict[int, Mapping[str, Tensor]] = {}
        for share, (rows, truth, numbers) in zip(shares, batch, strict=True):
            for probe, logits in zip(share, _logits(share, rows), strict=True):
                told[id(probe)] = criteria[id(probe)](logits, truth, numbers)
        return _told([told[id(probe)] for probe in probes])

    def each(epoch: int, means: Means) -> None:
        if after_epoch is not None:
            after_epoch(epoch, _split(means, len(probes)))
        if not _finite_losses(means, len(probes)):
            raise NotFinite(f"no loss of epoch {epoch + 1} is finite")

    def shown(done: int, total: int | None, **values: float | str) -> None:
        kept = _finite_losses(values, len(probes))
        mean = sum(kept) / len(kept) if kept else math.nan
        advance(len(probes) * done, total and len(probes) * total, loss=mean)

    optimiser = torch.optim.AdamW(_groups(probes), fused=True)
    fit(
        objective, batches, optimiser,
        schedule=SCHEDULES[settings.schedule](optimiser, settings.epochs * steps),
        epochs=settings.epochs, steps_per_epoch=steps, after_epoch=each, advance=shown,
    )  # fmt: skip


def _shape(settings: Settings) -> tuple[object, ...]:
    """What heads have to have in common."""
    remembers = LOSSES[settings.loss].by_row
    return settings.layers, settings.batch_size, settings.epochs, settings.schedule, remembers


def _groups(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Parameters by rate and decay: each group costs as many calls as a probe alone."""
    found: dict[tuple[float, float], list[Tensor]] = {}
    for probe in probes:
        kind = probe.settings.lr, probe.settings.weight_decay
        found.setdefault(kind, []).extend(probe.head.parameters())
    return [{"params": each, "lr": lr, "weight_decay": decay} for (lr, decay), each in found.items()]


def _logits(share: Sequence[Probe], rows: Tensor) -> Sequence[Tensor]:
    """The logits [B, C] of each probe of a seed, by one product."""
    classifiers = [probe.head.classifier for probe in share]
    if len(classifiers) == 1:
        return [classifiers[0](rows)]
    weight, bias = torch.cat([c.weight for c in classifiers]), torch.cat([c.bias for c in classifiers])
    return F.linear(rows, weight, bias).chunk(len(share), dim=1)


def _told(values: Sequence[Mapping[str, Tensor]]) -> Scalars:
    """What a step shows: the sum of the losses that are finite, and each probe's own by its number."""
    losses = torch.stack([each["loss"] for each in values])
    kept = torch.where(losses.detach().isfinite(), losses, 0.0).double()  # whose sum stays finite
    own = {
        f"{number} {name}": value.detach()
        for number, each in enumerate(values)
        for name, value in each.items()
    }
    return {"loss": kept.sum(), **own}


def _split(means: Means, count: int) -> list[Means]:
    """The means of each probe."""
    own: list[Means] = [{} for _ in range(count)]
    for name, value in means.items():
        number, space, rest = name.partition(" ")
        if space:
            own[int(number)][rest] = value
    return own


def _finite_losses(values: Mapping[str, float | str], count: int) -> list[float]:
    losses = (float(values[f"{number} loss"]) for number in range(count))
    return [loss for loss in losses if math.isfinite(loss)]
