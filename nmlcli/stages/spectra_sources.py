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
from nmlcli.numerics.spectra import SavedSums
from nmlcli.products.features import Features, unpack_features
from nmlcli.products.formats import open_container
from nmlcli.products.ids import require_unique
from nmlcli.products.spectrum import SpectrumState, unpack_state
from nmlcli.progress import Advance, shifted
from nmlcli.provenance import Facts, Record, identity_of
from nmlcli.stages.inputs import BLOCK, REVISION, check_network, finite_blocks, labels_of

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

    def labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Labels [N] and the names of the classes. Raises InvalidInput where a part has none."""
        classes = self.parts[0].record.classes
        if classes is None:  # numbers stand for them
            highest = max(int(p.labels.max()) if p.labels is not None else 0 for p in self.parts)
            classes = tuple(str(number) for number in range(highest + 1))
        return np.concatenate([labels_of(part, classes) for part in self.parts]), classes


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

    @property
    def rows(self) -> int:
        """N, of all states."""
        return self.sums.count


def open_sources(sources: Sequence[str]) -> RowSet | StateSet:
    """Open one source, or the parts of one set: features or saved states.

    Raises InvalidInput, naming both, where parts do not fit together.
    """
    opened = [_open(source) for source in sources]
    name = first([each.source for each in opened])
    states = [each for each in opened if isinstance(each, SpectrumState)]
    parts = tuple(each for each in opened if isinstance(each, Features))
    if states and parts:
        wrong = f"{states[0].source} is a state, {parts[0].source} holds features"
        raise InvalidInput(wrong, "give either, or save a state of the features first")
    if states:
        return _join(states, name)
    one, *others = parts
    for part in parts:
        if part.rows == 0:
            raise InvalidInput(f"{part.source} has no rows", "a spectrum needs at least one")
    for part in others:
        check_network(one.record, one.source, part)
        _check_alike(one.source, _precision(one), part.source, _precision(part))
    if others:
        ids = [identifier for part in parts for identifier in part.ids]
        require_unique(ids, " and ".join(part.source for part in parts), "give each part once")
    record = _joined([part.record for part in parts], [part.record.identity for part in parts])
    again = all(source != "-" and Path(source).is_file() for source in sources)
    return RowSet(name, parts, record, again)


def _open(source: str) -> Features | SpectrumState:
    container = open_container(source, "features")
    if container.record is not None and container.record.kind == "spectrum":
        state = unpack_state(container)
        if state.record.options.get("preset") not in [*PREPARATIONS]:
            raise InvalidInput(f"{source}: its record does not say how the rows were prepared")
        return state
    return unpack_features(container)


def _precision(part: Features) -> str:
    computed = part.record.options.get("precision")
    return f"{part.dtype.name}{f' ({computed})' if computed else ''}"


def _join(states: list[SpectrumState], name: str) -> StateSet:
    """States added up. Raises InvalidInput, naming two, where they are not parts of one set."""
    one, *others = states
    wanted, preparation = one.record.extra, _preparation(one)
    if others and "sample" in preparation:
        raise InvalidInput(
            f"{one.source} is of a sample, and samples do not add up", "draw one of the whole"
        )
    identities = list(wanted.get("features") or [one.record.identity])
    for other in others:
        _check_network(one, other)
        theirs = _preparation(other)
        if theirs != preparation:
            pair = f"{one.source} ({_said(preparation)}) and {other.source} ({_said(theirs)})"
            raise InvalidInput(f"{pair} were not prepared alike", "measure them with the same options")
        precision = other.record.extra.get("precision")
        _check_alike(one.source, wanted.get("precision"), other.source, precision)
        added = list(other.record.extra.get("features") or [other.record.identity])
        if set(added) & set(identities):
            twice = f"{other.source} holds features that are in the states before it"
            raise InvalidInput(twice, "give each part once")
        identities += added
    saved = [SavedSums(each.count, each.column_sums, each.gram) for each in states]
    sums = reduce(add, saved)
    if not others:
        known = (bool(one.record.options.get("center")), one.singular_values)
        sums = SavedSums(one.count, one.column_sums, one.gram, (*known, wanted.get("tolerance", 0.0)))
    zeros = sum(int(each.record.extra.get("zero_rows") or 0) for each in states)
    records = [each.record for each in states]
    precision, whole = str(wanted.get("precision")), _joined(records, identities)
    return StateSet(name, sums, whole, records, preparation, identities, precision, zeros)


def _preparation(state: SpectrumState) -> dict[str, Any]:
    return {name: value for name, value in state.record.options.items() if name != "center"}


def _said(options: Facts) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _check_alike(one: str, its: object, other: str, theirs: object) -> None:
    if its != theirs:
        raise InvalidInput(f"{other} is {theirs}, {one} is {its}", "take parts of one precision")


def _check_network(one: SpectrumState, other: SpectrumState) -> None:
    ours, theirs = one.record, other.record
    if ours.columns != theirs.columns:
        widths = f"{other.source} has {theirs.columns} columns, {one.source} {ours.columns}"
        raise InvalidInput(widths, "take states of the same network")
    models = [record.model or {} for record in (ours, theirs)]
    if any(models[0].get(key) != models[1].get(key) for key in ("identity", "layer")):
        wrong = f"{other.source} is of another network than {one.source}"
        raise InvalidInput(wrong, "take states of the same network")


def _joined(records: list[Record], identities: list[str]) -> Record:
    """The record of several parts as one: what is not the same in all is not known."""
    one, *others = records
    whole = identities[0] if len(identities) == 1 else identity_of("parts", REVISION, {}, identities)
    data, noise = one.data, one.noise
    if others:
        data = {k: v if all((r.data or {}).get(k) == v for r in others) else None
                for k, v in (data or {}).items()}  # fmt: skip
        noise = noise if all(record.noise == noise for record in others) else None
    rows = sum(record.rows or 0 for record in records)
    return replace(one, identity=whole, rows=rows, data=data, noise=noise)


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
        numbers, classes = rows.labels()
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
