"""Features for the tests of other programs' forms, made up."""

import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.products.features import Features
from nmlcli.products.vectors import VECTORS, Asked
from nmlcli.provenance import Record

IDS = ("a/1", "é,\"'", "", "line\nend\r", " 7 ")


def made(values, ids=None, classes=("ant", "bée, or"), **changes):
    """Features over an array [N, D], labelled in turns."""
    rows, columns = values.shape
    record = Record(
        "features", "f" * 32, "embed", classes=classes, rows=rows, columns=columns,
        noise={"kind": None}, model={"name": "net", "identity": "m" * 32}, extra={"held": 1},
    )  # fmt: skip
    known = {"labels": np.arange(rows) % 2, "clean_labels": np.arange(rows) // 2 % 2, **changes}
    ids = [str(i) for i in range(rows)] if ids is None else list(ids)
    return Features(
        record=record, ids=ids, dtype=values.dtype, source="made",
        blocks=lambda size: (values[i : i + size] for i in range(0, rows, size)), **known,
    )  # fmt: skip


def read(path, **asked):
    """Features of a file, by its suffix."""
    return VECTORS[path.suffix].read(str(path), path.name, Asked(**asked))


def matrix(features, size=3):
    """All rows in their own type, by blocks of some rows."""
    return np.concatenate(list(features.blocks(size)))


def refused(path, *words, **asked):
    """Check that a file is refused by its name, in these words."""
    with pytest.raises(InvalidInput) as caught:
        matrix(read(path, **asked))
    for word in (path.name, *words):
        assert word in str(caught.value), str(caught.value)


def same(one, two):
    """Whether two sets of features hold the same, bit by bit."""
    a, b = matrix(one, 4), matrix(two, 3)
    numbers = all(
        (x is None and y is None) or (x is not None and y is not None and (x == y).all())
        for x, y in ((one.labels, two.labels), (one.clean_labels, two.clean_labels))
    )
    return (
        one.record == two.record
        and list(one.ids) == list(two.ids)
        and numbers
        and a.dtype == b.dtype == one.dtype == two.dtype
        and a.tobytes() == b.tobytes()
    )
