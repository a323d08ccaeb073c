"""`nml tune`: heads on frozen features."""

from typing import Annotated, Any, Literal

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.tuning.methods import METHODS, option_name
from nmlcli.tuning.presets import PRESETS

_KNOBS = "Settings, by default the preset's"


def _knob(declared: str, help: str) -> Any:
    """An option for a setting, `"batch_size N"`; its help tells what each preset has."""
    field, _, metavar = declared.partition(" ")
    values = {name: getattr(preset.settings, field) for name, preset in PRESETS.items()}
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
    if len(set(values.values())) == 1:
        shown = _shown(next(iter(values.values())))
    name = option_name(field)
    names = f"{name} {metavar}" if metavar else f"{name}/--no-{name[2:]}"
    return option(names, f"{help} ({shown})." if shown else f"{help}.", _KNOBS, show_default=False)


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
        str | None, option("--labels TABLE", "Train on these labels, laid over the set by id.")
    ] = None,
    val: Annotated[
        str | None, option("--val FEATURES", "Report the accuracy on these after each epoch.")
    ] = None,
    scale: Annotated[
        str, option("--scale none|rms|X", "Multiply the features; rms: so that ‖f‖² is D on average.")
    ] = "none",
    log: Annotated[
        str | None, option("--log FILE", "Write a JSON line an epoch, with every loss term.")
    ] = None,
    reuse: options.Reuse = False,
    epochs: Annotated[int | None, _knob("epochs N", "Passes over the set")] = None,
    batch_size: Annotated[int | None, _knob("batch_size N", "Rows of a step")] = None,
    lr: Annotated[
        float | None,
        _knob("lr X", "Learning rate of AdamW, falling to 0 by a cosine; of lp: see --preset"),
    ] = None,
    weight_decay: Annotated[
        float | None, _knob("weight_decay X", "Weight decay of AdamW; likewise")
    ] = None,
    layers: Annotated[int | None, _knob("layers N", "Linear layers of the MLP")] = None,
    hidden: Annotated[
        int | None, _knob("hidden N", "Width between them, else 4 times the features'")
    ] = None,
    activation: Annotated[
        Literal["relu", "none"] | None, _knob("activation relu|none", "After all of them but the last")
    ] = None,
    batch_norm: Annotated[bool | None, _knob("batch_norm", "Batch norm before the activation")] = None,
    residual: Annotated[bool | None, _knob("residual", "Add the features to a scaled output")] = None,
    lambda_: Annotated[float | None, _knob("lambda_ X", "Factor of the three terms")] = None,
    mse: Annotated[float | None, _knob("mse X", "Weight of the consistency term")] = None,
    cov: Annotated[float | None, _knob("cov X", "Weight of the covariance term")] = None,
    svd: Annotated[float | None, _knob("svd X", "Weight of the dominant singular value term")] = None,
    top: Annotated[int | None, _knob("top N", "Largest singular values in that term")] = None,
    reduction: Annotated[
        Literal["row", "element"] | None,
        _knob("reduction row|element", "Consistency by the row, or as a mean over its elements"),
    ] = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Tune a head on features: a linear probe, an MLP, or NMTune.

    Several FEATURES are parts of one set. Several methods or seeds go to a folder: -o DIR/ gives
    DIR/METHOD-sSEED.safetensors. A last batch of a single row is left out.
    """
    sources = options.inputs(features, "FEATURES")
    render.refuse_terminal(out)
    from nmlcli.stages.tune import TuneOptions
    from nmlcli.stages.tune import tune as tune_heads

    given = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
        "layers": layers, "hidden": hidden, "activation": activation, "batch_norm": batch_norm,
        "residual": residual, "lambda_": lambda_, "mse": mse, "cov": cov, "svd": svd, "top": top,
        "reduction": reduction,
    }  # fmt: skip
    asked = TuneOptions(
        methods=tuple(options.split(method)), preset=preset, seed=seed, seeds=seeds, labels=labels,
        scale=scale, knobs={name: value for name, value in given.items() if value is not None},
        validation=val, log=log, reuse=reuse,
    )  # fmt: skip
    with render.progress("tune", quiet) as advance:
        tune_heads(sources, out, asked, advance)
