"""Tables one column of which is edited: labels or captions out of it, and other ones into it."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.keyed import Keys, hash_ids
from nmlcli.noise.terms import Rows
from nmlcli.products.formats import write_labels
from nmlcli.products.jsonlines import JsonLines
from nmlcli.products.labels import CLEAN, CLEAN_TEXT, Labels, class_order, texts
from nmlcli.products.tables import EditableTable, save_edited
from nmlcli.progress import Advance
from nmlcli.provenance import Record

Numbers = NDArray[np.int64]

_BLOCK = 8192  # rows


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    id: None where ids do not matter. noisy: labels that people gave, beside the true ones.
    """

    label: str = "label"
    text: str = "text"
    id: str | None = "id"
    group: str = "image"
    noisy: str | None = None


@dataclass(frozen=True)
class Content:
    """The labels or captions of a carrier.

    rows: with the values before any noise. write(out, values, record, advance): the product, from the
    values int64 [N] that a kind of noise gave. name(rows): ids of some rows. noisy: labels that the
    carrier has beside the true ones, int64 [N].
    """

    rows: Rows
    write: Callable[[str | None, Numbers, Record, Advance], None]
    name: Callable[[Numbers], list[str]]
    noisy: Numbers | None = None


@dataclass(frozen=True)
class Edited:
    """A table and the column of it that is edited.

    truth: the column of the values before any noise, the same one unless it carries noise already.
    """

    table: EditableTable
    column: str
    truth: str
    columns: Columns

    @property
    def has_ids(self) -> bool:
        """Whether ids are a column; else they are the numbers of the rows."""
        return self.columns.id in self.table.columns

    def batches(self, *columns: str) -> Iterator[tuple[int, list[str], list[list[Any]]]]:
        """Some thousand rows at a time: the first one's number, their ids, the columns' values.

        Raises InvalidInput where only some rows of JSON Lines have an id or an image.
        """
        row, named = 0, str(self.columns.id)
        maybe = [named] if self.has_ids else self._not_in_the_first_row()
        for values in self.table.batches([*columns, *maybe]):
            size = len(values[0])
            ids = list(map(str, range(row, row + size)))
            if self.has_ids:
                ids = texts(values[-1], "id", named, self.table.source, row + 1)
            for name, cells in zip(maybe, values[len(columns) :], strict=True):
                if not self.has_ids and any(cell is not None for cell in cells):
                    wrong = f"{self.table.source}: the first row has no {name}, a later one has"
                    raise InvalidInput(wrong, "give all rows one, or none")
            yield row, ids, list(values[: len(columns)])
            row += size

    def _not_in_the_first_row(self) -> list[str]:
        if not isinstance(self.table, JsonLines):
            return []
        names = (self.columns.id, self.columns.group if self.column == self.columns.text else None)
        return [name for name in names if name is not None and name not in self.table.columns]

    def name(self, rows: Numbers) -> list[str]:
        """The ids of some rows, in the order of the table, read anew."""
        wanted, found = np.sort(rows), []
        for row, ids, _ in self.batches(self.truth):
            here = wanted[(wanted >= row) & (wanted < row + len(ids))]
            found += [ids[place - row] for place in here.tolist()]
        return found

    def check_unique(self, hashes: Keys) -> None:
        """Ids must differ, in their hashes too: only then are draws exact and independent of order."""
        ordered = np.sort(hashes)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(again):
            names = dict.fromkeys(self.name(np.flatnonzero(np.isin(hashes, again))))
            remedy = "name another column with --id-column"
            raise InvalidInput(f"{self.table.source}: ids repeat: {first(tuple(names))}", remedy)

    def save(self, out: str | None, values: Iterator[Any], added: str, record: Record) -> None:
        """Write the table with new values, None where one stays; the old ones are added as a column
        unless there is one of values before any noise already.
        """
        column = added if self.truth == self.column else None
        save_edited(out, self.table, self.column, values, column, record)


