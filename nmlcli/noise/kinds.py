"""NOISES, the menu of noise: what each kind does to labels or captions, exactly and reproducibly.

Whether a row changes, and to what, is decided by keys of (seed, sample id), so the same rows change in
any order of rows, and those of a smaller ratio are among those of a larger one, with the same new
values. Light: numpy comes with a draw.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from nmlcli.errors import UsageError
from nmlcli.noise.terms import Changed, Flow, Request, Rows


@dataclass(frozen=True)
class Noise:
    """A kind of noise.

    change(rows, request): what becomes of the rows. takes: the options that have a meaning besides
    ratio and seed: fields of Request, and `features` where the rows must have some; needs: those that
    must be given. exact: a chosen row always changes its value. captions: it is for texts, not labels.
    """

    help: str
    change: "Callable[[Rows, Request], Changed]"
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("ratio",)
    exact: bool = True
    captions: bool = False


def symmetric(rows: Rows, request: Request) -> Flow:
    """To one of the other C - 1 classes, each as likely: Q = (J - I) / (C - 1)."""
    import numpy as np

    num_classes = len(rows.classes)
    return Flow(lambda c: ((c + 1 + np.arange(num_classes - 1)) % num_classes, None))


def uniform(rows: Rows, request: Request) -> Flow:
    """To one of all C classes, the same one included: r (C-1)/C of the labels differ, about."""
    import numpy as np

    num_classes = len(rows.classes)
    return Flow(lambda c: ((c + np.arange(num_classes)) % num_classes, None))


def pairflip(rows: Rows, request: Request) -> Flow:
    """To the next class in the recorded order, cyclically."""
    import numpy as np

    return Flow(lambda c: (np.array([(c + 1) % len(rows.classes)]), None))


def asymmetric(rows: Rows, request: Request) -> Flow:
    """Along the arrows of a map; classes without one keep their labels (Patrini et al. 2017)."""
    import numpy as np

    from nmlcli.noise.classmaps import read_map

    arrows = read_map(str(request.map), rows.classes)
    nowhere = np.zeros(0, dtype=np.int64), None
    return Flow(lambda c: arrows.get(c, nowhere))


def matrix(rows: Rows, request: Request) -> Flow:
    """By a matrix T[true, noisy]; with a ratio its off-diagonal part, normalised row by row, is Q."""
    from nmlcli.noise.matrices import read_matrix

    transition = read_matrix(str(request.matrix), rows.classes)
    rates = None if request.ratio is not None else transition.rates
    return Flow(transition.targets, rates, cells=True)


def _along(flow: Callable[[Rows, Request], Flow], rows: Rows, request: Request) -> Changed:
    from nmlcli.noise.flows import relabel

    return relabel(rows, request, flow(rows, request))


def _instance(rows: Rows, request: Request) -> Changed:
    from nmlcli.noise.instance import relabel

    return relabel(rows, request)


def _swap(rows: Rows, request: Request) -> Changed:
    from nmlcli.noise.captions import swap

    return swap(rows, request)


def _cycle(rows: Rows, request: Request) -> Changed:
    from nmlcli.noise.captions import cycle

    return cycle(rows, request)


_CHOICE = ("draw", "classes", "ratio_of")
_ANY = (*_CHOICE, "stratify")
NOISES = {
    "symmetric": Noise("to another class, each as likely", partial(_along, symmetric), _ANY),
    "uniform": Noise(
        "to any class, the same one included, as in older work", partial(_along, uniform), _ANY,
        exact=False,
    ),
    "pairflip": Noise("to the next class", partial(_along, pairflip), _ANY),
    "asymmetric": Noise("along the arrows of --map", partial(_along, asymmetric), (*_ANY, "map"),
                        needs=("ratio", "map")),
    "matrix": Noise("as --matrix has it, cell by cell", partial(_along, matrix), (*_CHOICE, "matrix"),
                    needs=("matrix",)),
    "instance": Noise("by the sample's --features: those near another class first", _instance,
                      (*_CHOICE, "features")),
    "swap": Noise("captions: two by two exchanged, as in the paper", _swap, captions=True),
    "cycle": Noise("captions: each takes the next one's", _cycle, captions=True),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A row of a menu that has nothing but its help."""

    help: str


DRAWS = {
    "exact": Choice("of N rows exactly r N, rounded"),
    "bernoulli": Choice("each row on its own, with probability r"),
}
RATIOS_OF = {
    "selected": Choice("of the rows whose classes can change"),
    "all": Choice("of all rows"),
}


def parse_ratio(text: str) -> Fraction:
    """A ratio from its decimal text, exactly. Raises UsageError where it is none in [0, 1]."""
    if not re.fullmatch(r"[+-]?(\d{1,99}(\.\d{0,99})?|\.\d{1,99})([eE][+-]?\d{1,2})?", text, re.ASCII):
        raise UsageError(f"--ratio {text} is no decimal number", "20 % is 0.2")
    ratio = Fraction(text)
    if not 0 <= ratio <= 1:
        raise UsageError(f"--ratio {text} lies outside 0 to 1", "20 % is 0.2")
    return ratio
