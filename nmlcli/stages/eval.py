"""`eval`: heads scored on sets of features, in numpy alone; one result line a head and set."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.samples import SetName, split_name
from nmlcli.errors import InvalidInput, ThresholdMissed, UsageError
from nmlcli.numerics.scores import METRICS
from nmlcli.numerics.spectra import Accumulator
from nmlcli.products import results
from nmlcli.products.features import Features
from nmlcli.products.formats import FORMATS, open_container, read_features, read_record
from nmlcli.products.head import Head, unpack_head
from nmlcli.products.tables import Table
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import canonical, hash_file
from nmlcli.stages.classes import Contest, Rule, contest, read_class_map
from nmlcli.stages.classifier import own_classifier
from nmlcli.stages.comparison import Right, compared, is_predictions, read_predictions, right_of
from nmlcli.stages.inputs import check_network, check_stdin, finite_blocks
from nmlcli.stages.lines import result_line
from nmlcli.stages.outputs import check_apart, check_no_input, check_results
from nmlcli.stages.scoring import Line, Scores, Scoring, check_table, spectral

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalOptions:
    """What `nml eval` is asked for. tags: keys for every line, `role` among them.

    restrict, class_map, class_map_by: which classes compete; see classes.Rule. versus: a head or a
    table of predictions to compare with. scoring: by what.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    results: str | None = None
    predictions: str | None = None
    per_class: bool = False
    reuse: bool = False
    restrict: bool = False
    class_map: str | None = None
    class_map_by: str | None = None
    versus: str | None = None
    scoring: Scoring = field(default_factory=Scoring)


class _Rival(NamedTuple):
    """What heads are compared with. predictions: a table's, where it is not a head."""

    identity: str
    head: Head | None
    predictions: Table | None


class _Set(NamedTuple):
    """Opened features to score on, under the name that the lines give them. theirs: what the rival has
    right of its rows, or the classes of the rival's head."""

    features: Features
    name: SetName
    theirs: Right | Contest | None


class _Task(NamedTuple):
    """One head on one set: labels [N] in the contest's numbers (None: unlabelled), and what its line
    says before anything is measured, its identity included."""

    contest: Contest
    labels: NDArray[np.int64] | None
    line: Line


def evaluate(
    head: str, sources: Sequence[str], options: EvalOptions, advance: Advance = silent
) -> list[Line]:
    """Score a head, or every head of a folder, on sets of features; returns a line for each pair.

    head: a head, a folder of them, or a checkpoint, whose own classifier is meant. sources: features as
    FILE, NAME=FILE or `-`. A set without labels gives predictions and no line. Raises InvalidInput
    where a set does not fit a head: other network, width or classes.
    """
    _check(head, sources, options)
    rule = Rule(options.restrict, _class_map(options), options.class_map_by or "max")
    heads, rival = _open_heads(head), _open_rival(options.versus)
    if options.predictions is not None and (len(heads), len(sources)) != (1, 1):
        raise UsageError("--predictions is for one head and one set", "name them")
    sets = [_open_set(source, rival, rule) for source in sources]
    tasks = [_tasks(heads, opened, rival, rule, options) for opened in sets]
    known = _known_lines(options)
    total = sum(opened.features.rows for opened in sets)
    lines: list[Line] = []
    before = 0
    for opened, all_tasks in zip(sets, tasks, strict=True):
        missing = [task for task in all_tasks if task.line["identity"] not in known]
        if count := len(all_tasks) - len(missing):
            log.info("%s: %d of %d lines are up to date", opened.features.source, count, len(all_tasks))
        made = _score(opened, missing, rival, options, shifted(advance, before, total))
        before += opened.features.rows
        if options.results is not None and made:
            results.merge(options.results, [group[0] for group in made.values()])
        identities = [task.line["identity"] for task in all_tasks]
        groups = [made.get(identity) or known.get(identity, []) for identity in identities]
        _warn(opened, [group[0] for group in groups if group])
        lines += [line for group in groups for line in group]
    return lines


def _check(head: str, sources: Sequence[str], options: EvalOptions) -> None:
    """Raise UsageError, before anything is read, where options exclude or need each other."""
    inputs = [head, *(split_name(source)[1] for source in sources), options.versus, options.class_map]
    check_stdin(*inputs)
    check_apart(results=options.results, predictions=options.predictions)
    check_results(options.results, [name for name in inputs if name not in (None, "-")])
    check_no_input(options.predictions, inputs, "--predictions")
    if options.predictions is not None:
        check_table(options.predictions)
    elif options.scoring.probabilities:
        raise UsageError("--probabilities go with --predictions", "give --predictions FILE")
    if options.class_map is None and options.class_map_by is not None:
        raise UsageError("--class-map-by says how --class-map works", "give --class-map FILE")
    if options.scoring.positive is not None and not METRICS[options.scoring.metric].of_one_class:
        raise UsageError(f"--metric {options.scoring.metric} is of all classes", "leave --positive out")


def _warn(opened: _Set, lines: list[Line]) -> None:
    """Say what makes these scores less than they seem."""
    seen = sum(bool(line["seen"]) for line in lines)
    source, noise = opened.features.source, opened.features.record.noise or {}
    if seen:
        log.warning("%s: %d of %d heads were trained or chosen on this set", source, seen, len(lines))
    if flipped := noise.get("realised"):
        words = "%s: %.1f %% of its labels are noise, and the scores are against them"
        log.warning(words, source, 100 * flipped)


