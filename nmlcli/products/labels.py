"""Labels of samples: what `corrupt` makes and what is laid over a set by id."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import Array, Container, require, require_names
from nmlcli.products.formats import FORMATS, open_container
from nmlcli.products.ids import BESIDE, pack_rows, read_ids, read_numbers, require_unique
from nmlcli.products.tables import Table, read_table, read_table_record
from nmlcli.provenance import Record, hash_file

CLEAN = "clean_label"  # the column that keeps the labels before the noise
CLEAN_TEXT = "clean_text"  # the one that keeps the captions


@dataclass(frozen=True)
class Labels:
    """Labels of N samples.

    ids: unique texts [N]. labels: int64 [N], numbers of classes. clean_labels: int64 [N] where the
    labels before the noise are known, else None. classes: names in the order of the numbers.
    record: None where the table came without one (then noise is recounted from clean_labels).
    source: the file's name, for messages.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    clean_labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    record: Record | None
    source: str

    @property
    def noise(self) -> dict[str, Any] | None:
        """The noise as in a Record: from the record, else recounted, else None for not known."""
        if (told := told_noise(self.record)) is not None or self.clean_labels is None:
            return told
        return noise_facts(None, None, self.labels, self.clean_labels, None)


def told_noise(record: Record | None) -> dict[str, Any] | None:
    """The noise that a record tells of, if there is one that does."""
    return None if record is None or record.noise is None else dict(record.noise)


def read_labels(source: str, *, label_column: str = "label", id_column: str = "id") -> Labels:
    """Read labels from a table or a binary file, or a table on stdin (`-`).

    Of a table, classes are those of its record, else the names in its columns in the order of
    class_order. Ids are row numbers where there is no id column. Raises InvalidInput for a missing
    column, an empty label, a repeated id and a label outside the record's classes.
    """
    if Path(source).suffix.lower() in FORMATS:
        return unpack_labels(open_container(source, "labels"))
    table = read_table(source)
    return labels_of_table(table, source, column_ids(table, id_column), label_column)


def labels_of_table(table: Table, source: str, ids: Sequence[str], label_column: str) -> Labels:
    """The labels in a table that was read from source, for its rows' ids [N]; else as read_labels."""
    record = None if source == "-" else read_table_record(source)
    record = record if speaks_of(record, label_column) else None
    cells = table.column(label_column, "--label-column")
    names = texts(cells, "label", label_column, table.source)
    clean_names = None
    if CLEAN in table.columns:
        clean_names = texts(table.column(CLEAN), "label", CLEAN, table.source)
    classes = (record and record.classes) or class_order({*names, *(clean_names or ())})
    numbers = number(names, classes, table.source)
    clean = None if clean_names is None else number(clean_names, classes, table.source)
    return Labels(ids, numbers, clean, classes, record, table.source)


def speaks_of(record: Record | None, label_column: str) -> bool:
    """Whether a table's record is of this column's labels, not of captions or of other labels."""
    told = {} if record is None else record.options
    return "text_column" not in told and told.get("label_column", label_column) == label_column


def unpack_labels(container: Container) -> Labels:
    """The labels of a binary file: a label product, or features, which are not read.

    Without a record (a foreign file) `labels` of any integer type are enough. Raises InvalidInput.
    """
    record, tensor = container.record, container.tensors.get("labels")
    if record is not None and record.kind == "labels":
        require_names(container, BESIDE)
        require(container, "labels", ("int64",), (record.rows,))
    if tensor is None or len(tensor.shape) != 1:
        raise InvalidInput(f"{container.source} has no labels", "give a table or file that has some")
    rows = tensor.shape[0]
    known = record or Record("labels", hash_file(container.path or ""), "", rows=rows)
    arrays = container.arrays(BESIDE)
    labels, clean = (read_numbers(container, arrays, name, known) for name in BESIDE[:2])
    if labels is None or not rows:
        raise InvalidInput(f"{container.source} has no rows")
    classes = known.classes
    if classes is None:  # those that occur, as of a table
        numbers, places = np.unique([labels, labels if clean is None else clean], return_inverse=True)
        classes, both = tuple(map(str, numbers.tolist())), places.reshape(2, rows).astype(np.int64)
        labels, clean = both[0], None if clean is None else both[1]
    return Labels(read_ids(container, arrays, rows), labels, clean, classes, record, container.source)


def pack_labels(labels: Labels) -> dict[str, Array]:
    """The arrays of labels, in the order of the file."""
    return pack_rows(labels.ids, labels.labels, labels.clean_labels)


