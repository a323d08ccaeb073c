"""Folders: images below class folders, sorted by path; a flat folder is unlabelled."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nmlcli.data.images import image_reader, is_image
from nmlcli.data.listing import ids_of_paths, label_by_folder
from nmlcli.data.samples import Samples, SetName
from nmlcli.errors import InvalidInput


def list_folder(folder: str) -> Samples:
    """List a folder's images, links followed, hidden files left out.

    A class is the first folder of a path, as for torchvision's ImageFolder, and folders without
    images are none. The order is that of torchvision: by class, then by path.
    """
    found = sorted(_walk(Path(folder), (), ()))
    if not found:
        raise InvalidInput(f"{folder} holds no images", "give a folder of images or of class folders")
    parts = [path for path, _ in found]
    names = ["/".join(path) for path in parts]
    ids, (labels, classes) = ids_of_paths(names), label_by_folder(parts, folder)
    paths = [f"{folder.rstrip('/')}/{name}" for name in names]
    sizes = np.array([size for _, size in found], dtype=np.int64)
    images = image_reader(ids, paths, np.zeros_like(sizes), sizes)
    return Samples(
        SetName.of_path(folder), folder, ids, labels, classes, images, sizes, files=tuple(paths),
        paths=paths,
    )  # fmt: skip


def _walk(
    folder: Path, above: tuple[str, ...], seen: tuple[tuple[int, int], ...]
) -> Iterator[tuple[tuple[str, ...], int]]:
    """The parts of each image's path and its size; a link to a folder above is not followed."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen = (*seen, (status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _walk(folder / entry.name, (*above, entry.name), seen)
                elif is_image(entry.name):
                    yield (*above, entry.name), entry.stat().st_size
    except OSError as error:
        raise InvalidInput(f"{error.filename or folder} cannot be read ({error.strerror})") from error
