"""`tune`: features to heads, all of them from one set."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.numerics.logistic import usual_l2s
from nmlcli.products.formats import read_features, read_record, write_head
from nmlcli.products.head import Head
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import Record
from nmlcli.stages.epoch_log import check_log, opened
from nmlcli.stages.head_records import Origin
from nmlcli.stages.inputs import LabelledSet, check_network, check_stdin, labels_of, open_labelled
from nmlcli.stages.outputs import (
    check_apart,
    check_no_input,
    check_out,
    is_folder,
    make_folder,
    up_to_date,
)
from nmlcli.stages.realised import clean_labels, transition
from nmlcli.stages.selection import (
    Candidate,
    Outcome,
    Ranking,
    Trainer,
    Tried,
    best_of,
    candidates_of,
)
from nmlcli.stages.splits import Portion, check_shared, fraction_of, split_off
from nmlcli.stages.tune_options import TuneOptions, checked
from nmlcli.tuning.criteria import LOSSES
from nmlcli.tuning.methods import TRAINED
from nmlcli.tuning.presets import PRESETS

log = logging.getLogger(__name__)

_TINY, _HUGE = (float(bound) for bound in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
_SMALL = 0.01  # of mean ‖f‖² / D: below it the covariance term, which grows as its square, is lost


@dataclass(frozen=True)
class _Target:
    """One head: its seed, its file, the options that it is made by, its identity."""

    seed: int
    out: str | None
    made_by: Mapping[str, Any]
    identity: str


@dataclass(frozen=True)
class _Group:
    """Candidates of which one is kept, and the heads that come of it, one a seed."""

    candidates: tuple[Candidate, ...]
    targets: tuple[_Target, ...]
    chooses: bool

    @property
    def seeds(self) -> list[int]:
        return [target.seed for target in self.targets]


def tune(
    sources: Sequence[str],
    out: str | None,
    options: TuneOptions,
    advance: Advance = silent,
    show: Callable[[Ranking], None] = lambda ranking: None,
) -> list[Record]:
    """Tune heads on features and write them; returns their records, those up to date included.

    sources: parts of one set. out: a file for one head, a folder for several, None for stdout. show:
    gets the candidates of a choice, best first. Raises UsageError for options that do not go together,
    InvalidInput for features that cannot be used.
    """
    options = checked(options)
    files = [*sources, *options.inputs]
    check_stdin(*files)
    check_apart(out=out, log=options.log)
    check_no_input(out, files)
    scale = _parsed_scale(options.scale)
    folder = _folder(out, options)
    check_log(options.log, files, b'{"method": ')  # which may go to the folder too
    whole = open_labelled(sources, options.labels)
    origin = _origin(whole, options)
    groups = _groups(out, folder, origin, options)
    for target in (target for group in groups for target in group.targets):
        check_no_input(target.out, files)
        check_apart(out=target.out, log=options.log)
    todo = groups
    if options.reuse:
        todo = [group for old in groups if (group := _unfinished(old, files)) is not None]
    made: dict[str, Record] = {}
    if todo:
        made = _tune(todo, origin, scale, options, advance, show)
    return [_record_of(target, made) for group in groups for target in group.targets]


def _folder(out: str | None, options: TuneOptions) -> Path | None:
    """The folder that heads go to, if they do. Raises UsageError for several heads and one file."""
    if is_folder(out):
        return make_folder(str(out))
    count = options.seeds * (1 if options.validates else len(options.methods))
    if count > 1:
        remedy = "give a folder: -o DIR/"
        if options.seeds == 1:
            remedy += ", or --val or --val-fraction to keep the best"
        raise UsageError(f"{count} heads do not go into one file", remedy)
    check_out(out)
    return None


def _views(whole: LabelledSet, options: TuneOptions) -> bool:
    """Whether heads are trained on two views of each sample."""
    preset = PRESETS[options.preset]
    wanted = preset.views > 1 if options.views is None else options.views
    layers = [TRAINED[method].settings(preset).layers for method in options.methods]
    if options.views and not any(layers):
        raise UsageError(f"--views does not apply to {first(options.methods)}", "leave it out")
    if not (wanted and any(layers)):
        return False
    if lack := _lack_of_views(whole):
        if options.views:
            raise InvalidInput(lack, "give --no-views, or features with two views of each sample")
        log.info("preset %s: %s, so one view of each is used", options.preset, lack)
        return False
    if by_row := [loss for loss in options.losses if LOSSES[loss].by_row]:
        raise UsageError(f"--loss {by_row[0]} follows one view of a row", "give --no-views")
    return True


def _lack_of_views(whole: LabelledSet) -> str:
    """Why there are no two views of each sample to train on; nothing where there are."""
    one = whole.parts[0]
    if lacking := [part.source for part in whole.parts if part.num_views < 2]:
        return f"{first(lacking)} holds no two views of each sample"
    for part in whole.parts:
        if part.num_views != one.num_views:
            return f"{part.source} holds {part.num_views} views a sample, {one.source} {one.num_views}"
    return ""


def _origin(whole: LabelledSet, options: TuneOptions) -> Origin:
    """The rows to train and to validate on, and what the heads' records say of them."""
    views = _views(whole, options)
    training, validation = Portion(whole), None
    asked: dict[str, Any] = {"preset": options.preset, "scale": options.scale}
    if options.val_fraction is not None:
        # Before a share is taken, so that all shares are validated on the same rows.
        training, validation = split_off(training, options.val_fraction, options.seed)
        asked["val_fraction"] = options.val_fraction
    training = fraction_of(training, options.fraction, options.seed)
    if options.fraction < 1:
        asked["fraction"] = options.fraction
    if training.rows is not None:
        asked["split_seed"] = options.seed
    asked |= {"refit": True} if options.refit else {}
    asked |= {"views": 2} if views else {}
    if options.validation is not None:
        validation = _open_validation(options.validation, whole, views and options.refit)
        check_shared(training, validation, refit=options.refit)
    corrected = any(LOSSES[loss].transition for loss in options.losses)
    clean, matrix = None, None
    if corrected or training.rows is not None:
        clean = clean_labels(whole, options.labels)
    if corrected:
        matrix = transition(whole, clean)
    return Origin(training, validation, clean, asked, options.refit, views, matrix)


