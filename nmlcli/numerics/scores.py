"""MEASURED, what a result line says of predictions, and METRICS, the menu of what a head is scored by.

Each is a function of a Tally, whose sums a bootstrap can weight. Fractions are 0-1, logarithms natural.
Light: what an array can do itself is all that is asked of numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """Sums over N rows, each as often as its weight says.

    rows, predicted, right: float64 [C], rows of each class, rows predicted as it, rows of it predicted
    right. among_five: rows whose label is among the five likeliest. loss: Σ -log p(label). gaps: Σ
    (right - confidence) in each bin of confidence. moments: Σx, Σy, Σx², Σy², Σxy of ratings x and
    labels y as numbers, None where classes are no numbers. positive: the class that F1 is of, if any.
    """

    rows: "Float64"
    predicted: "Float64"
    right: "Float64"
    among_five: float
    loss: float
    gaps: "Float64"
    moments: "Float64 | None" = None
    positive: int | None = None

    @property
    def total(self) -> float:
        """N."""
        return float(self.rows.sum())


Statistic = Callable[[Tally], float]


@dataclass(frozen=True)
class Metric:
    """What a head can be scored by; larger is better.

    words: what heads its column in a table, {} for the class that it is of. of_one_class: whether it
    needs Tally.positive. of_numbers: whether it needs Tally.moments.
    """

    help: str
    words: str
    measure: Statistic
    of_one_class: bool = False
    of_numbers: bool = False


def accuracy(tally: Tally) -> float:
    """The share of rows predicted right."""
    return float(tally.right.sum()) / tally.total


def top5(tally: Tally) -> float:
    """The share of rows whose label is among the five likeliest classes."""
    return tally.among_five / tally.total


def mean_class_accuracy(tally: Tally) -> float:
    """The recall of each class that has rows, averaged over those classes (balanced accuracy)."""
    present = tally.rows > 0
    return float((tally.right[present] / tally.rows[present]).mean())


def macro_f1(tally: Tally) -> float:
    """F1 of each class that has rows, averaged over those classes; 0 for one never predicted right."""
    present = tally.rows > 0
    return float((2 * tally.right[present] / (tally.rows + tally.predicted)[present]).mean())


def negative_log_likelihood(tally: Tally) -> float:
    """The mean of -log p(label)."""
    return tally.loss / tally.total


def expected_calibration_error(tally: Tally) -> float:
    """How far confidence is from accuracy: Σ n_b/N |accuracy_b - confidence_b| over equal-width bins.

    Empty bins count nothing. Naeini et al. 2015, Guo et al. 2017.
    """
    return float(abs(tally.gaps).sum()) / tally.total


def f1(tally: Tally) -> float:
    """F1 of the positive class, 0 where it neither is there nor is predicted."""
    if tally.positive is None:
        raise ValueError("F1 of one class needs to know which")
    of = float((tally.rows + tally.predicted)[tally.positive])
    return 2 * float(tally.right[tally.positive]) / of if of else 0.0


def matthews(tally: Tally) -> float:
    """Matthews' correlation of labels and predictions, in [-1, 1]; for C classes R_K of Gorodkin 2004.

    0 where either is constant, as scikit-learn has it.
    """
    total, rows, predicted = tally.total, tally.rows, tally.predicted
    shared = total * float(tally.right.sum()) - float(rows @ predicted)
    spread = (total**2 - float(predicted @ predicted)) * (total**2 - float(rows @ rows))
    return shared / spread**0.5 if spread > 0 else 0.0


def pearson(tally: Tally) -> float:
    """Pearson's correlation of ratings and labels; not a number where either is constant."""
    if tally.moments is None:
        raise ValueError("classes that are no numbers have no correlation")
    x, y, xx, yy, xy = (float(moment) / tally.total for moment in tally.moments)
    spread = (xx - x * x) * (yy - y * y)
    return (xy - x * y) / spread**0.5 if spread > 0 else float("nan")


MEASURED: dict[str, Statistic] = {
    "accuracy": accuracy,
    "top5": top5,
    "mean_class_accuracy": mean_class_accuracy,
    "macro_f1": macro_f1,
    "nll": negative_log_likelihood,
    "ece": expected_calibration_error,
}
METRICS = {
    "accuracy": Metric("share of rows right", "accuracy, %", accuracy),
    "mean-class": Metric("recall, averaged over classes", "class mean", mean_class_accuracy),
    "macro-f1": Metric("F1, averaged over classes", "F1", macro_f1),
    "top5": Metric("label among the five likeliest", "top 5", top5),
    "f1": Metric("F1 of --positive, as of MRPC and QQP", "F1 of {}", f1, of_one_class=True),
    "mcc": Metric("Matthews' correlation, as of CoLA", "MCC", matthews),
    "pearson": Metric("correlation of ratings, as of STS-B", "Pearson", pearson, of_numbers=True),
}