def check_threshold(lines: Iterable[Line], least: float) -> None:
    """Raise ThresholdMissed where the score of a result line is below `least`, or not defined."""
    scores = {_title(line): line for line in lines if line["kind"] == "result"}
    if not scores:
        raise InvalidInput("nothing was scored", "--fail-under needs a set with labels")

    def score(title: str) -> float:
        value = scores[title]["score"]
        return float(value) if value is not None and value == value else float("-inf")

    worst = min(scores, key=score)
    if score(worst) < least:
        metric, found = scores[worst]["metric"], score(worst)
        words = f"{metric} {found:.4f} is below {least:g}" if found > -2 else f"{metric} is not defined"
        raise ThresholdMissed(f"{worst}: {words}")


def _title(line: Line) -> str:
    name = SetName(line["task"] or "the set", line["domain"], line["split"])
    return f"{line['method']} s{line['seed']} on {name}"


def _open_heads(source: str) -> list[Head]:
    """A head's file, or all heads in a folder by name; other products there are passed over."""
    if source == "-" or not Path(source).is_dir():
        return [_open_head(source)]
    files = sorted(str(path) for path in Path(source).iterdir() if path.suffix in FORMATS)
    records = {file: read_record(file) for file in files}
    heads = [_open_head(file) for file, record in records.items() if record and record.kind == "head"]
    if not heads:
        raise InvalidInput(f"{source} holds no heads", "make them with nml tune")
    return heads


def _open_head(source: str) -> Head:
    """A head, or a checkpoint's own classifier as one."""
    container = open_container(source, "head")
    record = container.record
    is_network = record is not None and record.kind == "checkpoint"
    return own_classifier(container) if is_network else unpack_head(container)


def _class_map(options: EvalOptions) -> dict[str, str]:
    return {} if options.class_map is None else read_class_map(options.class_map)


def _open_rival(source: str | None) -> _Rival | None:
    if source is None:
        return None
    if is_predictions(source):
        table = read_predictions(source)
        return _Rival(hash_file(source), None, table)
    head = _open_head(source)
    return _Rival(head.record.identity, head, None)


def _open_set(source: str, rival: _Rival | None, rule: Rule) -> _Set:
    name, path = split_name(source)
    features = read_features(path)
    data = features.record.data
    if name is None and data is not None:
        name = SetName(str(data.get("task")), data.get("domain"), data.get("split"))
    elif name is None:
        name = SetName("stdin") if path == "-" else SetName.of_path(path)
    return _Set(features, name, _theirs(features, rival, rule))


def _theirs(features: Features, rival: _Rival | None, rule: Rule) -> Right | Contest | None:
    """What a rival has to say of a set, once it is known to be of its rows."""
    if rival is None:
        return None
    if features.labels is None:
        raise InvalidInput(f"{features.source} has no labels", "--versus compares accuracies")
    if rival.head is not None:
        check_network(rival.head.record, rival.head.source, features)
        return contest(rival.head, features, rule)
    classes, numbers = features.record.classes, features.labels.tolist()
    names = [classes[number] for number in numbers] if classes else list(map(str, numbers))
    return right_of(rival.predictions, features, names) if rival.predictions else None


def _tasks(
    heads: list[Head], opened: _Set, rival: _Rival | None, rule: Rule, options: EvalOptions
) -> list[_Task]:
    """The heads that a set is scored with, once all that can be checked of them fits."""
    features = opened.features
    if features.labels is None and options.predictions is None:
        remedy = "give --predictions FILE for predictions"
        raise InvalidInput(f"{features.source} has no labels", remedy)
    # Heads of one network are checked once, so that what is not known is said once.
    networks = {canonical([head.record.columns, head.record.model]): head for head in heads}
    for head in networks.values():
        check_network(head.record, head.source, features)
    settings: dict[str, Any] = {**rule.facts, **options.scoring.facts}
    inputs = () if rival is None else (rival.identity,)
    tasks = []
    for head in heads:
        own = contest(head, features, rule)
        line = result_line(features, opened.name, head, own.size, settings, inputs, options.tags)
        if rule.stands_for:
            line["class_map"] = rule.pool
        tasks.append(_Task(own, own.numbers(features), line))
    return tasks


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
    opened: _Set, tasks: list[_Task], rival: _Rival | None, options: EvalOptions, advance: Advance
) -> dict[str, list[Line]]:
    """Read a set once for all heads; returns each task's line and those of its classes, by identity."""
    if not tasks:
        return {}
    features, theirs = opened.features, opened.theirs
    asked = options.scoring
    scores = [Scores(task.contest, task.labels, features.rows, asked) for task in tasks]
    other = None
    if isinstance(theirs, Contest):
        plain, own = Scoring(), theirs.numbers(features)
        other = Scores(theirs, own, features.rows, plain, spectrum=False)
    shared = Accumulator(features.rows, features.columns)  # of F, the Z of every linear head
    for block in finite_blocks(features, advance):
        if any(score.linear for score in scores):
            shared.add(block)
        for score in (*scores, *([other] if other else [])):
            score.add(block)
    if options.predictions is not None:
        scores[0].write_predictions(options.predictions, features.ids)
    right = other.right if other else theirs
    made = {}
    for task, score in zip(tasks, scores, strict=True):
        if task.labels is not None:
            line = {**task.line, **score.measures(), **spectral(score.sums or shared)}
            if rival is not None and isinstance(right, np.ndarray):
                line |= compared(score.right, right, rival.identity)
            made[line["identity"]] = [line, *(score.per_class(line) if options.per_class else ())]
    return made
