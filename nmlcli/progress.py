"""The progress callback: it goes up from the computing code to whoever shows it, never out."""

from typing import Protocol


class Advance(Protocol):
    """Called with how much is done, of how much (None: not known), and values worth showing."""

    def __call__(self, done: int, total: int | None, **values: float | str) -> None: ...


def silent(done: int, total: int | None, **values: float | str) -> None:
    """Show nothing."""


def shifted(advance: Advance, before: int, everything: int, **shown: str) -> Advance:
    """A callback for one part of a work, of which `before` is done, that shows the whole."""

    def shift(done: int, total: int | None, **values: float | str) -> None:
        advance(before + done, everything, **shown, **values)

    return shift
