"""`nml eval`: heads scored on sets of features."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from nmlcli.cli import options, render
from nmlcli.cli.options import argument, choice, option
from nmlcli.errors import UsageError
from nmlcli.numerics.pools import POOLS
from nmlcli.numerics.scores import METRICS
from nmlcli.products.results import set_name

Line = dict[str, Any]

_CLASSES, _SCORES = "Classes", "Scores"


def eval(
    head: Annotated[
        str, argument("HEAD", "A head, a folder of heads, or a checkpoint: its own classifier.")
    ],
    features: Annotated[
        list[str] | None, argument("[[NAME=]FEATURES|-]...", options.FEATURES_HELP)
    ] = None,
    tag: Annotated[
        list[str] | None, option("--tag KEY=VALUE", "Say more in every line, such as role=ood.")
    ] = None,
    results: options.Results = None,
    predictions: Annotated[
        str | None,
        option("--predictions FILE", "Write a table id,label,prediction,confidence; labels may lack."),
    ] = None,
    probabilities: Annotated[
        bool, option("--probabilities", "In --predictions, a column p(CLASS) for each class.")
    ] = False,
    per_class: Annotated[bool, option("--per-class", "Add a line for each class.")] = False,
    restrict: Annotated[
        bool, option("--restrict", "Only classes of the set compete; else all of the head's.", _CLASSES)
    ] = False,
    class_map: Annotated[
        str | None,
        option("--class-map FILE", "A table from,to: the head's classes, the set's classes.", _CLASSES),
    ] = None,
    class_map_by: Annotated[
        str | None,
        choice(POOLS, "--class-map-by BY", "Which count of classes mapped to one", _CLASSES),
    ] = None,
    metric: Annotated[
        str, choice(METRICS, "--metric METRIC", "What the score is", _SCORES)
    ] = "accuracy",
    positive: Annotated[
        str | None, option("--positive CLASS", "The class of --metric f1; else 1.", _SCORES)
    ] = None,
    versus: Annotated[
        str | None,
        option("--versus OTHER", "Compare with a head, or a table of --predictions, by id.", _SCORES),
    ] = None,
    bootstrap: Annotated[
        int,
        option(
            "--bootstrap N",
            "95 % intervals of the other measures of predictions too, by N resamplings.",
            _SCORES,
            min=0,
        ),
    ] = 0,
    fail_under: Annotated[
        float | None,
        option("--fail-under A", "Exit with 3 where a score is below A.", _SCORES, min=-1, max=1),
    ] = None,
    reuse: Annotated[
        bool, option("--reuse", "Take lines that lie in --results already from there.")
    ] = False,
    as_json: options.AsJson = False,
    as_table: options.AsTable = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Score heads on sets of features: a result line for each head and set.

    Classes are matched by name. A set that a head was trained or chosen on is scored, with a warning.
    """
    sources = options.inputs(features, "FEATURES")
    tags = _tags(tag or [])
    from nmlcli.stages.eval import EvalOptions, check_threshold, evaluate
    from nmlcli.stages.scoring import Scoring

    asked = EvalOptions(
        tags, results, predictions, per_class, reuse, restrict, class_map, class_map_by, versus,
        Scoring(metric, positive, bootstrap, probabilities),
    )  # fmt: skip
    with render.progress("eval", quiet, draining=sources == ["-"]) as advance:
        lines = evaluate(head, sources, asked, advance)
    if lines:  # else all that was asked for are predictions
        header, rows = _table(lines, METRICS[metric].words.format(positive or 1), per_class)
        render.table(header, rows, lines, as_json, as_table)
    if fail_under is not None:
        check_threshold(lines, fail_under)


