"""What a head says of a set, gathered block by block, and the measures of it; in numpy alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import UsageError
from nmlcli.numerics import metrics
from nmlcli.numerics.measures import MEASURES, UndefinedError
from nmlcli.numerics.spectra import Accumulator
from nmlcli.products.head import Head
from nmlcli.products.tables import SUFFIXES, write_table

Line = dict[str, Any]

MEASURED = (
    "accuracy", "accuracy_low", "accuracy_high", "top5", "mean_class_accuracy", "macro_f1", "nll",
    "ece", "metric", "score", "sve", "lsvr", "spectrum_preset",
)  # fmt: skip


class Scores:
    """What one head says of a set, gathered block by block: a few numbers a row, and the sums of Z."""

    def __init__(self, head: Head, labels: NDArray[np.int64] | None, rows: int) -> None:
        self.head, self.labels = head, labels
        self.linear = len(head.layers) == 1  # then Z is F, whose sums all linear heads share
        width = head.layers[-1][0].shape[1]
        self.sums = None if self.linear else Accumulator(rows, width)
        self.predictions = np.empty(rows, dtype=np.int64)
        self.confidence = np.empty(rows)
        self.likelihood = self.among_five = 0.0
        self.done = 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Score a block of features [B, D]."""
        transformed, logits = self.head.apply(block)
        if self.sums is not None:
            self.sums.add(transformed)
        rows = slice(self.done, self.done + len(block))
        self.done = rows.stop
        self.predictions[rows] = metrics.predict(logits)
        self.confidence[rows] = metrics.softmax(logits).max(axis=1)
        if self.labels is not None:
            own = self.labels[rows]
            self.likelihood += metrics.negative_log_likelihood(logits, own) * len(own)
            self.among_five += metrics.top_k_accuracy(logits, own, 5) * len(own)

    def measures(self) -> Line:
        """The measures of a labelled set, as keys of its line."""
        labels = self._known_labels()
        correct = self.predictions == labels
        rows, right = len(correct), int(correct.sum())
        low, high = metrics.accuracy_interval(right, rows)
        return {
            "accuracy": right / rows,
            "accuracy_low": low,
            "accuracy_high": high,
            "top5": self.among_five / rows if len(self.head.layers[-1][1]) > 5 else None,
            "mean_class_accuracy": metrics.mean_class_accuracy(labels, self.predictions),
            "macro_f1": metrics.macro_f1(labels, self.predictions),
            "nll": self.likelihood / rows,
            "ece": metrics.expected_calibration_error(self.confidence, correct),
            "metric": "accuracy",
            "score": right / rows,
        }

    def per_class(self, line: Line) -> list[Line]:
        """A line for each class of the set: accuracy is its recall."""
        labels = self._known_labels()
        keys = ("task", "domain", "split", "method", "seed", "head", "features")
        common, found = {key: line[key] for key in keys}, []
        for number in np.unique(labels):
            own, said = labels == number, self.predictions == number
            rows, predicted, right = int(own.sum()), int(said.sum()), int((own & said).sum())
            measured = {
                "class": self._named(int(number)),
                "rows": rows,
                "accuracy": right / rows,
                "precision": right / predicted if predicted else None,
                "f1": 2 * right / (rows + predicted),
            }
            found.append({"kind": "class", **common, **measured})
        return found

    def write_predictions(self, out: str, ids: Sequence[str]) -> None:
        """Write `id,label,prediction,confidence`, labels and predictions by their names."""
        labels = [""] * len(ids)
        if self.labels is not None:
            labels = list(map(self._named, self.labels.tolist()))
        columns = {
            "id": ids,
            "label": labels,
            "prediction": list(map(self._named, self.predictions.tolist())),
            "confidence": [f"{value:.6f}" for value in self.confidence.tolist()],
        }
        write_table(out, columns, None)

    def _known_labels(self) -> NDArray[np.int64]:
        if self.labels is None:
            raise ValueError("a set without labels has no measures")
        return self.labels

    def _named(self, number: int) -> str:
        classes = self.head.record.classes
        return classes[number] if classes else str(number)


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


def check_table(out: str) -> None:
    """Raise UsageError where a name is not that of a table."""
    if Path(out).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out}: predictions are a table", f"use {', '.join(SUFFIXES)}")
