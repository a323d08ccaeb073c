"""`--versus`: a second classifier of the same rows, and how far two of them are apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.numerics.intervals import mcnemar, paired_difference
from nmlcli.products.features import Features
from nmlcli.products.labels import column_ids, texts
from nmlcli.products.tables import SUFFIXES, Table, read_table

Right = NDArray[np.bool_]


def is_predictions(source: str) -> bool:
    """Whether a name is that of a table of predictions, not of a head."""
    return Path(source).suffix.lower() in SUFFIXES


def read_predictions(source: str) -> Table:
    """A table of predictions. Raises InvalidInput where a column is missing."""
    table = read_table(source)
    for name in ("id", "prediction"):
        table.column(name)
    return table


def right_of(table: Table, features: Features, labels: Sequence[str]) -> Right:
    """Which rows of a set a table of predictions has right, bool [N], matched by id.

    labels [N]: names of the set's classes. Raises InvalidInput, naming three, where either lacks ids of
    the other, or where the table gives them other labels.
    """
    source, ids = table.source, column_ids(table)
    said = dict(zip(ids, texts(table.column("prediction"), "class", "prediction", source), strict=True))
    if missing := [name for name in features.ids if name not in said]:
        raise InvalidInput(f"{source} lacks samples of {features.source}: {first(missing)}")
    if len(said) > features.rows:
        spare = set(features.ids)
        more = [name for name in ids if name not in spare]
        raise InvalidInput(f"{source} has samples that {features.source} lacks: {first(more)}")
    if "label" in table.columns:
        told = dict(zip(ids, map(str, table.column("label")), strict=True))
        pairs = zip(features.ids, labels, strict=True)
        if other := [name for name, label in pairs if told[name] not in (label, "", "None")]:
            wrong = f"{source} and {features.source} give other labels to {first(other)}"
            raise InvalidInput(wrong, "predict the same set with both")
    pairs = zip(features.ids, labels, strict=True)
    return np.fromiter((said[name] == label for name, label in pairs), dtype=bool, count=len(labels))


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