def _open_validation(source: str, training: LabelledSet, views: bool) -> Portion:
    part, one = read_features(source), training.parts[0]
    check_network(one.record, one.source, part)
    numbers = labels_of(part, training.classes)
    if views and part.num_views != one.num_views:
        wrong = f"{source} holds {part.num_views} views a sample, {one.source} {one.num_views}"
        raise InvalidInput(wrong, "leave --refit out, or give --no-views")
    return Portion(LabelledSet((part,), numbers, training.classes, part.record.noise, None))


def _groups(out: str | None, folder: Path | None, origin: Origin, options: TuneOptions) -> list[_Group]:
    """What there is to tune: in a folder a head a method and seed, else one head."""
    lists = [(method,) for method in options.methods] if folder else [options.methods]
    return [_group(methods, out, folder, origin, options) for methods in lists]


def _group(
    methods: tuple[str, ...],
    out: str | None,
    folder: Path | None,
    origin: Origin,
    options: TuneOptions,
) -> _Group:
    found = candidates_of(methods, options.preset, options.knobs, options.grid, options.solver)
    chooses, seeds, targets = len(found) > 1 or options.l2 == "auto", options.all_seeds, []
    for seed in seeds:
        made_by = origin.told(found[0], seed)
        if chooses:
            given = {**options.knobs, "solver": options.solver}
            given |= {"l2": "auto"} if options.l2 == "auto" else {}
            made_by = {"seed": seed, **origin.told_of_choice(methods, seeds, given, options.grid)}
        file = str(folder / f"{methods[0]}-s{seed}.safetensors") if folder else out
        targets.append(_Target(seed, file, made_by, origin.identity(made_by)))
    return _Group(found, tuple(targets), chooses)


def _unfinished(group: _Group, files: Sequence[str]) -> _Group | None:
    """What of a group is still to be made: all of it where something is chosen, else single heads."""
    left = [target for target in group.targets if not up_to_date(target.out, target.identity, files)]
    if left and not group.chooses:
        return replace(group, targets=tuple(left))
    return group if left else None


def _record_of(target: _Target, made: Mapping[str, Record]) -> Record:
    if target.identity in made:
        return made[target.identity]
    record = read_record(str(target.out))
    if record is None:
        raise InvalidInput(f"{target.out} has no record", "make it again without --reuse")
    return record


def _descent(origin: Origin, journal: IO[str] | None) -> Trainer:
    from nmlcli.stages.descent import Descent

    return Descent(
        origin.training, origin.validation, views=origin.views, refit=origin.refit,
        transition=origin.transition, journal=journal,
    )  # fmt: skip


def _full_batch(origin: Origin, journal: IO[str] | None) -> Trainer:
    from nmlcli.stages.full_batch import FullBatch

    return FullBatch(origin.training, origin.validation, journal=journal)


# What trains for a row of SOLVERS, loaded when it is asked for.
_TRAINERS = {"adamw": _descent, "lbfgs": _full_batch}


