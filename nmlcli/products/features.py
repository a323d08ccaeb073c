"""Features of samples: the artefact between `embed` and everything behind it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.provenance import Record

FloatBlock = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True)
class Features:
    """Features of N samples, read block by block, so that N is never bound by memory.

    record: rows N, columns D, classes, the network and the set. ids: unique texts [N]. labels:
    int64 [N] or None. clean_labels: int64 [N] where they are known and differ from the labels.
    dtype: float32 or float16. blocks(rows): iterate row blocks [≤ rows, D] in order, of that dtype;
    of a stream they can be read once. source: the file's name or `stdin`, for messages.
    """

    record: Record
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    clean_labels: NDArray[np.int64] | None
    dtype: np.dtype[np.float32] | np.dtype[np.float16]
    blocks: Callable[[int], Iterator[FloatBlock]]
    source: str

    @property
    def rows(self) -> int:
        """N, the number of samples."""
        return len(self.ids)

    @property
    def columns(self) -> int:
        """D, the width of the features."""
        return self.record.columns or 0

    def matrix(self) -> NDArray[np.float32]:
        """All features as one float32 array [N, D]."""
        out = np.empty((self.rows, self.columns), dtype=np.float32)
        start = 0
        for block in self.blocks(4096):
            out[start : start + len(block)] = block
            start += len(block)
        return out
