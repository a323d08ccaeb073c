"""The menu of label noise: what each kind does to class numbers, exactly and reproducibly.

Whether a label changes, and to what, is decided by keys of (seed, sample id) alone. So the same rows
change in any order of rows, and those of a smaller ratio are among those of a larger one, with the
same new labels. Which rows are chosen does not depend on the kind. Light: numpy comes with a draw.
"""

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


@dataclass(frozen=True)
class Noise:
    """A kind of noise.

    relabel(chosen, labels, hashes, num_classes, seed): new classes for the chosen rows; chosen bool
    [N], labels int64 [N] in [0, C), hashes of the ids uint64 [N]; returns int64 [N], equal to labels
    wherever not chosen. C is at least two. limit(num_classes): the ratio above which the clean class
    is no longer the likeliest one for its label. exact: a chosen row always changes its class.
    """

    help: str
    relabel: "Callable[[NDArray[np.bool_], Classes, Keys, int, int], Classes]"
    limit: Callable[[int], Fraction]
    exact: bool = True


def symmetric(
    chosen: "NDArray[np.bool_]", labels: "Classes", hashes: "Keys", num_classes: int, seed: int
) -> "Classes":
    """To one of the other C - 1 classes, each as likely: T = (1-r) I + r/(C-1) (J-I)."""
    from nmlcli.noise.draws import shifted, shifts

    return shifted(labels, chosen, 1 + shifts(hashes, num_classes - 1, seed), num_classes)


def uniform(
    chosen: "NDArray[np.bool_]", labels: "Classes", hashes: "Keys", num_classes: int, seed: int
) -> "Classes":
    """To one of all C classes, the same one included: r (C-1)/C of the labels differ, about."""
    from nmlcli.noise.draws import shifted, shifts

    return shifted(labels, chosen, shifts(hashes, num_classes, seed), num_classes)


def pairflip(
    chosen: "NDArray[np.bool_]", labels: "Classes", hashes: "Keys", num_classes: int, seed: int
) -> "Classes":
    """To the next class in the recorded order, cyclically."""
    from nmlcli.noise.draws import shifted

    return shifted(labels, chosen, 1, num_classes)


NOISES = {
    "symmetric": Noise("to another class, each as likely", symmetric, lambda c: Fraction(c - 1, c)),
    "uniform": Noise(
        "to any class, the same one included, as in older work",
        uniform,
        lambda c: Fraction(1),
        exact=False,
    ),
    "pairflip": Noise("to the next class", pairflip, lambda c: Fraction(1, 2)),
}


@dataclass(frozen=True)
class Draw:
    """How rows are chosen: choose(hashes, ratio, seed) gives bool [N] from the ids' hashes [N]."""

    help: str
    choose: "Callable[[Keys, Fraction, int], NDArray[np.bool_]]"


def exact(hashes: "Keys", ratio: Fraction, seed: int) -> "NDArray[np.bool_]":
    """Exactly ⌊rN + ½⌋ rows: those of the smallest keys."""
    from nmlcli.noise.draws import smallest

    return smallest(hashes, ratio, seed)


def bernoulli(hashes: "Keys", ratio: Fraction, seed: int) -> "NDArray[np.bool_]":
    """Each row on its own, with probability r."""
    from nmlcli.noise.draws import below_ratio

    return below_ratio(hashes, ratio, seed)


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
