"""`torchvision:NAME:SPLIT`: the sets of TORCHVISION as samples, read by torchvision's own classes."""

import io
import logging
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets as their_sets

from nmlcli import keyed
from nmlcli.data.images import image_reader
from nmlcli.data.listing import ids_of_paths
from nmlcli.data.packed import array_reader
from nmlcli.data.samples import Samples, SetName
from nmlcli.data.sources import SourceOptions
from nmlcli.data.torchvision_sets import TORCHVISION, TorchvisionSet
from nmlcli.errors import InvalidInput, NmlError, UsageError, first, meant
from nmlcli.products.labels import class_order, number
from nmlcli.provenance import hash_file

_log = logging.getLogger(__name__)
_DAMAGED: tuple[type[Exception], ...] = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, zlib.error,
)  # fmt: skip


def list_torchvision(spec: str, options: SourceOptions) -> Samples:
    """List a split of a set below options.data_dir, in torchvision's order of samples.

    Ids are paths without suffix, or `SPLIT/NUMBER` where the images are packed. Classes are named as
    torchvision names them, else by its numbers, and ordered as in every set (class_order), so that
    their numbers need not be torchvision's. DTD is split by its partition 1, Aircraft labelled by
    variant.

    Two sets have no split of their own; theirs is drawn by keys of the ids, class by class: of
    Caltech101 30 images a class are for training, of EuroSAT four fifths, the others for testing. So
    has the paper, but its Caltech101 keeps the background as a 102nd class, which torchvision leaves
    out: 3,030 and 5,647 samples here, 3,060 and 6,084 there.

    Raises UsageError for a name or split that is none; InvalidInput where files are missing, damaged
    or fewer than the set has; NmlError where a download fails or scipy is missing.
    """
    name, split = _parse(spec)
    row, base = TORCHVISION[name], Path(options.data_dir)
    files = [base / file.format(split=row.spelled.get(split, split)) for file in row.files]
    damaged = _DAMAGED + (_errors_of_scipy(spec) if row.scipy else ())
    parts = ("train", "val") if row.joined and split == "trainval" else (split,)
    if options.download and row.fetched:
        _fetch(spec, row, base, parts[0])
    _require(files, spec, row, base)  # torchvision takes a set whose folder is there for complete
    try:
        datasets = [_build(row, base, part) for part in parts]
        numbers = [int(label) for dataset in datasets for label in row.labels(dataset)]
        images = [row.images(dataset) for dataset in datasets]
        names = _class_names(datasets[0], numbers)
        named = [names[place] for place in numbers]
        if sum(map(len, images)) != len(numbers):
            raise ValueError(f"{sum(map(len, images))} images, {len(numbers)} labels")
    except damaged as error:
        why = str(error).partition(". You can use")[0]  # torchvision goes on about its own argument
        remedy = "remove its files and fetch them again"
        raise InvalidInput(f"{spec} in {base} cannot be read ({why})", remedy) from error
    classes = class_order(names)
    labels = number(named, classes, spec)
    samples = Samples(SetName(name, None, split), spec, [], labels, classes, lambda rows: [])
    if row.folder is None:
        samples = _with_pixels(samples, images[0], files)
    else:
        paths = [str(path) for part in images for path in part]
        samples = _with_files(samples, paths, base / row.folder)
    if row.training is not None:
        samples = samples.take(_split_by_key(samples, row.training, name, split))
    if len(samples) != row.splits[split]:
        wrong = f"{spec} has {len(samples)} samples in {base}, where {row.splits[split]} belong"
        raise InvalidInput(wrong, "remove its files and fetch them again")
    return samples


def _parse(spec: str) -> tuple[str, str]:
    """Name and split of `torchvision:NAME:SPLIT`. Raises UsageError, naming the choices."""
    name, _, split = spec.partition(":")[2].partition(":")
    if name not in TORCHVISION:
        raise UsageError(f"there is no set {name!r} of torchvision here", meant(name, TORCHVISION))
    if split not in TORCHVISION[name].splits:
        wrong = f"torchvision:{name} has no split {split}" if split else f"{spec} names no split"
        raise UsageError(wrong, f"choose {', '.join(TORCHVISION[name].splits)}")
    return name, split


