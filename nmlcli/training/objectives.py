"""What is minimised: a batch of examples in, `loss` and what to show out."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nmlcli import keyed
from nmlcli.numerics.contrastive import contrastive_loss
from nmlcli.training.distributed import Ranks
from nmlcli.training.losses import LOSSES


class Examples(NamedTuple):
    """images: float32 [B, 3, H, W]. labels: int64 [B]. targets: these, or shares [B, C]."""

    images: Tensor
    labels: Tensor
    targets: Tensor


class Pairs(NamedTuple):
    """images: float32 [B, 3, H, W]. tokens: int64 [B, T], of their captions. keys: int64 [B, K], what
    twins share: see `numerics.contrastive`."""

    images: Tensor
    tokens: Tensor
    keys: Tensor


def supervised(
    forward: Callable[[Tensor], Tensor], label_smoothing: float, loss: str = "ce"
) -> Callable[[Examples], dict[str, Tensor]]:
    """The loss of a classifier by its name in LOSSES; shows the accuracy on the labels it is given.

    label_smoothing takes this share of every target and spreads it over all classes.
    """
    loss_of = LOSSES[loss].mean

    def objective(batch: Examples) -> dict[str, Tensor]:
        logits = forward(batch.images).float()  # [B, C]
        accuracy = (logits.detach().argmax(1) == batch.labels).float().mean()
        return {"loss": loss_of(logits, batch.targets, label_smoothing), "accuracy": accuracy}

    return objective


def parts_of(count: int, micro_batch: int) -> int:
    """How many parts a batch of `count` has, as equal as may be, where none is larger than micro_batch.

    A part of one that is left over would have no variance for batch norm.
    """
    return -(-count // micro_batch)


def contrastive(
    module: nn.Module, ranks: Ranks, micro_batch: int | None
) -> Callable[[Pairs], dict[str, Tensor]]:
    """The contrastive loss of a network of open_clip over the pairs of all processes.

    Its mean over the processes, and the mean of their gradients, are those of one process with all
    pairs. micro_batch: pairs whose activations are in memory at a time; they are computed once more for
    the gradient, which stays that of the whole batch, but for the statistics of batch norm, which are
    those of the pairs computed at a time.
    """

    def encode(images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = module(images, tokens)
        return found[0], found[1], found[2]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _steady(module)

    def embedded(batch: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        if micro_batch is None or micro_batch >= len(batch.images):
            return encode(batch.images, batch.tokens)
        count = parts_of(len(batch.images), micro_batch)
        halves = (whole.tensor_split(count) for whole in (batch.images, batch.tokens))
        parts = zip(*halves, strict=True)
        done = [checkpoint(encode, *part, use_reentrant=False, context_fn=contexts) for part in parts]
        return torch.cat([part[0] for part in done]), torch.cat([part[1] for part in done]), done[0][2]

    def objective(batch: Pairs) -> dict[str, Tensor]:
        images, texts, scale = embedded(batch)
        own = slice(ranks.rank * len(images), (ranks.rank + 1) * len(images))
        with torch.autocast(images.device.type, enabled=False):  # logits of up to 100 need all digits
            loss, accuracy = contrastive_loss(
                ranks.gathered(images.float()), ranks.gathered(texts.float()), scale.float(),
                ranks.gathered(batch.keys), own,
            )  # fmt: skip
        return {"loss": loss, "accuracy": accuracy, "temperature": 1 / scale.detach().float()}

    return objective


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The layers of a network that look at other samples than their own."""
    return [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def _steady(module: nn.Module) -> Iterator[None]:
    """Batch norm in here does not remember the statistics of its batch: it did before."""
    norms = batch_norms(module)
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


class Mixer:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) as in timm, drawn anew for every step.

    alphas are those of the Beta distributions; 0 turns one off, with both a coin decides.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int, seed: int) -> None:
        from timm.data.mixup import Mixup

        self.seed = seed
        # Smoothing is the objective's business; timm would take 0.1 of it. The rest is as timm has it.
        self.mix: Any = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=num_classes)  # type: ignore[no-untyped-call]

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> Examples:
        from nmlcli.training.pixels import TURNS

        with TURNS:
            np.random.seed(keyed.scalar(self.seed, f"mix in step {step}") % 2**32)
            mixed, targets = self.mix(images, labels)
        return Examples(mixed, labels, targets)
