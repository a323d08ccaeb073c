"""`tune`: features to heads, all of them from one set that stays in memory."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import read_features, write_head
from nmlcli.products.head import Head
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import Record, chain, identity_of
from nmlcli.stages.inputs import LabelledSet, check_network, check_stdin, labels_of, open_labelled
from nmlcli.stages.outputs import (
    check_apart,
    check_no_input,
    check_out,
    is_folder,
    make_folder,
    up_to_date,
)
from nmlcli.training.loop import Means
from nmlcli.tuning.heads import TrainableHead, accuracy, steps_per_epoch, train
from nmlcli.tuning.methods import check_knobs, settle
from nmlcli.tuning.presets import PRESETS, Settings

log = logging.getLogger(__name__)

REVISION = 1
_SMALL = 0.01  # of mean ‖f‖² / D: below it the covariance term, which grows as its square, is lost


@dataclass(frozen=True)
class TuneOptions:
    """What `nml tune` is asked for. knobs: settings given beside the preset's, by field name."""

    methods: tuple[str, ...] = ("nmtune",)
    preset: str = "paper"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    seeds: int = 1
    labels: str | None = None
    scale: str = "none"
    validation: str | None = None
    log: str | None = None
    reuse: bool = False


@dataclass(frozen=True)
class _Job:
    """One head to tune: its settings, where it goes, and what its record will be."""

    method: str
    seed: int
    settings: Settings
    out: str | None
    record: Record


def tune(
    sources: Sequence[str], out: str | None, options: TuneOptions, advance: Advance = silent
) -> list[Record]:
    """Tune heads on features and write them; returns their records, those up to date included.

    sources: parts of one set. out: a file for one head, a folder for several, None for stdout.
    Raises UsageError for knobs that do not apply, InvalidInput for features that cannot be used.
    """
    check_stdin(*sources, options.labels, options.validation)
    check_apart(out=out, log=options.log)
    for option, file in (("-o", out), ("--log", options.log)):
        check_no_input(file, (*sources, options.labels, options.validation), option)
    check_knobs(options.methods, options.knobs)
    scale = _parsed_scale(options.scale)
    targets = _targets(out, options)
    training = open_labelled(sources, options.labels)
    validation = _open_validation(options.validation, training) if options.validation else None
    jobs = [_job(*target, options, training, validation) for target in targets]
    files = [*sources, *filter(None, (options.labels, options.validation))]
    todo = jobs
    if options.reuse:
        todo = [job for job in jobs if not up_to_date(job.out, job.record.identity, files)]
    if todo:
        _tune(todo, training, validation, scale, options, advance)
    return [job.record for job in jobs]


def _tune(
    jobs: list[_Job],
    training: LabelledSet,
    validation: LabelledSet | None,
    scale: str | float,
    options: TuneOptions,
    advance: Advance,
) -> None:
    if PRESETS[options.preset].views > 1 and any(job.settings.layers for job in jobs):
        log.info("preset %s: the features hold one view a sample, so one is used", options.preset)
    matrix = training.matrix()
    mean_square = float(np.einsum("nd,nd->", matrix, matrix, dtype=np.float64)) / matrix.size
    factor = _factor(scale, mean_square)
    mean_square *= (factor or 1.0) ** 2
    if mean_square < _SMALL and any(job.settings.lambda_ * job.settings.cov for job in jobs):
        log.warning(
            "the features are so small (mean ‖f‖² / D is %.2g) that the covariance term means nothing:"
            " try --scale rms", mean_square,
        )  # fmt: skip
    features, labels = _scaled(matrix, factor), torch.from_numpy(training.labels)
    held_out = None
    if validation is not None:
        held_out = _scaled(validation.matrix(), factor), torch.from_numpy(validation.labels)
    steps = [j.settings.epochs * steps_per_epoch(len(labels), j.settings.batch_size) for j in jobs]
    with ExitStack() as stack:
        journal = stack.enter_context(Path(options.log).open("w")) if options.log else None
        for number, job in enumerate(jobs):
            head = TrainableHead(features.shape[1], len(training.classes), job.settings, job.seed)
            upwards = shifted(advance, sum(steps[:number]), sum(steps))
            watch = _Watch(head, job, held_out, journal, upwards)
            train(
                head, features, labels, job.settings, job.seed,
                after_epoch=watch.after_epoch, advance=watch.advance,
            )  # fmt: skip
            layers, residual = head.folded()
            write_head(job.out, Head(job.record, layers, residual, factor, job.out or "stdout"))
            log.info("%s", watch.summary(len(labels)))


