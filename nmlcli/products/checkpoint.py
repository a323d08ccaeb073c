"""A checkpoint: the weights of a trained network under timm's own names, with its record."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nmlcli.provenance import Record

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """weights: the state dict. record: model.name is the architecture; classes, data and noise are
    those of the training; extra holds what building the network needs (image size, mean, std)."""

    record: Record
    weights: "dict[str, Tensor]"
    source: str