def _tune(
    groups: Sequence[_Group],
    origin: Origin,
    scale: str | float,
    options: TuneOptions,
    advance: Advance,
    show: Callable[[Ranking], None],
) -> dict[str, Record]:
    """Tune and write the heads of all groups; returns their records by identity."""
    made: dict[str, Record] = {}
    with ExitStack() as stack:
        journal = stack.enter_context(opened(options.log)) if options.log else None
        trainer = _TRAINERS[options.solver](origin, journal)
        factor = _factor(scale, trainer.mean_square)
        if factor is not None:
            trainer.scale(factor)
        mean_square = trainer.mean_square * (factor or 1.0) ** 2
        _warn_of_small(mean_square, groups)
        if options.l2 == "auto":
            groups = [_along_path(group, mean_square) for group in groups]
        steps = [_steps(group, trainer, origin.refit) for group in groups]
        for number, group in enumerate(groups):
            up = shifted(advance, sum(steps[:number]), sum(steps))
            for target, outcome, record in _tuned(group, trainer, origin, up, show):
                made[target.identity] = record
                head = Head(record, outcome.layers, outcome.residual, factor, target.out or "stdout")
                write_head(target.out, head)
                log.info("%s", _summary(target, outcome, record))
                if options.l2 == "auto":
                    _tell_of_end(record, group)
    return made


def _along_path(group: _Group, mean_square: float) -> _Group:
    """The values of --l2 auto as the candidates of a group."""
    if mean_square == 0:
        raise InvalidInput("all features are 0", "there is nothing to learn from")
    found = [
        Candidate(one.method, replace(one.settings, l2=l2), {**one.differing, "l2": l2}, {"l2": l2})
        for one in group.candidates
        for l2 in usual_l2s(mean_square)
    ]
    return replace(group, candidates=tuple(found))


def _tell_of_end(record: Record, group: _Group) -> None:
    """Remark that the value that was chosen is the first or the last of the path."""
    chosen, l2s = record.extra["options"]["l2"], [each.settings.l2 for each in group.candidates]
    for end, words in ((max(l2s), ("strongest", "larger")), (min(l2s), ("weakest", "smaller"))):
        if chosen == end:
            told = "--l2 auto: the best, %.3g, is the %s of the path: try %s ones by --grid l2=A,B"
            log.info(told, chosen, *words)


def _steps(group: _Group, trainer: Trainer, refit: bool) -> int:
    """Steps of a group's trials, and with a refit those of its longest candidate once more."""
    again = max(trainer.steps([candidate], group.seeds) for candidate in group.candidates)
    return trainer.steps(group.candidates, group.seeds) + refit * again


def _tuned(
    group: _Group, trainer: Trainer, origin: Origin, up: Advance, show: Callable[[Ranking], None]
) -> Iterator[tuple[_Target, Outcome, Record]]:
    """The heads of a group, each when it is ready: all candidates are tried, one is kept."""
    found: Iterable[Tried] = trainer.tried(group.candidates, group.seeds, up)
    ranking = None
    if group.chooses:
        candidate, outcomes, ranking = best_of(found, show)
        found = [(candidate, seed, outcome) for seed, outcome in outcomes.items()]
    elif origin.refit:
        found = list(found)  # so that no trial comes between two refits
    done, targets = trainer.steps(group.candidates, group.seeds), {t.seed: t for t in group.targets}
    total = _steps(group, trainer, origin.refit)
    for candidate, seed, outcome in found:
        if outcome is None:
            raise ValueError("a training that failed is kept")
        if origin.refit:
            again = trainer.again(candidate, seed, shifted(up, done, total))
            done += trainer.steps([candidate], [seed])
            outcome = replace(again, means={**outcome.means, "loss": again.means["loss"]})
        target = targets[seed]
        yield target, outcome, origin.record(candidate, seed, target.made_by, ranking)


def _summary(target: _Target, outcome: Outcome, record: Record) -> str:
    checked_by = outcome.means.get("val_accuracy")
    checks = "" if checked_by is None else f", validation accuracy {100 * checked_by:.1f} %"
    refit = " before the refit" if record.extra.get("refit") else ""
    made = f"{target.out or 'stdout'}: {record.extra['method']}, seed {target.seed}"
    loss = f"loss {outcome.means['loss']:.4f}"
    return f"{made}, on {record.rows:,} rows, {loss}{checks}{refit if checks else ''}"


def _warn_of_small(mean_square: float, groups: Sequence[_Group]) -> None:
    settings = [candidate.settings for group in groups for candidate in group.candidates]
    if mean_square < _SMALL and any(each.lambda_ * each.cov for each in settings):
        log.warning(
            "the features are so small (mean ‖f‖² / D is %.2g) that the covariance term means nothing:"
            " try --scale rms", mean_square,
        )  # fmt: skip


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
    if not _TINY <= factor <= _HUGE:
        raise UsageError(f"--scale is {scale}, which float32 does not hold", "give --scale rms")
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
