"""What spectra are measured of: sets of features, whole or in parts, and saved states."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.keyed import hash_ids, keys
from nmlcli.numerics.measures import PREPARATIONS
from nmlcli.numerics.sums import SavedSums
from nmlcli.products.features import Features, unpack_features
from nmlcli.products.formats import open_container
from nmlcli.products.spectrum import SpectrumState, unpack_state
from nmlcli.progress import Advance, shifted
from nmlcli.provenance import Facts, Record
from nmlcli.stages.inputs import (
    BLOCK,
    check_network,
    check_parts,
    finite_blocks,
    joined,
    labels_of_parts,
)

log = logging.getLogger(__name__)

Block = NDArray[np.float32]


@dataclass(frozen=True)
class RowSet:
    """Features, or the parts of one set, as one: what can be read row by row. name: for messages."""

    name: str
    parts: tuple[Features, ...]
    record: Record
    again: bool  # whether the rows can be read more than once

    @property
    def rows(self) -> int:
        """N, of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def records(self) -> list[Record]:
        """The records of the parts."""
        return [part.record for part in self.parts]

    @property
    def identities(self) -> list[str]:
        """The identities of the features."""
        return [record.identity for record in self.records]

    @property
    def precision(self) -> str:
        """In what precision the features are stored, and were computed where that is known."""
        return _precision(self.parts[0])

    @property
    def piece(self) -> int:
        """Rows that are read at once: about 1 MiB, so that those which wait take little memory."""
        return min(BLOCK, max(1, 2**18 // self.parts[0].columns))

    def blocks(self, advance: Advance) -> Iterator[Block]:
        """Iterate all rows in float32 blocks [≤ piece, D], finite; see finite_blocks."""
        before = 0
        for part in self.parts:
            pieces = in_pieces(part, self.piece)
            yield from finite_blocks(pieces, shifted(advance, before, self.rows))
            before += part.rows


@dataclass(frozen=True)
class StateSet:
    """Saved states as one: sums that can be measured again. options: how the rows were prepared;
    records: of the states; identities: of the features that they are of."""

    name: str
    sums: SavedSums
    record: Record
    records: list[Record]
    options: Facts
    identities: list[str]
    precision: str
    zero_rows: int


def open_sources(sources: Sequence[str]) -> RowSet | StateSet:
    """Open one source, or the parts of one set: features or saved states.

    Raises InvalidInput, naming both, where parts do not fit together.
    """
    opened = [_open(source) for source in sources]
    name, one = first([each.source for each in opened]), opened[0]
    states = [each for each in opened if isinstance(each, SpectrumState)]
    parts = tuple(each for each in opened if isinstance(each, Features))
    if states and parts:
        wrong = f"{states[0].source} is a state, {parts[0].source} holds features"
        raise InvalidInput(wrong, "give either, or save a state of the features first")
    for other in opened[1:]:
        if (theirs := _precision(other)) != _precision(one):
            wrong = f"{other.source} is {theirs}, {one.source} is {_precision(one)}"
            raise InvalidInput(wrong, "take parts of one precision")
    if states:
        return _join(states, name)
    check_parts(parts)
    again = all(source != "-" and Path(source).is_file() for source in sources)
    return RowSet(name, parts, joined([part.record for part in parts]), again)


def _open(source: str) -> Features | SpectrumState:
    container = open_container(source, "features")
    if container.record is not None and container.record.kind == "spectrum":
        state = unpack_state(container)
        if state.record.options.get("preset") not in [*PREPARATIONS]:
            raise InvalidInput(f"{source}: its record does not say how the rows were prepared")
        return state
    return unpack_features(container)


def _precision(part: Features | SpectrumState) -> str:
    if isinstance(part, SpectrumState):
        return str(part.record.extra.get("precision"))
    computed = part.record.options.get("precision")
    return f"{part.dtype.name}{f' ({computed})' if computed else ''}"


def _join(states: list[SpectrumState], name: str) -> StateSet:
    """States added up. Raises InvalidInput, naming two, where they are not parts of one set."""
    one, *others = states
    preparation, identities = _preparation(one), list[str]()
    if others and "sample" in preparation:
        wrong = f"{one.source} is of a sample, and samples do not add up"
        raise InvalidInput(wrong, "draw one of the whole")
    check_network(one.record, one.source, *others)
    for state in states:
        if (theirs := _preparation(state)) != preparation:
            pair = f"{one.source} ({_said(preparation)}) and {state.source} ({_said(theirs)})"
            raise InvalidInput(f"{pair} were not prepared alike", "measure them with the same options")
        added = list(state.record.extra.get("features") or [state.record.identity])
        if set(added) & set(identities):
            twice = f"{state.source} holds features that are in the states before it"
            raise InvalidInput(twice, "give each part once")
        identities += added
    sums = reduce(add, (SavedSums(s.count, s.column_sums, s.centred_gram) for s in states))
    if not others:
        tolerance = one.record.extra.get("tolerance", 0.0)
        known = (bool(one.record.options.get("center")), one.singular_values, tolerance)
        sums = SavedSums(one.count, one.column_sums, one.centred_gram, known)
    zeros = sum(each.record.extra.get("zero_rows", 0) for each in states)
    records = [each.record for each in states]
    whole = joined(records, identities)
    return StateSet(name, sums, whole, records, preparation, identities, _precision(one), zeros)


def _preparation(state: SpectrumState) -> dict[str, Any]:
    return {name: value for name, value in state.record.options.items() if name != "center"}


def _said(options: Facts) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def choose_rows(
    rows: RowSet, by_class: bool, sample: int | None, seed: int
) -> tuple[NDArray[np.int64] | None, list[str | None], list[int]]:
    """Which line each row is for: numbers [N] (-1: none; None: all are for the only line), the lines'
    classes (None: not by class) and their numbers of rows.

    sample: of each line the N rows whose ids have the smallest keys, so that they are the same for
    every network. A class without rows has no line.
    """
    numbers, names = np.zeros(rows.rows, dtype=np.int64), [None]
    if by_class:
        numbers, classes = labels_of_parts(rows.parts)
        present, numbers = np.unique(numbers, return_inverse=True)
        names = [classes[number] for number in present]
    counts = np.bincount(numbers, minlength=len(names))
    if sample is None:
        return (numbers if by_class else None), list(names), counts.tolist()
    if few := int((counts < sample).sum()):
        which = f"{few} of {len(names)} classes have" if by_class else "it has"
        log.warning("%s: %s fewer than the %s rows of the sample", rows.name, which, f"{sample:,}")
    ids = [identifier for part in rows.parts for identifier in part.ids]
    drawn = keys(hash_ids(ids), seed, "sample")
    order = np.lexsort((drawn, numbers))
    place = np.arange(len(order)) - (np.cumsum(counts) - counts)[numbers[order]]
    numbers[order[place >= sample]] = -1
    return numbers, list(names), np.minimum(counts, sample).tolist()


def open_twin(source: str, rows: RowSet) -> Features:
    """Features of the same rows in the same order; raises InvalidInput, naming three, where not."""
    twin = _open(source)
    if not isinstance(twin, Features):
        raise InvalidInput(f"{source} is a state, and its rows are gone", "give features")
    ids = rows.parts[0].ids
    if twin.rows != len(ids):
        wrong = f"{source} has {twin.rows:,} rows, {rows.name} {len(ids):,}"
        raise InvalidInput(wrong, "embed the same set with both networks")
    apart = [f"{one} / {other}" for one, other in zip(ids, twin.ids, strict=True) if one != other]
    if apart:
        remedy = "embed the same set in the same order with both networks"
        raise InvalidInput(f"the rows of {rows.name} and {source} differ: {first(apart)}", remedy)
    return twin


def in_pieces(features: Features, rows: int) -> Features:
    """The same features, read so many rows at once whatever is asked for."""
    return replace(features, blocks=lambda _: features.blocks(rows))


def work_behind(blocks: Iterator[Any], work: Callable[[Any], None], ahead: int) -> None:
    """Do the work of each block in a thread while the next ones are read here, at most `ahead`.

    Reading stays in this thread, where Ctrl-C finds it even as it waits for a pipe. What either raises
    ends both.
    """
    worker = ThreadPoolExecutor(1, "work")
    pending: deque[Future[None]] = deque()
    try:
        for block in blocks:
            if len(pending) >= ahead:
                pending.popleft().result()
            pending.append(worker.submit(work, block))
        while pending:
            pending.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)


def check_rereading(rows: RowSet, passes: int) -> None:
    """Raise UsageError where rows that come once would have to be read more often."""
    if passes > 1 and not rows.again:
        wrong = f"{rows.name} has to be read {passes} times, and a stream comes once"
        raise UsageError(wrong, "save it to a file and give its name")
