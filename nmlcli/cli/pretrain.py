"""`nml pretrain`: a classifier from labels as noisy as they are."""

from typing import Annotated

import typer

from nmlcli.cli import render
from nmlcli.cli.options import (
    Classes,
    Data,
    Domain,
    IdColumn,
    ImageColumn,
    LabelColumn,
    Labels,
    Limit,
    Out,
    Quiet,
    Reuse,
    Root,
    Seed,
    Verbose,
    choice,
    one_input,
    split,
)
from nmlcli.data.sources import SourceOptions
from nmlcli.models.precision import PRECISIONS
from nmlcli.training.augmentation import AUGMENTATIONS, Strength
from nmlcli.training.schedules import SCHEDULES

_TRAINING, _IMAGES, _TARGETS = "Training", "Images", "Targets"


def pretrain(
    data: Data = None,
    architecture: Annotated[
        str, typer.Option("-a", "--arch", metavar="NAME", help="A network of timm.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    out: Out = None,
    val: Annotated[
        str | None, typer.Option(metavar="DATA", help="Tell the accuracy on this set after each epoch.")
    ] = None,
    seed: Seed = 0,
    log: Annotated[str | None, typer.Option(metavar="FILE", help="Write a JSON line an epoch.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last whole epoch, from OUT.state.")
    ] = False,
    reuse: Reuse = False,
    epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Passes over the set.", rich_help_panel=_TRAINING)
    ] = 30,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=2, help="Images of a step.", rich_help_panel=_TRAINING)
    ] = 128,
    opt: Annotated[
        str, typer.Option(metavar="NAME", help="An optimiser of timm.", rich_help_panel=_TRAINING)
    ] = "sgd",
    lr: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Learning rate, else 0.1 for sgd and 0.001 for others.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    sched: Annotated[
        str, choice(SCHEDULES, "--sched", help="How the rate falls, a step at a time", panel=_TRAINING)
    ] = "cosine",
    warmup_epochs: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Epochs in which it rises.", rich_help_panel=_TRAINING),
    ] = 0,
    weight_decay: Annotated[
        float,
        typer.Option(metavar="W", min=0, help="Not of biases and norms.", rich_help_panel=_TRAINING),
    ] = 5e-4,
    momentum: Annotated[
        float,
        typer.Option(
            metavar="M", min=0, max=1, help="Of optimisers that have one.", rich_help_panel=_TRAINING
        ),
    ] = 0.9,
    clip: Annotated[
        float | None,
        typer.Option(metavar="NORM", min=0, help="Longest gradient.", rich_help_panel=_TRAINING),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY",
            min=0,
            max=1,
            help="Keep a moving average of the weights.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    precision: Annotated[
        str, choice(PRECISIONS, "--precision", help="Compute in", panel=_TRAINING)
    ] = "fp32",
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=8,
            help="Size of the images, else the network's.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    augment: Annotated[
        str | None,
        choice(AUGMENTATIONS, "--augment", help="Up to 64 pixels shift, else crop", panel=_IMAGES),
    ] = None,
    hflip: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Mirror images.", rich_help_panel=_IMAGES)
    ] = 0.5,
    scale: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0.01, max=1, help="Smallest part of a crop.", rich_help_panel=_IMAGES
        ),
    ] = 0.08,
    color_jitter: Annotated[
        float,
        typer.Option(
            metavar="J", min=0, max=1, help="Crops vary in colour by 1 ± this.", rich_help_panel=_IMAGES
        ),
    ] = 0.0,
    auto_augment: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Crops are changed as timm names it: rand-m9-mstd0.5.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    reprob: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="Erase a part of crops.", rich_help_panel=_IMAGES),
    ] = 0.0,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Threads that read images ahead.", rich_help_panel=_IMAGES
        ),
    ] = 2,
    mixup: Annotated[
        float, typer.Option(metavar="ALPHA", min=0, help="Mix pairs.", rich_help_panel=_TARGETS)
    ] = 0.0,
    cutmix: Annotated[
        float,
        typer.Option(metavar="ALPHA", min=0, help="Paste parts of pairs.", rich_help_panel=_TARGETS),
    ] = 0.0,
    label_smoothing: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Spread this over all classes.",
            rich_help_panel=_TARGETS,
        ),
    ] = 0.0,
    labels: Labels = None,
    limit: Limit = None,
    domain: Domain = None,
    classes: Classes = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    id_column: IdColumn = "id",
    root: Root = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network of timm to classify images; the last epoch's weights are kept.

    The checkpoint is read by `nml embed -m` and by timm itself.
    """
    from nmlcli.stages.pretrain import PretrainOptions
    from nmlcli.stages.pretrain import pretrain as run

    name = one_input(data, "DATA")
    render.refuse_terminal(out)
    source = SourceOptions(
        labels=labels, limit=limit, domain=domain, classes=tuple(split(classes)) or None,
        image_column=image_column, label_column=label_column, id_column=id_column, root=root,
    )  # fmt: skip
    options = PretrainOptions(
        source=source, validation=val, epochs=epochs, batch_size=batch_size, opt=opt, lr=lr,
        sched=sched, warmup_epochs=warmup_epochs, weight_decay=weight_decay, momentum=momentum,
        clip=clip, size=size, augment=augment,
        strength=Strength(scale, hflip, color_jitter, auto_augment, reprob), mixup=mixup, cutmix=cutmix,
        label_smoothing=label_smoothing, ema=ema, precision=precision,
        seed=seed, workers=workers, resume=resume, log=log, reuse=reuse,
    )  # fmt: skip
    with render.progress("pretrain", quiet) as advance:
        run(name, architecture, out, options, advance)
