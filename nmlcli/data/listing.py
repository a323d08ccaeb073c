"""What a source found, before labels are laid over it and rows are selected.

Here are the rules that hold for every source: ids are unique, classes have one order, an identity
covers what the samples are. How a file is read belongs to its source.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.samples import Samples, SetName
from nmlcli.errors import InvalidInput, first
from nmlcli.products.labels import noise_facts, number, require_unique
from nmlcli.provenance import Record, canonical

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Listing:
    """N samples in order, as a source found them; fields as in Samples.

    source: the name for messages. sizes: bytes of each sample's file, int64 [N], or None. contents:
    hashes of packed files, or whatever else decides what the images are.
    """

    source: str
    ids: Sequence[str]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    read: "Callable[[int], Image]"
    sizes: NDArray[np.int64] | None = None
    contents: tuple[str, ...] = ()
    files: tuple[str | Path, ...] = ()
    texts: Sequence[str] | None = None
    paths: Sequence[str] | None = None
    read_many: "Callable[[NDArray[np.int64]], list[Image]] | None" = None
    domains: Sequence[str] | None = None
    clean_labels: NDArray[np.int64] | None = None
    noise: dict[str, Any] | None = None
    parents: tuple[Record, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "Listing":
        """The samples of these rows [M], in that order."""

        def of(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else [values[row] for row in rows]

        def at(values: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
            return None if values is None else values[rows]

        noise, labels, clean = self.noise, at(self.labels), at(self.clean_labels)
        if noise is not None and labels is not None:
            known_clean = labels if noise.get("flipped") == 0 else None
            counted_from = clean if clean is not None else known_clean
            noise = noise if counted_from is None else recount(noise, labels, counted_from)
        return replace(
            self,
            noise=noise,
            ids=of(self.ids) or [],
            labels=labels,
            clean_labels=clean,
            read=Selected(self.read, rows),
            read_many=self.read_many and SelectedMany(self.read_many, rows),
            sizes=at(self.sizes),
            texts=of(self.texts),
            paths=of(self.paths),
            domains=of(self.domains),
        )

    def samples(self, name: SetName) -> Samples:
        """Finish: check the ids, make the identity. Raises InvalidInput where two ids are equal."""
        check_ids(self.ids, self.source)
        return Samples(
            name=name,
            ids=self.ids,
            labels=self.labels,
            clean_labels=self.clean_labels,
            classes=self.classes,
            noise=self.noise,
            identity=self.identity(),
            files=self.files,
            read=self.read,
            parents=self.parents,
            texts=self.texts,
            paths=self.paths,
            read_many=self.read_many,
        )

    def identity(self) -> str:
        """A hash of ids, labels, classes, texts, file sizes and packed contents: 32 hex digits."""
        digest = hashlib.sha256()
        for part in (
            canonical(list(self.ids)).encode(),
            _bytes(self.labels),
            _bytes(self.clean_labels),
            canonical(self.classes).encode(),
            canonical(None if self.texts is None else list(self.texts)).encode(),
            _bytes(self.sizes),
            canonical(self.contents).encode(),
        ):
            digest.update(len(part).to_bytes(8, "little"))  # so that no two splits of bytes are alike
            digest.update(part)
        return digest.hexdigest()[:32]


_COUNTED = ("realised", "flipped", "of")  # of a noise, what depends on the samples selected


def recount(
    noise: Mapping[str, Any] | None, labels: NDArray[np.int64], clean_labels: NDArray[np.int64]
) -> dict[str, Any]:
    """What is known of a noise, with its extent counted anew for a selection of samples."""
    counted = noise_facts(None, None, labels, clean_labels, None)
    return {**counted, **(noise or {}), **{key: counted[key] for key in _COUNTED}}


@dataclass(frozen=True)
class Selected:
    """Reading by the rows of a selection."""

    read: "Callable[[int], Image]"
    rows: NDArray[np.int64]

    def __call__(self, index: int) -> "Image":
        return self.read(int(self.rows[index]))


@dataclass(frozen=True)
class SelectedMany:
    """Reading of many at once by the rows of a selection."""

    read_many: "Callable[[NDArray[np.int64]], list[Image]]"
    rows: NDArray[np.int64]

    def __call__(self, indices: NDArray[np.int64]) -> "list[Image]":
        return self.read_many(self.rows[indices])


def _bytes(numbers: NDArray[np.int64] | None) -> bytes:
    return b"" if numbers is None else np.ascontiguousarray(numbers, dtype="<i8").tobytes()


def check_ids(ids: Sequence[str], source: str) -> None:
    """Raise InvalidInput unless there are samples and each has its own id, which is UTF-8 text."""
    if not ids:
        raise InvalidInput(f"{source} holds no samples")
    require_unique(ids, source)
    try:
        "\n".join(ids).encode()
    except UnicodeEncodeError as error:
        broken = [ascii(name) for name in ids if not name.isprintable()]
        raise InvalidInput(f"{source}: names are not UTF-8 ({first(broken)})", "rename them") from error


def label_by_folder(
    parts: Sequence[tuple[str, ...]], source: str
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Labels from the class folder of each path, given in its parts: the first folder of the path.

    Flat paths have no labels. Raises InvalidInput where only some paths have a folder.
    """
    flat = ["/".join(path) for path in parts if len(path) == 1]
    if len(flat) == len(parts):
        return None, None
    if flat:
        raise InvalidInput(f"{source}: images lie outside the class folders ({first(flat)})")
    names = [path[0] for path in parts]
    classes = tuple(sorted(set(names)))
    return number(names, classes, source), classes


def ids_of_paths(paths: Sequence[str], parts: Sequence[str] | None = None) -> list[str]:
    """Ids from paths: without suffix; those that collide keep it, then get the name of their part."""
    ids = _told_apart([_without_suffix(path) for path in paths], paths)
    if parts is None:
        return ids
    return _told_apart(ids, [f"{part}/{path}" for part, path in zip(parts, paths, strict=True)])


def _told_apart(ids: Sequence[str], fuller: Sequence[str]) -> list[str]:
    """Ids that occur more than once replaced by fuller ones."""
    counts = Counter(ids)
    return [full if counts[name] > 1 else name for name, full in zip(ids, fuller, strict=True)]


def _without_suffix(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"
