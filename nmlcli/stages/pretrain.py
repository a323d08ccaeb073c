"""Supervised pre-training of a classifier of timm, from labels as noisy as they are."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmlcli.data.samples import Samples
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products.labels import renumber
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Record, identity_of
from nmlcli.stages.outputs import check_apart, record_of, up_to_date
from nmlcli.training.augmentation import Strength

REVISION = 1

_UNTOLD = (
    "source",
    "validation",
    "workers",
    "resume",
    "save_every",
    "log",
    "reuse",
)  # do not change the weights


@dataclass(frozen=True)
class PretrainOptions:
    """How to train. None: size as the network has it; lr 0.1 for sgd, else 0.001; augment by size.

    source: how the set is read. validation: a set whose accuracy is told after each epoch. ema: the
    decay of the moving average of the weights that is kept in their place. save_every: minutes between
    two states that a training can go on from. log: a file of JSON Lines.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    validation: str | None = None
    epochs: int = 30
    batch_size: int = 128
    opt: str = "sgd"
    lr: float | None = None
    sched: str = "cosine"
    warmup_epochs: int = 0
    weight_decay: float = 5e-4
    momentum: float = 0.9
    clip: float | None = None
    size: int | None = None
    augment: str | None = None
    strength: Strength = field(default_factory=Strength)
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    ema: float | None = None
    precision: str = "fp32"
    seed: int = 0
    workers: int = 2
    resume: bool = False
    save_every: float = 10.0
    log: str | None = None
    reuse: bool = False

    @property
    def rate(self) -> float:
        """The learning rate, as given or by the optimiser."""
        return self.lr if self.lr is not None else (0.1 if self.opt in ("sgd", "momentum") else 1e-3)

    def facts(self) -> dict[str, Any]:
        """The options that change the result."""
        return {name: v for name, v in asdict(self).items() if name not in _UNTOLD} | {"lr": self.rate}


def pretrain(
    source: str,
    architecture: str,
    out: str | None,
    options: PretrainOptions,
    advance: Advance = silent,
) -> Record | None:
    """Train a network and write its checkpoint; returns the record, None where out is up to date.

    An interrupt leaves OUT.state and the state before it, which go when the checkpoint is there.
    The last epoch's weights are kept. Raises UsageError for options that exclude each other,
    InvalidInput for a set that cannot be learned from, NmlError where the loss is not finite.
    """
    _check(options, out)
    samples = open_samples(source, options.source)
    _check_labels(samples)
    validation = _validation(samples, options)
    sets = [samples] if validation is None else [samples, validation]
    facts = {"architecture": architecture, **options.facts()}
    identity = identity_of("pretrain", REVISION, facts, [each.identity for each in sets])
    if options.reuse and up_to_date(out, identity, [file for each in sets for file in each.files]):
        return None
    from nmlcli.products.checkpoint import Checkpoint
    from nmlcli.products.formats import write_checkpoint
    from nmlcli.stages.training import Training
    from nmlcli.training.state import States

    training = Training(samples, validation, architecture, options)
    state = None if out in (None, "-") else Path(f"{out}.state")
    measured = training.run(identity, state, advance)
    model = {
        "name": architecture, "identity": identity, "architecture": architecture, "layer": None,
        "preprocessing": training.preprocessing.facts(), "seed": options.seed,
        "objective": "supervised", "data": samples.facts(), "noise": samples.noise,
    }  # fmt: skip
    extra = {"last_epoch": measured, "validation": validation and validation.facts()}
    record = record_of(samples, "checkpoint", identity, "pretrain", facts, model=model, extra=extra)
    try:
        write_checkpoint(out, Checkpoint(record, training.weights(), str(out)))
    except NmlError as error:
        if state is None or error.remedy:
            raise
        raise NmlError(error.wrong, "make room, then write it with --resume") from error
    if state is not None:
        States(state, identity).remove()
    return record


def _check(options: PretrainOptions, out: str | None) -> None:
    """Raise UsageError, before any work, where options exclude each other."""
    check_apart(out=out, log=options.log)
    if (options.mixup or options.cutmix) and options.batch_size % 2:
        raise UsageError("mixup takes batches of pairs", "give an even --batch-size")
    if options.warmup_epochs >= options.epochs:
        raise UsageError("the warm-up takes all epochs", "give more --epochs")
    if out in (None, "-"):
        if options.resume:
            raise UsageError("there is no state to resume on a pipe", "give -o FILE")
    elif Path(str(out)).suffix.lower() != ".safetensors":
        raise UsageError(f"a checkpoint cannot be written to {out}", "use .safetensors")


def _check_labels(samples: Samples) -> None:
    """Raise InvalidInput where a set cannot teach a classifier."""
    if samples.labels is None or samples.classes is None:
        remedy = "lay some over it with --labels, or sort it into folders"
        raise InvalidInput(f"{samples.name} has no labels", remedy)
    outside = (samples.labels < 0) | (samples.labels >= len(samples.classes))
    if outside.any():
        bad = int(np.argmax(outside))
        raise InvalidInput(
            f"{samples.name}: sample {samples.ids[bad]} has label {samples.labels[bad]},"
            f" outside the {len(samples.classes)} classes"
        )
    if len(samples) < 2 or len(samples.classes) < 2:
        counts = f"{len(samples)} samples of {len(samples.classes)} classes"
        raise InvalidInput(f"{samples.name} has {counts}", "two of each are the least")


def _validation(samples: Samples, options: PretrainOptions) -> Samples | None:
    """The validation set, its labels in the numbers of the training set's classes."""
    if options.validation is None:
        return None
    whole = replace(options.source, labels=None, limit=None, domain=None, classes=None)
    found = open_samples(options.validation, whole)
    _check_labels(found)
    labels = renumber(found.labels, found.classes, samples.classes, str(found.name))  # type: ignore[arg-type]
    return replace(found, labels=labels, classes=samples.classes)
