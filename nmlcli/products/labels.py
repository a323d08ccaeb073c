"""Labels of samples: what `corrupt` makes and what is laid over a set by id."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.provenance import Record


@dataclass(frozen=True)
class Labels:
    """Labels of N samples.

    ids: unique texts [N]. labels: int64 [N], numbers of classes. clean_labels: int64 [N] where the
    labels before the noise are known, else None. classes: names in the order of the numbers.
    record: None where the table came without one (then noise is recounted from clean_labels).
    source: the file's name, for messages.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    clean_labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    record: Record | None
    source: str
