"""What can go wrong, as one tree; each kind carries the exit code that the command line ends with.

NmlError                 1  the run failed: bad data, a file that cannot be read, a full disk
├── UsageError           2  the command was called wrongly
├── InvalidInput         1  an input is damaged, of the wrong kind, or does not fit another one
└── ThresholdMissed      3  a result is below the threshold that was asked for
Terminated             143  SIGTERM, as an exception, so that temporary files are removed
"""


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


class InvalidInput(NmlError):
    """An input is damaged, of the wrong kind, or does not fit another one."""


class ThresholdMissed(NmlError):
    """A result is below the threshold that was asked for."""

    exit_code = 3


class Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that no handler in between swallows it."""

    exit_code = 143


def first(values: "list[str] | tuple[str, ...]", count: int = 3) -> str:
    """Name the first few of many, for a message: `a, b, c and 14 more`."""
    named = ", ".join(values[:count])
    return f"{named} and {len(values) - count} more" if len(values) > count else named
