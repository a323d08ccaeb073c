"""`eval`: heads scored on sets of features, in numpy alone; one result line a head and set."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from nmlcli.products.formats import read_features
from nmlcli.products.head import Head
from nmlcli.products.tables import SUFFIXES
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import canonical
from nmlcli.stages.classes import Contest, Rule, check_targets, contest, read_class_map
from nmlcli.stages.classifier import open_heads
from nmlcli.stages.comparison import Gathering, Rival, compared, open_rival
from nmlcli.stages.inputs import check_network, check_stdin, finite_blocks
from nmlcli.stages.lines import result_line
from nmlcli.stages.outputs import check_apart, check_out, check_results
from nmlcli.stages.scoring import Line, Scores, Scoring, spectral

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


class _Task(NamedTuple):
    """One head on one set: labels [N] in the contest's numbers (None: unlabelled), and what its line
    says before anything is measured, its identity included."""

    contest: Contest
    labels: NDArray[np.int64] | None
    line: Line

    def among(self, known: Mapping[str, Line]) -> bool:
        """Whether its line is known already, with all keys that it has today."""
        return self.line.keys() <= known.get(self.line["identity"], {}).keys()


class _Set(NamedTuple):
    """Opened features and the heads to score on them. rival: how what it has right is gathered."""

    features: Features
    tasks: list[_Task]
    rival: Callable[[], Gathering] | None


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
    heads, rival = open_heads(head), open_rival(options.versus)
    if options.predictions is not None and (len(heads), len(sources)) != (1, 1):
        raise UsageError("--predictions is for one head and one set", "name them")
    sets = [_open_set(source, heads, rival, rule, options) for source in sources]
    known = _known_lines(options)
    total = sum(opened.features.rows for opened in sets)
    lines: list[Line] = []
    before = 0
    for opened in sets:
        missing = [task for task in opened.tasks if not task.among(known)]
        if count := len(opened.tasks) - len(missing):
            words = "%s: %d of %d lines are up to date"
            log.info(words, opened.features.source, count, len(opened.tasks))
        made = _score(opened, missing, rival, options, shifted(advance, before, total))
        before += opened.features.rows
        if options.results is not None and made:
            results.merge(options.results, [group[0] for group in made.values()])
        identities = [task.line["identity"] for task in opened.tasks]
        groups = [
            made.get(each) or [known[each]] for each in identities if each in made or each in known
        ]
        _warn(opened.features, [group[0] for group in groups])
        lines += [line for group in groups for line in group]
    return lines


def _check(head: str, sources: Sequence[str], options: EvalOptions) -> None:
    """Raise UsageError, before anything is read, where options exclude or need each other."""
    inputs = [head, *(split_name(source)[1] for source in sources), options.versus, options.class_map]
    check_stdin(*inputs)
    check_apart(results=options.results, predictions=options.predictions)
    check_results(options.results, [name for name in inputs if name not in (None, "-")])
    check_out(options.predictions, inputs, "--predictions", SUFFIXES)
    if options.predictions == "-":
        raise UsageError("--predictions go to a file: stdout has the lines", "name a table")
    if options.predictions is None and options.scoring.probabilities:
        raise UsageError("--probabilities go with --predictions", "give --predictions FILE")
    if options.class_map is None and options.class_map_by is not None:
        raise UsageError("--class-map-by says how --class-map works", "give --class-map FILE")
    if options.scoring.positive is not None and not METRICS[options.scoring.metric].of_one_class:
        raise UsageError(f"--metric {options.scoring.metric} is of all classes", "leave --positive out")


def _warn(features: Features, lines: list[Line]) -> None:
    """Say what makes these scores less than they seem."""
    seen = sum(bool(line["seen"]) for line in lines)
    source, noise = features.source, features.record.noise or {}
    if seen:
        log.warning("%s: %d of %d heads were trained or chosen on this set", source, seen, len(lines))
    if flipped := noise.get("realised"):
        words = "%s: %.1f %% of its labels are noise, and the scores are against them"
        log.warning(words, source, 100 * flipped)


def check_threshold(lines: Iterable[Line], least: float) -> None:
    """Raise ThresholdMissed where the score of a result line is below `least`, or not defined."""
    scored = [line for line in lines if line["kind"] == "result"]
    if not scored:
        raise InvalidInput("nothing was scored", "--fail-under needs a set with labels")

    def score(line: Line) -> float:
        value = line["score"]
        return float(value) if value is not None and value == value else float("-inf")

    worst = min(scored, key=score)
    if score(worst) < least:
        metric, found = worst["metric"], score(worst)
        words = f"{metric} {found:.4f} is below {least:g}" if found > -2 else f"{metric} is not defined"
        seed = "" if worst["seed"] is None else f" s{worst['seed']}"
        run = f"{worst['method']}{seed} {worst['options']}".strip()
        raise ThresholdMissed(f"{run} on {results.set_name(worst)}: {words}")


def _class_map(options: EvalOptions) -> dict[str, str]:
    return {} if options.class_map is None else read_class_map(options.class_map)


def _open_set(
    source: str, heads: list[Head], rival: Rival | None, rule: Rule, options: EvalOptions
) -> _Set:
    name, path = split_name(source)
    features = read_features(path)
    data = features.record.data or {}
    if name is None and data.get("task"):
        name = SetName(str(data["task"]), data.get("domain"), data.get("split"))
    elif name is None:
        name = SetName("stdin") if path == "-" else SetName.of_path(path)
    check_targets(rule, features)
    tasks = _tasks(heads, features, name, rival, rule, options)
    if rival is None:
        return _Set(features, tasks, None)
    ours, labels = tasks[0].contest, tasks[0].labels
    if labels is None:
        raise InvalidInput(f"{features.source} has no labels", "--versus compares accuracies")
    return _Set(features, tasks, rival.on(features, rule, ours, labels))


def _tasks(
    heads: list[Head], features: Features, name: SetName, rival: Rival | None, rule: Rule,
    options: EvalOptions,
) -> list[_Task]:  # fmt: skip
    """The heads that a set is scored with, once all that can be checked of them fits."""
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
        line = result_line(features, name, head, own.size, settings, inputs, options.tags)
        if rule.stands_for:
            line["class_map"] = rule.pool
        tasks.append(_Task(own, own.numbers(features), line))
    return tasks


def _known_lines(options: EvalOptions) -> dict[str, Line]:
    """With --reuse, the result lines that lie in --results already."""
    if not options.reuse:
        return {}
    if options.results is None or options.predictions is not None or options.per_class:
        remedy = "give it, without --predictions and --per-class"
        raise UsageError("--reuse answers from --results FILE", remedy)
    if not Path(options.results).is_file():
        return {}
    lines = results.read(options.results)
    of_heads = [line for line in lines if line.get("kind") == "result" and line.get("identity")]
    return {line["identity"]: line for line in of_heads}


def _score(
    opened: _Set, tasks: list[_Task], rival: Rival | None, options: EvalOptions, advance: Advance
) -> dict[str, list[Line]]:
    """Read a set once for all heads; returns each task's line and those of its classes, by identity."""
    if not tasks:
        return {}
    features = opened.features
    scores = [Scores(task.contest, task.labels, features, options.scoring) for task in tasks]
    theirs = opened.rival() if opened.rival else None
    gathered: list[Gathering] = [*scores, *([theirs] if theirs else [])]
    shared = Accumulator(features.rows, features.columns)  # of F, the Z of every linear head
    for block in finite_blocks(features, advance):
        if any(score.linear for score in scores):
            shared.add(block)
        for each in gathered:
            each.add(block)
    if options.predictions is not None:
        scores[0].write_predictions(options.predictions)
    made = {}
    for task, score in zip(tasks, scores, strict=True):
        if task.labels is not None:
            line = {**task.line, **score.measures(), **spectral(score.sums or shared)}
            if rival is not None and theirs is not None:
                line |= compared(score.right, theirs.right, rival.identity)
            of_classes = score.per_class(task.line) if options.per_class else ()
            made[line["identity"]] = [line, *of_classes]
    return made
