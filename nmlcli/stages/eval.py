"""`eval`: heads scored on sets of features, in numpy alone; one result line a head and set."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.samples import SetName, split_name
from nmlcli.errors import InvalidInput, ThresholdMissed, UsageError
from nmlcli.numerics.spectra import Accumulator
from nmlcli.products import results
from nmlcli.products.features import Features
from nmlcli.products.formats import FORMATS, read_features, read_head, read_record
from nmlcli.products.head import Head
from nmlcli.products.labels import renumber
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import Record, canonical, identity_of
from nmlcli.stages.inputs import check_network, check_stdin, finite_blocks, provenance_keys
from nmlcli.stages.outputs import check_apart
from nmlcli.stages.scoring import MEASURED, Line, Scores, check_table, spectral

log = logging.getLogger(__name__)

REVISION = 1


@dataclass(frozen=True)
class EvalOptions:
    """What `nml eval` is asked for. tags: keys for every line, `role` among them."""

    tags: Mapping[str, str] = field(default_factory=dict)
    results: str | None = None
    predictions: str | None = None
    per_class: bool = False
    reuse: bool = False


class _Set(NamedTuple):
    """Opened features to score on, under the name that the lines give them."""

    features: Features
    name: SetName


class _Task(NamedTuple):
    """One head on one set: labels [N] in the head's numbers (None: unlabelled), and what its line
    says before anything is measured, its identity included."""

    head: Head
    labels: NDArray[np.int64] | None
    line: Line


def evaluate(
    head: str, sources: Sequence[str], options: EvalOptions, advance: Advance = silent
) -> list[Line]:
    """Score a head, or every head of a folder, on sets of features; returns a line for each pair.

    sources: features as FILE, NAME=FILE or `-`. A set without labels gives predictions and no line.
    Raises InvalidInput where a set does not fit a head: other network, width or classes.
    """
    check_stdin(head, *(split_name(source)[1] for source in sources))
    check_apart(results=options.results, predictions=options.predictions)
    heads, sets = _open_heads(head), [_open_set(source) for source in sources]
    if options.predictions is not None:
        if (len(heads), len(sets)) != (1, 1):
            raise UsageError("--predictions is for one head and one set", "name them")
        check_table(options.predictions)
    tasks = [_tasks(heads, opened, options) for opened in sets]
    known = _known_lines(options)
    total = sum(opened.features.rows for opened in sets)
    lines: list[Line] = []
    before = 0
    for opened, all_tasks in zip(sets, tasks, strict=True):
        missing = [task for task in all_tasks if task.line["identity"] not in known]
        if count := len(all_tasks) - len(missing):
            log.info("%s: %d of %d lines are up to date", opened.features.source, count, len(all_tasks))
        made = _score(opened, missing, options, shifted(advance, before, total))
        before += opened.features.rows
        if options.results is not None and made:
            results.merge(options.results, [group[0] for group in made.values()])
        identities = [task.line["identity"] for task in all_tasks]
        groups = [made.get(identity) or known.get(identity, []) for identity in identities]
        _warn(opened, [group[0] for group in groups if group])
        lines += [line for group in groups for line in group]
    return lines


def _warn(opened: _Set, lines: list[Line]) -> None:
    """Say what makes these scores less than they seem."""
    seen = sum(bool(line["seen"]) for line in lines)
    source, noise = opened.features.source, opened.features.record.noise or {}
    if seen:
        log.warning("%s: %d of %d heads were trained on this set", source, seen, len(lines))
    if flipped := noise.get("realised"):
        words = "%s: %.1f %% of its labels are noise, and the scores are against them"
        log.warning(words, source, 100 * flipped)


def check_threshold(lines: Iterable[Line], least: float) -> None:
    """Raise ThresholdMissed where the score of a result line is below `least`."""
    scores = {_title(line): line["score"] for line in lines if line["kind"] == "result"}
    if not scores:
        raise InvalidInput("nothing was scored", "--fail-under needs a set with labels")
    worst = min(scores, key=lambda title: scores[title])
    if scores[worst] < least:
        raise ThresholdMissed(f"{worst}: accuracy {scores[worst]:.4f} is below {least:g}")


def _title(line: Line) -> str:
    name = SetName(line["task"] or "the set", line["domain"], line["split"])
    return f"{line['method']} s{line['seed']} on {name}"


def _open_heads(source: str) -> list[Head]:
    """A head's file, or all heads in a folder by name; other products there are passed over."""
    if source == "-" or not Path(source).is_dir():
        return [read_head(source)]
    files = sorted(str(path) for path in Path(source).iterdir() if path.suffix in FORMATS)
    records = {file: read_record(file) for file in files}
    heads = [read_head(file) for file, record in records.items() if record and record.kind == "head"]
    if not heads:
        raise InvalidInput(f"{source} holds no heads", "make them with nml tune")
    return heads


def _open_set(source: str) -> _Set:
    name, path = split_name(source)
    features = read_features(path)
    data = features.record.data
    if name is None and data is not None:
        name = SetName(str(data.get("task")), data.get("domain"), data.get("split"))
    elif name is None:
        name = SetName("stdin") if path == "-" else SetName.of_path(path)
    return _Set(features, name)


