"""RECIPES: whole trainings, one TOML file each in the folder beside this module; a light menu.

A recipe gives options of `nml pretrain` their values; those that a user gives go before them. What a
file says under [about] is for people: a command to type, the cost, where the numbers are from.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nmlcli.training.augmentation import AUGMENTATIONS
from nmlcli.training.losses import LOSSES
from nmlcli.training.schedules import SCHEDULES

FOLDER = Path(__file__).with_name("recipes")

# What an option's value may be: a type, a pair of numbers, or one of these words.
OPTIONS: Mapping[str, Any] = {
    "arch": str, "objective": ("supervised", "clip"), "loss": tuple(LOSSES), "size": int,
    "val_size": int, "epochs": int, "batch_size": int, "micro_batch": int, "opt": str, "lr": float,
    "betas": "pair", "eps": float, "momentum": float, "weight_decay": float, "sched": tuple(SCHEDULES),
    "warmup_epochs": int, "warmup_steps": int, "clip": float, "ema": float, "precision": str,
    "augment": tuple(AUGMENTATIONS), "scale": float, "hflip": float, "color_jitter": float,
    "auto_augment": str, "reprob": float, "mixup": float, "cutmix": float, "label_smoothing": float,
    "drop_path": float,
}  # fmt: skip
NEEDED = ("arch", "objective")
ABOUT = ("command", "cost", "source")

_PARTS = ("help", "options", "about")
_WORDS = {str: "a text", int: "a whole number", float: "a number", "pair": "two numbers"}
_FIRST = re.compile(r'help = "([^"\\]+)"$')


@dataclass(frozen=True)
class Recipe:
    """A training by its name, and its file as it stands.

    What the file says is read when it is asked for; ValueError, naming file and key, where it is wrong.
    """

    name: str
    text: str

    @property
    def help(self) -> str:
        """What it trains: the file's first line, so that a menu of recipes parses none."""
        line = self.text.partition("\n")[0]
        found = _FIRST.match(line)
        if found is None:
            raise ValueError(f'{self.name}.toml: the first line is {line!r}, not help = "…"')
        return found[1]

    @property
    def options(self) -> Mapping[str, Any]:
        """Values of options by their names, `_` for `-`; numbers as the option takes them."""
        options: Mapping[str, Any] = self._table["options"]
        return options

    @property
    def about(self) -> Mapping[str, str]:
        """command: a whole line to type. cost: the time it takes, and how that is known. source: where
        the numbers are from, and what of that is not done."""
        about: Mapping[str, str] = self._table["about"]
        return about

    @cached_property
    def _table(self) -> Mapping[str, Any]:
        import tomllib

        file = f"{self.name}.toml"
        try:
            table = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: {error}") from error
        _check_keys(file, table, _PARTS, _PARTS)
        for part in _PARTS[1:]:
            if not isinstance(table[part], dict):
                raise ValueError(f"{file}: {part} is no table")
        given, said = table["options"], table["about"]
        _check_keys(f"{file}: [options]", given, OPTIONS, NEEDED)
        _check_keys(f"{file}: [about]", said, ABOUT, ABOUT)
        return {
            "help": self.help,  # which refuses a first line that is something else
            "options": {key: _value(f"{file}: {key}", v, OPTIONS[key]) for key, v in given.items()},
            "about": {key: _value(f"{file}: {key}", v, str) for key, v in said.items()},
        }


def _check_keys(where: str, table: Mapping[str, Any], known: Any, needed: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: {key!r} is none of {', '.join(known)}")
    for key in needed:
        if key not in table:
            raise ValueError(f"{where}: {key!r} is missing")


def _value(where: str, value: Any, wanted: Any) -> Any:
    """A value as its option takes it: whole numbers become floats, a list of two a pair."""
    if wanted == "pair" and isinstance(value, list) and len(value) == 2:
        return tuple(_value(where, each, float) for each in value)
    if wanted is float and type(value) is int:
        return float(value)
    if isinstance(wanted, type) and type(value) is wanted:  # so that true is no number
        return value
    if isinstance(wanted, tuple) and value in wanted:
        return value
    words = f"one of {', '.join(wanted)}" if isinstance(wanted, tuple) else _WORDS[wanted]
    raise ValueError(f"{where} is {value!r}, not {words}")


def architecture_file(name: str) -> Path | None:
    """The configuration for open_clip that a recipe's arch names: NAME.json beside the recipes.

    None for anything else, such as the name of a network of timm or open_clip, or another path.
    """
    path = FOLDER / name
    return path if Path(name).name == name and name.endswith(".json") and path.is_file() else None


RECIPES = {
    path.stem: Recipe(path.stem, path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem)
}
