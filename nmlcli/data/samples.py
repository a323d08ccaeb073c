"""An ordered set of samples: what every kind of DATA is opened as, and how a set is named."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.provenance import Record

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLITS = "train|trainval|val|valid|validation|test"
_SUFFIX = re.compile(r"\.(tar|h5|hdf5|csv|tsv|jsonl|parquet|safetensors)$")
_PATTERN = re.compile(r"[-_.]?(\{[^{}]*\}|[*?]+|\[[^\]]*\])[-_.]?")
_NAMED = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?(?::\w+)?)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class SetName:
    """The name of a set in its parts, written `task[/domain][:split]`."""

    task: str
    domain: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        domain = f"/{self.domain}" if self.domain else ""
        split = f":{self.split}" if self.split else ""
        return f"{self.task}{domain}{split}"

    @classmethod
    def parse(cls, text: str) -> "SetName":
        """Read a name that the user gave: `task`, `task/domain`, `task/domain:split`."""
        head, _, split = text.partition(":")
        task, _, domain = head.partition("/")
        return cls(task, domain or None, split or None)

    @classmethod
    def of_path(cls, path: str | Path) -> "SetName":
        """Name a set by where it lies: `pacs/sketch.tar` pacs/sketch, `cifar10/test.tar` cifar10:test,
        `pacs/photo-train.tar` pacs/photo:train; the pattern of `pets/train-{00..11}.tar` is left out.

        The current folder names a set only where nothing else does (`.`, or `test.tar` inside it).
        """
        path = Path(path)
        if path.name in ("", ".."):
            path = path.resolve()
        stem = _word(_PATTERN.sub("", _SUFFIX.sub("", path.name)))
        if not stem or re.fullmatch(_SPLITS, stem):
            parent = path.parent if path.parent.name not in ("", "..") else path.parent.resolve()
            return cls(_word(parent.name) or "data", None, stem or None)
        match = re.fullmatch(rf"(.+)[-_.]({_SPLITS})", stem)
        own, split = (match[1], match[2]) if match else (stem, None)
        parent_name = _word(path.parent.name.strip("."))
        return cls(parent_name, own, split) if parent_name else cls(own, None, split)


def _word(text: str) -> str:
    """Text with everything that has a meaning in names or shells replaced."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")


def split_name(spec: str) -> tuple[SetName | None, str]:
    """Take `NAME=DATA` apart; an existing path is never taken for one. Returns (name or None, DATA)."""
    match = _NAMED.fullmatch(spec)
    if match is None or Path(spec).exists():
        return None, spec
    return SetName.parse(match[1]), match[2]


@dataclass(frozen=True)
class Samples:
    """An ordered set of N samples; row i of every product is sample i.

    ids: unique texts [N]. labels: int64 [N], or None. clean_labels: int64 [N] where noisy labels were
    laid over. classes: names in the order of the numbers. noise: of the labels, as in a Record (None:
    not known). identity: a hash of ids, labels, classes and contents. files: what it was read from,
    for `--reuse`. read(i): sample i as an RGB image; raises InvalidInput with the sample's id; can be
    pickled, for workers. parents: records of the products it was made with (labels laid over it).
    texts: [N] or None. paths: the files of the images [N], where each has its own; a path may go
    through an archive (`train.tar/dog/1.jpg`). read_many: of the source, where many at once are faster.
    """

    name: SetName
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    clean_labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    noise: dict[str, Any] | None
    identity: str
    files: tuple[str | Path, ...]
    read: "Callable[[int], Image]"
    parents: tuple[Record, ...] = ()
    texts: Sequence[str] | None = None
    paths: Sequence[str] | None = None
    read_many: "Callable[[NDArray[np.int64]], list[Image]] | None" = None

    def __len__(self) -> int:
        return len(self.ids)

    def images(self, rows: NDArray[np.int64]) -> "list[Image]":
        """Read several samples, by their rows [M], in that order."""
        if self.read_many is not None:
            return self.read_many(rows)
        return [self.read(int(row)) for row in rows]

    def facts(self) -> dict[str, Any]:
        """What a record says of the set: its name, whole and in parts, and its identity."""
        parts = {"task": self.name.task, "domain": self.name.domain, "split": self.name.split}
        return {"name": str(self.name), **parts, "identity": self.identity}
