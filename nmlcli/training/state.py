"""What a training needs to go on after an interrupt, in one file beside its product."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput

_BROKEN = (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError)


class Stateful(Protocol):
    """What has a state: networks, optimisers, scalers of the loss."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def save_state(path: Path, identity: str, epoch: int, parts: Mapping[str, Stateful]) -> None:
    """Save the states of all parts after `epoch` epochs, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with replacing(path) as temporary:
        torch.save({"identity": identity, "epoch": epoch, "parts": state}, temporary)


def load_state(path: Path, identity: str, parts: Mapping[str, Stateful]) -> int:
    """Load the states of all parts; returns how many epochs are done.

    Raises InvalidInput where the file is damaged, or belongs to another training.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["identity"] != identity:
            remedy = "repeat those, or leave --resume out to start anew"
            raise InvalidInput(f"{path} belongs to a training with other data or options", remedy)
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
        return int(saved["epoch"])
    except (*_BROKEN, OSError) as error:
        raise InvalidInput(f"{path} is damaged", "remove it and start anew") from error
