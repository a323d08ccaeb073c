"""Vectors as text, JSON Lines and CSV: also what an embedding API answers, line by line.

How many rows there are is known at the end of a text only, and our formats say it at the start: so a
first pass counts and checks the rows and keeps their ids and labels, a second one gives the numbers.
"""

import base64
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.products.delimited import plain
from nmlcli.products.features import Features
from nmlcli.products.foreign import (
    Beside,
    Matrix,
    features_of,
    id_column,
    label_column,
    named,
    names_of,
    of_text,
)
from nmlcli.products.ids import repeated
from nmlcli.products.tables import read_table_record
from nmlcli.products.vectors import Asked

LONGEST_LINE = 2**26  # characters

# A row: its line's number, its id, label and clean label (None where there are none), its numbers.
Row = tuple[int, tuple[Any, Any, Any], NDArray[np.floating[Any]]]

_CLEAN = "clean_label"
_KEYS = ("embedding", "response.body.data.0.embedding", "data.0.embedding", "features")
_IDS = ("custom_id", "id")  # an API's own `id` beside a `custom_id` is that of the answer


def read_jsonl(path: str, source: str, asked: Asked) -> Features:
    """Read objects with a list of numbers, or base64 of little-endian float32, under a key.

    The key may lead into the object, part by part: `response.body.data.0.embedding`. Where none is
    asked for it is the first of those usual that the first object has. Raises InvalidInput, naming
    the line, for what is not one vector of that width an object.
    """
    head = next(_objects(path, source), None)
    if head is None:
        raise InvalidInput(f"{source} is empty")
    _, top = head
    key = asked.key or next((key for key in _KEYS if _at(top, key) is not None), None)
    if key is None:
        wrong = f"{source}: line {head[0]} has no {_KEYS[0]}, but {first(list(top), 8) or 'nothing'}"
        raise InvalidInput(wrong, "name the right key with --key")
    asked_for = [name for name in (asked.id_column, asked.label_column) if name is not None]
    held = [*top, *(name for name in asked_for if _at(top, name) is not None)]
    columns = _columns(asked, _IDS, held, source)

    def rows() -> Iterator[Row]:
        for line, found in _objects(path, source):
            name, *others = (None if name is None else _at(found, name) for name in columns)
            for ending, vector in _vectors(found, key, asked.key is None, f"{source}: line {line}"):
                own = f"{name}{ending}" if ending and name is not None else name
                yield line, (own, others[0], others[1]), vector

    return _read(path, source, columns, rows)


def read_csv(path: str, source: str, asked: Asked) -> Features:
    """Read the columns f0, f1, … (or of another start than f) of a table whose first row names them.

    Raises InvalidInput, naming the line, for a cell that is no number or a row of another length.
    """
    start = "f" if asked.key is None else asked.key
    header = next(_records(path, source), (0, []))[1]
    if not header:
        raise InvalidInput(f"{source} is empty")
    if twice := repeated(header):
        raise InvalidInput(f"{source} has two columns {twice[0]}", "rename one")
    pattern = re.compile(re.escape(start) + "(0|[1-9][0-9]{0,8})")
    found = {int(m[1]): i for i, name in enumerate(header) if (m := pattern.fullmatch(name))}
    places = [found.get(number, -1) for number in range(len(found))]
    if not places or -1 in places:
        missing = f"{start}{places.index(-1) if places else 0}"
        wrong = f"{source} has no column {missing}, but {first(header, 8)}"
        raise InvalidInput(wrong, "name what the columns of numbers start with by --key")
    columns = _columns(asked, _IDS[1:], header, source)
    beside = [None if name is None else header.index(name) for name in columns]

    def rows() -> Iterator[Row]:
        lines = _records(path, source)
        next(lines)
        for line, cells in lines:
            if len(cells) != len(header):
                wrong = f"{source}: line {line} has {len(cells)} cells, the header {len(header)}"
                raise InvalidInput(wrong)
            vector = _floats([cells[i] for i in places], f"{source}: line {line}", header, places)
            yield line, tuple(None if i is None else cells[i] for i in beside), vector  # type: ignore[misc]

    return _read(path, source, columns, rows)


