"""Words for what the generated sets show: colours by name, articles."""

import numpy as np
from numpy.typing import NDArray

# Hues in degrees and the nearest of these to each, up to the middle between two.
HUES = {
    "red": 0, "orange": 30, "yellow": 60, "green": 120, "cyan": 180, "blue": 240, "purple": 280,
    "pink": 320,
}  # fmt: skip
WORDS = (*HUES, "brown", "olive", "black", "grey", "white")
_GREYISH = 48  # the largest difference between channels of what has no hue to speak of
_DIM = 160  # the brightest channel of an orange that is brown, of a yellow that is olive


def name_colours(colours: NDArray[np.uint8]) -> list[str]:
    """The word of WORDS for each colour, uint8 [N,3], by whole numbers alone.

    What has no hue to speak of is black, grey or white, by thirds of the sum of its darkest and its
    brightest channel. All else has the word of the nearest hue, but a dim orange is brown, a dim yellow
    olive, and a red with no channel below 128 pink.
    """
    red, green, blue = (colours[:, channel].astype(np.int64) for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    chroma = np.maximum(high - low, 1)
    of_green, of_blue = 120 + 60 * (blue - red) // chroma, 240 + 60 * (red - green) // chroma
    hue = np.where(high == green, of_green, of_blue)
    hue = np.where(high == red, 60 * (green - blue) // chroma, hue) % 360
    number, hues = np.zeros_like(hue), (*HUES.values(), 360)
    for place in range(1, len(hues)):
        nearer = 2 * hue >= hues[place - 1] + hues[place]
        number = np.where(nearer, place % len(HUES), number)
    for word, dim in (("orange", "brown"), ("yellow", "olive")):
        number = np.where((number == _number(word)) & (high < _DIM), _number(dim), number)
    number = np.where((number == _number("red")) & (low >= 128), _number("pink"), number)
    grey = _number("black") + np.minimum((high + low) // 170, 2)
    number = np.where(high - low < _GREYISH, grey, number)
    return [WORDS[place] for place in number.tolist()]


def _number(word: str) -> int:
    return WORDS.index(word)


def with_article(words: str) -> str:
    """`a red star`, `an orange star`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
