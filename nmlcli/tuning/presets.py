"""PRESETS: the settings of a tuning run, as the paper prints them and as its released code has them.

Light: nothing here computes. Where the two sources differ is told in each row's help.
"""

from dataclasses import dataclass, replace
from typing import Literal

Activation = Literal["relu", "none"]
Reduction = Literal["row", "element"]
Schedule = Literal["cosine", "linear"]


@dataclass(frozen=True)
class Settings:
    """Every knob of a tuning run.

    lr, weight_decay: of AdamW, on all parameters; schedule: how the rate falls to 0, step by step.
    epochs, batch_size: a last batch of one row is left out, since it has no covariance.
    layers: linear layers of the MLP, 0 for none; hidden: width between them, None for 4 D.
    activation, batch_norm: between the layers. residual: Z = s * mlp(F) + F, s [D] learned, from 1.
    lambda_: factor of all three terms; mse, cov, svd: the factor of each. top: the number of largest
    singular values in the third, whose mean share is used. reduction: `row` sums the squared
    differences of a sample, `element` averages them over the D columns.
    loss: a row of LOSSES; smoothing: ε of label-smoothing; gce_q: q of gce; elr_beta, elr_lambda: the
    momentum of ELR's targets and the weight of its term. solver: a row of SOLVERS; l2: of lbfgs, the
    factor of ‖W‖² / 2 beside the mean cross-entropy.
    """

    lr: float
    weight_decay: float
    epochs: int
    batch_size: int
    layers: int
    hidden: int | None
    activation: Activation
    batch_norm: bool
    residual: bool
    lambda_: float
    mse: float
    cov: float
    svd: float
    top: int
    reduction: Reduction
    schedule: Schedule = "cosine"
    loss: str = "ce"
    smoothing: float = 0.1
    gce_q: float = 0.7
    elr_beta: float = 0.7
    elr_lambda: float = 3.0
    solver: str = "adamw"
    l2: float = 0.0


@dataclass(frozen=True)
class Preset:
    """One source of settings: those of NMTune, and what a linear probe has instead.

    views: of a sample in a step; 2 is for features that hold augmented views.
    """

    help: str
    settings: Settings
    linear_lr: float
    linear_weight_decay: float
    views: int = 1


# Chen et al. (ICLR 2024), Eq. 3-6 and appendix B.1; its batch size is not printed, 64 is ours.
_PAPER = Settings(
    lr=1e-3, weight_decay=1e-4, epochs=30, batch_size=64,
    layers=2, hidden=None, activation="relu", batch_norm=False, residual=False,
    lambda_=0.01, mse=1.0, cov=1.0, svd=1.0, top=1, reduction="row",
)  # fmt: skip

PRESETS = {
    "paper": Preset(
        "as printed; lp at lr 0.1 without weight decay; the batch size is ours",
        _PAPER,
        linear_lr=0.1,
        linear_weight_decay=0.0,
    ),
    # Appendix B.3 of the same paper; the batch size is ours here too.
    "paper-text": Preset(
        "as printed for language models: 10 epochs, a line; lp at lr 0.01",
        replace(_PAPER, epochs=10, schedule="linear"),
        linear_lr=0.01,
        linear_weight_decay=0.0,
    ),
    # The repository's README flags over its code (src/models/nml_tune.py, modeling.py, finetune.py).
    "released": Preset(
        "as its code and README; lp at lr 0.01",
        Settings(
            lr=1e-3, weight_decay=1e-4, epochs=30, batch_size=64,
            layers=2, hidden=None, activation="relu", batch_norm=True, residual=True,
            lambda_=1.0, mse=1.0, cov=0.04, svd=0.001, top=5, reduction="element",
        ),
        linear_lr=0.01,
        linear_weight_decay=1e-4,
        views=2,
    ),
}  # fmt: skip
