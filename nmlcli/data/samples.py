"""An ordered set of samples: what every kind of DATA is opened as."""

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
        `pacs/photo-train.tar` pacs/photo:train."""
        path = Path(path)
        stem = re.sub(r"\.(tar|h5|hdf5|csv|tsv|jsonl|parquet|safetensors)$", "", path.name) or "data"
        parent = path.parent.name
        if not parent:
            return cls(stem)
        if re.fullmatch(_SPLITS, stem):
            return cls(parent, None, stem)
        if match := re.fullmatch(rf"(.+)[-_.]({_SPLITS})", stem):
            return cls(parent, match[1], match[2])
        return cls(parent, stem)


@dataclass(frozen=True)
class Samples:
    """An ordered set of N samples; row i of every product is sample i.

    ids: unique texts [N]. labels: int64 [N], or None. clean_labels: int64 [N] where noisy labels were
    laid over. classes: names in the order of the numbers. noise: of the labels, as in a Record (None:
    not known). identity: a hash of ids, labels, classes and contents. files: what it was read from,
    for `--reuse`. read(i): sample i as an RGB image; raises InvalidInput with the sample's id; can be
    pickled, for workers. parents: records of the products it was made with (labels laid over it).
    texts: [N] or None.
    """

    name: SetName
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    clean_labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    noise: dict[str, Any] | None
    identity: str
    files: tuple[Path, ...]
    read: "Callable[[int], Image]"
    parents: tuple[Record, ...] = ()
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def facts(self) -> dict[str, Any]:
        """What a record says of the set: its name, whole and in parts, and its identity."""
        parts = {"task": self.name.task, "domain": self.name.domain, "split": self.name.split}
        return {"name": str(self.name), **parts, "identity": self.identity}
