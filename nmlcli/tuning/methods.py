"""METHODS: what a head can be tuned as. A method turns a preset into settings; the trainer obeys."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nmlcli.errors import UsageError, first
from nmlcli.tuning.presets import PRESETS, Preset, Settings

_TRAINING = ("epochs", "batch_size", "lr", "weight_decay")
_NETWORK = ("layers", "hidden", "activation", "batch_norm", "residual")
_TERMS = ("lambda_", "mse", "cov", "svd", "top", "reduction")


@dataclass(frozen=True)
class Method:
    """help: one line. knobs: the settings that it has. settings: what it makes of a preset."""

    help: str
    knobs: tuple[str, ...]
    settings: Callable[[Preset], Settings]


def linear_probe(preset: Preset) -> Settings:
    """A linear classifier on the features, with its own learning rate and weight decay."""
    return replace(mlp(preset), layers=0, lr=preset.linear_lr, weight_decay=preset.linear_weight_decay)


def mlp(preset: Preset) -> Settings:
    """NMTune's network trained by cross-entropy alone: the baseline of Tables 15 and 16."""
    return replace(preset.settings, mse=0.0, cov=0.0, svd=0.0)


def nmtune(preset: Preset) -> Settings:
    """Eq. 6: cross-entropy and the three terms on Z."""
    return preset.settings


METHODS = {
    "lp": Method("a linear probe", _TRAINING, linear_probe),
    "mlp": Method("an MLP below it", _TRAINING + _NETWORK, mlp),
    "nmtune": Method(
        "the MLP with three terms that reshape its output", _TRAINING + _NETWORK + _TERMS, nmtune
    ),
}

# The least value of a knob; 0 for all others.
_LEAST = {"epochs": 1, "batch_size": 2, "layers": 1, "hidden": 1, "top": 1}


def option_name(knob: str) -> str:
    """The option that sets a knob: `batch_size` is `--batch-size`."""
    return "--" + knob.strip("_").replace("_", "-")


def check_knobs(methods: Iterable[str], given: Mapping[str, Any]) -> None:
    """Raise UsageError for a knob out of range, or one that no chosen method has."""
    methods = tuple(methods)
    for knob, value in given.items():
        if not any(knob in METHODS[method].knobs for method in methods):
            owners = [name for name, method in METHODS.items() if knob in method.knobs]
            wrong = f"{option_name(knob)} does not apply to {first(methods)}"
            raise UsageError(wrong, f"it is for {first(owners)}")
        least = _LEAST.get(knob, 0)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= least):
            raise UsageError(f"{option_name(knob)} is {value}", f"give at least {least}")


def settle(method: str, preset: str, given: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """The settings of a method under a preset and the knobs given, and those that differ from it.

    A given knob that the method lacks is left out: in a list of methods it is for the others.
    """
    row = METHODS[method]
    usual = row.settings(PRESETS[preset])
    settings = replace(usual, **{knob: given[knob] for knob in given if knob in row.knobs})
    differing = {
        field.name.strip("_"): getattr(settings, field.name)
        for field in fields(Settings)
        if getattr(settings, field.name) != getattr(usual, field.name)
    }
    return settings, differing
