"""OBJECTIVES: what a network can be pre-trained for; a light menu, whose rows open other modules."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nmlcli.data.samples import Samples
    from nmlcli.models.preprocessing import Preprocessing
    from nmlcli.progress import Advance
    from nmlcli.stages.pretrain_options import PretrainOptions
    from nmlcli.training.distributed import Ranks
    from nmlcli.training.loop import Piece


class Lesson(Protocol):
    """A network with what it learns from: what all trainings ask of it.

    module: the network, on its device. batch_size, steps: images of a step of all processes, steps of
    an epoch. facts: what a record's `model` says of the network. classes: those that it tells apart.
    """

    module: "torch.nn.Module"
    preprocessing: "Preprocessing"
    batch_size: int
    steps: int
    facts: dict[str, Any]
    classes: tuple[str, ...] | None

    def __init__(
        self, samples: "Samples", validation: "Samples | None", architecture: str,
        options: "PretrainOptions", ranks: "Ranks",
    ) -> None: ...  # fmt: skip

    @staticmethod
    def check(samples: "Samples", validates: bool = False) -> None:
        """Raise InvalidInput where a set cannot teach this, or validate it."""

    def hold(self, advance: "Advance") -> None:
        """Read what fits into memory."""

    def batches(self, epoch: int, step: int) -> Iterator[Any]:
        """This process's parts of an epoch's batches, from a step on, counted over all epochs."""

    def pieces(self, batch: Any, wrapped: "torch.nn.Module") -> "Iterator[Piece[Any]]":
        """What is computed at a time."""

    def objective(self, wrapped: "torch.nn.Module") -> "Callable[[Any], dict[str, Tensor]]":
        """What is minimised, given the network as it is to be called."""

    def after_step(self) -> None:
        """What holds of the weights whatever the optimiser did."""

    def validate(self, module: "torch.nn.Module") -> dict[str, float]:
        """Measures on the validation set, by names that start with val_; none without one."""


@dataclass(frozen=True)
class Objective:
    """defaults: options that differ from those of PretrainOptions, unless they are given. takes: those
    that only this objective has. labelled: whether it learns classes. lesson: its class, whose module
    is heavy."""

    help: str
    defaults: Mapping[str, Any]
    takes: tuple[str, ...]
    labelled: bool
    lesson: "Callable[[], type[Lesson]]"

    def check(self, samples: "Samples", validates: bool = False) -> None:
        """Raise InvalidInput where a set cannot teach this, or validate it."""
        self.lesson().check(samples, validates)

    def open(
        self, samples: "Samples", validation: "Samples | None", architecture: str,
        options: "PretrainOptions", ranks: "Ranks",
    ) -> Lesson:  # fmt: skip
        """The network to be trained, with what it learns from."""
        return self.lesson()(samples, validation, architecture, options, ranks)


def _classification() -> type[Lesson]:
    from nmlcli.stages.supervised import Classification

    return Classification


def _matching() -> type[Lesson]:
    from nmlcli.stages.contrastive import Matching

    return Matching


OBJECTIVES = {
    "supervised": Objective(
        "classes from labels; a network of timm", {},
        ("mixup", "cutmix", "label_smoothing", "loss", "drop_path"), True, _classification,
    ),
    "clip": Objective(
        "images and their captions; a network of open_clip",
        {"opt": "adamw", "weight_decay": 0.1, "hflip": 0.0, "scale": 0.9}, (), False, _matching,
    ),
}  # fmt: skip
