"""POOLS, the menu of how several classes become one. Light: numpy is imported where it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.floating[Any]]
    Starts = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """pool: logits [N, C] and starts [G], the first of each group of neighbours, to logits [N, G].

    Softmax makes probabilities of them that add up to 1 over the groups.
    """

    help: str
    pool: "Callable[[Logits, Starts], Logits]"


def largest(logits: "Logits", starts: "Starts") -> "Logits":
    """The likeliest class of each group, as is usual on ImageNet's variants (Taori et al. 2020)."""
    import numpy as np

    return np.maximum.reduceat(logits, starts, axis=1)


def total(logits: "Logits", starts: "Starts") -> "Logits":
    """The logarithm of each group's probability, but for what all logits of a row share."""
    import numpy as np

    highest = np.maximum.reduceat(logits, starts, axis=1)
    sizes = np.diff(starts, append=logits.shape[1])
    # Each group is shifted by its own highest logit: those of a far smaller one would all become 0.
    shares = np.exp(logits - np.repeat(highest, sizes, axis=1))
    return highest + np.log(np.add.reduceat(shares, starts, axis=1))


POOLS = {
    "max": Pool("the likeliest one", largest),
    "sum": Pool("all of them, added up", total),
}
