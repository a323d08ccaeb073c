"""Image files to RGB images: which files are images, and what is done to those that are not RGB."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nmlcli.errors import InvalidInput

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError)  # what Pillow's decoders raise


def is_image(name: str) -> bool:
    """Whether a file is taken for an image: by its suffix, hidden files left out."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def image_reader(
    ids: Sequence[str], files: Sequence[str], offsets: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], list[Image.Image]]:
    """Reading of N images by their rows, each a whole file or a stretch of an archive.

    ids: of the samples [N]. files: where each lies [N]. offsets, sizes: its bytes there, int64 [N].
    """
    return lambda rows: [
        _read(ids[row], files[row], int(offsets[row]), int(sizes[row])) for row in rows
    ]


def _read(sample: str, file: str, offset: int, size: int) -> Image.Image:
    try:
        with Path(file).open("rb", buffering=0) as handle:
            handle.seek(offset)
            data = handle.read(size)
    except OSError as error:
        raise _unreadable(sample, file, str(error.strerror)) from error
    if len(data) < size:
        raise _unreadable(sample, file, "the file became shorter while it was in use")
    return decode(data, sample, file)


def decode(data: bytes, sample: str, source: str) -> Image.Image:
    """Decode the bytes of an image file as RGB, upright. Raises InvalidInput naming sample and file."""
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return to_rgb(image)
    except UnidentifiedImageError as error:
        raise _unreadable(sample, source, "it is no image") from error
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(sample, source, str(error)) from error


def _unreadable(sample: str, source: str, why: str) -> InvalidInput:
    return InvalidInput(f"sample {sample} of {source} cannot be read ({why})", "mend or remove it")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB, upright.

    The orientation that a camera noted is applied. What is transparent becomes white. Sixteen-bit
    grey keeps its upper eight bits (Pillow alone would clip it to white). Raises ValueError for
    floating-point images, which have no white.
    """
    if image.getexif().get(0x0112, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