def _require(files: list[Path], spec: str, row: TorchvisionSet, base: Path) -> None:
    missing = tuple(str(file.relative_to(base)) for file in files if not file.exists())
    if missing:
        fetch = " --download to fetch them," if row.fetched else ""
        remedy = f"give --data-dir,{fetch} or bring the files from {row.home}"
        verb = "is" if len(missing) == 1 else "are"
        raise InvalidInput(f"{spec}: {first(missing)} {verb} missing in {base}", remedy)


def _errors_of_scipy(spec: str) -> tuple[type[Exception], ...]:
    try:
        return (import_module("scipy.io.matlab").MatReadError,)
    except ImportError as error:
        raise NmlError(f"{spec} needs scipy, to read .mat files", "pip install scipy") from error


def _build(row: TorchvisionSet, base: Path, split: str, **download: bool) -> Any:
    """torchvision's own object for a split that it knows."""
    told = {"split": split, "train": split == "train"}
    arguments = {} if row.argument is None else {row.argument: told[row.argument]}
    return getattr(their_sets, row.builds)(str(base), **arguments, **download)


def _fetch(spec: str, row: TorchvisionSet, base: Path, split: str) -> None:
    """Let torchvision download what it does not find."""
    _log.info("looking for %s in %s, else downloading it", spec, base)
    try:
        with _apart():
            _build(row, base, split, download=True)
    except _DAMAGED as error:
        by_hand = f"bring the files from {row.home} into {base}"
        raise NmlError(f"{spec} cannot be downloaded ({error})", by_hand) from error


@contextmanager
def _apart() -> Iterator[None]:
    """Keep what torchvision shows of a download off stdout, and off stderr where nobody watches it."""
    watched = sys.stderr.isatty() and _log.isEnabledFor(logging.INFO)
    shown = sys.stderr if watched else io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown):
        yield


def _class_names(dataset: Any, numbers: list[int]) -> list[str]:
    """What torchvision calls its classes, in its numbering; without names, their numbers."""
    known = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    return list(known or map(str, range(max(numbers, default=-1) + 1)))


def _with_pixels(samples: Samples, pixels: Any, files: list[Path]) -> Samples:
    """Samples with images from an array uint8 [N, H, W, 3], which lies in these files."""
    split = samples.name.split
    ids = [f"{split}/{place:06d}" for place in range(len(pixels))]
    return replace(
        samples, ids=ids, images=array_reader(ids, pixels, samples.source), files=tuple(files),
        contents=tuple(hash_file(file) for file in files),
    )  # fmt: skip


def _with_files(samples: Samples, paths: list[str], folder: Path) -> Samples:
    """Samples with images from files [N], whose paths below folder are their ids."""
    ids = ids_of_paths([Path(path).relative_to(folder).as_posix() for path in paths])
    try:
        sizes = np.array([Path(path).stat().st_size for path in paths], dtype=np.int64)
    except OSError as error:
        wrong = f"{samples.source}: image {error.filename} cannot be read ({error.strerror})"
        raise InvalidInput(wrong, "remove the set's files and fetch them again") from error
    images = image_reader(ids, paths, np.zeros_like(sizes), sizes)
    return replace(samples, ids=ids, images=images, sizes=sizes, files=tuple(paths), paths=paths)


def _split_by_key(
    samples: Samples, training: Callable[[int], int], name: str, split: str
) -> NDArray[np.int64]:
    """The rows of a split of our own, int64 [M], ascending: of each class those with the lowest keys
    are for training."""
    keys = keyed.keys(keyed.hash_ids(samples.ids), 0, f"split of torchvision:{name}")
    chosen = np.zeros(len(samples), dtype=bool)
    for label in range(len(samples.classes or ())):
        rows = np.flatnonzero(samples.labels == label)
        chosen[rows[np.argsort(keys[rows], kind="stable")][: training(len(rows))]] = True
    return np.flatnonzero(chosen if split == "train" else ~chosen)
