"""Features of samples: the artefact between `embed` and everything behind it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.container import (
    Array,
    Container,
    Rows,
    Tensor,
    require,
    require_names,
    require_record,
)
from nmlcli.products.ids import BESIDE, pack_rows, read_ids, read_numbers
from nmlcli.provenance import Record

FloatBlock = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True)
class Features:
    """Features of N samples, read block by block, so that N is never bound by memory.

    record: rows N, columns D, classes, the network and the set. ids: unique texts [N]. labels:
    int64 [N] or None. clean_labels: int64 [N] where they are known and differ from the labels.
    dtype: float32 or float16. blocks(rows): iterate row blocks [≤ rows, D] in order, of that dtype;
    of a stream they can be read once. source: the file's name or `stdin`, for messages.
    views: the same for K = num_views augmented views of each sample, [≤ rows, K, D], or None; in a
    stream they come after the features. compress: whether a file of them is to be compressed.
    """

    record: Record
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    clean_labels: NDArray[np.int64] | None
    dtype: np.dtype[np.float32] | np.dtype[np.float16]
    blocks: Callable[[int], Iterator[FloatBlock]]
    source: str
    views: Callable[[int], Iterator[FloatBlock]] | None = None
    num_views: int = 0
    compress: bool = False

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


def pack_features(features: Features) -> tuple[dict[str, Array], Rows]:
    """The arrays of features in the order of the file, and the features and views as rows."""
    if not features.rows or not features.columns:
        raise InvalidInput(f"{features.source} has no features", "there is nothing to write")
    arrays = pack_rows(features.ids, features.labels, features.clean_labels)
    size, kind, packed = (features.rows, features.columns), features.dtype, features.compress
    views = None
    if features.views is not None:
        shape = (features.rows, features.num_views, features.columns)
        views = Rows("views", kind, shape, features.views, compress=packed)
    return arrays, Rows("features", kind, size, features.blocks, views, packed)


def unpack_features(container: Container) -> Features:
    """Read all but the features themselves from a file, strictly; raises InvalidInput.

    A file without a record is another program's, read as features_of_container does.
    """
    if container.record is None and container.path is not None:
        from nmlcli.products.foreign import features_of_container
        from nmlcli.products.vectors import Asked

        return features_of_container(container, Asked())
    record = require_record(container, "features")
    tensor = require(container, "features", ("float32", "float16"), (None, None))
    rows, columns = tensor.shape
    if not rows or not columns:
        raise InvalidInput(f"{container.source} holds no features", f"it is {rows} × {columns}")
    _check_own(container, record, tensor)
    views, arrays = container.tensors.get("views"), container.arrays(BESIDE)
    return Features(
        record=record,
        ids=read_ids(container, arrays, rows),
        labels=read_numbers(container, arrays, "labels", record),
        clean_labels=read_numbers(container, arrays, "clean_labels", record),
        dtype=np.dtype(np.float16) if tensor.dtype == "float16" else np.dtype(np.float32),
        blocks=lambda count: container.blocks("features", count),
        source=container.source,
        views=None if views is None else lambda count: container.blocks("views", count),
        num_views=0 if views is None else views.shape[1],
    )


def _check_own(container: Container, record: Record, features: Tensor) -> None:
    require_names(container, ("features", "views", *BESIDE))
    rows, columns = features.shape
    for name in ("ids_offsets", "ids_bytes"):
        require(container, name, ("int64", "uint8"), (None,))
    if (record.rows, record.columns) != (rows, columns):
        raise InvalidInput(
            f"{container.source}: its record says {record.rows} × {record.columns}, "
            f"its features are {rows} × {columns}"
        )
    if "views" in container.tensors:
        views = require(container, "views", (features.dtype,), (rows, None, columns))
        if not views.shape[1]:
            raise InvalidInput(f"{container.source} holds no views", f"they are {views}")
    # Views start where features end: nothing may lie between them.
    if any(tensor.start % 8 for name, tensor in container.tensors.items() if name != "views"):
        raise InvalidInput(f"{container.source}: its arrays do not start at multiples of 8")
