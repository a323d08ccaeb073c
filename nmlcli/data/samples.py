"""An ordered set of samples: what every kind of DATA is opened as, and how a set is named."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.listing import recount
from nmlcli.products.captions import differing
from nmlcli.provenance import Record, canonical

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

    source: how the user named it, for messages. ids: unique texts [N]. labels: int64 [N], or None.
    classes: names in the order of the numbers. images(rows): the RGB images of rows int64 [M], in that
    order; raises InvalidInput with a sample's id. sizes: bytes of each sample's file, int64 [N], or
    None. contents: hashes of packed files, or whatever else decides what the images are. files: what
    it was read from, for `--reuse`. texts, texts2 (the second ones of pairs), domains: [N] or None.
    paths: the files of the images [N], where each has its own; a path may go through an archive
    (`train.tar/dog/1.jpg`). has_images: it holds some, whether or not they are files. groups: what
    image each row is of [N], where that is told by a column. clean_labels: int64 [N] where noisy labels
    were laid over; clean_texts: [N], the same of captions. noise: of the labels, as in a Record (None:
    not known); text_noise: of the captions. texts_follow: contents decide the texts too. parents:
    records of the products it was made with (labels and captions laid over it).
    """

    name: SetName
    source: str
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    images: "Callable[[NDArray[np.int64]], list[Image]]"
    sizes: NDArray[np.int64] | None = None
    contents: tuple[str, ...] = ()
    files: tuple[str | Path, ...] = ()
    texts: Sequence[str] | None = None
    texts2: Sequence[str] | None = None
    paths: Sequence[str] | None = None
    domains: Sequence[str] | None = None
    clean_labels: NDArray[np.int64] | None = None
    clean_texts: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    has_images: bool = True
    texts_follow: bool = False
    noise: dict[str, Any] | None = None
    text_noise: dict[str, Any] | None = None
    parents: tuple[Record, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> "Image":
        """The image of one sample."""
        return self.images(np.array([row]))[0]

    def take(self, rows: NDArray[np.int64]) -> "Samples":
        """The samples of these rows [M], in that order; the extent of their noise is counted anew."""

        def of(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else [values[row] for row in rows]

        def at(values: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
            return None if values is None else values[rows]

        labels, clean = at(self.labels), at(self.clean_labels)
        texts, clean_texts = of(self.texts), of(self.clean_texts)
        none = np.zeros(len(rows), dtype=np.int64)
        told = (none, None) if clean_texts is None else (differing(texts or (), clean_texts), none)
        return replace(
            self, ids=of(self.ids) or [], labels=labels, clean_labels=clean, sizes=at(self.sizes),
            images=lambda some: self.images(rows[some]), texts=texts, texts2=of(self.texts2),
            clean_texts=clean_texts, paths=of(self.paths), groups=of(self.groups),
            domains=of(self.domains), noise=_recounted(self.noise, labels, clean),
            text_noise=_recounted(self.text_noise, *told),
        )  # fmt: skip

    def images_of(self) -> Sequence[str]:
        """What image each row is of [N]: rows that are equal here are of one image."""
        return self.groups or self.paths or self.ids

    @cached_property
    def identity(self) -> str:
        """A hash of ids, labels, classes, texts, file sizes and packed contents: 32 hex digits.

        Second texts, clean texts and groups are a part of it only where there are some, texts only
        where contents do not decide them.
        """
        digest = hashlib.sha256()
        pairs = () if self.texts2 is None else (canonical(list(self.texts2)).encode(),)
        rare = {"clean_texts": self.clean_texts, "groups": self.groups}
        held = {name: list(values) for name, values in rare.items() if values is not None}
        for part in (
            canonical(list(self.ids)).encode(),
            _bytes(self.labels),
            _bytes(self.clean_labels),
            canonical(self.classes).encode(),
            canonical(self._told_texts).encode(),
            _bytes(self.sizes),
            canonical(self.contents).encode(),
            *pairs,
            *([canonical(held).encode()] if held else []),
        ):
            digest.update(len(part).to_bytes(8, "little"))  # so that no two splits of bytes are alike
            digest.update(part)
        return digest.hexdigest()[:32]

    @property
    def _told_texts(self) -> list[str] | None:
        """The texts that nothing else decides."""
        return None if self.texts is None or self.texts_follow else list(self.texts)

    def facts(self) -> dict[str, Any]:
        """What a record says of the set: its name, whole and in parts, and its identity.

        samples: a hash of ids, sizes, contents and texts, the same under other labels; None where
        there are only ids, which other samples may have too.
        """
        pairs = None if self.texts2 is None else list(self.texts2)
        known = [_bytes(self.sizes).hex(), self.contents, self._told_texts, pairs]
        told = hashlib.sha256(canonical([list(self.ids), *known]).encode()).hexdigest()[:32]
        identities = {"identity": self.identity, "samples": told if any(known) else None}
        return {"name": str(self.name), **asdict(self.name), **identities}


def _recounted(
    noise: dict[str, Any] | None, values: NDArray[np.int64] | None, clean: NDArray[np.int64] | None
) -> dict[str, Any] | None:
    """A noise with its extent counted anew, where the clean values are known or none was wrong."""
    if noise is None or values is None:
        return noise
    if clean is None and noise.get("flipped") == 0:
        clean = values
    return noise if clean is None else recount(noise, values, clean)


def _bytes(numbers: NDArray[np.int64] | None) -> bytes:
    return b"" if numbers is None else np.ascontiguousarray(numbers, dtype="<i8").tobytes()
