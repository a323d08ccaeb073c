"""LOSSES: what a classifier's logits are trained by; a light menu."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PRESENT = 0.2  # more than this of a mixed label is the whole of it, as in timm's recipe


@dataclass(frozen=True)
class Loss:
    """mean: (logits [B, C], labels int64 [B] or shares [B, C], label smoothing) → a scalar."""

    help: str
    mean: "Callable[[Tensor, Tensor, float], Tensor]"


def _cross_entropy(logits: "Tensor", targets: "Tensor", label_smoothing: float) -> "Tensor":
    from torch.nn import functional

    return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def _binary_cross_entropy(logits: "Tensor", targets: "Tensor", label_smoothing: float) -> "Tensor":
    """The mean over all classes, each for itself (Wightman et al. 2021); label_smoothing spreads a
    share of each class that is there, and what mixing left above 0.2 of a label is wholly there."""
    from torch.nn import functional

    if targets.ndim == 1:
        targets = functional.one_hot(targets, logits.shape[1])
    present = (targets > _PRESENT).to(logits.dtype)
    smoothed = present * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return functional.binary_cross_entropy_with_logits(logits, smoothed)


LOSSES = {
    "ce": Loss("cross-entropy", _cross_entropy),
    "bce": Loss("binary cross-entropy of each class", _binary_cross_entropy),
}
