"""The presets, against the table of the paper (Chen et al. 2024, appendix B) and of its code."""

import pytest

from nmlcli.tuning.methods import METHODS, TRAINED, settle
from nmlcli.tuning.presets import PRESETS

COMMON = {
    "schedule": "cosine",
    "loss": "ce",
    "epochs": 30,
    "batch_size": 64,
    "layers": 2,
    "hidden": None,
    "activation": "relu",
    "mse": 1.0,
}
TABLE = {
    ("paper", "lp"): {"lr": 0.1, "weight_decay": 0.0, "layers": 0},
    ("paper", "mlp"): {"lr": 1e-3, "weight_decay": 1e-4, "batch_norm": False, "residual": False},
    ("paper", "nmtune"): {
        "lr": 1e-3, "weight_decay": 1e-4, "batch_norm": False, "residual": False,
        "lambda_": 0.01, "cov": 1.0, "svd": 1.0, "top": 1, "reduction": "row",
    },
    ("paper-text", "lp"): {
        "lr": 0.01, "weight_decay": 0.0, "layers": 0, "epochs": 10, "schedule": "linear"
    },
    ("paper-text", "mlp"): {
        "lr": 1e-3, "weight_decay": 1e-4, "batch_norm": False, "epochs": 10, "schedule": "linear"
    },
    ("paper-text", "nmtune"): {
        "lr": 1e-3, "weight_decay": 1e-4, "residual": False, "epochs": 10, "schedule": "linear",
        "lambda_": 0.01, "cov": 1.0, "svd": 1.0, "top": 1, "reduction": "row",
    },
    ("released", "lp"): {"lr": 0.01, "weight_decay": 1e-4, "layers": 0},
    ("released", "mlp"): {"lr": 1e-3, "weight_decay": 1e-4, "batch_norm": True, "residual": True},
    ("released", "nmtune"): {
        "lr": 1e-3, "weight_decay": 1e-4, "batch_norm": True, "residual": True,
        "lambda_": 1.0, "cov": 0.04, "svd": 0.001, "top": 5, "reduction": "element",
    },
}  # fmt: skip


@pytest.mark.parametrize(("preset", "method"), TABLE)
def test_settings_are_those_of_the_table(preset: str, method: str) -> None:
    settings, differing = settle(method, preset, {})
    wanted = {**COMMON, **TABLE[preset, method]}
    if method != "nmtune":
        wanted |= {"mse": 0.0, "cov": 0.0, "svd": 0.0}
    assert {name: getattr(settings, name) for name in wanted} == wanted
    assert differing == {}


def test_every_row_of_the_menus_has_a_help_text() -> None:
    assert all(row.help for row in [*PRESETS.values(), *METHODS.values()])
    assert {method for _, method in TABLE} == set(TRAINED)
    assert {preset for preset, _ in TABLE} == set(PRESETS)
