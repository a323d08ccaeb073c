"""The start of `nml`: its commands, and the one place where errors and signals become an exit code."""

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from nmlcli.cli.convert import convert
from nmlcli.cli.corrupt import corrupt
from nmlcli.cli.data import data
from nmlcli.cli.embed import embed
from nmlcli.cli.eval import eval
from nmlcli.cli.info import info
from nmlcli.cli.options import option
from nmlcli.cli.pretrain import pretrain
from nmlcli.cli.report import report
from nmlcli.cli.spectrum import spectrum
from nmlcli.cli.tune import tune
from nmlcli.cli.usage import SETTINGS, Command, Group, reworded
from nmlcli.errors import NmlError, Terminated, visible
from nmlcli.version import __version__

log = logging.getLogger("nmlcli")

COMPLETING = "_NML_COMPLETE"  # set by the completion scripts

app = typer.Typer(
    cls=Group, add_completion=COMPLETING in os.environ, rich_markup_mode=None, context_settings=SETTINGS
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"nml {__version__}\n")
        raise typer.Exit


@app.callback(
    epilog="nml COMMAND --help says more; `-` is stdin, @FILE a list of inputs, -o FILE the output."
)
def nml(
    version: Annotated[
        bool, option("--version", "Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What label noise in pre-training does to a model downstream, and how to repair it."""


for command in (corrupt, pretrain, embed, spectrum, tune, eval, report, info, convert):
    app.command(cls=Command)(command)
app.add_typer(data, name="data")


def main() -> NoReturn:
    """Run the command that the process was called with, and leave."""
    signal.signal(signal.SIGTERM, _terminated)
    if sys.stdout is None:  # closed by the caller (`>&-`)
        sys.exit("nml: stdout is closed")
    code = run(sys.argv[1:])
    if code == 128 + signal.SIGPIPE:  # leave as other filters do, so that the shell knows why
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command in this process; returns its exit code. Errors are one line on stderr."""
    command = typer.main.get_command(app)
    if COMPLETING in os.environ:
        command.main(prog_name="nml")
    name = _name_of(command, arguments)
    with _remarks(name):
        try:
            code = _invoke(command, list(arguments) or ["--help"])
            sys.stdout.flush()
        except BrokenPipeError:
            return 128 + signal.SIGPIPE
        except (Exception, KeyboardInterrupt, Terminated) as error:
            return _fail(name, error)
    return code


def _invoke(command: Any, arguments: list[str]) -> int:
    try:
        with command.make_context("nml", arguments) as context:
            command.invoke(context)
    except typer.Exit as exit:
        return exit.exit_code
    return 0


def _fail(name: str, error: BaseException) -> int:
    """Say what went wrong in one line, and give the exit code."""
    if os.environ.get("NML_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, Terminated):
        return error.exit_code
    if isinstance(error, TyperException):
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(f"{error.message}\n")
            return 0
        error = reworded(error)
    _say(name, _words(error))
    if isinstance(error, OSError):
        _discard_stdout()
    return error.exit_code if isinstance(error, NmlError) else 1


def _say(name: str, text: str) -> None:
    """Write one line to stderr, if there is one; line breaks are spaces in it."""
    if sys.stderr is not None:
        sys.stderr.write(f"{name}: {visible(' '.join(text.split()))}\n")


def _words(error: BaseException) -> str:
    """What went wrong and what to do, for whatever kind of error."""
    if isinstance(error, NmlError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else f"stdout: {error.strerror}"
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "not enough memory: take smaller batches, or fewer rows"
    return f"unexpected {type(error).__name__} ({error}): set NML_DEBUG=1 to see where"


def _discard_stdout() -> None:
    """After a failed write, drop what is still buffered, so that the exit does not fail again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _name_of(command: Any, arguments: Sequence[str]) -> str:
    """`nml COMMAND` for messages, from the words that name commands."""
    words = ["nml"]
    for word in arguments:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        words.append(word)
    return " ".join(words)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice; the second must not cut clean-up
    raise Terminated


@contextmanager
def _remarks(name: str) -> Iterator[None]:
    """Show remarks on stderr as `nml COMMAND: text`; those of other libraries only with -v."""
    handler, level = _Remarks(name), log.level
    log.setLevel(logging.INFO)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        log.setLevel(level)


class _Remarks(logging.Handler):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.addFilter(lambda record: record.name.startswith("nmlcli") or log.level <= logging.DEBUG)
        self.command = name

    def emit(self, record: logging.LogRecord) -> None:
        _say(self.command, record.getMessage())