def _tasks(heads: list[Head], opened: _Set, options: EvalOptions) -> list[_Task]:
    """The heads that a set is scored with, once all that can be checked of them fits."""
    features = opened.features
    if features.labels is None and options.predictions is None:
        remedy = "give --predictions FILE for predictions"
        raise InvalidInput(f"{features.source} has no labels", remedy)
    # Heads of one network are checked once, so that what is not known is said once.
    networks = {canonical([head.record.columns, head.record.model]): head for head in heads}
    for head in networks.values():
        check_network(head.record, head.source, features)
    return [_Task(head, _numbers(features, head), _line(opened, head, options)) for head in heads]


def _numbers(features: Features, head: Head) -> NDArray[np.int64] | None:
    """The set's labels in the head's numbers, matched by name; by number where names are not known."""
    if features.labels is None:
        return None
    own, wanted = features.record.classes, head.record.classes
    count = len(head.layers[-1][1])
    if own is not None and wanted is not None:
        return renumber(features.labels, own, wanted, features.source)
    if features.labels.max() >= count:
        highest = features.labels.max()
        raise InvalidInput(f"{features.source} has class number {highest}, the head {count} classes")
    log.warning("%s names no classes: their numbers are taken for the head's", features.source)
    return features.labels


def _known_lines(options: EvalOptions) -> dict[str, list[Line]]:
    """With --reuse, the lines that lie in --results already."""
    if not options.reuse:
        return {}
    if options.results is None or options.predictions is not None or options.per_class:
        remedy = "give it, without --predictions and --per-class"
        raise UsageError("--reuse answers from --results FILE", remedy)
    if not Path(options.results).is_file():
        return {}
    return {line["identity"]: [line] for line in results.read(options.results) if "identity" in line}


def _score(
    opened: _Set, tasks: list[_Task], options: EvalOptions, advance: Advance
) -> dict[str, list[Line]]:
    """Read a set once for all heads; returns each task's line and those of its classes, by identity."""
    if not tasks:
        return {}
    features = opened.features
    scores = [Scores(task.head, task.labels, features.rows) for task in tasks]
    shared = Accumulator(features.rows, features.columns)  # of F, the Z of every linear head
    for block in finite_blocks(features, advance):
        if any(score.linear for score in scores):
            shared.add(block)
        for score in scores:
            score.add(block)
    if options.predictions is not None:
        scores[0].write_predictions(options.predictions, features.ids)
    made = {}
    for task, score in zip(tasks, scores, strict=True):
        if task.labels is not None:
            line = {**task.line, **score.measures(), **spectral(score.sums or shared)}
            made[line["identity"]] = [line, *(score.per_class(line) if options.per_class else ())]
    return made


def _line(opened: _Set, head: Head, options: EvalOptions) -> Line:
    """The result line of a head on a set, with None for what is to be measured.

    The keys are the interface's. Raises UsageError for a tag that would hide one of them.
    """
    record, features = head.record, opened.features.record
    tuned, trained_on, noise = record.extra, record.data or {}, record.noise or {}
    differing = tuned.get("options") or {}
    settings = {"name": str(opened.name), "tags": dict(options.tags)}
    line = {
        "kind": "result",
        **asdict(opened.name),
        "role": _role(opened.name, trained_on),
        "rows": features.rows,
        "classes_scored": len(head.layers[-1][1]),
        "restricted": False,
        "seen": _seen(features, record),
        **{key: tuned.get(key) for key in ("method", "preset", "loss", "scale")},
        "options": ",".join(f"{key}={value}" for key, value in sorted(differing.items())),
        "seed": tuned.get("seed"),
        "fraction": 1.0,
        "selected_by": None,
        **dict.fromkeys(MEASURED),
        **_network_keys(features, record),
        "train_set": trained_on.get("name"),
        "train_noise": noise.get("kind"),
        "train_ratio": noise.get("requested"),
        "train_realised": noise.get("realised"),
        "head": record.identity,
        "features": features.identity,
        "identity": identity_of("eval", REVISION, settings, [record.identity, features.identity]),
    }
    taken = sorted(options.tags.keys() & line.keys() - {"role"})
    if taken:
        raise UsageError(f"--tag {taken[0]}: every line has that key", "take another name")
    return {**line, **options.tags}


def _network_keys(features: Record, head: Record) -> Line:
    """The keys of the network and its pre-training, from the features, else from the head."""
    told, tuned_for = provenance_keys(features), provenance_keys(head)
    keys = [key for key in told if key not in ("task", "domain", "split", "features")]
    return {key: tuned_for[key] if told[key] is None else told[key] for key in keys}


def _role(name: SetName, trained_on: Mapping[str, Any]) -> str | None:
    """id for the task and domain that the head was trained on, ood for another domain of the task."""
    if name.task != trained_on.get("task"):
        return None
    return "id" if name.domain == trained_on.get("domain") else "ood"


def _seen(features: Record, head: Record) -> bool:
    """Whether the head was trained on the set; `--val` only watches, the last epoch is what is kept."""
    identities = {features.identity, (features.data or {}).get("identity")}
    return bool(identities & set(head.extra.get("trained_on") or ()))
