"""Contact sheets: some images of each class on one picture, drawn with Pillow alone."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nmlcli.data.samples import Samples
from nmlcli.progress import Advance, silent

MOST = 100  # rows of a sheet; a picture of thousands of classes shows nothing

_GAP = 2  # pixels between images
_WRONG = (220, 30, 30)  # the frame of a sample whose label is not its clean label


def contact_sheet(
    samples: Samples, columns: int = 10, size: int = 64, advance: Advance = silent
) -> Image.Image:
    """A row a class, with its name and the first images of that label, each fitted into a square.

    columns: images a row. size: pixels of a square's side. Without labels, ten rows in order. A sample
    whose label is known to be wrong has a red frame. Classes beyond MOST are left out.
    """
    rows = _rows(samples, columns)
    labels, clean = samples.labels, samples.clean_labels
    wrong = np.zeros(len(samples), bool) if labels is None or clean is None else labels != clean
    font = ImageFont.load_default(max(10, min(16, size // 4)))
    margin = max((int(font.getlength(name)) for name, _ in rows), default=0)
    margin += 10 if margin else 0
    step = size + 2 * _GAP
    sheet = Image.new("RGB", (margin + columns * step, max(1, len(rows)) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, members) in enumerate(rows):
        draw.text((4, place * step + step // 2), name, fill="black", font=font, anchor="lm")
        for column, (row, image) in enumerate(zip(members, samples.images(members), strict=True)):
            corner = (margin + column * step, place * step)
            if wrong[row]:
                draw.rectangle((*corner, corner[0] + step - 1, corner[1] + step - 1), fill=_WRONG)
            fitted = _fit(image, size)
            offset = [_GAP + (size - side) // 2 for side in fitted.size]
            sheet.paste(fitted, (corner[0] + offset[0], corner[1] + offset[1]))
        advance(place + 1, len(rows))
    return sheet


def _rows(samples: Samples, columns: int) -> list[tuple[str, NDArray[np.int64]]]:
    if samples.labels is None or samples.classes is None:
        everything = np.arange(min(len(samples), 10 * columns))
        return [("", everything[i : i + columns]) for i in range(0, len(everything), columns)]
    return [
        (name, np.flatnonzero(samples.labels == label)[:columns])
        for label, name in enumerate(samples.classes[:MOST])
    ]


def _fit(image: Image.Image, size: int) -> Image.Image:
    """The whole image within a square: small ones enlarged by whole pixels, large ones reduced."""
    longest = max(image.size)
    if longest <= size:
        times = size // longest
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
