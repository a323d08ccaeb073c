"""What can go wrong, as one tree; each kind carries the exit code that the command line ends with.

NmlError                 1  the run failed: bad data, a file that cannot be read, a full disk
├── UsageError           2  the command was called wrongly
├── InvalidInput         1  an input is damaged, of the wrong kind, or does not fit another one
└── ThresholdMissed      3  a result is below the threshold that was asked for
Terminated             143  SIGTERM, as an exception, so that temporary files are removed
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NmlError(Exception):
    """A failure that the user can understand: what is wrong and what to do.

    Both parts are shown on one line, `nml COMMAND: what is wrong: what to do`.
    """

    exit_code = 1

    def __init__(self, wrong: str, remedy: str = "") -> None:
        super().__init__(f"{wrong}: {remedy}" if remedy else wrong)
        self.wrong = wrong
        self.remedy = remedy


class UsageError(NmlError):
    """The command was called wrongly."""

    exit_code = 2


class InvalidInput(NmlError):  # noqa: N818
    """An input is damaged, of the wrong kind, or does not fit another one."""


class ThresholdMissed(NmlError):  # noqa: N818
    """A result is below the threshold that was asked for."""

    exit_code = 3


class Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that no handler in between swallows it."""

    exit_code = 143


def first(values: "list[str] | tuple[str, ...]", count: int = 3) -> str:
    """Name the first few of many, for a message: `a, b, c and 14 more`."""
    named = ", ".join(values[:count])
    return f"{named} and {len(values) - count} more" if len(values) > count else named


def visible(text: str, apart: str = "") -> str:
    r"""Text for a terminal: names from a file cannot steer it, since control characters (Cc), but those
    apart, are shown as they are escaped (`\x1b`)."""
    return _CONTROL.sub(lambda m: m[0] if m[0] in apart else ascii(m[0])[1:-1], text)


def meant(word: str, known: Iterable[str]) -> str:
    """What to do about a word that is none of the known ones: take the nearest, else one of them."""
    names = {name.lower(): name for name in known}
    if near := get_close_matches(word.lower(), names, n=1):
        return f"did you mean {names[near[0]]}?"
    return f"choose from {', '.join(names.values())}" if len(names) <= 20 else ""
