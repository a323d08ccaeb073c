"""What the readers of other programs' vectors have in common: from their parts to Features.

Which arrays, columns or keys those parts are is each form's own business.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.container import NOUNS, Array, Container
from nmlcli.products.features import Features, unpack_features
from nmlcli.products.ids import BESIDE, class_bound, read_ids, require_unique
from nmlcli.products.labels import class_order, noise_facts, number, texts
from nmlcli.products.tables import EditableTable, missing_column
from nmlcli.products.vectors import Asked
from nmlcli.provenance import Record, hash_file

log = logging.getLogger(__name__)

Cells = Sequence[Any] | NDArray[np.integer[Any]]  # names of classes, or their numbers

WHATS = ("id", "label", "clean label")  # what lies beside a vector, for messages

_KEPT = "dtype"  # what the record in a text form says in `extra`, since text has no types


@dataclass(frozen=True)
class Beside:
    """What lies beside N vectors: ids (None: row numbers), labels as names or numbers, classes."""

    ids: Sequence[Any] | None = None
    labels: Cells | None = None
    clean_labels: Cells | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Matrix:
    """The vectors: N and D, their type in the file, and blocks(rows) that iterates [≤ rows, D]."""

    shape: tuple[int, int]
    dtype: "np.dtype[Any]"
    blocks: Callable[[int], Iterator[Array]]


def features_of(
    source: str, identify: Callable[[], str], record: Record | None, beside: Beside, matrix: Matrix
) -> Features:
    """Features from the parts of a file; float64 is narrowed to float32, and a remark says so.

    record: nml's own, else None: then identify gives the identity, a hash of the file, and the network
    is not known. Raises InvalidInput for ids that repeat or are not one a row, and for labels outside
    the classes.
    """
    rows, columns = _not_empty(matrix.shape, source)
    if matrix.dtype.itemsize == 8:
        log.info("%s is float64: it is narrowed to float32", source)
    dtype = np.dtype(np.float16) if matrix.dtype.itemsize == 2 else np.dtype(np.float32)
    if record is not None:
        _check_own(record, source, matrix.shape)
    ids = _ids(beside.ids, rows, source, record)
    classes = beside.classes if record is None else record.classes
    given = [c for c in (beside.labels, beside.clean_labels) if c is not None]
    if record is None and classes is None and any(isinstance(cells, list) for cells in given):
        if not all(isinstance(cells, list) for cells in given):
            raise InvalidInput(f"{source} has names and numbers of classes", "give either")
        classes = class_order({name for cells in given for name in cells})
    labels, clean = (
        _numbers(cells, rows, classes, source) for cells in (beside.labels, beside.clean_labels)
    )
    if record is None:
        known = labels is not None and clean is not None
        noise = noise_facts(None, None, labels, clean, None) if known else None  # type: ignore[arg-type]
        record = Record(
            "features", identify(), "", classes=classes, rows=rows, columns=columns, noise=noise
        )

    def blocks(count: int) -> Iterator[Any]:
        with np.errstate(over="ignore"):  # what becomes infinite is refused by who asks for it
            for block in matrix.blocks(count):
                yield block.astype(dtype, copy=False)

    return Features(record, ids, labels, clean, dtype, blocks, source)


def features_of_container(container: Container, asked: Asked) -> Features:
    """Features from HDF5 or safetensors: nml's own strictly, of others any matrix under the key."""
    source, held = container.source, container.tensors
    if container.record is not None or container.path is None:
        own = unpack_features(container)
        refuse_names(asked, f"{source} is nml's own, with ids and labels")
        return own
    usual = "embeddings" if "features" not in held and "embeddings" in held else "features"
    name = usual if asked.key is None else asked.key
    if name not in held:
        found = first([f"{other} {tensor}" for other, tensor in held.items()])
        remedy = f"it holds {found}: name it with `nml convert --key`" if found else "it holds nothing"
        raise InvalidInput(f"{source} has no {name}", remedy)
    try:
        dtype = np.dtype(held[name].dtype)
    except TypeError as error:
        raise InvalidInput(f"{source}: {name} is {held[name]}, which cannot be read here") from error
    shape = _not_empty(require_floats(dtype, held[name].shape, f"{source}: {name}"), source)
    next(container.blocks(name, 1))  # the rows are all there: else their number may be a lie
    names = beside_columns(asked, tuple(held), source, (), "labels")
    arrays = container.arrays([*BESIDE[2:], *filter(None, names)])
    ids, labels, clean = (
        None if other is None else _cells(arrays[other], f"{source}: {other}") for other in names
    )
    given = read_ids(container, arrays, shape[0]) if ids is None else [str(each) for each in ids]
    matrix = Matrix(shape, dtype, lambda rows: container.blocks(name, rows))
    identify = partial(hash_file, container.path)
    return features_of(source, identify, None, Beside(given, labels, clean), matrix)


