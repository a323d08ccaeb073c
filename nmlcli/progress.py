"""The progress callback: it goes up from the computing code to whoever shows it, never out."""

from typing import Protocol


class Advance(Protocol):
    """Called with how much is done, of how much (None: not known), and values worth showing."""

    def __call__(self, done: int, total: int | None, **values: float | str) -> None: ...


def silent(done: int, total: int | None, **values: float | str) -> None:
    """Show nothing."""
