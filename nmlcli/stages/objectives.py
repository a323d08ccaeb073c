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
    from nmlcli.stages.pretrain import PretrainOptions
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
    """defaults: options that differ from those of PretrainOptions, unless they are given. takes:
    options that only this objective has. labelled: whether it learns classes. check: raises where a set
    cannot teach it. open: to the lesson."""

    help: str
    defaults: Mapping[str, Any]
    takes: tuple[str, ...]
    labelled: bool
    check: "Callable[[Samples], None]"
    open: "Callable[[Samples, Samples | None, str, PretrainOptions, Ranks], Lesson]"


def _check_labels(samples: "Samples") -> None:
    from nmlcli.stages.supervised import check_labels

    check_labels(samples)


def _supervised(
    samples: "Samples", validation: "Samples | None", architecture: str, options: "PretrainOptions",
    ranks: "Ranks",
) -> Lesson:  # fmt: skip
    from nmlcli.stages.supervised import Classification

    return Classification(samples, validation, architecture, options, ranks)


def _check_captions(samples: "Samples") -> None:
    from nmlcli.stages.contrastive import check_captions

    check_captions(samples)


def _contrastive(
    samples: "Samples", validation: "Samples | None", architecture: str, options: "PretrainOptions",
    ranks: "Ranks",
) -> Lesson:  # fmt: skip
    from nmlcli.stages.contrastive import Matching

    return Matching(samples, validation, architecture, options, ranks)


OBJECTIVES = {
    "supervised": Objective(
        "classes from labels; a network of timm", {},
        ("mixup", "cutmix", "label_smoothing", "loss", "drop_path"), True, _check_labels, _supervised,
    ),
    "clip": Objective(
        "images and their captions; a network of open_clip",
        {"opt": "adamw", "weight_decay": 0.1, "hflip": 0.0, "scale": 0.9}, (), False,
        _check_captions, _contrastive,
    ),
}  # fmt: skip
