"""`nml tune`: heads on frozen features."""

from typing import Annotated, Any, Literal

import typer

from nmlcli.cli import render
from nmlcli.cli.options import Features, Out, Quiet, Reuse, Seed, Verbose, choice, inputs, split
from nmlcli.tuning.methods import METHODS, option_name
from nmlcli.tuning.presets import PRESETS

_KNOBS = "Settings, by default the preset's"


def _knob(field: str, help: str, metavar: str | None = None) -> Any:
    """An option for a setting; its help tells what each preset has."""
    values = {name: getattr(preset.settings, field) for name, preset in PRESETS.items()}
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
    if len(set(values.values())) == 1:
        shown = _shown(next(iter(values.values())))
    name = option_name(field)
    switch = all(isinstance(value, bool) for value in values.values())
    return typer.Option(
        f"{name}/--no-{name[2:]}" if switch else name,
        help=f"{help} ({shown})." if shown else f"{help}.",
        metavar=metavar,
        show_default=False,
        rich_help_panel=_KNOBS,
    )


def _shown(value: object) -> str:
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def tune(
    features: Features = None,
    out: Out = None,
    method: Annotated[str, choice(METHODS, "--method", help="What to tune", several=True)] = "nmtune",
    preset: Annotated[str, choice(PRESETS, "--preset", help="Whose settings")] = "paper",
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, help="A head for each of N seeds, from --seed on.")
    ] = 1,
    labels: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="Train on these labels, laid over the set by id."),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="FEATURES", help="Report the accuracy on these after each epoch."),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="none|rms|X", help="Multiply the features; rms: so that ‖f‖² is D on average."
        ),
    ] = "none",
    log: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a JSON line an epoch, with every loss term."),
    ] = None,
    reuse: Reuse = False,
    epochs: Annotated[int | None, _knob("epochs", "Passes over the set")] = None,
    batch_size: Annotated[int | None, _knob("batch_size", "Rows of a step")] = None,
    lr: Annotated[
        float | None,
        _knob("lr", "Learning rate of AdamW, falling to 0 by a cosine; of lp: see --preset"),
    ] = None,
    weight_decay: Annotated[
        float | None, _knob("weight_decay", "Weight decay of AdamW; likewise")
    ] = None,
    layers: Annotated[int | None, _knob("layers", "Linear layers of the MLP")] = None,
    hidden: Annotated[
        int | None, _knob("hidden", "Width between them, else 4 times the features'")
    ] = None,
    activation: Annotated[
        Literal["relu", "none"] | None, _knob("activation", "After all of them but the last")
    ] = None,
    batch_norm: Annotated[bool | None, _knob("batch_norm", "Batch norm before the activation")] = None,
    residual: Annotated[bool | None, _knob("residual", "Add the features to a scaled output")] = None,
    lambda_: Annotated[float | None, _knob("lambda_", "Factor of the three terms", "<float>")] = None,
    mse: Annotated[float | None, _knob("mse", "Weight of the consistency term")] = None,
    cov: Annotated[float | None, _knob("cov", "Weight of the covariance term")] = None,
    svd: Annotated[float | None, _knob("svd", "Weight of the dominant singular value term")] = None,
    top: Annotated[int | None, _knob("top", "Largest singular values in that term")] = None,
    reduction: Annotated[
        Literal["row", "element"] | None,
        _knob("reduction", "Consistency by the row, or as a mean over its elements"),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tune a head on features: a linear probe, an MLP, or NMTune.

    Several FEATURES are parts of one set. Several methods or seeds go to a folder: -o DIR/ gives
    DIR/METHOD-sSEED.safetensors. A last batch of a single row is left out.
    """
    sources = inputs(features, "FEATURES")
    render.refuse_terminal(out)
    from nmlcli.stages.tune import TuneOptions
    from nmlcli.stages.tune import tune as tune_heads

    given = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
        "layers": layers, "hidden": hidden, "activation": activation, "batch_norm": batch_norm,
        "residual": residual, "lambda_": lambda_, "mse": mse, "cov": cov, "svd": svd, "top": top,
        "reduction": reduction,
    }  # fmt: skip
    options = TuneOptions(
        methods=tuple(split(method)),
        preset=preset,
        knobs={name: value for name, value in given.items() if value is not None},
        seed=seed,
        seeds=seeds,
        labels=labels,
        scale=scale,
        validation=val,
        log=log,
        reuse=reuse,
    )
    with render.progress("tune", quiet) as advance:
        tune_heads(sources, out, options, advance)
