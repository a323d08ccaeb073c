"""Which classes of a head compete on a set, and which class of the set each of them stands for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.numerics.metrics import Logits
from nmlcli.numerics.pools import POOLS
from nmlcli.products.features import Features
from nmlcli.products.head import Float32, Head
from nmlcli.products.ids import repeated
from nmlcli.products.labels import number_names, renumber, texts
from nmlcli.products.tables import read_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """How classes are matched. restrict: only classes of the set compete. stands_for: the set's class
    of a head's class, where it is not the one of its own name. pool: of POOLS."""

    restrict: bool = False
    stands_for: Mapping[str, str] = field(default_factory=dict)
    pool: str = "max"

    @property
    def facts(self) -> dict[str, object]:
        """What of it changes a result."""
        mapped = sorted(self.stands_for.items())
        return {"restrict": self.restrict, "classes": mapped, "pool": self.pool if mapped else None}


def read_class_map(source: str) -> dict[str, str]:
    """A table with columns from (a class of the head) and to (the class of the set), as a mapping.

    Raises InvalidInput where a column is missing, a cell is empty or a class stands for two.
    """
    table = read_table(source)
    for name in ("from", "to"):
        if name not in table.columns:
            wrong = f"{table.source} has no column {name}, but {first(table.columns, 8) or 'none'}"
            raise InvalidInput(
                wrong, "a class map has columns from (head's class) and to (set's class)"
            )
    heads, sets = (texts(table.column(c), "class", c, table.source) for c in ("from", "to"))
    if twice := repeated(heads):
        raise InvalidInput(f"{table.source} maps classes more than once: {first(twice)}")
    return dict(zip(heads, sets, strict=True))


@dataclass(frozen=True)
class Contest:
    """A head whose outputs are those of the classes that compete on a set.

    head: its last layer holds only their outputs, those of one class side by side. names: of the C
    classes, None where they have none but their numbers. starts: the first output of each class, None
    where each has one output. pool: of POOLS.
    """

    head: Head
    names: tuple[str, ...] | None
    starts: NDArray[np.int64] | None
    pool: str

    @property
    def size(self) -> int:
        """C."""
        return len(self.head.layers[-1][1]) if self.starts is None else len(self.starts)

    def apply(self, features: Float32) -> tuple[Float32, Logits]:
        """Z [N, D'] and the logits [N, C] of a block of features [N, D]."""
        transformed, logits = self.head.apply(features)
        if self.starts is None:
            return transformed, logits
        return transformed, POOLS[self.pool].pool(logits, self.starts)

    def named(self, number: int) -> str:
        """The name of a class, its number where it has none."""
        return self.names[number] if self.names else str(number)

    def numbers(self, features: Features) -> NDArray[np.int64] | None:
        """A set's labels in the contest's numbers, by name; by number where names are not known.

        Labels without names are matched by what they are where the head's classes are whole numbers.
        None without labels. Raises InvalidInput, naming three, for classes that do not compete.
        """
        own, labels = features.record.classes, features.labels
        if labels is None:
            return None
        if own is None and self.names is not None and all(map(str.isdecimal, self.names)):
            own = number_names(labels)
        if own is not None and self.names is not None:
            return renumber(labels, own, self.names, features.source)
        if labels.max() >= self.size:
            wrong = f"{features.source} has class number {labels.max()}, the head {self.size} classes"
            raise InvalidInput(wrong)
        nameless, other = features.source, "the head's"
        if own is not None:
            nameless, other = self.head.source, "the set's"
        log.warning("%s names no classes: their numbers are taken for %s", nameless, other)
        return labels


def check_targets(rule: Rule, features: Features) -> None:
    """Warn of classes that the map leads to and a set lacks; raises InvalidInput where it lacks all."""
    known = features.record.classes
    lacking = [name for name in dict.fromkeys(rule.stands_for.values()) if name not in (known or ())]
    if known is None or not lacking:
        return
    if len(lacking) == len(set(rule.stands_for.values())):
        raise InvalidInput(f"{features.source} has no class that the map leads to: {first(lacking)}")
    log.warning("%s lacks classes that the map leads to: %s", features.source, first(lacking))


def contest(head: Head, features: Features, rule: Rule) -> Contest:
    """The classes of a head that compete on a set.

    Raises InvalidInput where names are needed and not known, where the map has classes that the head
    lacks, and where no class is left.
    """
    names, wanted = head.record.classes, features.record.classes
    if not rule.restrict and not rule.stands_for:
        return Contest(head, names, None, rule.pool)
    for source, known in ((head.source, names), (features.source, wanted)):
        if known is None:
            raise InvalidInput(f"{source} names no classes", "they are matched by name")
    if unknown := [name for name in rule.stands_for if name not in set(names or ())]:
        raise InvalidInput(f"{head.source} lacks classes of the map: {first(unknown)}")
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names or ()):
        groups.setdefault(rule.stands_for.get(name, name), []).append(column)
    if rule.restrict:
        inside = set(wanted or ())
        groups = {name: columns for name, columns in groups.items() if name in inside}
    if not groups:
        wrong = f"{head.source} and {features.source} have no class in common"
        raise InvalidInput(wrong, "--class-map FILE says which classes of the head stand for which")
    columns = [column for group in groups.values() for column in group]
    starts = np.cumsum([0, *map(len, groups.values())], dtype=np.int64)[:-1]
    weight, bias = head.layers[-1]
    fewer = replace(head, layers=(*head.layers[:-1], (weight[columns], bias[columns])))
    single = len(columns) == len(groups)
    return Contest(fewer, tuple(groups), None if single else starts, rule.pool)
