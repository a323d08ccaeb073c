"""The terms in which noise is told: the rows, what is asked for, what became of them. Light."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nmlcli.keyed import Keys
    from nmlcli.products.features import Features

    Numbers = NDArray[np.int64]
    Targets = tuple[Numbers, NDArray[np.float64] | None]


@dataclass(frozen=True)
class Rows:
    """What noise is put on, N rows.

    hashes: of their ids, uint64 [N], distinct. values: int64 [N], numbers of the labels' classes or of
    distinct captions. classes: names of the labels' classes. groups: the image of each caption,
    int64 [N]. empty: captions without text, bool [N]. features, places: the features of the rows and
    where in them each row is, int64 [N]. source: for messages.
    """

    hashes: "Keys"
    values: "Numbers"
    source: str
    classes: tuple[str, ...] = ()
    groups: "Numbers | None" = None
    empty: "NDArray[np.bool_] | None" = None
    features: "Features | None" = None
    places: "Numbers | None" = None


@dataclass(frozen=True)
class Request:
    """How much noise of which kind. ratio: None where the kind brings its own.

    classes: only rows of these change. ratio_of: a row of RATIOS_OF. map, matrix: what the kinds of
    those names go by.
    """

    ratio: Fraction | None
    seed: int = 0
    draw: str = "exact"
    stratify: bool = False
    ratio_of: str = "selected"
    classes: tuple[str, ...] = ()
    map: str | None = None
    matrix: str | None = None


@dataclass(frozen=True)
class Changed:
    """What became of N rows.

    values: labels' new classes int64 [N]; of captions, the row whose caption each row has now.
    eligible: how many rows could have changed. facts: what else the record says of the noise.
    """

    values: "Numbers"
    eligible: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """Where the labels of C classes go: T(r) = (1-r) I + r Q, row by row of Q.

    targets(c): the classes that class c goes to, int64 [K], and their weights float64 [K], None where
    all are alike; K is 0 where it goes nowhere. rates: the share of each class that changes, [C]; None
    where it is the ratio asked for. cells: each cell of T is met exactly, not in expectation.
    """

    targets: "Callable[[int], Targets]"
    rates: tuple[Fraction, ...] | None = None
    cells: bool = False
