"""`nml pretrain`: a classifier from labels, or a CLIP network from captions, as noisy as they are."""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.data.sources import SourceOptions
from nmlcli.errors import UsageError, meant
from nmlcli.models.precision import PRECISIONS
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.training.augmentation import AUGMENTATIONS
from nmlcli.training.losses import LOSSES
from nmlcli.training.recipes import OPTIONS, RECIPES, Recipe, architecture_file
from nmlcli.training.schedules import SCHEDULES

_TRAINING, _IMAGES, _TARGETS = "Training", "Images", "Targets, of labels"
_RECIPE = (
    "Options of a recipe, but for those given: {}. `list` names them, `show NAME` prints one."
).format(", ".join(RECIPES))
_MICRO = "Of those, computed at a time by a process: less memory, the same gradient but for batch norm."


@options.with_source
def pretrain(
    data: options.Data = None,
    *,
    architecture: Annotated[
        str | None,
        option("-a --arch NAME", "A network of timm; for clip of open_clip, or its config FILE.json."),
    ] = None,
    recipe: Annotated[str | None, option("--recipe NAME|list|show", _RECIPE)] = None,
    objective: Annotated[
        str | None, choice(OBJECTIVES, "--objective OBJECTIVE", "What is learned, else supervised")
    ] = None,
    out: options.Out = None,
    val: Annotated[
        str | None, option("--val DATA", "Tell loss and accuracy on this set after each epoch.")
    ] = None,
    seed: options.Seed = 0,
    log: Annotated[str | None, option("--log FILE", "Write a JSON line an epoch.")] = None,
    resume: Annotated[
        bool, option("--resume", "Go on from OUT.state, where an interrupted run left off.")
    ] = False,
    save_every: Annotated[
        float,
        option("--save-every MINUTES", "Save OUT.state so often, and after each epoch.", min=0),
    ] = 10.0,
    reuse: options.Reuse = False,
    epochs: Annotated[
        int | None, option("--epochs N", "Passes over the set, else 30.", _TRAINING, min=1)
    ] = None,
    batch_size: Annotated[
        int | None,
        option("--batch-size N", "Images of a step of all processes, else 128.", _TRAINING, min=2),
    ] = None,
    micro_batch: Annotated[int | None, option("--micro-batch N", _MICRO, _TRAINING, min=1)] = None,
    opt: Annotated[
        str | None,
        option("--opt NAME", "An optimiser of timm, else sgd; for clip adamw.", _TRAINING),
    ] = None,
    lr: Annotated[
        float | None,
        option("--lr X", "Learning rate, else 0.1 for sgd and 0.001 for others.", _TRAINING, min=0),
    ] = None,
    betas: Annotated[
        str | None, option("--betas B1,B2", "Of optimisers that have them.", _TRAINING)
    ] = None,
    eps: Annotated[float | None, option("--eps X", "Likewise.", _TRAINING, min=0)] = None,
    sched: Annotated[
        str | None,
        choice(SCHEDULES, "--sched SCHED", "How the rate falls by steps, else cosine", _TRAINING),
    ] = None,
    warmup_epochs: Annotated[
        int | None, option("--warmup-epochs N", "Epochs in which it rises, else 0.", _TRAINING, min=0)
    ] = None,
    warmup_steps: Annotated[
        int | None, option("--warmup-steps N", "Steps in which it rises.", _TRAINING, min=0)
    ] = None,
    weight_decay: Annotated[
        float | None,
        option(
            "--weight-decay W", "Not of biases and norms; else 0.0005, for clip 0.1.", _TRAINING, min=0
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        option("--momentum M", "Of optimisers that have one, else 0.9.", _TRAINING, min=0, max=1),
    ] = None,
    clip: Annotated[
        float | None, option("--clip NORM", "Longest gradient, above 0.", _TRAINING)
    ] = None,
    ema: Annotated[
        float | None,
        option("--ema DECAY", "Keep a moving average of the weights.", _TRAINING, min=0, max=1),
    ] = None,
    precision: Annotated[
        str | None, choice(PRECISIONS, "--precision PRECISION", "Compute in, else fp32", _TRAINING)
    ] = None,
    compile: Annotated[
        bool, option("--compile", "Let torch compile the network; takes a C++ compiler.", _TRAINING)
    ] = False,
    size: Annotated[
        int | None,
        option("--size PIXELS", "Size of the images, else the network's.", _IMAGES, min=8, max=4096),
    ] = None,
    val_size: Annotated[
        int | None,
        option("--val-size PIXELS", "After the training, else as in it.", _IMAGES, min=8, max=4096),
    ] = None,
    augment: Annotated[
        str | None,
        choice(AUGMENTATIONS, "--augment AUGMENT", "Up to 64 pixels shift, else crop", _IMAGES),
    ] = None,
    hflip: Annotated[
        float | None,
        option("--hflip P", "Mirror images, else 0.5; for clip 0.", _IMAGES, min=0, max=1),
    ] = None,
    scale: Annotated[
        float | None,
        option(
            "--scale SHARE",
            "Smallest part of a crop, else 0.08; for clip 0.9.",
            _IMAGES,
            min=0.01,
            max=1,
        ),
    ] = None,
    color_jitter: Annotated[
        float | None,
        option("--color-jitter J", "Crops vary in colour by 1 ± this.", _IMAGES, min=0, max=1),
    ] = None,
    auto_augment: Annotated[
        str | None,
        option(
            "--auto-augment POLICY", "Crops are changed as timm names it: rand-m9-mstd0.5.", _IMAGES
        ),
    ] = None,
    reprob: Annotated[
        float | None, option("--reprob P", "Erase a part of crops.", _IMAGES, min=0, max=1)
    ] = None,
    workers: Annotated[
        int, option("--workers N", "Threads that read images ahead.", _IMAGES, min=0)
    ] = 2,
    loss: Annotated[
        str | None, choice(LOSSES, "--loss LOSS", "What the logits learn by, else ce", _TARGETS)
    ] = None,
    mixup: Annotated[float | None, option("--mixup ALPHA", "Mix pairs.", _TARGETS, min=0)] = None,
    cutmix: Annotated[
        float | None, option("--cutmix ALPHA", "Paste parts of pairs.", _TARGETS, min=0)
    ] = None,
    label_smoothing: Annotated[
        float | None,
        option("--label-smoothing SHARE", "Spread this over all classes.", _TARGETS, min=0, max=1),
    ] = None,
    drop_path: Annotated[
        float | None,
        option("--drop-path RATE", "Leave out layers of the network.", _TRAINING, min=0, max=0.99),
    ] = None,
    source: SourceOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a network of timm to classify images, or one of open_clip to match them with captions.

    The last epoch's weights are kept; `nml embed -m`, timm and open_clip read the checkpoint. Until it
    is there, OUT.state is what `--resume` goes on from, to the same bytes: after Ctrl-C or SIGTERM from
    the latest step, after a kill or power loss from the latest state saved. OUT.state.previous stands
    in for a damaged one. Several processes train together under `torchrun --nproc-per-node N -m --
    nmlcli pretrain …`.
    """
    given = locals()
    if recipe in ("list", "show"):
        _tell(recipe, data)
        return
    from nmlcli.stages.pretrain import pretrain as run
    from nmlcli.stages.pretrain_options import settled

    own = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    usual = {**_recipe(recipe)}
    for one, other in (("warmup_epochs", "warmup_steps"), ("warmup_steps", "warmup_epochs")):
        if one in own:  # instead of the recipe's, however it counts
            usual.pop(other, None)
    if betas is not None:
        own["betas"] = _pair(betas)
    architecture = _architecture(architecture, usual.pop("arch", None))
    name = options.one_input(data, "DATA")
    render.refuse_terminal(out)
    own |= {
        "source": source, "validation": val, "compile": compile, "seed": seed, "workers": workers,
        "resume": resume, "save_every": save_every, "log": log, "reuse": reuse,
    }  # fmt: skip
    asked = settled(own, usual)
    with render.progress("pretrain", quiet or os.environ.get("RANK", "0") != "0") as advance:
        run(name, architecture, out, asked, advance)


def _tell(what: str, name: str | None) -> None:
    """The names of all recipes, or one of them as it stands."""
    if what == "list":
        width = max(map(len, RECIPES))
        lines = [f"{each.name:{width}}  {each.help}" for each in RECIPES.values()]
    elif name is None:
        raise UsageError(
            "--recipe show lacks the name of a recipe", f"give one of {', '.join(RECIPES)}"
        )
    else:
        lines = [_row(name).text.rstrip()]
    sys.stdout.write("\n".join(lines) + "\n")


def _row(name: str) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"no recipe is named {name!r}", meant(name, RECIPES))
    return RECIPES[name]


def _recipe(name: str | None) -> Mapping[str, Any]:
    return {} if name is None else _row(name).options


def _architecture(given: str | None, of_recipe: str | None) -> str:
    """The network to train; a recipe may name the configuration that lies beside it."""
    if given is not None:
        return given
    if of_recipe is None:
        raise UsageError("-a is missing", "name a network with -a NAME, or a --recipe")
    return str(architecture_file(of_recipe) or of_recipe)


def _pair(text: str) -> tuple[float, float]:
    """The two numbers of --betas."""
    try:
        one, two = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(f"--betas is {text}", "give two numbers: 0.9,0.98") from error
    if not (0 <= one < 1 and 0 <= two < 1):
        raise UsageError(f"--betas is {text}", "give numbers from 0 to below 1")
    return one, two
