"""Pre-training of a network, from labels or captions as noisy as they are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmlcli.data.samples import Samples
from nmlcli.data.sources import open_samples
from nmlcli.errors import NmlError, UsageError, first
from nmlcli.products.labels import renumber
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Record, hash_file, identity_of
from nmlcli.stages.epoch_log import check_log
from nmlcli.stages.inputs import check_stdin
from nmlcli.stages.objectives import OBJECTIVES, Lesson
from nmlcli.stages.outputs import (
    check_apart,
    check_no_input,
    check_place,
    record_of,
    up_to_date,
)
from nmlcli.stages.pretrain_options import PretrainOptions

if TYPE_CHECKING:
    from nmlcli.training.state import Crew, States

REVISION = 1


def pretrain(
    source: str,
    architecture: str,
    out: str | None,
    options: PretrainOptions,
    advance: Advance = silent,
) -> Record | None:
    """Train a network and write its checkpoint; returns the record, None where out is up to date.

    Under torchrun the processes train together and the first one writes. An interrupt leaves OUT.state
    and the state before it, which go when the checkpoint is there. The last epoch's weights are kept.
    Raises UsageError for options that exclude each other, InvalidInput for a set that cannot be learned
    from, NmlError where the loss is not finite.
    """
    _check(options, source, out)
    from nmlcli.training.distributed import joined

    with joined() as ranks:  # before the sets are opened, so that a remark on them is made once
        with ranks.one_after_another():  # since sets may be downloaded
            samples = open_samples(source, options.source)
            OBJECTIVES[options.objective].check(samples)
            validation = _validation(samples, options)
        sets = [samples] if validation is None else [samples, validation]
        files = [file for each in sets for file in each.files]
        check_no_input(out, files)
        check_no_input(options.log, files, "--log")
        plan = _Plan({"architecture": _name_of(architecture), **options.facts()}, sets)
        ranks.agree("sets or options", plan.identity())
        from nmlcli.stages.training import Training
        from nmlcli.training.state import Crew, States

        identity = plan.identity(Crew(ranks.size))
        if options.reuse and ranks.any(ranks.writer and up_to_date(out, identity, files)):
            return None
        lesson = OBJECTIVES[options.objective].open(samples, validation, architecture, options, ranks)
        training = Training(lesson, options, ranks)
        # Other numbers of processes may go on from a state: it is of the training without them.
        states = States(Path(f"{out}.state"), plan.identity()) if _is_file(out) else None
        measured = training.run(plan.identity, states, advance)
        record = plan.record(lesson, training.crew, measured, OBJECTIVES[options.objective].labelled)
        if ranks.writer:
            _write(out, record, training.weights(), states)
    return record


@dataclass(frozen=True)
class _Plan:
    """What decides a network, but for who trains it: options; the sets to train and validate on."""

    facts: dict[str, Any]
    sets: Sequence[Samples]

    def identity(self, crew: "Crew | None" = None) -> str:
        """Of the network that these processes train; without them, of the training."""
        facts = self.facts if crew is None else self.facts | _processes(crew)
        return identity_of("pretrain", REVISION, facts, [each.identity for each in self.sets])

    def record(
        self, lesson: Lesson, crew: "Crew", measured: Mapping[str, float], labelled: bool
    ) -> Record:
        """The record of the network. measured: what its last epoch showed."""
        samples, identity, facts = self.sets[0], self.identity(crew), self.facts | _processes(crew)
        noise = samples.noise if labelled else samples.text_noise
        model = {
            **lesson.facts, "identity": identity, "layer": None,
            "preprocessing": lesson.preprocessing.facts(), "seed": facts["seed"],
            "objective": facts["objective"], "data": samples.facts(), "noise": noise,
        }  # fmt: skip
        validation = self.sets[1].facts() if len(self.sets) > 1 else None
        return record_of(
            samples, "checkpoint", identity, "pretrain", facts, classes=lesson.classes, noise=noise,
            model=model, extra={"last_epoch": dict(measured), "validation": validation},
        )  # fmt: skip


def _is_file(out: str | None) -> bool:
    """Whether out is a file, or will be: not stdout, a pipe or a device, beside which no state lies."""
    return out not in (None, "-") and (Path(str(out)).is_file() or not Path(str(out)).exists())


def _processes(crew: "Crew") -> dict[str, Any]:
    """What a record says of how many processes trained: nothing of one, a number, or since which steps
    how many."""
    if len(crew.shifts) > 1:
        return {"processes": [[step, size] for step, size in crew.shifts]}
    size = crew.shifts[0][1]
    return {"processes": size} if size > 1 else {}


def _write(out: str | None, record: Record, weights: Any, states: "States | None") -> None:
    """Write the checkpoint; then what an interrupted training would go on from is not needed."""
    from nmlcli.products.checkpoint import Checkpoint
    from nmlcli.products.formats import write_checkpoint

    try:
        write_checkpoint(out, Checkpoint(record, weights, str(out)))
    except NmlError as error:
        if states is None or error.remedy:
            raise
        raise NmlError(error.wrong, "make room, then write it with --resume") from error
    if states is not None:
        states.remove()


def _name_of(architecture: str) -> str:
    """What a record calls an architecture: its name, or what the file of its configuration holds."""
    if not architecture.endswith(".json") or not Path(architecture).is_file():
        return architecture
    return f"{Path(architecture).stem} {hash_file(Path(architecture))}"


def _check(options: PretrainOptions, source: str, out: str | None) -> None:
    """Raise UsageError, before any work, where options exclude each other."""
    check_apart(out=out, log=options.log)
    inputs = [source, options.validation, options.source.labels, options.source.captions]
    check_place(out, inputs)
    check_log(options.log, inputs)
    if options.log in (f"{out}.state", f"{out}.state.previous"):
        raise UsageError(f"--log {options.log} is the file of a state", "give another name")
    if (options.mixup or options.cutmix) and options.batch_size % 2:
        raise UsageError("mixup takes batches of pairs", "give an even --batch-size")
    if options.warmup_epochs >= options.epochs:
        raise UsageError("the warm-up takes all epochs", "give more --epochs, or less --warmup-epochs")
    if options.warmup_epochs and options.warmup_steps is not None:
        raise UsageError("--warmup-epochs and --warmup-steps exclude each other", "give one of them")
    if options.clip is not None and not options.clip > 0:
        wrong = f"--clip {options.clip:g} leaves no gradient"
        raise UsageError(wrong, "give a length above 0, or leave it out")
    if options.label_smoothing == 1:
        raise UsageError("--label-smoothing 1 leaves nothing of the labels", "give a share below 1")
    _check_inputs(options, source)
    if not _is_file(out):
        if options.resume:
            raise UsageError("there is no state to resume on a pipe", "give -o FILE")
    elif Path(str(out)).suffix.lower() != ".safetensors":
        raise UsageError(f"a checkpoint cannot be written to {out}", "use .safetensors")


def _check_inputs(options: PretrainOptions, source: str) -> None:
    """Raise UsageError for inputs that cannot all be read, or that the objective has no use for."""
    given = {"--labels": options.source.labels, "--captions": options.source.captions}
    inputs = [source, options.validation, *given.values()]
    check_stdin(*inputs)
    if "-" in inputs and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("several processes cannot read one stdin", "name a file")
    unused = "--captions" if OBJECTIVES[options.objective].labelled else "--labels"
    if given[unused] is not None:
        wrong = f"{unused} does not apply to --objective {options.objective}"
        others = [name for name, row in OBJECTIVES.items() if name != options.objective]
        raise UsageError(wrong, f"it is for {first(others)}")


def _validation(samples: Samples, options: PretrainOptions) -> Samples | None:
    """The validation set, its labels in the numbers of the training set's classes."""
    if options.validation is None:
        return None
    whole = replace(options.source, labels=None, captions=None, limit=None, domain=None, classes=None)
    found = open_samples(options.validation, whole)
    row = OBJECTIVES[options.objective]
    row.check(found, validates=True)
    if row.labelled and options.source.classes and found.classes:
        from nmlcli.data.overlay import select_classes

        chosen = tuple(name for name in options.source.classes if name in found.classes)
        found = select_classes(found, chosen or options.source.classes)
    if not row.labelled or found.labels is None or found.classes is None or samples.classes is None:
        return found
    labels = renumber(found.labels, found.classes, samples.classes, str(found.name))
    return replace(found, labels=labels, classes=samples.classes)