@dataclass
class _Watch:
    """What is told of one head while it is tuned: the log's lines, the bar (`up`), the summary."""

    head: TrainableHead
    job: _Job
    held_out: tuple[torch.Tensor, torch.Tensor] | None
    journal: IO[str] | None
    up: Advance
    last: Means = field(default_factory=dict)

    def after_epoch(self, epoch: int, means: Means) -> None:
        self.last = dict(means)
        if self.held_out is not None:
            self.last["val_accuracy"] = accuracy(self.head, *self.held_out)
        if self.journal is not None:
            named = {"method": self.job.method, "seed": self.job.seed, "epoch": epoch + 1}
            self.journal.write(json.dumps({**named, **self.last}) + "\n")
            self.journal.flush()

    def advance(self, done: int, total: int | None, **values: float | str) -> None:
        held_out = {name: self.last[name] for name in ("val_accuracy",) if name in self.last}
        self.up(done, total, method=self.job.method, loss=values.get("loss", ""), **held_out)

    def summary(self, rows: int) -> str:
        held_out = self.last.get("val_accuracy")
        checked = f", validation accuracy {100 * held_out:.1f} %" if held_out is not None else ""
        made = f"{self.job.out or 'stdout'}: {self.job.method}, seed {self.job.seed}"
        return f"{made}, on {rows:,} rows, loss {self.last['loss']:.4f}{checked}"


def _targets(out: str | None, options: TuneOptions) -> list[tuple[str, int, str | None]]:
    """Method, seed and file of each head. Raises UsageError for several heads without a folder."""
    pairs = [
        (method, options.seed + number)
        for method in dict.fromkeys(options.methods)
        for number in range(options.seeds)
    ]
    if not is_folder(out):
        if len(pairs) > 1:
            raise UsageError(f"{len(pairs)} heads do not go into one file", "give a folder: -o DIR/")
        check_out(out)
        return [(*pairs[0], out)]
    folder = make_folder(str(out))
    return [(method, seed, str(folder / f"{method}-s{seed}.safetensors")) for method, seed in pairs]


def _job(
    method: str,
    seed: int,
    out: str | None,
    options: TuneOptions,
    training: LabelledSet,
    validation: LabelledSet | None,
) -> _Job:
    settings, differing = settle(method, options.preset, options.knobs)
    first_part = training.parts[0].record
    asked = {"method": method, "preset": options.preset, "seed": seed, "scale": options.scale}
    made_by = {**asked, **differing}
    checked_on = validation.known_as if validation else None
    made_from = [*(r.identity for r in training.records), "validation", *(checked_on or ())]
    extra = {
        **asked, "options": differing, "activation": settings.activation, "loss": "ce",
        "trained_on": training.known_as, "validated_on": checked_on,
    }  # fmt: skip
    record = Record(
        "head", identity_of("tune", REVISION, made_by, made_from), "tune", made_by, training.classes,
        rows=len(training.labels), columns=first_part.columns, data=training.data,
        model=first_part.model, noise=training.noise, parents=chain(*training.records), extra=extra,
    )  # fmt: skip
    return _Job(method, seed, settings, out, record)


def _open_validation(source: str, training: LabelledSet) -> LabelledSet:
    part = read_features(source)
    check_network(training.parts[0].record, training.parts[0].source, part)
    numbers = labels_of(part, training.classes)
    return LabelledSet((part,), numbers, training.classes, part.record.noise, None)


def _parsed_scale(scale: str) -> str | float:
    """`none`, `rms` or a factor above 0."""
    if scale in ("none", "rms"):
        return scale
    try:
        factor = float(scale)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"--scale is {scale}", "give none, rms or a factor above 0")
    return factor


def _factor(scale: str | float, mean_square: float) -> float | None:
    """What features are multiplied by; rms makes the mean of ‖f‖² / D on the training rows 1."""
    if scale == "none":
        return None
    if scale != "rms":
        return float(scale)
    if mean_square == 0:
        raise InvalidInput("all features are 0", "there is no scale to take")
    return float(mean_square**-0.5)


def _scaled(features: NDArray[np.float32], factor: float | None) -> torch.Tensor:
    """Features as a tensor, multiplied in place as the head will do it."""
    if factor is not None:
        features *= np.float32(factor)
    return torch.from_numpy(features)
