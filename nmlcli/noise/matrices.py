"""Transition matrices T[true, noisy]: read from tables."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first, meant
from nmlcli.products.tables import Table, read_table

_TOLERANCE = Fraction(1, 10**6)


@dataclass(frozen=True)
class Transition:
    """A row-stochastic T. rows: T[true, noisy] as exact fractions, [C] rows of [C]."""

    rows: tuple[tuple[Fraction, ...], ...]

    @property
    def rates(self) -> tuple[Fraction, ...]:
        """The share of each class that changes, [C]."""
        return tuple(1 - row[c] for c, row in enumerate(self.rows))

    def targets(self, c: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The other classes that class c goes to int64 [K], and their shares float64 [K]."""
        row = self.rows[c]
        others = [t for t, value in enumerate(row) if value and t != c]
        return np.array(others, dtype=np.int64), np.array([float(row[t]) for t in others])


def read_matrix(source: str, classes: Sequence[str]) -> Transition:
    """Read T from a table: a row a true class, its name first, then its share to each class above.

    Rows must sum to 1 within 1e-6 and are then divided by their exact sum. A class of the labels that
    the matrix lacks, or one of the matrix that the labels lack, is an error, as are negative numbers.
    """
    table = read_table(source)
    named, *columns = table.columns
    _check_names(columns, classes, f"{table.source}: its columns")
    truths = [str(name) for name in table.column(named)]
    _check_names(truths, classes, f"{table.source}: its rows")
    if len(set(truths)) < len(truths):
        raise InvalidInput(f"{table.source} has two rows of one class", "rows are true classes")
    cells = {name: [_fraction(v, table, name, i) for i, v in enumerate(table.column(name), start=1)]
             for name in columns}  # fmt: skip
    rows = {truth: [cells[name][i] for name in classes] for i, truth in enumerate(truths)}
    wrong = [f"{name} ({float(sum(row)):.6g})" for name, row in rows.items() if not _is_whole(row)]
    if wrong:
        turned = all(_is_whole(cells[name]) for name in columns)
        remedy = "its columns do: transpose it" if turned else "rows are true classes"
        raise InvalidInput(f"{table.source}: rows that do not sum to 1: {first(wrong)}", remedy)
    sums = {name: _total(row) for name, row in rows.items()}
    return Transition(tuple(tuple(v and v / sums[name] for v in rows[name]) for name in classes))


def _is_whole(shares: Sequence[Fraction]) -> bool:
    return abs(_total(shares) - 1) <= _TOLERANCE


def _total(shares: Sequence[Fraction]) -> Fraction:
    return sum(filter(None, shares), Fraction(0))


def _check_names(names: Sequence[str], classes: Sequence[str], what: str) -> None:
    unknown = [name for name in names if name not in classes]
    if unknown:
        remedy = meant(unknown[0], classes)
        raise InvalidInput(f"{what} name classes that the labels lack: {first(unknown)}", remedy)
    missing = [name for name in classes if name not in names]
    if missing:
        raise InvalidInput(f"{what} lack classes of the labels: {first(missing)}")


def _fraction(value: Any, table: Table, column: str, row: int) -> Fraction:
    share = _share(str(value).strip())
    if share is None:
        text = str(value).strip() or "nothing"
        wrong = f"{table.source}: row {row}, column {column}: {text} is no share"
        raise InvalidInput(wrong, "shares are numbers from 0 to 1")
    return share


@lru_cache(1 << 16)  # most cells of a large matrix are alike
def _share(text: str) -> Fraction | None:
    if not re.fullmatch(r"\+?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", text, re.ASCII):
        return None
    return Fraction(text)
