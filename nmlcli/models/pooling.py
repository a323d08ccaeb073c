"""POOLINGS: how what a layer says of many positions becomes one row of features. A light menu."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pool:
    """states: [B, T, D], kept: bool [B, T], the positions that count, at least one in a row; to [B, D].
    of_order: whether the places of positions matter, which only sequences of tokens have."""

    help: str
    pool: "Callable[[Tensor, Tensor], Tensor]"
    of_order: bool = False


def _mean(states: "Tensor", kept: "Tensor") -> "Tensor":
    weights = kept.to(states.dtype).unsqueeze(2)
    return (states * weights).sum(1) / weights.sum(1)


def _max(states: "Tensor", kept: "Tensor") -> "Tensor":
    return states.masked_fill(~kept.unsqueeze(2), float("-inf")).amax(1)


def _cls(states: "Tensor", kept: "Tensor") -> "Tensor":
    return states[:, 0]


def _last(states: "Tensor", kept: "Tensor") -> "Tensor":
    import torch

    places = torch.arange(kept.shape[1], device=kept.device)
    return states[torch.arange(len(states), device=kept.device), (kept * places).argmax(1)]


POOLINGS = {
    "mean": Pool("their mean", _mean),
    "max": Pool("the largest of each column", _max),
    "cls": Pool("the first token", _cls, of_order=True),
    "last": Pool("the last token", _last, of_order=True),
}
