"""METHODS: what a head can be tuned as. One that is TRAINED turns a preset into settings; the trainer
obeys."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nmlcli.errors import UsageError, first
from nmlcli.tuning.criteria import LOSSES
from nmlcli.tuning.presets import PRESETS, Preset, Settings

_TRAINING = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "loss")
_NETWORK = ("layers", "hidden", "activation", "batch_norm", "residual")
_TERMS = ("lambda_", "mse", "cov", "svd", "top", "reduction")
_ANY = _TRAINING + tuple(knob for loss in LOSSES.values() for knob in loss.knobs)


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


@dataclass(frozen=True)
class Untrained:
    """A head that is made of the names of its classes, not of features. help: one line."""

    help: str


TRAINED = {
    "lp": Method("a linear probe", (*_ANY, "l2"), linear_probe),
    "mlp": Method("an MLP below it", _ANY + _NETWORK, mlp),
    "nmtune": Method(
        "the MLP with three terms that reshape its output", _ANY + _NETWORK + _TERMS, nmtune
    ),
}
METHODS: dict[str, Method | Untrained] = {
    **TRAINED,
    "zeroshot": Untrained("what -m reads in the names of the classes, without FEATURES"),
}


@dataclass(frozen=True)
class Solver:
    """help: one line. methods: those that it can train. without: the settings that it does not have.

    draws: whether a head depends on the seed.
    """

    help: str
    methods: tuple[str, ...]
    without: tuple[str, ...]
    draws: bool = True


SOLVERS = {
    "adamw": Solver("step by step, as the presets have it", tuple(TRAINED), ("l2",)),
    "lbfgs": Solver(
        "full batch to the minimum; for lp with --l2; features above 2 GiB are read in each pass",
        ("lp",),
        _ANY,
        draws=False,
    ),
}

# The least and the largest value of a knob; 0 and infinity for all others.
_LEAST = {"epochs": 1, "batch_size": 2, "layers": 1, "hidden": 1, "top": 1}
_LARGEST = {"smoothing": 1, "gce_q": 1, "elr_beta": 1}


def option_name(knob: str) -> str:
    """The option that sets a knob: `batch_size` is `--batch-size`."""
    return "--" + knob.strip("_").replace("_", "-")


def check_knobs(
    methods: Iterable[str], given: Mapping[str, Any], losses: Iterable[str] = ("ce",),
    solver: str = "adamw",
) -> None:  # fmt: skip
    """Raise UsageError for a knob out of range, or one that no chosen method, loss or solver has."""
    methods, losses, row = tuple(methods), tuple(losses), SOLVERS[solver]
    if others := [method for method in methods if method not in row.methods]:
        wrong = f"--solver {solver} does not train {first(others)}"
        raise UsageError(wrong, f"it is for {first(row.methods)}")
    for knob, value in given.items():
        name = option_name(knob)
        if knob in row.without:
            others = [other for other, each in SOLVERS.items() if knob not in each.without]
            raise UsageError(
                f"{name} does not apply to --solver {solver}", f"it is for {first(others)}"
            )
        if not any(knob in TRAINED[method].knobs for method in methods):
            owners = [other for other, method in TRAINED.items() if knob in method.knobs]
            raise UsageError(f"{name} does not apply to {first(methods)}", f"it is for {first(owners)}")
        owners = [other for other, loss in LOSSES.items() if knob in loss.knobs]
        if owners and not {*owners} & {*losses}:
            wrong = f"{name} does not apply to --loss {first(losses)}"
            raise UsageError(wrong, f"it is for {first(owners)}")
        _check_value(knob, value)


def _check_value(knob: str, value: Any) -> None:
    name, least, largest = option_name(knob), _LEAST.get(knob, 0), _LARGEST.get(knob, math.inf)
    if not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value}", "give a finite number")
    if value < least:
        raise UsageError(f"{name} is {value}", f"give at least {least}")
    if value > largest:
        raise UsageError(f"{name} is {value}", f"give at most {largest}")


def own_knobs(method: str, loss: str) -> set[str]:
    """The settings that mean something to a method with a loss."""
    others = {knob for name, row in LOSSES.items() if name != loss for knob in row.knobs}
    return {*TRAINED[method].knobs} - others


def settle(
    method: str, preset: str, given: Mapping[str, Any], solver: str = "adamw"
) -> tuple[Settings, dict[str, Any]]:
    """The settings of a method under a preset and the knobs given, and those that differ from it.

    A given knob that the method or its loss lacks is left out: in a list it is for the others. The
    loss is no difference, since a head says it apart.
    """
    usual = TRAINED[method].settings(PRESETS[preset])
    known = own_knobs(method, given.get("loss", usual.loss))
    given = {knob: value for knob, value in given.items() if knob in known}
    settings = replace(usual, **given, solver=solver)
    differing = {
        field.name.strip("_"): getattr(settings, field.name)
        for field in fields(Settings)
        if field.name != "loss" and getattr(settings, field.name) != getattr(usual, field.name)
    }
    return settings, differing
