"""Vectors as text, JSON Lines and CSV: also what an embedding API answers, line by line.

How many rows there are is known at the end of a text only, and our formats say it at the start: so a
first pass counts and checks the rows and keeps their ids and labels, a second one gives the numbers.
"""

import base64
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import in_blocks
from nmlcli.products.delimited import Delimited, plain
from nmlcli.products.features import Features
from nmlcli.products.foreign import (
    WHATS,
    Beside,
    Matrix,
    beside_columns,
    features_of,
    named,
    names_of,
    of_text,
    read_beside,
)
from nmlcli.products.jsonlines import JsonLines
from nmlcli.products.tables import mapped, missing_column, read_table_record
from nmlcli.products.vectors import Asked

# A row: its line's number, its id, label and clean label (None where there are none), its numbers.
Row = tuple[int, tuple[Any, Any, Any], NDArray[np.floating[Any]]]

_KEYS = ("embedding", "response.body.data.0.embedding", "data.0.embedding", "features")
_ERRORS = ("error", "response.body.error", "body.error")
_IDS = ("custom_id", "id")  # an API's own `id` beside a `custom_id` is that of the answer


def read_jsonl(path: str, source: str, asked: Asked) -> Features:
    """Read objects with a list of numbers, or base64 of little-endian float32, under a key.

    The key may lead into the object, part by part: `response.body.data.0.embedding`. Where none is
    asked for it is the first of those usual that the first object has. Raises InvalidInput, naming
    the line, for what is not one vector of that width an object.
    """
    table = JsonLines(mapped(path, source), source)
    line, top = next(table.numbered())
    key = asked.key or next((key for key in _KEYS if _at(top, key) is not None), None)
    if key is None:
        raise _missing(top, _KEYS[0], f"{source}: line {line}")
    asked_for = [name for name in (asked.id_column, asked.label_column) if name is not None]
    held = [*top, *(name for name in asked_for if _at(top, name) is not None)]
    columns = beside_columns(asked, held, source, _IDS)

    def rows() -> Iterator[Row]:
        for line, found in table.numbered():
            name, *others = (None if name is None else _at(found, name) for name in columns)
            for ending, vector in _vectors(found, key, asked.key is None, f"{source}: line {line}"):
                own = f"{name}{ending}" if ending and name is not None else name
                yield line, (own, others[0], others[1]), vector

    record, dtype = of_text(read_table_record(path) if Path(path).is_file() else None)
    cells: tuple[list[str], ...] = ([], [], [])
    width = count = 0
    for line, values, vector in rows():
        width, count = width or len(vector), count + 1
        if len(vector) != width:
            raise InvalidInput(f"{source}: line {line} has {len(vector)} numbers, others {width}")
        for column, value, name, what in zip(cells, values, columns, WHATS, strict=True):
            if name is not None:
                column += names_of([value], what, name, source, count, record is not None)

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
    matrix = Matrix((count, width), dtype, blocks)
    return features_of(source, lambda: table.identity, record, Beside(ids, labels, clean), matrix)


def read_csv(path: str, source: str, asked: Asked) -> Features:
    """Read the columns f0, f1, … (or of another start than f) of a table whose first row names them.

    Raises InvalidInput, naming line or row, for a cell that is no number or a row of another length.
    """
    table = Delimited(mapped(path, source), source, b",")
    start = "f" if asked.key is None else asked.key
    pattern = re.compile(re.escape(start) + "(0|[1-9][0-9]{0,8})")
    numbered = set(filter(pattern.fullmatch, table.columns))
    columns = [f"{start}{number}" for number in range(max(1, len(numbered)))]
    if missing := next((name for name in columns if name not in numbered), None):
        raise missing_column(missing, table.columns, source, "--key (what all of them start with)")
    record, dtype = of_text(read_table_record(path) if Path(path).is_file() else None)
    beside, count = read_beside(table, asked, record is not None, columns[:1])
    if not count:
        raise InvalidInput(f"{source} has no rows")

    def matrices() -> Iterator[NDArray[np.float64]]:
        row, places = 1, [table.columns.index(name) for name in columns]
        for cells in table.batches(table.columns):
            yield _floats([cells[place] for place in places], columns, source, row)
            row += len(cells[0])

    def blocks(size: int) -> Iterator[NDArray[Any]]:
        for block in in_blocks(matrices(), size):
            with np.errstate(over="ignore"):
                yield block.astype(dtype)

    return features_of(
        source, lambda: table.identity, record, beside, Matrix((count, len(columns)), dtype, blocks)
    )


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
        raise _missing(found, key, where)
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


def _missing(found: dict[str, Any], key: str, where: str) -> InvalidInput:
    """The error for an object without a vector: what an API says of it, else which keys there are."""
    error = next(filter(None, (_at(found, place) for place in _ERRORS)), None)
    status = _at(found, "response.status_code")
    if error is None and status in (None, 200):
        wrong = f"{where} has no {key}, but {first(list(found), 8) or 'nothing'}"
        return InvalidInput(wrong, "name the right key with --key, or mend the line")
    told = _at(error, "message") or error or f"status {status}"
    text = " ".join((told if isinstance(told, str) else json.dumps(told)).split())
    name = next((str(found[each]) for each in _IDS if found.get(each) is not None), "no id")
    wrong = f"{where} ({name[:60]}) has no {key}, but an error: {text[:200]}"
    return InvalidInput(wrong, "ask for it again, or drop the line")


def _decoded(value: str, where: str) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidInput(f"{where} is text, but not base64") from error
    if not data or len(data) % 4:
        raise InvalidInput(f"{where} is base64 of {len(data)} bytes, not of float32 numbers")
    return np.frombuffer(data, "<f4")


def _floats(cells: list[list[str]], columns: list[str], source: str, row: int) -> NDArray[np.float64]:
    """Cells, a list a column, as a matrix [N, D]; row: the number of the first row, for messages."""
    try:
        if not any(map(_unlike_numbers, map("".join, cells))):
            return np.array([list(map(float, column)) for column in cells]).T
    except ValueError:
        pass
    for number, values in enumerate(zip(*cells, strict=True), row):
        for name, cell in zip(columns, values, strict=True):
            try:
                float("_" if _unlike_numbers(cell) else cell)
            except ValueError as error:
                wrong = f"{source}: row {number}: {name} is {cell[:40]!r}, not a number"
                raise InvalidInput(wrong) from error
    raise InvalidInput(f"{source} holds what is no number")


def _unlike_numbers(text: str) -> bool:
    """Whether Python may take for a number what other programs do not: 1_0, digits of any script."""
    return "_" in text or not text.isascii()
