"""What lies beside the rows of a binary product: their ids, their class numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import Array, Arrays, Container, require
from nmlcli.provenance import Record

BESIDE = ("labels", "clean_labels", "ids_offsets", "ids_bytes")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32")


def require_unique(
    ids: Sequence[str], source: str, remedy: str = "name another column with --id-column"
) -> None:
    """Raise InvalidInput, naming the first three, where ids repeat."""
    if again := repeated(ids):
        raise InvalidInput(f"{source}: ids repeat: {first(again)}", remedy)


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, each once and in order."""
    if len(set(names)) == len(names):
        return []
    return [name for name, count in Counter(names).items() if count > 1]


def pack_rows(
    ids: Sequence[str], labels: NDArray[np.int64] | None, clean_labels: NDArray[np.int64] | None
) -> dict[str, Array]:
    """The arrays of ids [N], labels and clean labels int64 [N], in the order of the file."""
    arrays: dict[str, Array] = {}
    for name, numbers in (("labels", labels), ("clean_labels", clean_labels)):
        if numbers is not None:
            if numbers.shape != (len(ids),):
                raise ValueError(f"{name} {numbers.shape} of {len(ids)} rows")
            arrays[name] = numbers.astype(np.int64, copy=False)
    arrays["ids_offsets"], arrays["ids_bytes"] = pack_ids(ids)
    return arrays


def pack_ids(ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Ids as offsets int64 [N+1] and bytes uint8, UTF-8 one after another, zero-padded to 8."""
    try:
        texts = [text.encode() for text in ids]
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the id {error.object!r} is not Unicode", "rename the file") from error
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    joined = b"".join(texts)
    return offsets, np.frombuffer(joined + bytes(-len(joined) % 8), dtype=np.uint8)


class PackedIds(Sequence[str]):
    """Ids [N] as a file holds them, made into texts when the first one is asked for: a spectrum of ten
    million rows needs none. Raises InvalidInput then where they are not unique.
    """

    def __init__(self, packed: bytes, offsets: NDArray[np.int64], source: str) -> None:
        self._packed, self._offsets, self._source = packed, offsets, source

    @cached_property
    def _texts(self) -> list[str]:
        ids = [self._packed[a:b].decode() for a, b in pairwise(self._offsets.tolist())]
        if twice := repeated(ids):
            raise InvalidInput(f"{self._source}: ids are not unique", first(twice))
        return ids

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self._texts[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._texts == list(other)

    __hash__ = None  # type: ignore[assignment]


def read_ids(container: Container, arrays: Arrays, rows: int) -> Sequence[str]:
    """The ids of N rows from a file's arrays, row numbers where it has none.

    Raises InvalidInput where they are damaged; that they are unique is seen when they are used.
    """
    if "ids_offsets" not in arrays and "ids_bytes" not in arrays:
        return [str(row) for row in range(rows)]
    require(container, "ids_offsets", ("int64",), (rows + 1,))
    require(container, "ids_bytes", ("uint8",), (None,))
    source, offsets, packed = container.source, arrays["ids_offsets"], arrays["ids_bytes"]
    end = int(offsets[-1])
    in_order = offsets[0] == 0 and (np.diff(offsets) >= 0).all()
    if not in_order or len(packed) != end + -end % 8 or packed[end:].any():
        raise InvalidInput(f"{source}: its ids are damaged")
    text = packed[:end].tobytes()
    starts = offsets[:-1][np.diff(offsets) > 0]
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{source}: its ids are damaged (not UTF-8)") from error
    if ((packed[starts] & 0xC0) == 0x80).any():  # within a character
        raise InvalidInput(f"{source}: its ids are damaged (not UTF-8)")
    return PackedIds(text, offsets, source)


def class_bound(classes: Sequence[str] | None, rows: int) -> int:
    """What class numbers lie below: without names of classes more than there can be in earnest."""
    return len(classes) if classes is not None else rows + 1_000_000


def read_numbers(
    container: Container, arrays: Arrays, name: str, record: Record
) -> NDArray[np.int64] | None:
    """Class numbers of the rows, int64 [N], None where the file has none of that name.

    Raises InvalidInput, naming the row, for a number outside the record's classes.
    """
    if name not in arrays:
        return None
    require(container, name, _INTEGERS if container.record is None else ("int64",), (record.rows,))
    labels: NDArray[np.int64] = arrays[name].astype(np.int64, copy=False)
    bound = class_bound(record.classes, len(labels))
    outside = np.flatnonzero((labels < 0) | (labels >= bound))
    if len(outside):
        row = int(outside[0])
        if record.classes is None:
            wrong = (
                f"{container.source}: row {row} has {labels[row]} in {name}, which is no class number"
            )
            raise InvalidInput(wrong, "give the names of the classes")
        raise InvalidInput(
            f"{container.source}: row {row} has the {name.removesuffix('s').replace('_', ' ')} "
            f"{labels[row]}, outside of its {bound} classes"
        )
    return labels
