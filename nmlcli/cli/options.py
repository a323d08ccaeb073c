"""Options that several commands share, as `Annotated` types, and options made from menus.

Light, like the menus: every `--help` and every completion imports this module.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from nmlcli.cli.usage import GENERAL
from nmlcli.data.sources import SOURCES, SourceOptions, check_options
from nmlcli.errors import NmlError, UsageError, meant

Menu = Mapping[str, Any]


def option(declared: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """An option as its help writes it: `"-o --out FILE"`; without a word for the value it is a flag.

    panel: the heading below which the help shows it. more: what `typer.Option` knows besides.
    """
    words = declared.split()
    names = [word for word in words if word.startswith("-")]
    metavar = " ".join(words[len(names) :]) or None
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel, **more)


def choice(
    menu: Menu, declared: str, help: str, panel: str | None = None, several: bool = False,
    other: bool = False,
) -> Any:  # fmt: skip
    """An option whose values are the rows of a menu: `choice(NOISES, "--kind KIND", "…")`.

    Completion, validation with "did you mean" and the list of values in the help come from the menu.
    several: a comma list (or @FILE) of them is taken; the command splits it by `split`. other: values
    that are no row are taken too.
    """

    def complete(incomplete: str) -> list[tuple[str, str]]:
        done, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [(done + comma + k, help_of(row)) for k, row in menu.items() if k.startswith(last)]

    def check(value: str | None) -> str | None:
        for word in (split(value) if several else [value]) if value is not None else []:
            if word not in menu and not other:
                raise typer.BadParameter(f"no {word!r}: {meant(str(word), menu)}")
        return value

    rows = [f"{name} ({help_of(row)})" if help_of(row) else name for name, row in menu.items()]
    text = f"{help}: {', '.join(rows)}."
    return option(declared, text, panel, autocompletion=complete, callback=check)


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


_OUT = "Write to FILE, whole or not at all; its suffix picks the format. Else stdout."
_RESULTS = "Merge the lines into FILE (JSON Lines): a line made again replaces its old one."
_VERBOSE = "More remarks; progress as lines where there is no terminal."
Out = Annotated[str | None, option("-o --out FILE", _OUT)]
Quiet = Annotated[
    bool, option("-q --quiet", "No progress, no summaries.", GENERAL, callback=_listen(logging.WARNING))
]
Verbose = Annotated[bool, option("-v --verbose", _VERBOSE, GENERAL, callback=_listen(logging.DEBUG))]
AsJson = Annotated[bool, option("--json", "JSON Lines, also on a terminal.", GENERAL)]
AsTable = Annotated[bool, option("--table", "A table, also where stdout is no terminal.", GENERAL)]
Seed = Annotated[int, option("--seed S", "Every random draw follows from it.", callback=_non_negative)]
Reuse = Annotated[bool, option("--reuse", "Stop where the output is up to date.", GENERAL)]
Results = Annotated[str | None, option("--results FILE", _RESULTS)]


def argument(metavar: str, help: str) -> Any:
    """The main input of a command, which may be left out for stdin."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


DATA_HELP = "; ".join(f"{source.form} ({source.help})" for source in SOURCES.values()) + "."
FEATURES_HELP = "Files of features, or a stream of them on stdin."
Data = Annotated[str | None, argument("[DATA|-]", DATA_HELP)]
Features = Annotated[list[str] | None, argument("[FEATURES|-]...", FEATURES_HELP)]

_DATA = "Data"
Labels = Annotated[str | None, option("--labels TABLE", "Lay these labels over the set, by id.", _DATA)]
Captions = Annotated[
    str | None, option("--captions TABLE", "Lay these texts over the set, by id.", _DATA)
]
Limit = Annotated[int | None, option("--limit N", "Only the first N samples.", _DATA, min=1)]
Domain = Annotated[str | None, option("--domain NAME", "Only samples of this domain.", _DATA)]
Classes = Annotated[str | None, option("--classes A,B,…", "Only these classes.", _DATA)]
ImageColumn = Annotated[str, option("--image-column NAME", "The table's column of image paths.", _DATA)]
LabelColumn = Annotated[str, option("--label-column NAME", "The table's column of labels.", _DATA)]
TextColumn = Annotated[str, option("--text-column NAME", "The table's column of texts.", _DATA)]
Text2Column = Annotated[
    str, option("--text2-column NAME", "The table's column of second texts.", _DATA)
]
GroupColumn = Annotated[
    str, option("--group-column NAME", "Captions alike in this column are of one image.", _DATA)
]
IdColumn = Annotated[str, option("--id-column NAME", "The table's column of ids.", _DATA)]
Root = Annotated[
    str | None, option("--root DIR", "The folder that a table's image paths start from.", _DATA)
]
DataDir = Annotated[str, option("--data-dir DIR", "The folder of torchvision's sets.", _DATA)]
Download = Annotated[bool, option("--download", "Fetch a set of torchvision that is missing.", _DATA)]


def source_options(
    labels: Labels = None,
    captions: Captions = None,
    limit: Limit = None,
    domain: Domain = None,
    classes: Classes = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    id_column: IdColumn = "id",
    text_column: TextColumn = "text",
    text2_column: Text2Column = "text2",
    group_column: GroupColumn = "image",
    root: Root = None,
    data_dir: DataDir = "data",
    download: Download = False,
) -> SourceOptions:
    """The options on how DATA is read and what is taken of it; see `with_source`."""
    return SourceOptions(
        labels=labels, captions=captions, limit=limit, domain=domain,
        classes=tuple(split(classes)) or None, image_column=image_column, label_column=label_column,
        id_column=id_column, text_column=text_column, text2_column=text2_column,
        group_column=group_column, root=root, data_dir=data_dir, download=download,
    )  # fmt: skip


def with_source(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `source_options`; their SourceOptions are its argument `source`."""
    shared = signature(source_options).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        source = source_options(**{name: given.pop(name) for name in shared})
        named = given["data"]
        sets = expand([named] if isinstance(named, str) else named or [])
        if sets:
            check_options([*sets, *filter(None, [given.get("val")])], source)
        command(**given, source=source)

    own = {name: each for name, each in signature(command).parameters.items() if name != "source"}
    parameters = [
        each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*own.values(), *shared.values())
    ]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
