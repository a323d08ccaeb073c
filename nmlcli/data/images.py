"""Image files to RGB images: which files are images, and what is done to those that are not RGB."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nmlcli.errors import InvalidInput

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError)  # what Pillow's decoders raise
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


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
    """Decode the bytes of an image file as RGB, upright, whatever its suffix says.

    Only the formats that SUFFIXES stand for are tried. Of several pictures in a file (GIF, WebP, TIFF,
    MPO) the first is taken. Colour profiles are not applied, nor read. CMYK is taken for inverted, as
    Adobe writes it in a JPEG. Raises InvalidInput naming sample and file where there is no image,
    where a part of it is missing, and, before any pixel is decoded, where it has more than twice
    Image.MAX_IMAGE_PIXELS (179 million pixels).
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            image.load()
            return to_rgb(image)
    except UnidentifiedImageError as error:
        why = "it is no image" if data else "the file is empty"
        raise _unreadable(sample, source, why) from error
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(sample, source, str(error)) from error


def _unreadable(sample: str, source: str, why: str) -> InvalidInput:
    return InvalidInput(f"sample {sample} of {source} cannot be read ({why})", "mend or remove it")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB, upright.

    The orientation that a camera noted is applied; one that cannot be read is taken for upright. What
    is transparent becomes white. Sixteen-bit grey keeps its upper eight bits (Pillow alone would clip
    it to white), as Pillow does for sixteen-bit colour. Raises ValueError for floating-point images,
    which have no white.
    """
    orientation = _orientation(image)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
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


def _orientation(image: Image.Image) -> int | None:
    """What the camera noted, 1 to 8; ImageOps.exif_transpose would fail on notes that are damaged."""
    try:
        noted = image.getexif().get(0x0112)
    except _DAMAGED:
        return None
    return noted if isinstance(noted, int) else None
