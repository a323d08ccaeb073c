"""Result lines: JSON objects, one a line, that several commands and processes may add to one file."""

import fcntl
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, NmlError

Line = Mapping[str, Any]

# Keys whose values are shares, shown in per cent.
FRACTIONS = {"accuracy", "val_accuracy", "top5", "mean_class_accuracy", "macro_f1", "ece"}


def set_name(line: Line) -> str:
    """The set of a line as it is written: task[/domain][:split]."""
    domain = f"/{line['domain']}" if line.get("domain") else ""
    split = f":{line['split']}" if line.get("split") else ""
    return f"{line.get('task')}{domain}{split}"


def to_json(line: Line) -> str:
    """A line as one JSON object, keys in their order; a number that is not finite becomes null."""
    return json.dumps(_finite(line), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read(path: str) -> list[dict[str, Any]]:
    """The lines of a file, or of stdin (`-`). Raises InvalidInput with the number of a damaged line."""
    name = "stdin" if path == "-" else path
    try:
        text = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from error
    lines = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise InvalidInput(f"{name}: line {number} is not a JSON object", "give result lines")
            if not isinstance(value.get("identity"), str | None):
                raise InvalidInput(f"{name}: line {number} has an identity that is no text")
            lines.append(value)
    return lines


def merge(path: str, lines: Iterable[Line]) -> None:
    """Add lines to a file, whole or not at all; one with the `identity` of an old line takes its place.

    Safe with other processes that add to the same file. A damaged file is left as it is: InvalidInput.
    """
    added = list(lines)
    target = Path(os.path.realpath(path))
    with _alone_in(target.parent, path):
        old = read(path) if target.is_file() else []
        merged = by_identity([*old, *added])
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{to_json(line)}\n" for line in merged), encoding="utf-8")


def by_identity(lines: Iterable[Line]) -> list[Line]:
    """The lines with one of each identity: the last, where the first stood."""
    found: dict[object, Line] = {}
    for line in lines:
        found[line.get("identity") or object()] = line
    return list(found.values())


@contextmanager
def _alone_in(folder: Path, path: str) -> Iterator[None]:
    """Hold the folder's lock: the file itself is replaced by every writer, so it cannot carry one."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise NmlError(f"cannot write {path}: {error.strerror}", "make the folder first") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
