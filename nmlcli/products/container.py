"""What the file formats have in common: a record and named arrays, read and written alike.

A format is a class that keeps the protocol `Container` and a function that writes; which arrays a
kind of product has is said in the module of that product, not here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.provenance import Record

Array = NDArray[Any]
Arrays = Mapping[str, Array]

NOUNS = {
    "labels": "labels",
    "checkpoint": "a checkpoint",
    "features": "features",
    "head": "a head",
    "spectrum": "a spectrum",
}


@dataclass(frozen=True)
class Tensor:
    """One array of a file. dtype: numpy's name (`bfloat16` and the like for those it lacks).
    start, stop: bytes of a safetensors file, counted from the end of its header."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Rows:
    """An array to be written row block by row block; blocks(rows) iterates [≤ rows, …] in order.

    then: another such array, which follows it. compress: where the format can (HDF5).
    """

    name: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    blocks: Callable[[int], Iterator[Array]]
    then: "Rows | None" = None
    compress: bool = False

    def chained(self) -> "list[Rows]":
        """This array and those that follow it."""
        return [self, *(self.then.chained() if self.then is not None else ())]

    def per_mebibyte(self) -> int:
        """How many rows make a block of about 1 MiB; at least one."""
        return max(1, 2**20 // max(1, int(np.prod(self.shape[1:])) * self.dtype.itemsize))

    def chunk_rows(self) -> int:
        """How many rows make a chunk of about 1 MiB, but not more than there are."""
        return min(self.per_mebibyte(), self.shape[0])

    def checked(self, rows: int) -> Iterator[Array]:
        """The blocks of that many rows; raises ValueError where their sum is not what was announced."""
        done = 0
        for block in self.blocks(rows):
            done += len(block)
            if block.shape[1:] != self.shape[1:] or block.dtype != self.dtype or done > self.shape[0]:
                raise ValueError(
                    f"{self.name}: a block {block.dtype} {block.shape} does not fit {self.shape}"
                )
            yield np.ascontiguousarray(block, dtype=self.dtype.newbyteorder("<"))
        if done != self.shape[0]:
            raise ValueError(f"{self.name}: {done} rows came, {self.shape[0]} were announced")


def in_blocks(pieces: Iterable[Array], rows: int) -> Iterator[Array]:
    """Iterate blocks of that many rows, the last of what is left, from pieces of any sizes."""
    waiting: list[Array] = []
    held = 0
    for piece in (some[i : i + rows] for some in pieces for i in range(0, len(some), rows)):
        missing = rows - held
        waiting.append(piece[:missing])
        held += len(piece)
        if held >= rows:
            yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            waiting, held = [piece[missing:]] if held > rows else [], held - rows
    if held:
        yield np.concatenate(waiting)


class Container(Protocol):
    """A file or stream of named arrays, its header read and checked."""

    source: str
    record: Record | None  # None: the file is not from nml
    path: str | None  # None: a stream, which is read once and in order
    tensors: Mapping[str, Tensor]  # what is there, in the order of the file

    def arrays(self, names: Iterable[str]) -> dict[str, Array]:
        """Read those of these arrays that are there."""

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """Iterate row blocks [≤ rows, …] of one array; of a stream this works once."""


def require_record(container: Container, kind: str) -> Record:
    """The record of a file that must hold this kind of product; raises InvalidInput naming both."""
    source, record = container.source, container.record
    if record is None:
        raise InvalidInput(f"{source} has no nml record", f"it must hold {NOUNS[kind]} from nml")
    if record.kind != kind:
        raise InvalidInput(f"{source} holds {NOUNS[record.kind]}, not {NOUNS[kind]}")
    return record


def require_names(container: Container, known: Iterable[str]) -> None:
    """Refuse arrays that this kind of product does not have."""
    unknown = sorted(set(container.tensors) - set(known))
    if unknown:
        raise InvalidInput(f"{container.source} holds arrays that do not belong there", first(unknown))


def require(
    container: Container, name: str, dtypes: tuple[str, ...], shape: tuple[int | None, ...]
) -> Tensor:
    """The array of that name; raises InvalidInput where it is missing or of another type or shape.

    shape: the wanted sizes, None where any size will do.
    """
    tensor = container.tensors.get(name)
    if tensor is None:
        held = first([f"{other} {tensor}" for other, tensor in container.tensors.items()])
        raise InvalidInput(f"{container.source} has no {name}", f"it holds {held or 'nothing'}")
    fits = len(tensor.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype not in dtypes or not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise InvalidInput(
            f"{container.source}: {name} is {tensor}, not {' or '.join(dtypes)} [{sizes}]"
        )
    return tensor
