"""MAPS, the menu of class-to-class maps for asymmetric noise, and maps read from tables.

A map says which classes a class is mistaken for; classes without an arrow keep their labels. How many
labels change is not told here. Light: numpy and tables come with the reading of a map.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmlcli.errors import InvalidInput, UsageError, first, meant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nmlcli.products.tables import Table

# Class number -> the numbers of the classes it may become, ascending, int64 [K], and their weights,
# float64 [K], None where all are alike; K is at least 1.
Arrows = dict[int, tuple["NDArray[np.int64]", "NDArray[np.float64] | None"]]


@dataclass(frozen=True)
class ClassMap:
    """A map that comes with nml.

    names: the classes of its data set in their standard order. arrows: for each class that has any, the
    classes it may become, each as likely.
    """

    help: str
    names: Callable[[], tuple[str, ...]]
    arrows: Callable[[], Mapping[str, tuple[str, ...]]]


_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_PATRINI = {  # et al. 2017
    "truck": ("automobile",), "bird": ("airplane",), "cat": ("dog",), "dog": ("cat",),
    "deer": ("horse",),
}  # fmt: skip

# The classes of CIFAR-100 by superclass; their standard order is that of the alphabet.
_CIFAR100 = (
    "beaver dolphin otter seal whale",  # aquatic mammals
    "aquarium_fish flatfish ray shark trout",  # fish
    "orchid poppy rose sunflower tulip",  # flowers
    "bottle bowl can cup plate",  # food containers
    "apple mushroom orange pear sweet_pepper",  # fruit and vegetables
    "clock keyboard lamp telephone television",  # household electrical devices
    "bed chair couch table wardrobe",  # household furniture
    "bee beetle butterfly caterpillar cockroach",  # insects
    "bear leopard lion tiger wolf",  # large carnivores
    "bridge castle house road skyscraper",  # large man-made outdoor things
    "cloud forest mountain plain sea",  # large natural outdoor scenes
    "camel cattle chimpanzee elephant kangaroo",  # large omnivores and herbivores
    "fox porcupine possum raccoon skunk",  # medium-sized mammals
    "crab lobster snail spider worm",  # non-insect invertebrates
    "baby boy girl man woman",  # people
    "crocodile dinosaur lizard snake turtle",  # reptiles
    "hamster mouse rabbit shrew squirrel",  # small mammals
    "maple_tree oak_tree palm_tree pine_tree willow_tree",  # trees
    "bicycle bus motorcycle pickup_truck train",  # vehicles 1
    "lawn_mower rocket streetcar tank tractor",  # vehicles 2
)


def _cifar100() -> tuple[str, ...]:
    return tuple(sorted(" ".join(_CIFAR100).split()))


def _cycles(groups: list[list[str]]) -> dict[str, tuple[str, ...]]:
    """Each name to the next one of its group, the last to the first."""
    return {name: (group[(i + 1) % len(group)],) for group in groups for i, name in enumerate(group)}


def _superclasses() -> dict[str, tuple[str, ...]]:
    return _cycles([sorted(group.split()) for group in _CIFAR100])


def _blocks() -> dict[str, tuple[str, ...]]:
    names = _cifar100()
    return _cycles([list(names[start : start + 5]) for start in range(0, len(names), 5)])


def _siblings() -> dict[str, tuple[str, ...]]:
    """The table that docs/make_siblings.py writes; its comments state the rule and the licence."""
    text = Path(__file__).with_name("imagenet_siblings.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    cells = [line.split("\t") for line in lines[1:]]
    return {wnid: tuple(siblings.split()) for wnid, _, siblings in cells}


MAPS = {
    "cifar10": ClassMap(
        "truck to automobile, bird to airplane, deer to horse, cat and dog to each other",
        lambda: _CIFAR10, lambda: _PATRINI,
    ),
    "cifar100": ClassMap("the next class of its superclass", _cifar100, _superclasses),
    "cifar100-blocks": ClassMap(
        "the next of five classes in a row, as in much code; those are no superclasses",
        _cifar100, _blocks,
    ),
    "imagenet": ClassMap("a sibling in WordNet, by wnid", lambda: tuple(_siblings()), _siblings),
}  # fmt: skip


def read_map(name: str, classes: Sequence[str]) -> Arrows:
    """Read a map for a set of these classes: a row of MAPS, else a table.

    A row's classes are matched by name, or by number in its standard order where the set's are the
    whole numbers "0" to "C-1" of all its C classes. Arrows that leave the set are left out. A table has
    columns from and to, and weight if the classes that one may become are not all as likely. The order
    of its rows does not matter. Raises UsageError where there is no such row or file, InvalidInput
    where the map is damaged, does not fit the classes or has no arrow for them.
    """
    if name in MAPS:
        return _of_menu(name, classes)
    if not Path(name).exists():
        raise UsageError(f"{name} is neither a map that comes with nml nor a file", meant(name, MAPS))
    return _of_table(name, classes)


def _of_menu(name: str, classes: Sequence[str]) -> Arrows:
    import numpy as np

    names = MAPS[name].names()
    numbers = {label: number for number, label in enumerate(classes)}
    if set(classes) == {str(place) for place in range(len(names))}:
        numbers = {names[int(label)]: number for label, number in numbers.items()}
    known = set(names)
    unknown = [label for label in numbers if label not in known]
    instead = "a table with columns from, to makes a map for any classes"
    if unknown:
        remedy = meant(unknown[0], names)
        remedy = remedy if remedy.startswith("did") else instead
        raise InvalidInput(f"the map {name} lacks classes of the labels: {first(unknown)}", remedy)
    arrows: Arrows = {}
    for source, targets in MAPS[name].arrows().items():
        inside = sorted(numbers[target] for target in targets if target in numbers)
        if source in numbers and inside:
            arrows[numbers[source]] = np.array(inside, dtype=np.int64), None
    if not arrows:
        wrong = f"the map {name} has no arrow between classes of the labels: {first(list(classes))}"
        raise InvalidInput(wrong, instead)
    return arrows


def _of_table(source: str, classes: Sequence[str]) -> Arrows:
    import numpy as np

    from nmlcli.products.tables import read_table

    table = read_table(source)
    _check_columns(table)
    weighted = "weight" in table.columns
    weights = _weights(table) if weighted else [1.0] * len(table)
    found: dict[int, dict[int, float]] = {}
    for (start, end), weight in zip(_pairs(table, classes), weights, strict=True):
        found.setdefault(start, {})[end] = weight
    arrows: Arrows = {}
    for start, targets in found.items():
        ends = sorted(targets)
        shares = np.array([targets[end] for end in ends], dtype=np.float64) if weighted else None
        arrows[start] = np.array(ends, dtype=np.int64), shares
    return arrows


def _check_columns(table: "Table") -> None:
    wanted, remedy = ("from", "to", "weight"), "a map has columns from, to and, if wanted, weight"
    there = first(table.columns, 8)
    for name in wanted[:2]:
        if name not in table.columns:
            raise InvalidInput(f"{table.source} has no column {name}, but {there}", remedy)
    # A misspelt weight that went unseen would make all alike.
    others = [name for name in table.columns if name not in wanted]
    if others:
        raise InvalidInput(f"{table.source} has columns that mean nothing: {first(others)}", remedy)
    if not len(table):
        raise InvalidInput(f"{table.source} has no rows", "each row of a map is an arrow")


def _pairs(table: "Table", classes: Sequence[str]) -> list[tuple[int, int]]:
    """The numbers of the classes that each row leads from and to."""
    numbers = {label: number for number, label in enumerate(classes)}
    columns = [[_text(value) for value in table.column(name)] for name in ("from", "to")]
    rows = list(zip(*columns, strict=True))
    unknown = list(dict.fromkeys(label for row in rows for label in row if label not in numbers))
    if unknown:
        called = first([label or "nothing" for label in unknown])
        wrong = f"{table.source} names classes that the labels lack: {called}"
        raise InvalidInput(wrong, meant(unknown[0], numbers))
    seen = set()
    for place, (start, end) in enumerate(rows, start=1):
        if start == end:
            wrong = f"{table.source}: row {place} leads from {start} to itself"
            raise InvalidInput(wrong, "leave it out: labels that noise does not change stay")
        if (start, end) in seen:
            wrong = f"{table.source}: row {place} leads from {start} to {end} once more"
            raise InvalidInput(wrong, "keep one of the rows, with a weight")
        seen.add((start, end))
    return [(numbers[start], numbers[end]) for start, end in rows]


def _weights(table: "Table") -> list[float]:
    weights = []
    for place, value in enumerate(table.column("weight"), start=1):
        text = _text(value).strip()
        decimal = re.fullmatch(
            r"\+?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", text, re.ASCII
        )
        if not decimal or not float(text):
            wrong = f"{table.source}: row {place}, column weight: {text or 'nothing'} is no weight"
            raise InvalidInput(wrong, "weights are numbers above 0")
        weights.append(float(text))
    return weights


def _text(value: Any) -> str:
    return "" if value is None else str(value)
