"""What a training needs to go on after an interrupt: states in files beside its product, and when they
are saved. All randomness is keyed by the seed and by the epoch, step or sample, so that none is here.

A state is torch's own file and behind it a CRC-32 of all its bytes: neither torch nor zipfile notices
every changed byte of the archive that it is.
"""

import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Protocol
from zlib import crc32

import torch
from torch import Tensor

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, NmlError, Terminated, first
from nmlcli.training.distributed import Ranks
from nmlcli.training.loop import NotFinite, Progress

log = logging.getLogger(__name__)

_BROKEN = (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, OSError)
_TRAILER = b"\nnml state %08x\n"
_BLOCK = 2**20  # bytes


class Stateful(Protocol):
    """What has a state: networks, optimisers, scalers of the loss."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class States:
    """The newest state of a training and the one before it, FILE and FILE.previous."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        self.previous = path.with_name(f"{path.name}.previous")

    def save(self, parts: Mapping[str, Stateful]) -> None:
        """Save the states of all parts, whole or not at all; what was the newest is kept.

        Raises NmlError where the file cannot be written or the disk is full.
        """
        state = {name: part.state_dict() for name, part in parts.items()}
        with replacing(self.path) as temporary:
            _write({"identity": self.identity, "parts": state}, temporary)
            if self.path.exists():
                self._keep()

    def _keep(self) -> None:
        """Make the newest state the previous one; a link, so that there is a newest one at any time."""
        self.previous.unlink(missing_ok=True)
        try:
            self.previous.hardlink_to(self.path)
        except OSError:  # of a file system without links
            self.path.replace(self.previous)

    def load(self, parts: Mapping[str, Stateful]) -> bool:
        """Load the states of all parts, from the previous file where the newest is damaged.

        Returns False where there is none; raises InvalidInput where none is whole, or where one belongs
        to another training.
        """
        damaged: list[str] = []
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                self._load(path, parts)
            except _BROKEN as error:
                log.debug("%s: %s", path, error)
                damaged.append(str(path))
                continue
            if path == self.previous:
                if damaged:
                    log.warning("%s is damaged: going on from the state before it", self.path)
                path.replace(self.path)  # not to be overwritten by a damaged one
            return True
        if damaged:
            wrong = f"{' and '.join(damaged)} {'is' if len(damaged) == 1 else 'are'} damaged"
            raise InvalidInput(wrong, "leave --resume out to start anew")
        return False

    def _load(self, path: Path, parts: Mapping[str, Stateful]) -> None:
        _check(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["identity"] != self.identity:
            remedy = "repeat those, or leave --resume out to start anew"
            raise InvalidInput(f"{path} belongs to a training with other data or options", remedy)
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])

    def tidy(self) -> None:
        """Delete what runs that were killed while they saved have left."""
        half = f".{escape(self.path.stem[:100])}.????????{escape(self.path.suffix)}"
        for path in self.path.parent.glob(half):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete all files, where they are."""
        self.previous.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.tidy()


class _Summed:
    """A file to write to, with the checksum of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush, self.checksum = file, file.flush, 0

    def write(self, data: bytes) -> int:
        self.checksum = crc32(data, self.checksum)
        return self.file.write(data)


def _write(state: Mapping[str, Any], path: Path) -> None:
    """Write a state to the disk, so that it is there before its name is."""
    with path.open("wb") as file:
        summed = _Summed(file)
        try:
            torch.save(state, summed)  # type: ignore[arg-type]
        except RuntimeError as error:  # of torch, over that of the file
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.write(_TRAILER % summed.checksum)
        file.flush()
        os.fsync(file.fileno())


def _check(path: Path) -> None:
    """Raise ValueError where the checksum at the end is not that of what is before it."""
    with path.open("rb") as file:
        left, checksum = os.fstat(file.fileno()).st_size - len(_TRAILER % 0), 0
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            left, checksum = left - len(block), crc32(block, checksum)
        if file.read() != _TRAILER % checksum:
            raise ValueError("the checksum is wrong")


def check_finite(weights: Mapping[str, Tensor], when: str) -> None:
    """Raise NotFinite where weights or buffers are not finite, naming the first of them."""
    finite = torch.stack([torch.isfinite(value).all() for value in weights.values()]).tolist()
    if not all(finite):
        broken = [name for name, good in zip(weights, finite, strict=True) if not good]
        raise NotFinite(f"the weights are not finite after {when} ({first(broken)})")