def _table(lines: list[Line], words: str, per_class: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, for 80 columns: shares in per cent, 95 % intervals in brackets, and
    those of resampled rows in a row below. words: what heads the score."""
    columns = _columns(lines, words, per_class)
    if len({line["split"] for line in lines}) == 1:
        lines = [{**line, "split": None} for line in lines]
    rows = []
    for line in lines:
        rows.append([column.show(line) for column in columns.values()])
        ends = [column.ends(line) for column in columns.values()]
        rows += [ends] if any(ends) else []
    return list(columns), rows


class _Column(NamedTuple):
    """What a line has in a column, and the interval that goes below it."""

    show: Callable[[Line], str]
    ends: Callable[[Line], str] = lambda line: ""


def _columns(lines: list[Line], words: str, per_class: bool) -> dict[str, _Column]:
    """The columns that are shown of lines, by what heads them."""
    versus, resampled = (any(key in line for line in lines) for key in ("versus", "resamplings"))
    columns = _CLASS_COLUMNS if per_class else _VERSUS_COLUMNS if versus else _COLUMNS
    left_out = set()
    if resampled:  # then those without an interval make room for the others'
        left_out |= {"SVE", "LSVR"}
        columns = {**columns, "accuracy, %": _number("accuracy", ".1f", 100)}
    if scored := words not in columns:
        place = list(columns).index("accuracy, %") + 1
        before, after = list(columns.items())[:place], list(columns.items())[place:]
        columns = dict([*before, (words, _number("score", ".1f", 100)), *after])
        left_out |= set() if per_class else {"class", "F1"}
    if versus:
        name = "accuracy\ndifference" if scored else "difference"
        difference = _Column(_number("difference", "+.2f", 100).show)
        columns = {**columns, name: difference, **_TESTS}
    return {name: column for name, column in columns.items() if name not in left_out}


def _method(line: Line) -> str:
    return f"{line['method']} {line['seed']}" if line["seed"] else str(line["method"])


def _accuracy(line: Line) -> str:
    ends = _ends("accuracy", ".1f", 100, "–")(line)
    return f"{100 * line['accuracy']:.1f}{ends and f' ({ends})'}"


def _ends(key: str, form: str, factor: float, between: str) -> Callable[[Line], str]:
    def shown(line: Line) -> str:
        ends = [line.get(f"{key}_low"), line.get(f"{key}_high")]
        return between.join(format(factor * end, form) for end in ends if end is not None)

    return shown


def _number(key: str, form: str, factor: float = 1.0) -> _Column:
    def shown(line: Line) -> str:
        return "" if line.get(key) is None else format(factor * line[key], form)

    return _Column(shown, _ends(key, form, factor, " to " if key == "score" else "–"))


def _f1(line: Line) -> str:
    return _number("f1" if line["kind"] == "class" else "macro_f1", ".1f", 100).show(line)


_SET = {"set": _Column(set_name), "method": _Column(_method)}
_VERSUS_COLUMNS = {**_SET, "accuracy, %": _Column(_accuracy)}
_TESTS = {
    "95 % interval": _Column(_ends("difference", "+.2f", 100, " to ")),
    "McNemar p": _number("mcnemar", ".2g"),
}
_COLUMNS = {
    **_SET,
    "role": _Column(lambda line: line["role"] or ""),
    "accuracy, %": _Column(_accuracy),
    "class": _number("mean_class_accuracy", ".1f", 100),
    "F1": _number("macro_f1", ".1f", 100),
    "NLL": _number("nll", ".2f"),
    "ECE": _number("ece", ".1f", 100),
    "SVE": _number("sve", ".2f"),
    "LSVR": _number("lsvr", ".2f"),
}
_CLASS_COLUMNS = {
    **_SET,
    "class": _Column(lambda line: line.get("class", "all")),
    "rows": _Column(lambda line: f"{line['rows']:,}"),
    "accuracy, %": _Column(_accuracy),
    "precision": _number("precision", ".1f", 100),
    "F1": _Column(_f1, _ends("macro_f1", ".1f", 100, "–")),
}


def _tags(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (key, _, value) in zip(given, pairs, strict=True) if not (key and value)]
    if wrong:
        raise UsageError(f"--tag {wrong[0]} is no KEY=VALUE")
    keys = [key for key, _, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UsageError(f"--tag {twice[0]} is given twice", "a line has each key once")
    return {key: value for key, _, value in pairs}