class _Names:
    """Numbers of class names, in the order in which the names come."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.numbers: defaultdict[str, int] = defaultdict(count().__next__)
        self.types: set[type] = set()

    def number(self, values: list[Any], column: str, row: int) -> NDArray[np.int32]:
        """The numbers of some cells, int32 [B]; row: the number of the row before them."""
        self.types.update(map(type, values))
        names = texts(values, "label", column, self.source, row + 1)
        return np.array(list(map(self.numbers.__getitem__, names)), dtype=np.int32)

    def places(self, classes: tuple[str, ...]) -> Numbers:
        """Where among the classes the names stand, int64; -1 where not at all."""
        known = {name: place for place, name in enumerate(classes)}
        return np.array([known.get(name, -1) for name in self.numbers], dtype=np.int64)


def read_labels(
    edited: Edited, classes: tuple[str, ...] | None, advance: Advance, union: bool = False
) -> Content:
    """Labels of a table, in one pass: of ids 8 bytes a row are kept, of labels 4.

    classes: those that are recorded; else the distinct labels before any noise, or of both columns
    where a union is wanted.
    """
    source, beside = edited.table.source, edited.columns.noisy
    if beside is None and edited.truth != edited.column:
        beside = edited.column
    names = _Names(source)
    hashes, truths, others, rows = [], [], [], 0
    for row, ids, (labels, *more) in edited.batches(edited.truth, *([beside] if beside else [])):
        truths.append(names.number(labels, edited.truth, row))
        others += [names.number(values, str(beside), row) for values in more]
        hashes.append(hash_ids(ids))
        rows = row + len(ids)
        advance(rows, None)
    if rows == 0:
        raise InvalidInput(f"{source} has no rows")
    if len(names.types) > 1:
        raise InvalidInput(f"{source}: labels are partly text, partly numbers", "make them alike")
    all_hashes = np.concatenate(hashes)
    edited.check_unique(all_hashes)
    distinct = list(names.numbers)
    true = distinct if union else [distinct[n] for n in np.unique(np.concatenate(truths)).tolist()]
    if classes is None or not set(true) <= set(classes):
        classes = class_order(true)
    if not union:
        check_classes(classes, rows, source)
    places = names.places(classes)
    content = Rows(all_hashes, places[np.concatenate(truths)], source, classes)
    noisy = places[np.concatenate(others)] if others else None
    if edited.columns.noisy is not None and noisy is not None:
        unknown = [distinct[n] for n in np.flatnonzero(places < 0).tolist()]
        return _beside(edited, content, noisy, unknown)
    before = content.values if noisy is None else noisy
    numeric = names.types == {int}

    def write(out: str | None, values: Numbers, record: Record, advance: Advance) -> None:
        cells = list(map(int, record.classes or ())) if numeric else list(record.classes or ())
        edited.save(out, _cells(cells, before, values, advance), CLEAN, record)

    return Content(content, write, edited.name, noisy)


def _cells(cells: list[Any], before: Numbers, values: Numbers, advance: Advance) -> Iterator[Any]:
    """The new cell of each row, None where it stays."""
    objects = np.array([*cells, None], dtype=object)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        stays = block == before[start : start + _BLOCK]
        advance(start + len(block), len(values))
        yield from objects[np.where(stays, len(cells), block)].tolist()


def _beside(edited: Edited, rows: Rows, noisy: Numbers, unknown: list[str]) -> Content:
    """Labels that people gave beside the true ones: their product is a table of its own."""
    if unknown:
        wrong = f"{rows.source}: {edited.columns.noisy} has labels that {edited.truth} lacks"
        raise InvalidInput(f"{wrong}: {first(unknown)}", "name the true labels with --label-column")

    def write(out: str | None, values: Numbers, record: Record, advance: Advance) -> None:
        ids = [name for _, some, _ in edited.batches(edited.truth) for name in some]
        write_labels(out, Labels(ids, values, rows.values, rows.classes, None, rows.source), record)

    return Content(rows, write, edited.name, noisy)


def read_captions(edited: Edited, advance: Advance) -> Content:
    """Captions of a table; rows that share a value of the group column are of one image."""
    table, columns = edited.table, edited.columns
    grouped = [columns.group] if columns.group in table.columns else []
    current = [edited.column] if edited.truth != edited.column else []
    groups: defaultdict[Any, int] = defaultdict(count().__next__)
    truths: list[str] = []
    now: list[str] = []
    hashes: list[Keys] = []
    images: list[int] = []
    for row, ids, (captions, *more) in edited.batches(edited.truth, *grouped, *current):
        truths += _captions(captions, edited.truth, table.source, row)
        now += _captions(more[-1], edited.column, table.source, row) if current else []
        cells = more[0] if grouped else [None] * len(ids)
        images += [groups[_image(cell, place)] for place, cell in enumerate(cells, start=row)]
        hashes.append(hash_ids(ids))
        advance(row + len(ids), None)
    if not truths:
        raise InvalidInput(f"{table.source} has no rows")
    all_hashes = np.concatenate(hashes)
    edited.check_unique(all_hashes)

    numbers = number_texts([*truths, *now])
    rows = caption_rows(all_hashes, truths, numbers[: len(truths)], np.array(images), table.source)
    noisy = numbers[len(truths) :] if current else None
    before = rows.values if noisy is None else noisy

    def write(out: str | None, values: Numbers, record: Record, advance: Advance) -> None:
        stays = (rows.values[values] == before).tolist()
        cells = zip(values.tolist(), stays, strict=True)
        edited.save(out, (None if same else truths[row] for row, same in cells), CLEAN_TEXT, record)

    return Content(rows, write, edited.name, noisy)


def _image(cell: Any, row: int) -> Any:
    """What tells an image from others: its path or number, a hash of its bytes, else its row."""
    if isinstance(cell, dict):  # as data sets of images are packed in Parquet
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell == "":
        return None, row
    return hashlib.sha256(cell).digest() if isinstance(cell, bytes) else str(cell)


def _captions(values: list[Any], column: str, source: str, row: int) -> list[str]:
    """Captions as text, nothing where there is none."""
    if set(map(type, values)) <= {str}:
        return values
    for place, value in enumerate(values, start=row + 1):
        if value is not None and type(value) is not str:
            raise InvalidInput(
                f"{source}: row {place} has a caption that is no text in column {column}"
            )
    return [value or "" for value in values]


def number_texts(captions: list[str]) -> Numbers:
    """Numbers of distinct texts, int64 [N]."""
    return np.unique(hash_ids(captions), return_inverse=True)[1].astype(np.int64)


def caption_rows(
    hashes: Keys, captions: list[str], numbers: Numbers, groups: Numbers, source: str
) -> Rows:
    """Captions as what noise is put on."""
    empty = np.fromiter((not text.strip() for text in captions), dtype=np.bool_, count=len(captions))
    return Rows(hashes, numbers, source, groups=groups.astype(np.int64), empty=empty)


def check_classes(classes: tuple[str, ...], rows: int, source: str) -> None:
    """Raise InvalidInput where there are no rows, or fewer than two classes."""
    if rows == 0:
        raise InvalidInput(f"{source} has no rows")
    if len(classes) < 2:
        remedy = "a wrong label needs a second class"
        raise InvalidInput(f"{source} has one class, {first(classes)}", remedy)
