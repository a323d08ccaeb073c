"""Rows of features kept on disk until their file is written: for `--resume`, so that a killed run goes
on from them; for `--skip-bad`, since a header says how many rows there are."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.features import FloatBlock
from nmlcli.products.journal import Journal
from nmlcli.provenance import Facts

Blocks = Iterator[FloatBlock]
Make = Callable[[int], Blocks]  # the rows from one on


@dataclass(frozen=True)
class Kept:
    """Rows on disk. present: bool [N], those that are not NaN, which stands for a sample left out."""

    journal: Journal
    present: NDArray[np.bool_]

    def blocks(self, present: NDArray[np.bool_], rows: int) -> Blocks:
        """Row blocks of those present."""
        start = 0
        for block in self.journal.blocks(rows):
            some = present[start : start + len(block)]
            start += len(block)
            if some.any():
                yield block if some.all() else block[some]


def _fill(journal: Journal, make: Make) -> Kept:
    for block in make(journal.rows):
        journal.append(block)
    present = [~np.isnan(block).reshape(len(block), -1)[:, 0] for block in journal.blocks(4096)]
    return Kept(journal, np.concatenate(present))


def _names(out: str) -> tuple[Path, Path]:
    """The files for the rows and the views of a product."""
    return Path(f"{out}.partial"), Path(f"{out}.views.partial")


def check_newer(out: str, files: Iterable[str | Path]) -> None:
    """Raise InvalidInput where an input is newer than rows that were kept of it."""
    kept = [name.stat().st_mtime_ns for name in _names(out) if name.is_file()]
    for path in map(Path, files if kept else ()):
        if path.exists() and path.stat().st_mtime_ns > max(kept):
            wrong = f"{path} is newer than the rows kept in {_names(out)[0]}"
            raise InvalidInput(wrong, "remove that file, which starts anew")


@contextmanager
def keeping(
    out: str | None, stay: bool, about: Facts, dtype: "np.dtype[Any]",
    makers: Sequence[tuple[tuple[int, ...], Make]],
) -> Iterator[tuple[NDArray[np.bool_], list[Callable[[int], Blocks]]]]:  # fmt: skip
    """Compute rows onto disk; which of them are present, bool [N], and readers of those, one a maker.

    out: the product, beside which the files lie; None for a stream. stay: whether they have its name
    with .partial and stay if this process ends before. makers: the shape of a row, [D] or [K, D], and
    what makes them. When the block of the `with` statement ends well, all files go. Raises
    InvalidInput where none is present.
    """
    with ExitStack() as stack:
        stem = out
        if not stay:
            beside = Path(out).parent if out and Path(out).parent.is_dir() else None
            stem = stack.enter_context(TemporaryDirectory(prefix=".rows.", dir=beside)) + "/rows"
        kept = []
        for name, (shape, make) in zip(_names(str(stem)), makers, strict=False):
            journal = stack.enter_context(Journal.open(name, about, shape, dtype))
            kept.append(_fill(journal, make))
        present = np.logical_and.reduce([each.present for each in kept])
        if not present.any():
            raise InvalidInput("none of the samples can be read", "look at one with --limit 1")
        yield present, [partial(each.blocks, present) for each in kept]
        for each in kept:
            each.journal.remove()
