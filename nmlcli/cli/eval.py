"""`nml eval`: heads scored on sets of features."""

from collections.abc import Callable
from typing import Annotated, Any

from nmlcli.cli import options, render
from nmlcli.cli.options import argument, choice, option
from nmlcli.errors import UsageError
from nmlcli.numerics.pools import POOLS
from nmlcli.numerics.scores import METRICS
from nmlcli.products.results import set_name

Show = Callable[[dict[str, Any]], str]


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
        option("--bootstrap N", "95 % intervals of all measures from N resamplings.", _SCORES, min=0),
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
    render.table(*_table(lines, metric, per_class), lines, as_json, as_table)
    if fail_under is not None:
        check_threshold(lines, fail_under)


def _table(
    lines: list[dict[str, Any]], metric: str, per_class: bool
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, for 80 columns: shares in per cent, ± half the 95 % interval."""
    versus = any("versus" in line for line in lines)
    columns = _CLASS_COLUMNS if per_class else _VERSUS_COLUMNS if versus else _COLUMNS
    words = METRICS[metric].words
    if not per_class and words not in columns:
        shown = list(columns.items())
        place = list(columns).index("accuracy, %") + 1
        columns = dict([*shown[:place], (words, _number("score", ".1f", 100)), *shown[place:]])
    if len({line["split"] for line in lines}) == 1:
        lines = [{**line, "split": None} for line in lines]
    return list(columns), [[show(line) for show in columns.values()] for line in lines]


def _method(line: dict[str, Any]) -> str:
    return f"{line['method']} {line['seed']}" if line["seed"] else str(line["method"])


def _accuracy(line: dict[str, Any]) -> str:
    low, high = line.get("accuracy_low"), line.get("accuracy_high")
    half = "" if low is None or high is None else f" ± {50 * (high - low):.1f}"
    return f"{100 * line['accuracy']:.1f}{half}"


def _ends(line: dict[str, Any]) -> str:
    low, high = line.get("difference_low"), line.get("difference_high")
    return "" if low is None or high is None else f"{100 * low:+.2f} to {100 * high:+.2f}"


def _number(key: str, form: str, factor: float = 1.0) -> Show:
    return lambda line: "" if line.get(key) is None else format(factor * line[key], form)


_SET: dict[str, Show] = {"set": set_name, "method": _method}
_COLUMNS = {
    **_SET,
    "role": lambda line: line["role"] or "",
    "accuracy, %": _accuracy,
    "class": _number("mean_class_accuracy", ".1f", 100),
    "F1": _number("macro_f1", ".1f", 100),
    "NLL": _number("nll", ".2f"),
    "ECE": _number("ece", ".1f", 100),
    "SVE": _number("sve", ".2f"),
    "LSVR": _number("lsvr", ".2f"),
}
_VERSUS_COLUMNS = {
    **_SET,
    "accuracy, %": _accuracy,
    "difference": _number("difference", "+.2f", 100),
    "95 % interval": _ends,
    "McNemar p": _number("mcnemar", ".2g"),
}
_CLASS_COLUMNS = {
    **_SET,
    "class": lambda line: line.get("class", "all"),
    "rows": lambda line: f"{line['rows']:,}",
    "accuracy, %": _accuracy,
    "precision": _number("precision", ".1f", 100),
    "F1": lambda line: _number("f1" if "f1" in line else "macro_f1", ".1f", 100)(line),
}


def _tags(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (key, _, value) in zip(given, pairs, strict=True) if not (key and value)]
    if wrong:
        raise UsageError(f"--tag {wrong[0]} is no KEY=VALUE")
    return {key: value for key, _, value in pairs}
