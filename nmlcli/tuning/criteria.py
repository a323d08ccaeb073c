"""LOSSES: what a head's logits are asked for, the labels right or wrong.

Each reads the logits alone, so it goes with every method and with the three terms on Z.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nmlcli.tuning.presets import Settings

if TYPE_CHECKING:
    from torch import Tensor

# Of logits [B, C], labels [B] and the rows' numbers [B]: "loss", and detached terms to be told.
Criterion = Callable[["Tensor", "Tensor", "Tensor"], Mapping[str, "Tensor"]]


@dataclass(frozen=True)
class Circumstances:
    """What a loss may need of the training set: its size, and T[true, noisy] [C, C] in float64."""

    rows: int
    classes: int
    transition: Any = None


@dataclass(frozen=True)
class Loss:
    """help: one line. build: makes the criterion of one training. knobs: the settings that only it has.

    transition: it needs T. by_row: it keeps a state of each row, of which there is one view.
    """

    help: str
    build: Callable[[Settings, Circumstances], Criterion]
    knobs: tuple[str, ...] = ()
    transition: bool = False
    by_row: bool = False


def _cross_entropy(settings: Settings, about: Circumstances) -> Criterion:
    from torch.nn import functional as F

    return lambda logits, labels, rows: _told("cross_entropy", F.cross_entropy(logits, labels))


def _label_smoothing(settings: Settings, about: Circumstances) -> Criterion:
    from nmlcli.numerics.robust import label_smoothing_loss

    return lambda logits, labels, rows: _told(
        "label_smoothing", label_smoothing_loss(logits, labels, settings.smoothing)
    )


def _gce(settings: Settings, about: Circumstances) -> Criterion:
    from nmlcli.numerics.robust import generalised_cross_entropy

    return lambda logits, labels, rows: _told(
        "gce", generalised_cross_entropy(logits, labels, settings.gce_q)
    )


def _forward(settings: Settings, about: Circumstances) -> Criterion:
    from nmlcli.numerics.robust import forward_corrected_loss, log_of_transition

    if about.transition is None:
        raise ValueError("forward correction needs a transition matrix")

    kept = log_of_transition(about.transition)

    def criterion(logits: "Tensor", labels: "Tensor", rows: "Tensor") -> Mapping[str, "Tensor"]:
        nonlocal kept
        kept = kept.to(logits)  # which costs nothing but in the first step
        return _told("forward", forward_corrected_loss(logits, labels, kept))

    return criterion


def _elr(settings: Settings, about: Circumstances) -> Criterion:
    from torch.nn import functional as F

    from nmlcli.numerics.robust import EarlyLearning

    regulariser = EarlyLearning(about.rows, about.classes, settings.elr_beta)

    def criterion(logits: "Tensor", labels: "Tensor", rows: "Tensor") -> Mapping[str, "Tensor"]:
        entropy, pull = F.cross_entropy(logits, labels), regulariser(logits, rows)
        return {
            "loss": entropy + settings.elr_lambda * pull,
            "cross_entropy": entropy.detach(),
            "elr": pull.detach(),
        }

    return criterion


def _told(name: str, loss: "Tensor") -> Mapping[str, "Tensor"]:
    return {"loss": loss, name: loss.detach()}


LOSSES = {
    "ce": Loss("cross-entropy", _cross_entropy),
    "label-smoothing": Loss(
        "to labels that leave a share to all classes", _label_smoothing, ("smoothing",)
    ),
    "gce": Loss("generalised cross-entropy, between it and MAE", _gce, ("gce_q",)),
    "forward": Loss("through the transition matrix of the labels' noise", _forward, transition=True),
    "elr": Loss("held to what was learned early", _elr, ("elr_beta", "elr_lambda"), by_row=True),
}