def _cells(array: Array, what: str) -> Cells:
    """A list of whole numbers as it is, since int64 cannot hold all of them, one of texts as texts."""
    if array.ndim != 1 or array.dtype.kind not in "iuS":
        wanted = "a list of whole numbers or of texts of one length"
        raise InvalidInput(f"{what} is {array.dtype.name} {list(array.shape)}, not {wanted}")
    if array.dtype.kind != "S":
        return array
    try:
        return [text.decode() for text in array.tolist()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8", "recode it") from error


def refuse_names(asked: Asked, what: str) -> None:
    """Raise UsageError where an input without named columns is asked for one."""
    for name, option in ((asked.id_column, "--id-column"), (asked.label_column, "--label-column")):
        if name is not None and not asked.lenient:
            raise UsageError(f"{what}: no {name} can be chosen from it", f"leave {option} out")


def beside_columns(
    asked: Asked, held: Sequence[str], source: str, ids: Sequence[str] = ("id",), label: str = "label"
) -> tuple[str | None, str | None, str | None]:
    """The columns or keys of ids, labels and clean labels: those asked for, else the first usual one
    that is there, else None. Raises InvalidInput for one asked for that is not there."""
    found = []
    for name, usual, option in (
        (asked.id_column, ids, "--id-column"), (asked.label_column, (label,), "--label-column")
    ):  # fmt: skip
        if name is not None and name not in held and not asked.lenient:
            raise missing_column(name, tuple(held), source, option)
        found.append(name if name in held else next((each for each in usual if each in held), None))
    # In a table `corrupt` calls them so whatever the column's name.
    clean = "clean_label" if label == "label" else f"clean_{found[1]}"
    return found[0], found[1], clean if clean in held and found[1] is not None else None


def read_beside(
    table: EditableTable, asked: Asked, ours: bool, counted: Sequence[str] = ()
) -> tuple[Beside, int]:
    """What lies in a table beside its vectors, and how many rows a column that is counted has.

    ours: nml wrote the table.
    """
    columns = beside_columns(asked, table.columns, table.source)
    whats = {name: what for name, what in zip(columns, WHATS, strict=True) if name is not None}
    cells: dict[str, list[str]] = {name: [] for name in whats}
    wanted, rows = (*cells, *counted), 0
    for batch in table.batches(wanted) if wanted else ():
        rows += len(batch[-1])
        for (name, column), values in zip(cells.items(), batch, strict=False):
            column += names_of(values, whats[name], name, table.source, len(column) + 1, ours)
    ids, labels, clean = (None if name is None else cells[name] for name in columns)
    return Beside(ids, labels, clean), rows


def names_of(cells: list[Any], what: str, column: str, source: str, row: int, ours: bool) -> list[str]:
    """Cells of a table as texts, from that row on; those that nml wrote may be empty."""
    if ours and all(isinstance(cell, str) for cell in cells):
        return cells
    return texts(cells, what, column, source, row)


def named(features: Features) -> dict[str, list[str]]:
    """The columns beside the vectors in a text form: id, label, clean_label; labels by name."""
    classes = features.record.classes
    columns = {"id": list(features.ids)}
    for name, numbers in (("label", features.labels), ("clean_label", features.clean_labels)):
        if numbers is not None:
            values = numbers.tolist()
            columns[name] = [classes[v] for v in values] if classes else list(map(str, values))
    return columns


def recorded(features: Features) -> Record:
    """The record as a text form has it: it says which type the numbers have, where not float32."""
    record = features.record
    if features.dtype == np.float32:
        return record
    return replace(record, extra={**record.extra, _KEPT: features.dtype.name})


def of_text(record: Record | None) -> tuple[Record | None, "np.dtype[Any]"]:
    """A record as it was before `recorded`, and the type of the numbers."""
    kept = None if record is None else record.extra.get(_KEPT)
    if record is None or kept != "float16":
        return record, np.dtype(np.float32)
    extra = {name: value for name, value in record.extra.items() if name != _KEPT}
    return replace(record, extra=extra), np.dtype(kept)


def require_floats(dtype: "np.dtype[Any]", shape: tuple[int, ...], what: str) -> tuple[int, int]:
    """N and D of a matrix of numbers; raises InvalidInput for another type or number of axes."""
    if dtype.hasobject:
        remedy = "they would run as a program: save plain numbers"
        raise InvalidInput(f"{what} holds Python objects, which are never loaded", remedy)
    if dtype.kind != "f" or dtype.itemsize > 8 or len(shape) != 2:
        wanted = "float16, float32 or float64 [any, any]"
        raise InvalidInput(f"{what} is {dtype.name} {list(shape)}, not {wanted}")
    return shape[0], shape[1]


def _not_empty(shape: tuple[int, int], source: str) -> tuple[int, int]:
    """N and D; raises InvalidInput where one of them is 0."""
    if not all(shape):
        raise InvalidInput(f"{source} holds no features", f"it is {shape[0]} × {shape[1]}")
    return shape


def _check_own(record: Record, source: str, shape: tuple[int, int]) -> None:
    if record.kind != "features":
        raise InvalidInput(f"{source} holds {NOUNS[record.kind]}, not features")
    if (record.rows, record.columns) != shape:
        raise InvalidInput(
            f"{source}: its record says {record.rows} × {record.columns}, "
            f"its features are {shape[0]} × {shape[1]}"
        )


def _ids(given: Sequence[Any] | None, rows: int, source: str, record: Record | None) -> list[str]:
    if given is None:
        return [str(row) for row in range(rows)]
    if len(given) != rows:
        raise InvalidInput(f"{source} has {len(given)} ids for {rows} rows")
    ids = list(given)
    require_unique(ids, source, "name others with --id-column")
    try:
        "".join(ids).encode()
    except UnicodeEncodeError as error:
        wrong = next(name for name in ids if re.search("[\ud800-\udfff]", name))
        raise InvalidInput(f"{source}: the id {wrong!r} is not Unicode") from error
    return ids


def _numbers(
    cells: Cells | None, rows: int, classes: tuple[str, ...] | None, source: str
) -> NDArray[np.int64] | None:
    """Labels as class numbers int64 [N]; names are looked up, numbers checked against the classes."""
    if cells is None:
        return None
    if len(cells) != rows:
        raise InvalidInput(f"{source} has {len(cells)} labels for {rows} rows")
    if not isinstance(cells, np.ndarray):
        if classes is not None:
            return number(cells, classes, source)
        wrong = [cell for cell in cells if not re.fullmatch("[0-9]{1,18}", cell)]
        if wrong:
            raise InvalidInput(f"{source}: labels that are no class numbers: {first(wrong)}")
        cells = np.array(list(map(int, cells)), dtype=np.int64)
    bound = class_bound(classes, rows)
    outside = np.flatnonzero((cells < 0) | (cells >= bound))
    if len(outside):
        row = int(outside[0])
        raise InvalidInput(
            f"{source}: row {row} has the label {cells[row]}, outside of {bound:,} classes"
        )
    return cells.astype(np.int64, copy=False)
