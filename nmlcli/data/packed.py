"""Packed images: an HDF5 file with `images` uint8 [N,H,W,3], and optionally labels, classes and ids."""

from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nmlcli.data.samples import Samples, SetName
from nmlcli.errors import InvalidInput
from nmlcli.products.container import require
from nmlcli.products.formats import check_exists
from nmlcli.products.hdf5 import Hdf5File
from nmlcli.products.ids import read_ids
from nmlcli.products.labels import class_order, number
from nmlcli.provenance import hash_file


def list_packed(path: str) -> Samples:
    """List the rows of a packed file.

    labels: whole numbers or texts [N]; with classes, texts [C], numbers are places in it, else they are
    names themselves. ids: texts [N] or as in products, else row numbers. Raises InvalidInput where an
    array is missing, of another form, or damaged.
    """
    file = Hdf5File(str(check_exists(path)))
    rows = require(file, "images", ("uint8",), (None, None, None, 3)).shape[0]
    next(file.blocks("images", 1), None)  # checks that the images are all there
    arrays = file.arrays(("labels", "classes", "ids", "ids_offsets", "ids_bytes"))
    for name in ("labels", "ids"):
        if name in arrays and arrays[name].shape != (rows,):
            raise InvalidInput(f"{path}: {name} are {list(arrays[name].shape)}, images {rows}")
    ids = _texts(arrays["ids"], path) if "ids" in arrays else read_ids(file, arrays, rows)
    labels, classes = _labels(arrays, path)
    images = array_reader(ids, h5py.File(path, "r", locking=False)["images"], path)
    return Samples(
        SetName.of_path(path), path, ids, labels, classes, images, contents=(hash_file(path),),
        files=(path,),
    )  # fmt: skip


def array_reader(
    ids: Sequence[str], pixels: Any, source: str
) -> Callable[[NDArray[np.int64]], list[Image.Image]]:
    """Reading of N images by their rows from an array uint8 [N, H, W, 3], in memory or in a file."""

    def read(row: int) -> Image.Image:
        try:
            return Image.fromarray(pixels[row])
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise InvalidInput(f"sample {ids[row]} of {source} cannot be read ({error})") from error

    return lambda rows: [read(row) for row in rows]


def _labels(
    arrays: dict[str, Any], path: str
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    if "labels" not in arrays:
        return None, None
    names = _texts(arrays["labels"], path)
    if "classes" not in arrays:
        classes = class_order(names)
        return number(names, classes, path), classes
    classes = tuple(_texts(arrays["classes"], path))
    if len(set(classes)) < len(classes):
        raise InvalidInput(f"{path}: a class is named twice")
    if arrays["labels"].dtype.kind == "S":
        return number(names, classes, path), classes
    return number(names, [str(place) for place in range(len(classes))], path), classes


def _texts(values: NDArray[Any], path: str) -> list[str]:
    """Texts and whole numbers as texts."""
    if values.dtype.kind not in "iuS":
        raise InvalidInput(
            f"{path}: labels, classes or ids are {values.dtype}, not texts or whole numbers"
        )
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: labels, classes or ids are not UTF-8") from error