def table_of(labels: Labels) -> dict[str, list[str]]:
    """Labels as the columns of a table: id, label, clean_label."""
    names = np.array(labels.classes, dtype=object)
    columns = {"id": list(labels.ids), "label": names[labels.labels].tolist()}
    if labels.clean_labels is not None:
        columns[CLEAN] = names[labels.clean_labels].tolist()
    return columns


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in order: plainly by name, or numerically if all are whole numbers."""
    distinct = set(names)
    if all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", name) for name in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def number_names(*numbers: NDArray[np.int64] | None) -> tuple[str, ...]:
    """Names for classes that have none, their numbers from 0 to the highest: 1,000,000 more than rows
    at most, since readers refuse any above."""
    highest = max((int(each.max()) for each in numbers if each is not None), default=-1)
    return tuple(map(str, range(highest + 1)))


def column_ids(table: Table, column: str = "id") -> list[str]:
    """The ids of a table's rows: a column's texts, row numbers where there is no column `id`.

    Raises InvalidInput for a missing or repeated id, and for a missing column of another name.
    """
    if column == "id" and column not in table.columns:
        return [str(row) for row in range(len(table))]
    ids = texts(table.column(column, "--id-column"), "id", column, table.source)
    require_unique(ids, table.source)
    return ids


def texts(values: list[Any], what: str, column: str, source: str, row: int = 1) -> list[str]:
    """Cells that name a class or a sample, as text: texts and whole numbers, nothing else.

    row: the number of the first one, for messages. Raises InvalidInput, naming the row.
    """
    if set(map(type, values)) <= {str} and "" not in values:
        return values
    for number, value in enumerate(values, start=row):
        if value is None or value == "":
            raise InvalidInput(f"{source}: row {number} has no {what} in column {column}")
        if type(value) not in (str, int):
            wrong = f"a {what} that is neither text nor a whole number"
            raise InvalidInput(f"{source}: row {number} has {wrong} in column {column}")
    return list(map(str, values))


def number(names: Sequence[str], classes: Sequence[str], source: str) -> NDArray[np.int64]:
    """Class names [N] as class numbers int64 [N]. Raises InvalidInput, naming three unknown ones."""
    numbers = {name: i for i, name in enumerate(classes)}
    unknown = tuple(dict.fromkeys(name for name in names if name not in numbers))
    if unknown:
        raise InvalidInput(f"{source}: labels outside the {len(classes)} classes: {first(unknown)}")
    return np.fromiter((numbers[name] for name in names), dtype=np.int64, count=len(names))


def align(
    labels: Labels, ids: Sequence[str], source: str, everything: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Labels and clean labels int64 [N] for samples, joined by id; see join_ids."""
    order = join_ids(labels.ids, labels.source, ids, source, everything)
    clean = None if labels.clean_labels is None else labels.clean_labels[order]
    return labels.labels[order], clean


def join_ids(
    laid: Sequence[str], laid_source: str, ids: Sequence[str], source: str,
    everything: Sequence[str] | None = None, what: str = "label",
) -> NDArray[np.int64]:  # fmt: skip
    """The rows int64 [N] of what is laid over samples, one for each sample, joined by id.

    laid: the ids of what is laid over, which comes from laid_source. ids: of the samples [N]. source:
    the samples' set, for messages. everything: the ids that may be laid over without being wanted
    here, those wanted among them. Raises InvalidInput, naming the first three, where a sample has no
    label or a label no sample.
    """
    known = set(ids if everything is None else everything)
    spare = [name for name in laid if name not in known]
    if spare:
        raise InvalidInput(f"{laid_source} {what}s samples that {source} lacks: {first(spare)}")
    rows = {name: row for row, name in enumerate(laid)}
    without = [name for name in ids if name not in rows]
    if without:
        raise InvalidInput(f"{laid_source} has no {what} for samples of {source}: {first(without)}")
    return np.fromiter((rows[name] for name in ids), dtype=np.int64, count=len(ids))


def renumber(
    numbers: NDArray[np.int64], from_classes: Sequence[str], to_classes: Sequence[str], source: str
) -> NDArray[np.int64]:
    """Class numbers of one class list as those of another, matched by name.

    Raises InvalidInput, naming three, where classes that occur are unknown to the other list.
    """
    if tuple(from_classes) == tuple(to_classes):
        return numbers
    known = {name: i for i, name in enumerate(to_classes)}
    table = np.array([known.get(name, -1) for name in from_classes], dtype=np.int64)
    renumbered = table[numbers]
    if (renumbered < 0).any():
        unknown = [from_classes[i] for i in np.unique(numbers[renumbered < 0])]
        wrong = f"{source}: classes that are not among the {len(to_classes)}"
        raise InvalidInput(wrong, first(unknown))
    return renumbered


def noise_facts(
    kind: str | None,
    requested: float | None,
    labels: NDArray[np.int64],
    clean_labels: NDArray[np.int64],
    seed: int | None,
    draw: str | None = None,
) -> dict[str, Any]:
    """What a record says of noise: kind, seed and draw (None: not known), ratios asked for and met."""
    flipped = int(np.count_nonzero(labels != clean_labels))
    extent = {"realised": flipped / max(1, len(labels)), "flipped": flipped, "of": len(labels)}
    return {"kind": kind, "requested": requested, **extent, "seed": seed, "draw": draw}


def clean_facts(rows: int) -> dict[str, Any]:
    """What a record says of labels that are known to be clean."""
    none = np.zeros(rows, dtype=np.int64)
    return noise_facts("none", 0.0, none, none, None)
