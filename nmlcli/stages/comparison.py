"""`--versus`: a second classifier of the same rows, and how far two of them are apart."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.numerics.intervals import mcnemar, paired_difference
from nmlcli.products.features import Features
from nmlcli.products.head import Head
from nmlcli.products.ids import require_unique
from nmlcli.products.labels import texts
from nmlcli.products.tables import SUFFIXES, Table, read_table
from nmlcli.provenance import hash_file
from nmlcli.stages.classes import Contest, Rule, contest
from nmlcli.stages.classifier import open_head
from nmlcli.stages.inputs import check_network
from nmlcli.stages.lines import seen
from nmlcli.stages.scoring import Float32, Scores, Scoring

log = logging.getLogger(__name__)

Right = NDArray[np.bool_]


class Gathering(Protocol):
    """Which rows of a set a classifier has right, known once all blocks of the set were added."""

    def add(self, block: Float32) -> None:
        """Look at a block of features [B, D]."""

    @property
    def right(self) -> Right:
        """Bool [N]."""


class Rival(Protocol):
    """What heads are compared with."""

    @property
    def identity(self) -> str:
        """That of the head, or of the table."""

    def on(
        self, features: Features, rule: Rule, ours: Contest, labels: NDArray[np.int64]
    ) -> Callable[[], Gathering]:
        """How to gather what it has right of a set, once it is known to be of the set's rows.

        labels: int64 [N], in the numbers of the classes that compete with it. Raises InvalidInput.
        """


@dataclass(frozen=True)
class _HeadRival:
    head: Head

    @property
    def identity(self) -> str:
        return self.head.record.identity

    def on(
        self, features: Features, rule: Rule, ours: Contest, labels: NDArray[np.int64]
    ) -> Callable[[], Gathering]:
        """Score it on the set while the other is scored; says if it was made on that."""
        check_network(self.head.record, self.head.source, features)
        if seen(features.record, self.head.record):
            words = "%s: %s, compared with, was trained or chosen on this set"
            log.warning(words, features.source, self.head.source)
        theirs = contest(self.head, features, rule)
        own = theirs.numbers(features)
        return lambda: Scores(theirs, own, features, Scoring(), spectrum=False)


@dataclass(frozen=True)
class _TableRival:
    identity: str
    table: Table

    def on(
        self, features: Features, rule: Rule, ours: Contest, labels: NDArray[np.int64]
    ) -> Callable[[], Gathering]:
        """Look its predictions up by the ids of the set."""
        classes, numbers = features.record.classes, features.labels
        if classes is None or numbers is None:
            names = [ours.named(number) for number in labels.tolist()]
        else:
            names = [classes[number] for number in numbers.tolist()]
        known = {*(classes or ()), *map(ours.named, range(ours.size))}
        told = _Told(right_of(self.table, features, names, known))
        return lambda: told


@dataclass(frozen=True)
class _Told:
    """What a table has right, for which features need not be looked at."""

    right: Right

    def add(self, block: Float32) -> None:
        """Nothing is to be done."""


def open_rival(source: str | None) -> Rival | None:
    """A head, a checkpoint's own classifier, or a table of predictions, told by its suffix."""
    if source is None:
        return None
    if Path(source).suffix.lower() not in SUFFIXES:
        return _HeadRival(open_head(source))
    table = read_table(source)
    for name in ("id", "prediction"):
        table.column(name)
    return _TableRival(hash_file(source), table)


def right_of(table: Table, features: Features, labels: Sequence[str], known: set[str]) -> Right:
    """Which rows of a set a table of predictions has right, bool [N], matched by id.

    labels [N]: names of the rows' classes. known: those of all classes that can be meant. Raises
    InvalidInput, naming three, where either lacks ids of the other, where the table gives them other
    labels, and where none of its predictions is a known class.
    """
    source = table.source
    ids, said = (
        texts(table.column(name), what, name, source)
        for name, what in (("id", "id"), ("prediction", "class"))
    )
    require_unique(ids, source, "")
    predicted = dict(zip(ids, said, strict=True))
    if missing := [name for name in features.ids if name not in predicted]:
        raise InvalidInput(f"{source} lacks samples of {features.source}: {first(missing)}")
    if len(ids) > features.rows:
        spare = set(features.ids)
        more = [name for name in ids if name not in spare]
        raise InvalidInput(f"{source} has samples that {features.source} lacks: {first(more)}")
    if "label" in table.columns:
        told = dict(zip(ids, map(str, table.column("label")), strict=True))
        pairs = zip(features.ids, labels, strict=True)
        if other := [name for name, label in pairs if told[name] not in (label, "", "None")]:
            wrong = f"{source} and {features.source} give other labels to {first(other)}"
            raise InvalidInput(wrong, "predict the same set with both")
    if unknown := [name for name in dict.fromkeys(said) if name not in known]:
        wrong = f"{source} predicts classes that neither the set nor the head has"
        if known.isdisjoint(said):
            raise InvalidInput(wrong, first(unknown))
        log.warning("%s: %s", wrong, first(unknown))
    pairs = zip(features.ids, labels, strict=True)
    return np.fromiter((predicted[name] == label for name, label in pairs), bool, len(labels))


def compared(ours: Right, theirs: Right, identity: str) -> dict[str, Any]:
    """The keys of a line for two classifiers of the same rows [N]: how much more accurate the first is,
    with its paired 95 % interval, and the exact p of McNemar's test."""
    first_only, second_only = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    low, high = paired_difference(first_only, second_only, len(ours))
    return {
        "versus": identity,
        "difference": (first_only - second_only) / len(ours),
        "difference_low": low,
        "difference_high": high,
        "mcnemar": mcnemar(first_only, second_only),
    }
