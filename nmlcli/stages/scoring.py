"""What a head says of a set, gathered block by block, and the measures of it; in numpy alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.numerics import metrics
from nmlcli.numerics.intervals import accuracy_interval, bootstrap
from nmlcli.numerics.measures import MEASURES, UndefinedError
from nmlcli.numerics.scores import MEASURED, METRICS, Statistic
from nmlcli.numerics.spectra import Accumulator
from nmlcli.products.features import Features
from nmlcli.products.tables import sidecar, write_table
from nmlcli.stages.classes import Contest

Line = dict[str, Any]
Float32 = NDArray[np.float32]

_OTHERS = [name for name in MEASURED if name != "accuracy"]
# The keys that are measured, in their order in a line.
MEASURED_KEYS = (
    "accuracy", "accuracy_low", "accuracy_high", *_OTHERS, "metric", "score", "sve", "lsvr",
    "spectrum_preset",
)  # fmt: skip
_TOP = 5
_ROWS = 2048  # that a head is applied to at once: what lies between wide layers takes memory


@dataclass(frozen=True)
class Scoring:
    """How sets are scored. metric: of METRICS. positive: the class that F1 is of, None for "1".
    resamplings: how many intervals come from, none where 0. probabilities: whether they are kept."""

    metric: str = "accuracy"
    positive: str | None = None
    resamplings: int = 0
    probabilities: bool = False

    @property
    def facts(self) -> dict[str, object]:
        """What of it changes a result."""
        return {
            "metric": self.metric, "positive": self.positive, "resamplings": self.resamplings
        }  # fmt: skip


class Scores:
    """What one head says of a set, gathered block by block: a few numbers a row, and the sums of Z."""

    def __init__(
        self, contest: Contest, labels: NDArray[np.int64] | None, features: Features, asked: Scoring,
        spectrum: bool = True,
    ) -> None:  # fmt: skip
        """labels: int64 [N] in the contest's numbers. spectrum: whether Z is measured.

        Raises InvalidInput where the metric is not of classes like these.
        """
        self.contest, self.labels, self.features, self.asked = contest, labels, features, asked
        head, rows = contest.head, features.rows
        # Then Z is F, but for a factor, and all such heads share its sums.
        self.linear = len(head.layers) == 1 and head.residual is None
        width = head.layers[-1][0].shape[1]
        self.sums = Accumulator(rows, width) if spectrum and not self.linear else None
        self.predictions = np.empty(rows, dtype=np.int64)
        self.confidence = np.empty(rows)
        self.losses = np.empty(rows)
        self.among_five = np.empty(rows, dtype=bool)
        metric = METRICS[asked.metric]
        self.values = _values(contest, asked.metric) if metric.of_numbers else None
        self.ratings = None if self.values is None else np.empty(rows)
        self.positive = _positive(contest, asked.positive) if metric.of_one_class else None
        size = (rows, contest.size)
        self.probabilities = np.empty(size, dtype=np.float32) if asked.probabilities else None
        self.done = 0

    def add(self, block: Float32) -> None:
        """Score a block of features [B, D]."""
        for start in range(0, len(block), _ROWS):
            self._add(block[start : start + _ROWS])

    def _add(self, block: Float32) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # it is told below, with the sample's id
            transformed, logits = self.contest.apply(block)
        finite = np.isfinite(logits)
        if not finite.all():
            sample = self.features.ids[self.done + int(np.argmin(finite.all(axis=1)))]
            wrong = f"{self.features.source}: the logits of {sample} are not finite"
            raise InvalidInput(wrong, f"its features are too large for {self.contest.head.source}")
        if self.sums is not None:
            self.sums.add(transformed)
        rows = slice(self.done, self.done + len(block))
        self.done = rows.stop
        own = None if self.labels is None else self.labels[rows]
        said = metrics.score_rows(logits, own, _TOP)
        self.predictions[rows], self.confidence[rows] = said.predictions, said.confidence
        if said.losses is not None and said.among is not None:
            self.losses[rows], self.among_five[rows] = said.losses, said.among
        if self.probabilities is not None or self.ratings is not None:
            shares = metrics.softmax(logits)
            if self.probabilities is not None:
                self.probabilities[rows] = shares
            if self.ratings is not None and self.values is not None:
                self.ratings[rows] = shares @ self.values

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which rows of a labelled set are predicted right, bool [N]."""
        return np.asarray(self.predictions == self._known_labels())

    def measures(self) -> Line:
        """The measures of a labelled set, as keys of its line."""
        scored = self._scored()
        tally = scored.tally()
        line: Line = {name: measure(tally) for name, measure in MEASURED.items()}
        line["top5"] = line["top5"] if self.contest.size > _TOP else None
        right, rows = int(scored.right.sum()), len(scored.right)
        line["accuracy_low"], line["accuracy_high"] = accuracy_interval(right, rows)
        metric = METRICS[self.asked.metric]
        line["metric"], line["score"] = self.asked.metric, metric.measure(tally)
        if metric.measure is MEASURED["top5"]:
            line["score"] = line["top5"]
        return {**line, **self._intervals(scored)}

    def _intervals(self, scored: metrics.ScoredRows) -> Line:
        """Intervals of all but the accuracy from resampled rows, if they are wanted."""
        if not self.asked.resamplings:
            return {}
        wanted: dict[str, Statistic] = {name: MEASURED[name] for name in _OTHERS}
        wanted["score"] = METRICS[self.asked.metric].measure
        if self.contest.size <= _TOP:
            wanted = {name: each for name, each in wanted.items() if each is not MEASURED["top5"]}
        rows, count = len(scored.labels), self.asked.resamplings
        found = bootstrap(scored.tally, rows, wanted, count, inflated=["ece"])
        ends: Line = {"resamplings": count}
        for name, (low, high) in found.items():
            ends[f"{name}_low"], ends[f"{name}_high"] = low, high
        return ends

    def _scored(self) -> metrics.ScoredRows:
        ratings = None
        if self.values is not None and self.ratings is not None:
            ratings = np.stack([self.ratings, self.values[self._known_labels()]], axis=1)
        return metrics.ScoredRows(
            self._known_labels(), self.predictions, self.confidence, self.losses, self.among_five,
            self.contest.size, ratings, self.positive,
        )  # fmt: skip

    def per_class(self, line: Line) -> list[Line]:
        """A line for each class of the set, with what the whole set's says that is not measured:
        accuracy is the class's recall."""
        tally = self._scored().tally()
        left = {*MEASURED_KEYS, "identity"}
        common, found = {key: value for key, value in line.items() if key not in left}, []
        for number in np.flatnonzero(tally.rows):
            counts = (tally.rows[number], tally.predicted[number], tally.right[number])
            rows, predicted, right = map(int, counts)
            measured = {
                "class": self.contest.named(int(number)),
                "rows": rows,
                "accuracy": right / rows,
                "precision": right / predicted if predicted else None,
                "f1": 2 * right / (rows + predicted),
            }
            found.append({**common, "kind": "class", **measured})
        return found

    def write_predictions(self, out: str) -> None:
        """Write `id,label,prediction,confidence`, labels and predictions by their names, and a column
        `p(CLASS)` for each class where probabilities are kept."""
        named, ids = self.contest.named, self.features.ids
        labels = [""] * len(ids) if self.labels is None else list(map(named, self.labels.tolist()))
        columns: dict[str, Sequence[str]] = {
            "id": ids,
            "label": labels,
            "prediction": list(map(named, self.predictions.tolist())),
            "confidence": _Decimals(self.confidence),
        }
        if self.probabilities is not None:
            for number in range(self.contest.size):
                columns[f"p({named(number)})"] = _Decimals(self.probabilities[:, number])
        write_table(out, columns, None)
        if Path(out).is_file():
            sidecar(out).unlink(missing_ok=True)  # the record of a table that was there before

    def _known_labels(self) -> NDArray[np.int64]:
        if self.labels is None:
            raise ValueError("a set without labels has no measures")
        return self.labels


