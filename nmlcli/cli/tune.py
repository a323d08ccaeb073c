"""`nml tune`: heads on frozen features."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import signature
from typing import Annotated, Any

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.errors import UsageError, first, meant, visible
from nmlcli.tuning.criteria import LOSSES
from nmlcli.tuning.grids import parse_grid
from nmlcli.tuning.methods import METHODS, SOLVERS, TRAINED, option_name
from nmlcli.tuning.presets import PRESETS, Settings

# The settings that are options of the same name; the two others are parsed with --solver and --l2.
_SETTINGS = [field.name for field in fields(Settings) if field.name not in ("solver", "l2")]
_KNOBS = "Settings, by default the preset's"
_ROWS = "Rows to train on and to choose by"
_GRID = (
    "Choose from all combinations, by accuracy on --val or --val-fraction: lr=0.1,0.01; any setting,"
    " wd for weight-decay."
)
_FRACTION = (
    "Train on a class-balanced share of the rows that --val-fraction leaves, the same for every seed; "
    "larger shares contain smaller ones."
)
_VAL_FRACTION = "Validate on a class-balanced share split off instead; the same for every seed."
_REFIT = "Tune what was chosen once more, on the rows to validate on too."
_VIEWS = "Train on two augmented views of a row (preset released: where the features hold some)."
_FOR_NAMES = ("model", "class_names", "templates")
_NAMES = "Of --method zeroshot, in place of FEATURES"
_MODEL = "A network for images and texts: a checkpoint of CLIP, or open_clip:… as for nml embed."
_CLASS_NAMES = (
    "Columns class and words: a row is one name, commas and all; those of a class are averaged."
)
_TEMPLATES = "Sentences, one a line, with {} for the words, else the 80 that CLIP has for ImageNet."
_L2 = "For lbfgs: the factor of ‖W‖²/2 beside the mean loss; auto: chosen by validation."


def _knob(declared: str, help: str) -> Any:
    """An option for a setting, `"batch_size N"`; its help tells what each preset has."""
    field, _, metavar = declared.partition(" ")
    values = {name: getattr(preset.settings, field) for name, preset in PRESETS.items()}
    alike = {value: [name for name in values if values[name] == value] for value in values.values()}
    shown = "; ".join(f"{', '.join(names)} {_shown(value)}" for value, names in alike.items())
    if len(alike) == 1:
        shown = _shown(next(iter(alike)))
    name = option_name(field)
    names = f"{name} {metavar}" if metavar else f"{name}/--no-{name[2:]}"
    text, more = f"{help} ({shown})." if shown else f"{help}.", {"show_default": False}
    words = metavar.split("|")
    return option(names, text, _KNOBS, **more, **(_one_of(name, words) if len(words) > 1 else {}))


def _one_of(name: str, words: Sequence[str]) -> dict[str, Any]:
    """What an option has whose value is one of some words: `choice` without a help text for each."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in words:
            raise UsageError(f"{name}: no {value!r}", meant(value, words))
        return value

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return {"callback": check, "autocompletion": complete}