def write_jsonl(path: Path, features: Features, key: str) -> None:
    """Write an object a line: id, label and clean_label by name, and the numbers, exact, as a list."""
    columns = named(features)
    if key in columns:
        raise InvalidInput(f"the features cannot be named {key}", "give another --key")
    names = [json.dumps(name) for name in columns]
    last = json.dumps(key, ensure_ascii=False)
    with path.open("w", encoding="utf-8", newline="") as file:
        for cells, numbers in _lines(features, columns):
            texts = (json.dumps(cell, ensure_ascii=False) for cell in cells)
            shown = "".join(f"{name}: {text}, " for name, text in zip(names, texts, strict=True))
            file.write(f"{{{shown}{last}: [{numbers}]}}\n")


def write_csv(path: Path, features: Features, key: str) -> None:
    """Write a table: id, label and clean_label by name, and the numbers, exact, in columns f0, f1, …"""
    columns = named(features)
    header = [*columns, *(f"{key}{number}" for number in range(features.columns))]
    with path.open("wb") as file:
        file.write(b",".join(map(plain, header)) + b"\n")
        for cells, numbers in _lines(features, columns):
            file.write(b"%s,%s\n" % (b",".join(map(plain, cells)), numbers.encode()))


def _lines(features: Features, columns: dict[str, list[str]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What lies beside each row, and its numbers joined by commas, the shortest that is exact."""
    digits = 5 if features.dtype == np.float16 else 9
    pattern = ",".join([f"%.{digits}g"] * features.columns)
    beside = zip(*columns.values(), strict=True)
    for block in features.blocks(max(1, 2**18 // features.columns)):
        for row in block.tolist():
            text = pattern % tuple(row)
            # JSON's -0 is a whole number and loses its sign.
            yield next(beside), f"{text},".replace("-0,", "-0.0,")[:-1] if "-0" in text else text


def _columns(
    asked: Asked, usual_ids: Sequence[str], held: Sequence[str], source: str
) -> tuple[str | None, str | None, str | None]:
    """The columns or keys of ids, labels and clean labels; None for those that there are not."""
    label = label_column(asked, "label", held, source)
    clean = _CLEAN if _CLEAN in held and label is not None else None
    return id_column(asked, usual_ids, held, source), label, clean


def _read(
    path: str, source: str, columns: Sequence[str | None], rows: Callable[[], Iterator[Row]]
) -> Features:
    """Pass over the rows once for all but the numbers; blocks pass again."""
    record, dtype = of_text(read_table_record(path))
    cells: tuple[list[Any], ...] = ([], [], [])
    width, count = 0, 0
    for line, beside, vector in rows():
        width, count = width or len(vector), count + 1
        if len(vector) != width:
            raise InvalidInput(f"{source}: line {line} has {len(vector)} numbers, others {width}")
        for column, value, name, what in zip(
            cells, beside, columns, ("id", "label", "clean label"), strict=True
        ):
            if name is not None:
                column += names_of([value], what, name, source, count, record is not None)
    if not count:
        raise InvalidInput(f"{source} has no rows")

    def blocks(size: int) -> Iterator[NDArray[Any]]:
        vectors = (vector for _, _, vector in rows())
        while block := list(islice(vectors, size)):
            if any(len(vector) != width for vector in block):
                raise InvalidInput(f"{source} changed while it was read")
            with np.errstate(over="ignore"):  # float16 that was beyond its range, found by who reads
                yield np.stack(block).astype(dtype)

    ids, labels, clean = (
        None if name is None else column for name, column in zip(columns, cells, strict=True)
    )
    beside_all = Beside(ids, labels, clean)
    return features_of(source, path, record, beside_all, Matrix((count, width), dtype, blocks))


def _objects(path: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON Lines with the numbers of their lines; blank lines are none."""
    for number, line in _text(path, source, "\n"):
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise InvalidInput(f"{source}: line {number} is not JSON ({reason})") from error
        if not isinstance(found, dict):
            raise InvalidInput(f"{source}: line {number} is no JSON object")
        yield number, found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is named twice")
    return values


def _at(found: Any, key: str) -> Any:
    """The value under a key, or at the end of its dotted path; None where there is none."""
    if isinstance(found, dict) and key in found:
        return found[key]
    for part in key.split("."):
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and re.fullmatch("[0-9]{1,9}", part) and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _vectors(
    found: Any, key: str, guessed: bool, where: str
) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
    """The vectors of one object, and what their ids end in: an answer to several inputs has several."""
    stem = key.removesuffix(".0.embedding")
    answers = _at(found, stem) if guessed and stem != key else None
    if not isinstance(answers, list) or len(answers) < 2:
        yield "", _vector(found, key, where)
        return
    indices = [_at(answer, "index") for answer in answers]
    if any(type(index) is not int for index in indices) or len(set(indices)) < len(indices):
        raise InvalidInput(f"{where}: the {len(answers)} vectors in {stem} have no index each")
    for index, place in sorted(zip(indices, range(len(answers)), strict=True)):
        yield f"/{index}", _vector(found, f"{stem}.{place}.embedding", where)


def _vector(found: Any, key: str, where: str) -> NDArray[np.floating[Any]]:
    """The numbers under a key; raises InvalidInput, naming where, for what is no vector."""
    value = _at(found, key)
    if value is None:
        told = f" ({json.dumps(found['error'])[:200]})" if found.get("error") else ""
        raise InvalidInput(f"{where} has no {key}{told}", "name another with --key, or mend the line")
    if isinstance(value, str):
        return _decoded(value, f"{where}: {key}")
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{where}: {key} is {json.dumps(value)[:40]}, not a list of numbers")
    if not set(map(type, value)) <= {float, int}:
        wrong = next(each for each in value if type(each) not in (float, int))
        raise InvalidInput(f"{where}: {key} holds {json.dumps(wrong)[:40]}, not a number")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise InvalidInput(f"{where}: {key} holds a number that is too large") from error


def _decoded(value: str, where: str) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidInput(f"{where} is text, but not base64") from error
    if not data or len(data) % 4:
        raise InvalidInput(f"{where} is base64 of {len(data)} bytes, not of float32 numbers")
    return np.frombuffer(data, "<f4")


def _records(path: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV with the numbers of the lines they end in; blank lines are none."""
    reader = csv.reader((line for _, line in _text(path, source, "")), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise InvalidInput(f"{source}: line {reader.line_num} is not CSV ({error})") from error


def _floats(cells: list[str], where: str, header: list[str], places: list[int]) -> NDArray[np.float64]:
    try:
        if "_" not in "".join(cells):  # which Python would take for 1_000
            return np.array(list(map(float, cells)))
    except ValueError:
        pass
    for cell, place in zip(cells, places, strict=True):
        try:
            float("_" if "_" in cell else cell)
        except ValueError as error:
            wrong = f"{where}: {header[place]} is {cell[:40]!r}, not a number"
            raise InvalidInput(wrong) from error
    raise InvalidInput(f"{where} holds what is no number")


def _text(path: str, source: str, newline: str) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text, ends included, with their numbers; none is longer than LONGEST_LINE."""
    with Path(path).open(encoding="utf-8-sig", newline=newline) as file:
        number = 1
        try:
            while line := _readline(file):
                if len(line) == LONGEST_LINE:
                    raise InvalidInput(f"{source}: line {number} is longer than {LONGEST_LINE:,}")
                yield number, line
                number += 1
        except UnicodeDecodeError as error:
            wrong = f"{source} is not UTF-8 (near line {number})"
            raise InvalidInput(wrong, "recode it") from error


def _readline(file: TextIO) -> str:
    return file.readline(LONGEST_LINE)