class Crew:
    """How many processes trained, and since which step: [(0, 2), (35, 1)] where two took 35 steps and
    one went on. Batch norm and the order of sums depend on it."""

    def __init__(self, size: int) -> None:
        self.shifts = [(0, size)]

    def join(self, size: int, step: int) -> None:
        """So many train from this step on."""
        self.shifts = [shift for shift in self.shifts if shift[0] < step]  # others took no step
        if not self.shifts or self.shifts[-1][1] != size:
            self.shifts.append((step, size))

    def state_dict(self) -> dict[str, Any]:
        """The shifts."""
        return {"shifts": self.shifts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave."""
        self.shifts = [(int(step), int(size)) for step, size in state["shifts"]]


class Keeper:
    """Saves the state of a training: when it is interrupted, after each epoch, every so many seconds.

    `with keeper.keeping(): fit(..., progress=progress, around_step=keeper.step)`. parts: all else that
    has a state. A state whose loss or weights are not finite is not saved. Of several processes the
    first one saves, and all leave after the same step.
    """

    def __init__(
        self, states: States, parts: Mapping[str, Stateful], progress: Progress, steps_per_epoch: int,
        every: float, ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.states, self.parts, self.progress = states, {**parts, "progress": progress}, progress
        self.steps_per_epoch, self.every = steps_per_epoch, every
        self.saved: int | None = None  # the steps that the newest state is after
        self.ranks = ranks or Ranks()
        self.whole, self.since = True, time.monotonic()
        self._signals = _Signals(held=self.ranks.size > 1)

    def start(self, resume: bool) -> None:
        """Take up the newest state, or save the first one: a folder that cannot be written to is found
        out before hours of work."""
        if self.ranks.writer:
            self._start(resume)
        if resume:
            self.ranks.spread(self.parts)

    def _start(self, resume: bool) -> None:
        self.states.tidy()
        if not resume and self.states.path.exists():
            log.warning("starting anew over %s, as --resume is not given", self.states.path)
        if resume and self.states.load(self.parts):
            self.saved = self.progress.step
            log.info("going on after %s", _steps(self.saved))
            return
        if resume:
            log.warning("there is no %s to go on from: starting anew", self.states.path)
        self.save()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Around a training: on Ctrl-C and SIGTERM the state is saved before they go on."""
        with self._signals.handled():
            try:
                try:
                    yield
                except (KeyboardInterrupt, Terminated):
                    if self.whole:
                        self.save()
                    self.ranks.any(
                        False
                    )  # none leaves before all is saved: torchrun would end the rest
                    raise
            except NotFinite as error:
                if not self.ranks.writer:
                    raise
                good = f"{self.states.path} is the last good state, after {_steps(self.saved)}"
                remedy = f"{error.remedy}, and start anew; {good}, of these options"
                raise NmlError(error.wrong, remedy) from error

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step: signals wait for its end, where the state is saved if it is time to."""
        with self._signals.later():
            self.whole = False
            yield
            self.whole = True
            if self.ranks.any(bool(self._signals.came)):
                self._signals.release()
        late = time.monotonic() - self.since >= self.every
        if late or self.progress.step % self.steps_per_epoch == 0:
            self.save()

    def save(self) -> None:
        """Save the state, if it is not there. Raises NotFinite where it is not worth it, NmlError where
        it cannot be written."""
        if self.saved == self.progress.step or not self.ranks.writer:
            return
        self.progress.means()
        for part in self.parts.values():
            if isinstance(part, torch.nn.Module):
                check_finite(part.state_dict(), _steps(self.progress.step))
        try:
            with self._signals.later():
                self.states.save(self.parts)
                self.saved, self.since = self.progress.step, time.monotonic()
        except NmlError as error:
            if self.saved is None:
                raise
            remedy = f"make room, then go on after {_steps(self.saved)} with --resume"
            raise NmlError(error.wrong, remedy) from error


def _steps(count: int | None) -> str:
    return f"{count} step{'s' * (count != 1)}"


class _Signals:
    """Ctrl-C and SIGTERM while a training runs: they wait for the end of a step or of a save.

    After one that came out as an exception others are ignored, so that what it set going is finished.
    held: they wait until they are released, at the end of a step that all processes take together.
    """

    def __init__(self, held: bool = False) -> None:
        self.waiting, self.held = False, held
        self.came: list[int] = []

    def release(self) -> None:
        """Let what came out at the next occasion; where it came to another process, as SIGTERM."""
        self.held = False
        self.came = self.came or [signal.SIGTERM]

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle them here, where they would be exceptions too; only the main thread can."""
        before: dict[int, Callable[[int, FrameType | None], Any]] = {}

        def handle(number: int, frame: FrameType | None) -> None:
            if self.waiting or self.held:
                self.came.append(number)
                return
            self.waiting = True
            before[number](number, frame)

        try:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    if callable(handler := signal.getsignal(number)):
                        before[number] = handler
                        signal.signal(number, handle)
            yield
        finally:
            leaving, self.waiting, self.held = self.waiting, True, False
            for each, handler in before.items():
                if signal.getsignal(each) is handle:  # else it is ignored from now on
                    signal.signal(each, handler)
            self._deliver(leaving)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Let them wait; what came is delivered at the end, unless one is on its way already."""
        leaving, self.waiting = self.waiting, True
        yield
        self.waiting = leaving
        self._deliver(leaving)

    def _deliver(self, leaving: bool) -> None:
        if self.came and not (leaving or self.held):
            signal.raise_signal(self.came.pop(0))
