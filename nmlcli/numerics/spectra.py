"""Singular values of features, from one pass over blocks of rows, in float64.

Notation: X [N, D] the prepared rows, d = min(N, D). Small or wide X is held, and decomposed where it
is ill-conditioned; of tall X only sums outlive a block; see sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nmlcli.numerics.measures import PREPARATIONS, Preparation
from nmlcli.numerics.sums import Float64, GramSums, HeldRows, SavedSums, count_clear

Block = NDArray[np.float32] | NDArray[np.float16] | Float64

ROWS = 4096  # that are multiplied at once; fixed, since the last bits of a product depend on it
CACHED = 2**16  # values that are worked on one after the other, so that a processor's cache has them
HELD = 2**20  # values of X that are held, where it is not wide: 8 MiB

Sums = HeldRows | GramSums | SavedSums


def is_held(rows: int, columns: int) -> bool:
    """Whether all rows of X are held: it is small, or wide."""
    return rows <= columns or rows * columns <= HELD


def footprint(rows: int, columns: int) -> int:
    """Bytes at most that an accumulator keeps, a second look included.

    The one that is at work takes up to 8 ROWS D more for as long as that takes.
    """
    return 16 * rows * columns if is_held(rows, columns) else 56 * columns**2 + 8 * ROWS * columns


class Accumulator:
    """Takes the N rows of a set in order, in blocks of any sizes, and gives their spectrum.

    rows, columns: N and D. preparation: what is done to each row first (see PREPARATIONS). Rows that
    are summed wait for others until there are ROWS of them, so that sizes of blocks never matter.
    """

    def __init__(self, rows: int, columns: int, preparation: Preparation = PREPARATIONS["raw"]) -> None:
        self.sums: HeldRows | GramSums = (
            HeldRows(rows, columns) if is_held(rows, columns) else GramSums(columns)
        )
        self.zero_rows = 0
        self._preparation = preparation
        self._rows = rows
        self._room = min(rows, ROWS)
        self._few = max(1, CACHED // columns)
        self._buffer = np.empty((0, columns))  # lasts from the first row to the last
        self._waiting = self._shifted = self._taken = 0

    def add(self, block: Block) -> None:
        """Take a block of rows [n, D], finite."""
        for part in self.fitting(len(block)):
            self.prepared(block[part])
            self.take()

    def add_again(self, block: Block) -> None:
        """Take the same rows once more, in blocks [n, D], after reopen."""
        zeros = self.zero_rows
        for part in self.fitting(len(block)):
            self.prepared(block[part])
            self.take(again=True)
        self.zero_rows = zeros

    def fitting(self, count: int) -> Iterator[slice]:
        """The parts of a block of so many rows that prepared takes, one after the other."""
        start = 0
        while start < count:
            stop = min(count, start + self._room - self._waiting)
            yield slice(start, stop)
            start = stop

    def prepared(self, part: Block) -> Float64:
        """Fitting rows as they are measured, float64; take takes them."""
        if not len(self._buffer):
            self._buffer = np.empty((self._room, part.shape[1]))
        rows = self._buffer[self._waiting : self._waiting + len(part)]
        for start in range(0, len(part), self._few):
            some = rows[start : start + self._few]
            np.copyto(some, part[start : start + self._few])
            self.zero_rows += self._preparation.prepare(some)
        self._waiting += len(part)
        return rows

    def take(self, again: bool = False) -> None:
        """Take the rows that were prepared: into the column sums a few, into products many at once.

        What is added up at once starts at the same rows whatever the sizes of blocks are.
        """
        last = self._taken + self._waiting == self._rows
        full = last or self._waiting == self._room
        if isinstance(self.sums, GramSums) and not again:
            unfinished = 0 if full else self._waiting % self._few
            self._shift(self.sums, self._waiting - unfinished)
        if not full:
            return
        rows = self._buffer[: self._waiting]
        if isinstance(self.sums, HeldRows):
            self.sums.add(rows)
        elif again:
            self.sums.add_again(rows)
        else:
            self.sums.multiply(rows)
        self._taken += self._waiting
        self._waiting = self._shifted = 0
        if last:
            self._taken, self._buffer = 0, self._buffer[:0].copy()

    def _shift(self, sums: GramSums, stop: int) -> None:
        for start in range(self._shifted, stop, self._few):
            sums.shift(self._buffer[start : min(start + self._few, stop)])
        self._shifted = stop

    def reopen(self) -> bool:
        """Ask for a second look at what is not clear; whether it needs the rows again, by add_again."""
        return isinstance(self.sums, GramSums) and self.sums.reopen()

    def spectrum(self, center: bool = False) -> "Spectrum":
        """The spectrum of what was taken, with the column means taken off if center."""
        return Spectrum(self.sums, center, self._preparation.lost)


@dataclass(frozen=True)
class Spectrum:
    """Singular values of X (of X less its column means if center), computed when asked for.

    lost: how many dimensions the preparation takes out, whose values are 0 for certain.
    """

    sums: Sums
    center: bool
    lost: int = 0

    @cached_property
    def _plain(self) -> tuple[Float64, float]:
        return self.sums.singular_values(self.center)

    @property
    def values(self) -> Float64:
        """Singular values [d], descending; those below the tolerance are 0."""
        return self._plain[0]

    @property
    def tolerance(self) -> float:
        """What counts as 0, relative to the largest singular value."""
        return self._plain[1]

    @property
    def clear(self) -> bool:
        """Whether a second look at the rows would show nothing new."""
        if isinstance(self.sums, HeldRows):
            return True
        # Some measures are always of the centred ones.
        known = (values[: len(values) - self.lost] for values in (self.values, self.centred))
        return all(count_clear(values, self.sums.scale) == len(values) for values in known)

    @property
    def resolved(self) -> bool:
        """Whether small values are exact: nothing is unclear, or it was looked at again."""
        return self.clear or (isinstance(self.sums, GramSums) and self.sums.resolved)

    @cached_property
    def centred(self) -> Float64:
        """Singular values [d] of X less its column means, whatever `center` is."""
        return self.values if self.center else self.sums.singular_values(True)[0]
