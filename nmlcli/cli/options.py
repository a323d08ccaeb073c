"""Options that several commands share, as `Annotated` types, and options made from menus.

Light, like the menus: every `--help` and every completion imports this module.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nmlcli.cli.usage import GENERAL
from nmlcli.data.sources import SOURCES
from nmlcli.errors import NmlError, UsageError, meant

Menu = Mapping[str, Any]


def choice(menu: Menu, *names: str, help: str, several: bool = False, panel: str | None = None) -> Any:
    """An option whose values are the rows of a menu, for `Annotated[str, choice(NOISES, "--kind", …)]`.

    Completion, validation with "did you mean" and the list of values in the help come from the menu.
    several: a comma list (or @FILE) of them is taken; the command splits it by `split`.
    """

    def complete(incomplete: str) -> list[tuple[str, str]]:
        done, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [(done + comma + k, help_of(row)) for k, row in menu.items() if k.startswith(last)]

    def check(value: str | None) -> str | None:
        for word in (split(value) if several else [value]) if value is not None else []:
            if word not in menu:
                raise typer.BadParameter(f"no {word!r}: {meant(str(word), menu)}")
        return value

    rows = [f"{name} ({help_of(row)})" if help_of(row) else name for name, row in menu.items()]
    text = f"{help}: {', '.join(rows)}."
    metavar = max(names, key=len).lstrip("-").upper() if names else "NAME"
    return typer.Option(
        *names, help=text, metavar=metavar + ("[,…]" if several else ""), autocompletion=complete,
        callback=check, rich_help_panel=panel,
    )  # fmt: skip


def help_of(row: object) -> str:
    """The short text of a menu's row, or nothing where the menu has none."""
    return str(getattr(row, "help", "") or "")


def expand(values: Iterable[str]) -> list[str]:
    """Inputs with every @FILE replaced by its lines, but for empty ones and those that start with #.

    Raises NmlError where a list cannot be read.
    """
    found: list[str] = []
    for value in values:
        if not value.startswith("@"):
            found.append(value)
            continue
        try:
            lines = Path(value[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise NmlError(f"cannot read the list {value[1:]}: {_reason(error)}") from error
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return found


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)


def split(value: str | None) -> list[str]:
    """The entries of a comma list or @FILE; none of nothing."""
    if not value:
        return []
    parts = expand([value]) if value.startswith("@") else value.split(",")
    return [part.strip() for part in parts if part.strip()]


def inputs(values: Iterable[str] | None, what: str = "an input") -> list[str]:
    """The inputs of a command: as given, with @FILE expanded; none given is stdin, `-`.

    Raises UsageError where none is given and stdin is a terminal, or where stdin is named twice.
    """
    found = expand(values or [])
    if not found and not values:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(f"{what} is missing", "name it, or pipe it in")
        return ["-"]
    if not found:
        raise UsageError(f"the list of {what} is empty", "name at least one")
    if found.count("-") > 1:
        raise UsageError("- is given twice", "stdin can be read once")
    return found


def one_input(value: str | None, what: str = "an input") -> str:
    """The one main input of a command; see `inputs`."""
    found = inputs([value] if value else None, what)
    if len(found) > 1:
        raise UsageError(f"{len(found)} inputs are given", f"give {what}, not several")
    return found[0]


def _listen(level: int) -> Callable[[bool], bool]:
    def callback(value: bool) -> bool:
        if value:
            logging.getLogger("nmlcli").setLevel(level)
        return value

    return callback


def _non_negative(value: int) -> int:
    if not 0 <= value < 2**63:
        raise typer.BadParameter("a seed is a whole number from 0 to 2^63 - 1")
    return value


Out = Annotated[
    str | None,
    typer.Option("-o", "--out", metavar="FILE", help="Write to FILE, whole or not at all; its suffix picks the format. Else stdout."),  # noqa: E501
]  # fmt: skip
Quiet = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        help="No progress, no summaries.",
        callback=_listen(logging.WARNING),
        rich_help_panel=GENERAL,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="More remarks; progress as lines where there is no terminal.", callback=_listen(logging.DEBUG), rich_help_panel=GENERAL),  # noqa: E501
]  # fmt: skip
AsJson = Annotated[
    bool, typer.Option("--json", help="JSON Lines, also on a terminal.", rich_help_panel=GENERAL)
]
AsTable = Annotated[
    bool,
    typer.Option("--table", help="A table, also where stdout is no terminal.", rich_help_panel=GENERAL),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", metavar="S", help="Every random draw follows from it.", callback=_non_negative
    ),
]
Reuse = Annotated[
    bool, typer.Option("--reuse", help="Stop where the output is up to date.", rich_help_panel=GENERAL)
]


def argument(metavar: str, help: str) -> Any:
    """The main input of a command, which may be left out for stdin."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


DATA_HELP = "; ".join(f"{source.form} ({source.help})" for source in SOURCES.values()) + "."
FEATURES_HELP = "Files of features, or a stream of them on stdin."
Data = Annotated[str | None, argument("[DATA|-]", DATA_HELP)]
Features = Annotated[list[str] | None, argument("[FEATURES|-]...", FEATURES_HELP)]
Results = Annotated[
    str | None,
    typer.Option("--results", metavar="FILE", help="Merge the lines into FILE (JSON Lines): a line made again replaces its old one."),  # noqa: E501
]  # fmt: skip

_DATA = "Data"
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", metavar="TABLE", help="Lay these labels over the set, by id.", rich_help_panel=_DATA
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, help="Only the first N samples.", rich_help_panel=_DATA
    ),
]
Domain = Annotated[
    str | None,
    typer.Option(
        "--domain", metavar="NAME", help="Only samples of this domain.", rich_help_panel=_DATA
    ),
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="A,B,…", help="Only these classes.", rich_help_panel=_DATA),
]
ImageColumn = Annotated[
    str,
    typer.Option(
        "--image-column",
        metavar="NAME",
        help="The table's column of image paths.",
        rich_help_panel=_DATA,
    ),
]
LabelColumn = Annotated[
    str,
    typer.Option(
        "--label-column", metavar="NAME", help="The table's column of labels.", rich_help_panel=_DATA
    ),
]
IdColumn = Annotated[
    str,
    typer.Option(
        "--id-column", metavar="NAME", help="The table's column of ids.", rich_help_panel=_DATA
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="The folder that a table's image paths start from.",
        rich_help_panel=_DATA,
    ),
]
