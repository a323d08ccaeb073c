"""PRESETS: the settings of a tuning run, as the paper prints them and as its released code has them.

Light: nothing here computes. Where the two sources differ is told in each row's help.
"""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "none"]
Reduction = Literal["row", "element"]


@dataclass(frozen=True)
class Settings:
    """Every knob of a tuning run.

    lr, weight_decay: of AdamW, on all parameters; the rate falls to 0 by half a cosine, step by step.
    epochs, batch_size: a last batch of one row is left out, since it has no covariance.
    layers: linear layers of the MLP, 0 for none; hidden: width between them, None for 4 D.
    activation, batch_norm: between the layers. residual: Z = s * mlp(F) + F, s [D] learned, from 1.
    lambda_: factor of all three terms; mse, cov, svd: the factor of each. top: the number of largest
    singular values in the third, whose mean share is used. reduction: `row` sums the squared
    differences of a sample, `element` averages them over the D columns.
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


@dataclass(frozen=True)
class Preset:
    """One source of settings: those of NMTune, and what a linear probe has instead."""

    help: str
    settings: Settings
    linear_lr: float
    linear_weight_decay: float
    views: int = 1


PRESETS = {
    # Chen et al. (ICLR 2024), Eq. 3-6 and appendix B.1; its batch size is not printed, 64 is ours.
    "paper": Preset(
        "as printed; lp at lr 0.1 without weight decay; the batch size is ours",
        Settings(
            lr=1e-3, weight_decay=1e-4, epochs=30, batch_size=64,
            layers=2, hidden=None, activation="relu", batch_norm=False, residual=False,
            lambda_=0.01, mse=1.0, cov=1.0, svd=1.0, top=1, reduction="row",
        ),
        linear_lr=0.1,
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