class _Decimals(Sequence[str]):
    """Numbers [N] as texts, made one by one: those of all rows and classes would not fit in memory."""

    def __init__(self, values: NDArray[np.floating]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place: Any) -> Any:
        taken = self._values[place]
        return f"{taken:.6f}" if np.ndim(taken) == 0 else list(_Decimals(taken))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 4096):
            for value in self._values[start : start + 4096].tolist():
                yield f"{value:.6f}"


def _values(contest: Contest, metric: str) -> NDArray[np.float64]:
    """The classes [C] as numbers."""
    names = [contest.named(number) for number in range(contest.size)]
    try:
        values = np.array([float(name) for name in names])
        if np.isfinite(values).all():
            return values
    except ValueError:
        pass
    wrong = f"--metric {metric} is of classes that are numbers, not {first(names)}"
    raise InvalidInput(wrong, "take another --metric")


def _positive(contest: Contest, name: str | None) -> int:
    """The number of the class that F1 is of."""
    names = [contest.named(number) for number in range(contest.size)]
    if (name or "1") in names:
        return names.index(name or "1")
    if name is None:
        raise InvalidInput(
            "there is no class 1 to take the F1 of", f"give --positive, of {first(names)}"
        )
    raise InvalidInput(f"--positive {name} is no class that competes", f"those are {first(names)}")


def spectral(sums: Accumulator) -> Line:
    """SVE and LSVR of Z as it stands; None where they are not defined."""
    spectrum = sums.spectrum()
    line: Line = {}
    for name in ("sve", "lsvr"):
        try:
            line[name] = MEASURES[name].measure(spectrum)
        except UndefinedError:
            line[name] = None
    return {**line, "spectrum_preset": "raw"}