def _shown(value: object) -> str:
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def tune(
    features: options.Features = None,
    out: options.Out = None,
    method: Annotated[
        str, choice(METHODS, "--method METHOD[,…]", "What to tune", several=True)
    ] = "nmtune",
    preset: Annotated[str, choice(PRESETS, "--preset PRESET", "Whose settings")] = "paper",
    seed: options.Seed = 0,
    seeds: Annotated[
        int, option("--seeds N", "A head for each of N seeds, from --seed on.", min=1)
    ] = 1,
    labels: Annotated[
        str | None, option("--labels TABLE", "Train on these labels, laid over the set by id.", _ROWS)
    ] = None,
    fraction: Annotated[float, option("--fraction F", _FRACTION, _ROWS)] = 1.0,
    val: Annotated[
        str | None,
        option(
            "--val FEATURES",
            "Validate on these: told after each epoch, and what a choice goes by.",
            _ROWS,
        ),
    ] = None,
    val_fraction: Annotated[float | None, option("--val-fraction F", _VAL_FRACTION, _ROWS)] = None,
    grid: Annotated[list[str] | None, option("--grid K=V1,V2…", _GRID, _ROWS)] = None,
    refit: Annotated[bool, option("--refit", _REFIT, _ROWS)] = False,
    solver: Annotated[str, choice(SOLVERS, "--solver SOLVER", "How a head is found")] = "adamw",
    l2: Annotated[str | None, option("--l2 V|auto", _L2)] = None,
    loss: Annotated[str, choice(LOSSES, "--loss LOSS", "What the logits are trained by")] = "ce",
    views: Annotated[bool | None, option("--views/--no-views", _VIEWS, show_default=False)] = None,
    scale: Annotated[
        str, option("--scale none|rms|X", "Multiply the features; rms: so that ‖f‖² is D on average.")
    ] = "none",
    log_file: Annotated[
        str | None, option("--log FILE", "Write a JSON line an epoch, with every loss term.")
    ] = None,
    reuse: options.Reuse = False,
    epochs: Annotated[int | None, _knob("epochs N", "Passes over the set")] = None,
    batch_size: Annotated[int | None, _knob("batch_size N", "Rows of a step")] = None,
    lr: Annotated[
        float | None,
        _knob("lr X", "Learning rate of AdamW, falling to 0; of lp: see --preset"),
    ] = None,
    schedule: Annotated[
        str | None,
        _knob("schedule cosine|linear", "How it falls, step by step"),
    ] = None,
    weight_decay: Annotated[
        float | None, _knob("weight_decay X", "Weight decay of AdamW; likewise")
    ] = None,
    layers: Annotated[int | None, _knob("layers N", "Linear layers of the MLP")] = None,
    hidden: Annotated[
        int | None, _knob("hidden N", "Width between them, else 4 times the features'")
    ] = None,
    activation: Annotated[
        str | None, _knob("activation relu|none", "After all of them but the last")
    ] = None,
    batch_norm: Annotated[bool | None, _knob("batch_norm", "Batch norm before the activation")] = None,
    residual: Annotated[bool | None, _knob("residual", "Add the features to a scaled output")] = None,
    lambda_: Annotated[float | None, _knob("lambda_ X", "Factor of the three terms")] = None,
    mse: Annotated[float | None, _knob("mse X", "Weight of the consistency term")] = None,
    cov: Annotated[float | None, _knob("cov X", "Weight of the covariance term")] = None,
    svd: Annotated[float | None, _knob("svd X", "Weight of the dominant singular value term")] = None,
    top: Annotated[int | None, _knob("top N", "Largest singular values in that term")] = None,
    reduction: Annotated[
        str | None,
        _knob("reduction row|element", "Consistency by the row, or as a mean over its elements"),
    ] = None,
    smoothing: Annotated[
        float | None, _knob("smoothing E", "Share of a label that label-smoothing gives to all classes")
    ] = None,
    gce_q: Annotated[float | None, _knob("gce_q Q", "Of gce, from 0 (cross-entropy) to 1")] = None,
    elr_beta: Annotated[float | None, _knob("elr_beta B", "How slowly the targets of elr move")] = None,
    elr_lambda: Annotated[float | None, _knob("elr_lambda X", "Weight of elr's term")] = None,
    model: Annotated[str | None, option("-m --model MODEL", _MODEL, _NAMES)] = None,
    class_names: Annotated[str | None, option("--class-names TABLE", _CLASS_NAMES, _NAMES)] = None,
    templates: Annotated[str | None, option("--templates FILE", _TEMPLATES, _NAMES)] = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Tune a head on features: a linear probe, an MLP or NMTune; or make a zero-shot one of names.

    Several FEATURES are parts of one set. Several methods or seeds go to a folder: -o DIR/ gives
    DIR/METHOD-sSEED.safetensors; of several methods or a grid for one head the best on validation is
    kept, by its mean over the seeds. A last batch of a single row is left out.
    """
    given = locals()
    methods = tuple(options.split(method))
    if any(each not in TRAINED for each in methods):
        _zeroshot(given, methods)
        return
    untrained = [each for each in METHODS if each not in TRAINED]
    _refuse(given, _FOR_NAMES, methods, f"it is for --method {first(untrained)}")
    sources = options.inputs(features, "FEATURES")
    render.refuse_terminal(out)
    from nmlcli.stages.tune import tune as tune_heads
    from nmlcli.stages.tune_options import TuneOptions

    knobs = {field: given[field] for field in _SETTINGS} | {"loss": None if loss == "ce" else loss}
    asked = TuneOptions(
        methods=methods, preset=preset, grid=parse_grid(grid or []), solver=solver,
        l2=l2, seed=seed, seeds=seeds, labels=labels, scale=scale, fraction=fraction, validation=val,
        val_fraction=val_fraction, refit=refit, views=views, log=log_file, reuse=reuse,
        knobs={name: value for name, value in knobs.items() if value is not None},
    )  # fmt: skip
    tables: list[str] = []
    with render.progress("tune", quiet) as advance:
        tune_heads(sources, out, asked, advance, lambda ranking: tables.append(_table(ranking)))
    if tables and not quiet and sys.stderr is not None:
        sys.stderr.write(visible("\n".join(tables), "\n"))


def _zeroshot(given: Mapping[str, Any], methods: Sequence[str]) -> None:
    """A head of the names of classes, once nothing is asked for that has no effect on it."""
    method = next(each for each in methods if each not in TRAINED)
    if len(set(methods)) > 1:
        raise UsageError(f"--method {method} goes with no other method", "run it by itself")
    known = (*_FOR_NAMES, "method", "out", "reuse", "quiet", "verbose")
    _refuse(given, [name for name in given if name not in known], methods, "leave it out")
    needed = {"model": "a network for images and texts", "class_names": "a table of class and words"}
    for name, words in needed.items():
        if not given[name]:
            raise UsageError(f"--method {method} needs {_written(name)}", f"give {words}")
    render.refuse_terminal(given["out"])
    from nmlcli.stages.zeroshot import ZeroShotOptions, zeroshot

    asked = ZeroShotOptions(given["class_names"], given["templates"], given["reuse"])
    with render.progress("tune", given["quiet"]) as advance:
        zeroshot(given["model"], given["out"], asked, advance)


def _refuse(
    given: Mapping[str, Any], names: Sequence[str], methods: Sequence[str], remedy: str
) -> None:
    """Raise UsageError for the first argument of these names that is given."""
    defaults = signature(tune).parameters
    if refused := [name for name in names if given[name] != defaults[name].default]:
        wrong = f"{_written(refused[0])} does not apply to --method {first(list(methods))}"
        raise UsageError(wrong, remedy)


def _written(name: str) -> str:
    """An argument of the command as it is typed."""
    others = {"features": "FEATURES", "log_file": "--log", "model": "-m"}
    return others.get(name) or option_name(name)


def _table(ranking: Sequence[Mapping[str, Any]]) -> str:
    """How the candidates of one choice compare, the one that is kept first."""
    names = list(dict.fromkeys(name for line in ranking for name in line))
    names.sort(key=lambda name: name in _MEASURED)
    rows = [[_MEASURED.get(name, (name,))[0] for name in names]]
    rows += [[_cell(name, line.get(name)) for name in names] for line in ranking]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(f"{'  '.join(map(str.ljust, row, widths)).rstrip()}\n" for row in rows)


_MEASURED = {"val_accuracy": ("val accuracy, %", ".1f", 100), "val_loss": ("val loss", ".4f", 1)}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "failed" if name in _MEASURED else "–"
    if name in _MEASURED:
        _, form, factor = _MEASURED[name]
        return format(factor * value, form)
    return f"{value:g}" if isinstance(value, float) else _shown(value)
