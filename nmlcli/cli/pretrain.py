"""`nml pretrain`: a classifier from labels as noisy as they are."""

from typing import Annotated

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.data.sources import SourceOptions
from nmlcli.models.precision import PRECISIONS
from nmlcli.training.augmentation import AUGMENTATIONS, Strength
from nmlcli.training.schedules import SCHEDULES

_TRAINING, _IMAGES, _TARGETS = "Training", "Images", "Targets"


@options.with_source
def pretrain(
    data: options.Data = None,
    *,
    architecture: Annotated[str, option("-a --arch NAME", "A network of timm.")],
    out: options.Out = None,
    val: Annotated[
        str | None, option("--val DATA", "Tell the accuracy on this set after each epoch.")
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
    epochs: Annotated[int, option("--epochs N", "Passes over the set.", _TRAINING, min=1)] = 30,
    batch_size: Annotated[int, option("--batch-size N", "Images of a step.", _TRAINING, min=2)] = 128,
    opt: Annotated[str, option("--opt NAME", "An optimiser of timm.", _TRAINING)] = "sgd",
    lr: Annotated[
        float | None,
        option("--lr X", "Learning rate, else 0.1 for sgd and 0.001 for others.", _TRAINING, min=0),
    ] = None,
    sched: Annotated[
        str, choice(SCHEDULES, "--sched SCHED", "How the rate falls, a step at a time", _TRAINING)
    ] = "cosine",
    warmup_epochs: Annotated[
        int, option("--warmup-epochs N", "Epochs in which it rises.", _TRAINING, min=0)
    ] = 0,
    weight_decay: Annotated[
        float, option("--weight-decay W", "Not of biases and norms.", _TRAINING, min=0)
    ] = 5e-4,
    momentum: Annotated[
        float, option("--momentum M", "Of optimisers that have one.", _TRAINING, min=0, max=1)
    ] = 0.9,
    clip: Annotated[float | None, option("--clip NORM", "Longest gradient.", _TRAINING, min=0)] = None,
    ema: Annotated[
        float | None,
        option("--ema DECAY", "Keep a moving average of the weights.", _TRAINING, min=0, max=1),
    ] = None,
    precision: Annotated[
        str, choice(PRECISIONS, "--precision PRECISION", "Compute in", _TRAINING)
    ] = "fp32",
    size: Annotated[
        int | None,
        option("--size PIXELS", "Size of the images, else the network's.", _IMAGES, min=8, max=4096),
    ] = None,
    augment: Annotated[
        str | None,
        choice(AUGMENTATIONS, "--augment AUGMENT", "Up to 64 pixels shift, else crop", _IMAGES),
    ] = None,
    hflip: Annotated[float, option("--hflip P", "Mirror images.", _IMAGES, min=0, max=1)] = 0.5,
    scale: Annotated[
        float, option("--scale SHARE", "Smallest part of a crop.", _IMAGES, min=0.01, max=1)
    ] = 0.08,
    color_jitter: Annotated[
        float, option("--color-jitter J", "Crops vary in colour by 1 ± this.", _IMAGES, min=0, max=1)
    ] = 0.0,
    auto_augment: Annotated[
        str | None,
        option(
            "--auto-augment POLICY", "Crops are changed as timm names it: rand-m9-mstd0.5.", _IMAGES
        ),
    ] = None,
    reprob: Annotated[
        float, option("--reprob P", "Erase a part of crops.", _IMAGES, min=0, max=1)
    ] = 0.0,
    workers: Annotated[
        int, option("--workers N", "Threads that read images ahead.", _IMAGES, min=0)
    ] = 2,
    mixup: Annotated[float, option("--mixup ALPHA", "Mix pairs.", _TARGETS, min=0)] = 0.0,
    cutmix: Annotated[float, option("--cutmix ALPHA", "Paste parts of pairs.", _TARGETS, min=0)] = 0.0,
    label_smoothing: Annotated[
        float,
        option("--label-smoothing SHARE", "Spread this over all classes.", _TARGETS, min=0, max=1),
    ] = 0.0,
    source: SourceOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a network of timm to classify images; the last epoch's weights are kept.

    The checkpoint is read by `nml embed -m` and by timm itself. Until it is there, OUT.state is what
    `--resume` goes on from, to the same bytes: after Ctrl-C or SIGTERM from the latest step, after a
    kill or power loss from the latest state saved. OUT.state.previous stands in for a damaged one.
    """
    from nmlcli.stages.pretrain import PretrainOptions
    from nmlcli.stages.pretrain import pretrain as run

    name = options.one_input(data, "DATA")
    render.refuse_terminal(out)
    asked = PretrainOptions(
        source=source, validation=val, epochs=epochs, batch_size=batch_size, opt=opt, lr=lr,
        sched=sched, warmup_epochs=warmup_epochs, weight_decay=weight_decay, momentum=momentum,
        clip=clip, size=size, augment=augment,
        strength=Strength(scale, hflip, color_jitter, auto_augment, reprob), mixup=mixup, cutmix=cutmix,
        label_smoothing=label_smoothing, ema=ema, precision=precision,
        seed=seed, workers=workers, resume=resume, save_every=save_every, log=log, reuse=reuse,
    )  # fmt: skip
    with render.progress("pretrain", quiet) as advance:
        run(name, architecture, out, asked, advance)
