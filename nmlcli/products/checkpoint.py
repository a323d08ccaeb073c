"""A checkpoint: a trained network's weights under timm's or open_clip's own names, with its record."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Container, require_record
from nmlcli.provenance import KEY, Record

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """weights: the state dict. record: model.name is the architecture, model.config what open_clip
    builds it from; classes, data and noise are those of the training; model.preprocessing is what
    happens to images."""

    record: Record
    weights: "dict[str, Tensor]"
    source: str


def load_checkpoint(container: Container) -> Checkpoint:
    """Read a checkpoint by its checked header; the library reads the weights."""
    from safetensors.torch import load_file

    record = require_record(container, "checkpoint")
    if container.path is None:
        raise InvalidInput(f"{container.source} is a pipe", "save the checkpoint to a file")
    return Checkpoint(record, load_file(container.path), container.source)


def save_checkpoint(checkpoint: Checkpoint, file: BinaryIO) -> None:
    """Write a state dict as the library does, which orders it so that every tensor is aligned."""
    from safetensors.torch import save

    # The library refuses tensors that share memory or are not contiguous.
    weights = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.weights.items()
    }
    file.write(save(weights, metadata={KEY: checkpoint.record.to_json()}))
    file.flush()
