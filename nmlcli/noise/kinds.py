"""The menu of label noise: what each kind does to class numbers, exactly and reproducibly.

Whether a label changes, and to what, is decided by keys of (seed, sample id) alone. So the same rows
change in any order of rows, and those of a smaller ratio are among those of a larger one, with the
same new labels. Which rows are chosen does not depend on the kind. Light: numpy comes with a draw.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from nmlcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nmlcli.keyed import Keys

    Classes = NDArray[np.int64]
    Chosen = NDArray[np.bool_]


@dataclass(frozen=True)
class Noise:
    """A kind of noise.

    targets(labels, hashes, num_classes, seed): the new class of every row, were it chosen; labels
    int64 [N] in [0, C), hashes of the ids uint64 [N]; returns int64 [N]. C is at least two.
    limit(num_classes): the ratio above which the clean class is no longer the likeliest one for its
    label. exact: a chosen row always changes its class.
    """

    help: str
    targets: "Callable[[Classes, Keys, int, int], Classes]"
    limit: Callable[[int], Fraction]
    exact: bool = True

    def relabel(
        self, chosen: "Chosen", labels: "Classes", hashes: "Keys", num_classes: int, seed: int
    ) -> "Classes":
        """New classes int64 [N] for the chosen rows, bool [N]; equal to labels wherever not chosen."""
        import numpy as np

        return np.where(chosen, self.targets(labels, hashes, num_classes, seed), labels)


def symmetric(labels: "Classes", hashes: "Keys", num_classes: int, seed: int) -> "Classes":
    """To one of the other C - 1 classes, each as likely: T = (1-r) I + r/(C-1) (J-I)."""
    return (labels + 1 + _shifts(hashes, num_classes - 1, seed)) % num_classes


def uniform(labels: "Classes", hashes: "Keys", num_classes: int, seed: int) -> "Classes":
    """To one of all C classes, the same one included: r (C-1)/C of the labels differ, about."""
    return (labels + _shifts(hashes, num_classes, seed)) % num_classes


def pairflip(labels: "Classes", hashes: "Keys", num_classes: int, seed: int) -> "Classes":
    """To the next class in the recorded order, cyclically."""
    return (labels + 1) % num_classes


def _shifts(hashes: "Keys", bound: int, seed: int) -> "Classes":
    """Uniform integers in [0, bound) that do not depend on the ratio, int64 [N]."""
    from nmlcli import keyed

    return keyed.below(keyed.keys(hashes, seed, "target"), bound)


_ANY_CLASS = "to any class, the same one included, as in older work"
NOISES = {
    "symmetric": Noise("to another class, each as likely", symmetric, lambda c: Fraction(c - 1, c)),
    "uniform": Noise(_ANY_CLASS, uniform, lambda c: Fraction(1), exact=False),
    "pairflip": Noise("to the next class", pairflip, lambda c: Fraction(1, 2)),
}


@dataclass(frozen=True)
class Draw:
    """How rows are chosen: choose(hashes, ratio, seed) gives bool [N] from the ids' hashes [N]."""

    help: str
    choose: "Callable[[Keys, Fraction, int], Chosen]"


def exact(hashes: "Keys", ratio: Fraction, seed: int) -> "Chosen":
    """Exactly ⌊rN + ½⌋ rows: those of the smallest keys, which are distinct as the hashes are."""
    import numpy as np

    from nmlcli import keyed

    count = math.floor(ratio * len(hashes) + Fraction(1, 2))
    if count == 0:
        return np.zeros(len(hashes), dtype=np.bool_)
    keys = keyed.keys(hashes, seed, "select")
    chosen: Chosen = keys <= np.partition(keys, count - 1)[count - 1]
    return chosen


def bernoulli(hashes: "Keys", ratio: Fraction, seed: int) -> "Chosen":
    """Each row on its own, with probability r: those whose key is below r · 2^64."""
    import numpy as np

    from nmlcli import keyed

    threshold = keyed.threshold(ratio)
    if threshold >= 2**64:
        return np.ones(len(hashes), dtype=np.bool_)
    chosen: Chosen = keyed.keys(hashes, seed, "select") < np.uint64(threshold)
    return chosen


DRAWS = {
    "exact": Draw("of N rows exactly r N, rounded", exact),
    "bernoulli": Draw("each row on its own, with probability r", bernoulli),
}


def parse_ratio(text: str) -> Fraction:
    """A ratio from its decimal text, exactly. Raises UsageError where it is none in [0, 1]."""
    if not re.fullmatch(r"[+-]?(\d{1,99}(\.\d{0,99})?|\.\d{1,99})([eE][+-]?\d{1,2})?", text, re.ASCII):
        raise UsageError(f"--ratio {text} is no decimal number", "20 % is 0.2")
    ratio = Fraction(text)
    if not 0 <= ratio <= 1:
        raise UsageError(f"--ratio {text} lies outside 0 to 1", "20 % is 0.2")
    return ratio
