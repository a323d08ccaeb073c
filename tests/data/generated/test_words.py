"""What generated sets say that they show, against the pixels and against a plain table of colours."""

import colorsys
import itertools
from statistics import fmean

import numpy as np
import pytest

from nmlcli.data.generated import draw, shapes
from nmlcli.data.generated.menu import GENERATORS
from nmlcli.data.generated.words import HUES, WORDS, name_colours, with_article


def slowly(red: int, green: int, blue: int) -> set[str]:
    """The words that a colour may have, by colorsys: two on the border between hues."""
    high, low = max(red, green, blue), min(red, green, blue)
    if high - low < 48:
        return {("black", "grey", "white")[min((high + low) // 170, 2)]}
    hue = 360 * colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[0]
    away = {word: min(abs(hue - at), 360 - abs(hue - at)) for word, at in HUES.items()}
    words = {word for word, distance in away.items() if distance <= min(away.values()) + 2}
    if high < 160:
        words = {{"orange": "brown", "yellow": "olive"}.get(word, word) for word in words}
    return {"pink" if word == "red" and low >= 128 else word for word in words}


def test_colours_have_the_word_of_the_nearest_hue():
    grid = list(itertools.product(range(0, 256, 15), repeat=3))
    found = name_colours(np.array(grid, dtype=np.uint8))
    assert all(word in slowly(*colour) for word, colour in zip(found, grid, strict=True))
    assert set(found) == set(WORDS)
    sure = [(w, c) for w, c in zip(found, grid, strict=True) if len(slowly(*c)) == 1]
    assert len(sure) > 0.9 * len(grid)


@pytest.mark.parametrize(
    ("colour", "word"),
    [
        ((255, 0, 0), "red"), ((255, 128, 0), "orange"), ((255, 255, 0), "yellow"),
        ((0, 128, 0), "green"), ((0, 255, 255), "cyan"), ((0, 0, 255), "blue"),
        ((128, 0, 255), "purple"), ((255, 192, 203), "pink"), ((255, 20, 147), "pink"),
        ((139, 69, 19), "brown"), ((128, 128, 0), "olive"), ((128, 128, 128), "grey"),
        ((0, 0, 0), "black"), ((255, 255, 255), "white"), ((255, 0, 20), "red"), ((40, 0, 0), "black"),
    ],
)  # fmt: skip
def test_well_known_colours(colour, word):
    assert name_colours(np.array([colour], dtype=np.uint8)) == [word]


def test_articles():
    assert [with_article(word) for word in ("red star", "orange star", "arrow")] == [
        "a red star", "an orange star", "an arrow",
    ]  # fmt: skip


def parts(text):
    """The colour of the shape, the shape, the colour of the ground."""
    what, ground = text.split(" on ")
    return *what.split()[-2:], ground


@pytest.mark.parametrize(
    ("domain", "ink_right", "ground_right"),
    [("photo", 0.9, 0.8), ("noise", 0.8, 0.8), ("cartoon", 0.99, 0.95)],
)
def test_the_pixels_have_the_colours_that_are_told(domain, ink_right, ground_right):
    generator, rows = GENERATORS["shapes"], np.arange(200)
    images = generator.render_many("test", domain, rows)
    told = [parts(text) for text in generator.texts("test", domain, rows)]
    labels = generator.labels("test", rows)
    request = shapes.Request("shapes test", domain, rows, labels, 32)
    distance = shapes._shape(draw.Draws("shapes test", rows, 336), request)
    inks = [np.median(image[d < -0.03], axis=0) for image, d in zip(images, distance, strict=True)]
    grounds = [image[d > 0.04].mean(axis=0) for image, d in zip(images, distance, strict=True)]

    def right(colours, words):
        found = name_colours(np.array(colours).astype(np.uint8))
        return fmean(a == b for a, b in zip(found, words, strict=True))

    assert right(inks, [ink for ink, _, _ in told]) >= ink_right
    assert right(grounds, [ground for _, _, ground in told]) >= ground_right
    assert [name for _, name, _ in told] == [generator.classes[label] for label in labels]


def test_texts_of_the_first_images():
    def first(name, domain):
        return GENERATORS[name].texts("train", domain, np.arange(3))

    assert first("shapes", "photo") == [
        "a photo of a cyan hexagon on blue", "a photo of a black ring on grey",
        "a photo of a green semicircle on blue",
    ]  # fmt: skip
    assert first("shapes", None) == first("shapes", "photo")
    noisy = [text.replace("a photo", "a noisy photo") for text in first("shapes", "photo")]
    assert first("shapes", "noise") == noisy
    assert first("shapes", "sketch") == [
        "a sketch of a hexagon", "a sketch of a ring", "a sketch of a semicircle",
    ]  # fmt: skip
    label = GENERATORS["textures"].label("train", 1)
    assert first("textures", None)[1] == f"a texture of {GENERATORS['textures'].classes[label]}"
    assert first("glyphs", None) is None


def test_a_text_is_the_same_alone_and_in_any_order():
    generator, rows = GENERATORS["shapes"], np.arange(60)
    texts = generator.texts("val", "cartoon", rows)
    order = np.random.default_rng(0).permutation(rows)
    assert generator.texts("val", "cartoon", order) == [texts[row] for row in order]
    assert generator.texts("val", "cartoon", rows[:0]) == []
