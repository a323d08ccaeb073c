"""`--grid`: settings to choose from, as a user types them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import product
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nmlcli.errors import UsageError, meant
from nmlcli.tuning.criteria import LOSSES
from nmlcli.tuning.presets import Settings

_ALIASES = {"wd": "weight_decay"}
_CHOICES = {"loss": tuple(LOSSES)}
_SWITCH = {"yes": True, "no": False}

Grid = Mapping[str, tuple[Any, ...]]


def parse_grid(texts: Iterable[str]) -> Grid:
    """The values of each setting from `lr=0.1,0.01` or `lr=0.1,0.01,wd=0,1e-4`.

    Names are those of the options, `weight-decay` or its short `wd`. Raises UsageError for a setting
    that there is not, one given twice, and a value that is none or is there twice.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        for name, values in _pieces(text):
            knob = _knob(name)
            if knob in grid:
                raise UsageError(f"--grid {name} is given twice", "give all its values at once")
            if "" in values:
                what = "has no values" if values == [""] else "has a comma without a value"
                raise UsageError(f"--grid {name} {what}", f"write {name}=A,B")
            read = tuple(_value(knob, name, value) for value in values)
            if len({*read}) < len(read):
                raise UsageError(f"--grid {name} has a value twice", f"write {name}=A,B")
            grid[knob] = read
    return grid


def points(grid: Grid) -> list[dict[str, Any]]:
    """All settings of a grid, the last name changing fastest; one without any for no grid."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def shown_name(knob: str) -> str:
    """A setting as records and tables name it: `lambda_` is `lambda`."""
    return knob.strip("_")


def _pieces(text: str) -> list[tuple[str, list[str]]]:
    """Names and their values: a part with `=` begins a new name."""
    found: list[tuple[str, list[str]]] = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals:
            found.append((name.strip(), [value.strip()]))
        elif found:
            found[-1][1].append(part.strip())
        else:
            raise UsageError(f"--grid {text} is no list of values", "write lr=0.1,0.01")
    return found


def _knob(name: str) -> str:
    plain = name.lstrip("-").replace("-", "_")
    known = {shown_name(field.name): field.name for field in fields(Settings)} | _ALIASES
    del known["solver"]
    if plain not in known:
        shown = [each.replace("_", "-") for each in known]
        raise UsageError(f"--grid: no setting {name!r}", meant(name, shown))
    return known[plain]


def _value(knob: str, name: str, text: str) -> Any:
    kind = get_type_hints(Settings)[knob]
    if isinstance(kind, UnionType):  # int | None: None is what a setting is without the option
        kind = get_args(kind)[0]
    literal = get_args(kind) if get_origin(kind) is Literal else ()
    choices: Sequence[str] = _CHOICES.get(knob, literal)
    if choices:
        if text not in choices:
            raise UsageError(f"--grid {name}: no {text!r}", meant(text, choices))
        return text
    if kind is bool:
        if text not in _SWITCH:
            raise UsageError(f"--grid {name}: {text!r} is neither yes nor no")
        return _SWITCH[text]
    try:
        return kind(text)
    except ValueError:
        what = "whole number" if kind is int else "number"
        raise UsageError(f"--grid {name}: {text!r} is no {what}") from None
