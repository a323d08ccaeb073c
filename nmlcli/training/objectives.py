"""What is minimised: a batch of examples in, `loss` and what to show out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nmlcli import keyed


class Examples(NamedTuple):
    """images: float32 [B, 3, H, W]. labels: int64 [B]. targets: these, or shares [B, C]."""

    images: Tensor
    labels: Tensor
    targets: Tensor


def supervised(
    module: torch.nn.Module, label_smoothing: float
) -> Callable[[Examples], dict[str, Tensor]]:
    """Cross-entropy of a classifier; shows the accuracy on the labels that it is given.

    label_smoothing takes this share of every target and spreads it over all classes.
    """

    def objective(batch: Examples) -> dict[str, Tensor]:
        logits: Tensor = module(batch.images).float()  # [B, C]
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=label_smoothing)
        accuracy = (logits.detach().argmax(1) == batch.labels).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    return objective


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
