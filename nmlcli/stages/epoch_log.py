"""The log of a training: a JSON line for each epoch, in a file or to whoever reads a pipe."""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nmlcli.errors import NmlError, UsageError
from nmlcli.stages.outputs import check_place

log = logging.getLogger(__name__)

_START = b'{"kind": "epoch"'  # of each line


def check_log(
    name: str | None, inputs: Iterable[str | Path | None] = (), start: bytes = _START
) -> None:
    """Find before any work what would stop a log from being written, or be lost by it.

    start: of each line. Raises UsageError for stdout, where a product may go, for an input, and for a
    file that holds anything but such lines; NmlError where there is no such folder.
    """
    if name == "-":
        raise UsageError("--log writes to a file, not to stdout", "name one, or /dev/stderr")
    check_place(name, inputs, "--log")
    path = Path(name or "")
    if not path.is_file():
        return
    with writing(path):
        *whole, last = path.read_bytes().splitlines(keepends=True) or [b""]
    # The last line may be cut short, as what wrote it was killed.
    if not (all(line.startswith(start) for line in whole) and last.startswith(start[: len(last)])):
        raise UsageError(f"--log {name} would overwrite what is no log of epochs", "give another name")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Around reading and writing a log: what stops it is an error that names it."""
    try:
        yield
    except OSError as error:
        wrong = f"cannot write the log {path}: {error.strerror or error}"
        remedy = "make room for it, or give another name"
        left = isinstance(error, BrokenPipeError)
        raise NmlError(wrong, "who read it has left" if left else remedy) from error


@contextmanager
def opened(name: str) -> Iterator[IO[str]]:
    """A log that is written anew, for as long as it takes."""
    with writing(name):
        file = Path(name).open("w")  # noqa: SIM115
    try:
        yield file
    finally:
        with writing(name):  # what could not be written is tried once more
            file.close()


def _before(lines: Iterable[bytes], start: int) -> int:
    """The length in bytes of the first lines, whole and of epochs up to start, counted from 1."""
    length = 0
    for line in lines:
        try:
            epoch = json.loads(line)["epoch"] if line.endswith(b"\n") else None
        except (ValueError, KeyError, TypeError):
            break
        if not isinstance(epoch, int) or epoch > start:
            break
        length += len(line)
    return length


class EpochLog:
    """A JSON line for each epoch, on the disk before the next one begins. Lines of epochs that are run
    again are dropped, but from a pipe or a device. images: of an epoch; left: of those, what is left of
    the first one."""

    def __init__(self, name: str | None, identity: str, start: int, left: int, images: int) -> None:
        self.path = None if name is None else Path(name)
        self.facts = {"kind": "epoch", "backbone_identity": identity}
        self.images, self.left = images, left
        self.since, self.seconds = time.monotonic(), 0.0
        self._pipe: IO[str] | None = None
        if self.path is None:
            return
        with writing(self.path):
            if self.path.exists() and not self.path.is_file():
                self._pipe = self.path.open("a")  # once: whoever reads it takes a close for the end
                return
            lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
            self.path.touch()
            if (kept := _before(lines, start)) < sum(map(len, lines)):
                os.truncate(self.path, kept)

    def stop(self) -> None:
        """The epoch's training is over; what comes now until the next one is not its time."""
        self.seconds = time.monotonic() - self.since

    def write(self, epoch: int, lr: float, means: Mapping[str, float]) -> None:
        """Append the line of an epoch, counted from 1, with its speed. Raises NmlError where it cannot
        be written."""
        speed = round(self.left / self.seconds, 1)
        values = {"images_per_second": speed, "seconds": round(self.seconds, 3)}
        line = json.dumps({**self.facts, "epoch": epoch, **means, "lr": lr, **values})
        log.debug("epoch %d: %s", epoch, line)
        if self.path is not None:
            with writing(self.path):
                self._append(self.path, f"{line}\n")
        self.left, self.since = self.images, time.monotonic()

    def close(self) -> None:
        """Let go of a pipe, whose reader takes that for the end."""
        if self._pipe is not None:
            with suppress(OSError):  # told when the line was written
                self._pipe.close()

    def _append(self, path: Path, line: str) -> None:
        if self._pipe is not None:
            self._pipe.write(line)
            self._pipe.flush()
            return
        with path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
