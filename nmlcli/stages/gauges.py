"""Passes over rows that gather what spectra, moments and comparisons are made of."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.numerics.measures import MEASURES, Preparation, UndefinedError, fit_range
from nmlcli.numerics.moments import Moments
from nmlcli.numerics.pairs import PairSums
from nmlcli.numerics.spectra import Accumulator, Spectrum, footprint
from nmlcli.products.features import Features
from nmlcli.products.head import Head
from nmlcli.progress import Advance, silent
from nmlcli.stages.inputs import finite_blocks
from nmlcli.stages.spectra_sources import Block, RowSet, check_rereading, in_pieces, work_behind

log = logging.getLogger(__name__)

MEMORY = 2**28  # bytes that the sums of several classes may take in one pass
AHEAD = 4  # pieces of rows that are read while others are worked on

Values = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is gathered of one source: a gauge a line.

    head: rows are its Z. numbers: int64 [N], the line of each row, -1 for none; None: all are of the
    only line. counts: the rows of each line. twin: features to compare with by the first `top` left
    singular vectors, of which there is one line.
    """

    source: RowSet
    preparation: Preparation
    center: bool
    head: Head | None
    numbers: NDArray[np.int64] | None
    counts: list[int]
    twin: Features | None
    top: int
    moments: bool

    @property
    def columns(self) -> int:
        """D of what is measured."""
        first = self.source.parts[0]
        return first.columns if self.head is None else self.head.layers[-1][0].shape[1]


class Gauge:
    """What is gathered of the rows of one line."""

    def __init__(self, task: Task, rows: int) -> None:
        self.rows, self.columns = rows, task.columns
        self.sums = Accumulator(rows, task.columns, task.preparation)
        self.spectrum = self.sums.spectrum(task.center)
        self._task = task
        self._moments = Moments(task.columns) if task.moments else None
        self._pair = PairSums(task.columns, task.twin.columns) if task.twin is not None else None

    def add(self, block: Block, twin: Block | None) -> None:
        """Take a block of this line's rows [n, D], and the twins of them."""
        for part in self.sums.fitting(len(block)):
            rows = self.sums.prepared(block[part])
            if self._moments is not None:
                self._moments.add(rows)
            if self._pair is not None and twin is not None:
                others = twin[part].astype(np.float64)
                self._task.preparation.prepare(others)
                self._pair.add(rows.copy(), others)
            self.sums.take()

    def add_again(self, block: Block, twin: Block | None) -> None:
        """Take the same rows once more, for the singular values alone."""
        self.sums.add_again(block)

    def look_again(self) -> bool:
        """See whether the singular values are clear; whether that needs the rows once more."""
        if self.spectrum.clear:
            return False
        self.spectrum = self.sums.spectrum(self._task.center)  # computed anew when asked for
        return self.sums.reopen()

    def measures(self) -> Values:
        """Every measure, as keys of a line; see measured."""
        values = measured(self.spectrum)
        reasons = [values["undefined"]] if values["undefined"] else []
        if self._moments is not None:
            skewness, kurtosis = self._moments.skewness_and_kurtosis()
            if math.isnan(skewness):
                reasons.append("skewness, kurtosis: all columns are constant")
            told = [None if math.isnan(value) else value for value in (skewness, kurtosis)]
            values |= dict(zip(("skewness", "kurtosis"), told, strict=True))
            values["constant_columns"] = self._moments.constant
        if self._pair is not None and self._task.twin is not None:
            compared: Values = dict.fromkeys(("cka", "principal_angle", "principal_angle_k"))
            try:
                compared["cka"] = self._pair.cka()
                angle, k = self._pair.principal_angle(self._task.top, self._task.center)
                compared |= {"principal_angle": angle, "principal_angle_k": k}
            except UndefinedError as error:
                reasons.append(f"{', '.join(k for k, v in compared.items() if v is None)}: {error}")
            values |= {"against": self._task.twin.record.identity, **compared}
        return values | {"undefined": "; ".join(reasons) or None}


def measured(spectrum: Spectrum) -> Values:
    """Every measure; of those that do not exist None, with the reasons in `undefined`."""
    values: Values = {}
    reasons: dict[str, list[str]] = {}
    for name, row in MEASURES.items():
        try:
            values[name] = row.measure(spectrum)
        except UndefinedError as error:
            values[name] = None
            reasons.setdefault(str(error), []).append(name)
    first, last = fit_range(spectrum) if values["alpha_req"] is not None else (None, None)
    why = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    told = {"alpha_req_from": first, "alpha_req_to": last, "undefined": "; ".join(why) or None}
    return values | told


def gauge(task: Task, advance: Advance = silent) -> Iterator[Gauge]:
    """Read a source as often as it takes and yield the gauge of each line, in order.

    Lines share a pass as far as MEMORY allows; where singular values are not clear from their sums,
    the rows of those lines are read once more, and of a stream what is known is warned to be less.
    """
    batches = list(_batches(task))
    check_rereading(task.source, len(batches))
    for batch in batches:
        yield from _gauged(task, batch, advance)


def _gauged(task: Task, batch: list[int], advance: Advance) -> Iterator[Gauge]:
    """The gauges of the lines of one pass, which end with it."""
    gauges = {number: Gauge(task, task.counts[number]) for number in batch}
    _pass(task, gauges, advance)
    again = {number: each for number, each in gauges.items() if each.look_again()}
    if again and task.source.again:
        _pass(task, again, advance, again=True)
    if again and not task.source.again:
        log.warning(
            "%s: singular values below %.1e of the largest are not told from 0, since a stream"
            " comes once: a file can be read again",
            task.source.name, next(iter(again.values())).spectrum.tolerance,
        )  # fmt: skip
    yield from gauges.values()


def _batches(task: Task) -> Iterator[list[int]]:
    """The lines of each pass."""
    batch: list[int] = []
    taken = 0
    for number, rows in enumerate(task.counts):
        needed = footprint(rows, task.columns)
        if batch and taken + needed > MEMORY:
            yield batch
            batch, taken = [], 0
        batch.append(number)
        taken += needed
    yield batch


def _pass(task: Task, gauges: dict[int, Gauge], advance: Advance, again: bool = False) -> None:
    """Read all rows once and give each gauge its own, by add or add_again."""
    takers = {number: each.add_again if again else each.add for number, each in gauges.items()}
    twins: Iterator[Block | None] = repeat(None)
    if task.twin is not None and not again:
        twins = finite_blocks(in_pieces(task.twin, task.source.piece))
    start = 0

    def work(pair: tuple[Block, Block | None]) -> None:
        nonlocal start
        block, twin = pair
        rows = slice(start, start + len(block))
        start = rows.stop
        if task.head is not None:
            block = task.head.apply(block)[0]
            if not np.isfinite(block).all():
                raise InvalidInput(f"{task.head.source} makes values that are not finite of its rows")
        if task.numbers is None:
            takers[0](block, twin)
            return
        numbers = task.numbers[rows]
        for number in np.unique(numbers[numbers >= 0]).tolist():
            if number in takers:
                own = numbers == number
                takers[number](block[own], None if twin is None else twin[own])

    work_behind(zip(task.source.blocks(advance), twins, strict=False), work, AHEAD)
