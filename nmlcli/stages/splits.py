"""Which rows of a labelled set are trained on and which are held out: by the keys of their ids, so that
they are the same for every network."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed
from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.noise.draws import half_up
from nmlcli.products.features import Features
from nmlcli.stages.inputs import LabelledSet, finite_blocks

log = logging.getLogger(__name__)

Numbers = NDArray[np.int64]
Float32 = NDArray[np.float32]

_BLOCK = 1024  # rows of a block of views


@dataclass(frozen=True)
class Portion:
    """Some rows of a labelled set: their numbers int64 [N], ascending, or None for all of them."""

    whole: LabelledSet
    rows: Numbers | None = None

    @property
    def labels(self) -> Numbers:
        """Labels int64 [N]."""
        return self.whole.labels if self.rows is None else self.whole.labels[self.rows]

    @property
    def numbers(self) -> Numbers:
        """The numbers of the rows int64 [N], written out."""
        return np.arange(len(self), dtype=np.int64) if self.rows is None else self.rows

    @property
    def ids(self) -> Iterator[str]:
        """The ids of the rows, in order."""
        names = (name for part in self.whole.parts for name in part.ids)
        if self.rows is None:
            return names
        wanted = np.zeros(len(self.whole.labels), dtype=np.bool_)
        wanted[self.rows] = True
        return compress(names, wanted)

    def __len__(self) -> int:
        return len(self.whole.labels) if self.rows is None else len(self.rows)

    def blocks(self) -> Iterator[Float32]:
        """Iterate the features in blocks [≤ 4096, D], read anew each time."""
        for start, block in _blocks(self.whole, views=False):
            low, high = self.within(start, len(block))
            if high > low:
                yield block if self.rows is None else block[self.rows[low:high] - start]

    def within(self, start: int, count: int) -> tuple[int, int]:
        """From which to which of these rows the set's rows start … start + count - 1 are."""
        if self.rows is None:
            return start, start + count
        low, high = np.searchsorted(self.rows, (start, start + count))
        return int(low), int(high)


def fraction_of(portion: Portion, fraction: float, seed: int) -> Portion:
    """A class-balanced share of the rows, at least one of each class that has any.

    Shares of one seed are nested. Raises UsageError for a share that is none.
    """
    share = _share(fraction, "--fraction", whole_too=True)
    if share == 1:
        return portion
    labels, rows = portion.labels, portion.numbers
    order = _ranked(labels, _keys(portion.whole, seed, "fraction")[rows])
    kept = order[: max(len(np.unique(labels)), half_up(share * len(order)))]
    return Portion(portion.whole, np.sort(rows[kept]))


def split_off(portion: Portion, fraction: float, seed: int) -> tuple[Portion, Portion]:
    """What is left to train on, and a class-balanced share of the rows to validate on.

    Each class keeps a row to train on and gives one to validate on, as far as it has two; a warning
    names those that have not. Raises UsageError for a share that is none.
    """
    share = _share(fraction, "--val-fraction", whole_too=False)
    labels, whole, rows = portion.labels, portion.whole, portion.numbers
    order = _ranked(labels, _keys(whole, seed, "validation")[rows], keep_one=True)
    counts = np.bincount(labels, minlength=len(whole.classes))
    lone = [whole.classes[number] for number in np.flatnonzero(counts == 1)]
    if not len(order):
        raise InvalidInput("no class has two rows", "there is nothing to split off: give --val")
    if lone:
        log.warning("classes with one row have none to validate on: %s", first(lone))
    held = np.sort(order[: max(int((counts > 1).sum()), half_up(share * len(labels)))])
    return Portion(whole, np.delete(rows, held)), Portion(whole, rows[held])


def check_shared(training: Portion, validation: Portion, *, refit: bool) -> None:
    """Warn of ids that are trained and validated on. Raises InvalidInput for them where refit."""
    known = {*validation.ids}
    shared = [name for name in training.ids if name in known]
    if not shared:
        return
    source = validation.whole.parts[0].source
    wrong = f"{source} holds ids that are trained on: {first(shared)}"
    if refit:
        raise InvalidInput(wrong, "leave --refit out, or give --val-fraction in place of --val")
    log.warning("%s; what it says of their rows says little of others", wrong)


def _ranked(labels: Numbers, keys: keyed.Keys, *, keep_one: bool = False) -> Numbers:
    """The order in which rows are taken, so that the first M of them are balanced for every M.

    The first row of each class comes first, then by (j + 1/2) / n_c for the j-th of a class of n_c
    rows, j from 0 (Webster's method). Rounding each share by itself, or by largest remainders, would
    miss the total, or take a class's row away again as the share grows. keep_one: without the last row
    of each class.
    """
    order = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    places = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # j
    sizes = np.repeat(counts, counts)
    priority = np.where(places == 0, 0.0, (places + 0.5) / sizes)
    ranked = np.lexsort((keys[order], priority))
    if keep_one:
        ranked = ranked[(places < sizes - 1)[ranked]]
    return order[ranked].astype(np.int64)


def _keys(whole: LabelledSet, seed: int, purpose: str) -> keyed.Keys:
    ids = (name for part in whole.parts for name in part.ids)
    return keyed.keys(keyed.hash_ids(ids), seed, purpose)


def _share(value: float, option: str, *, whole_too: bool) -> Fraction:
    share = Fraction(str(value)) if np.isfinite(value) else Fraction(0)
    upper = "up to 1" if whole_too else "below 1"
    if not (0 < share < 1 or (whole_too and share == 1)):
        raise UsageError(f"{option} is {value:g}", f"give a share above 0 and {upper}")
    return share


def gathered(portions: Sequence[Portion], *, views: bool = False) -> Float32:
    """Features [N, D] of several portions, one after another, or their views [N, K, D].

    A set is read once, whatever portions of it are wanted: it may be a stream. Raises InvalidInput for
    values that are not finite.
    """
    whole = portions[0].whole
    wide = (whole.parts[0].num_views,) if views else ()
    out = np.empty((sum(map(len, portions)), *wide, whole.parts[0].columns), dtype=np.float32)
    starts = np.cumsum([0, *map(len, portions)])
    for one in {id(portion.whole): portion.whole for portion in portions}.values():
        for row, block in _blocks(one, views=views):
            for portion, start in zip(portions, starts, strict=False):
                if portion.whole is one:
                    low, high = portion.within(row, len(block))
                    some = block if portion.rows is None else block[portion.rows[low:high] - row]
                    out[start + low : start + high] = some
    return out


def _blocks(whole: LabelledSet, *, views: bool) -> Iterator[tuple[int, Float32]]:
    """Blocks of the parts of a set, each with the number of its first row."""
    start = 0
    for part in whole.parts:
        for block in _finite_views(part) if views else finite_blocks(part):
            yield start, block
            start += len(block)


def _finite_views(part: Features) -> Iterator[Float32]:
    """Iterate views in float32 blocks [B, K, D]. Raises InvalidInput, naming the first bad row."""
    if part.views is None:
        raise ValueError(f"{part.source} holds no views")
    start = 0
    for block in part.views(_BLOCK):
        finite = np.isfinite(block).all(axis=(1, 2))
        if not finite.all():
            name = part.ids[start + int(np.argmin(finite))]
            raise InvalidInput(f"{part.source}: the views of {name} are not finite", "embed it anew")
        yield np.asarray(block, dtype=np.float32)
        start += len(block)
