"""Captions exchanged: exactly as many become wrong as asked for, judged by the texts of the image."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput
from nmlcli.noise.captions import is_noisy
from nmlcli.noise.kinds import NOISES
from nmlcli.noise.terms import Request
from tests.noise.cases import captioned, digest, picked

KINDS = [kind for kind, noise in NOISES.items() if noise.captions]
FROZEN = {"swap": "a9949ec2dbadbc27", "cycle": "34b35933a57bb3de"}


def taken(kind, rows, ratio, seed=0):
    return NOISES[kind].change(rows, Request(Fraction(ratio), seed)).values


def count_noisy(texts, images, takes):
    """A slow recount: a row is noisy if its new text is none of the texts of its image."""
    true = {}
    for text, image in zip(texts, images, strict=True):
        true.setdefault(image, set()).add(text)
    return sum(texts[takes[row]] not in true[image] for row, image in enumerate(images))


def wanted(kind, count, ratio):
    ratio = Fraction(ratio)
    if kind == "swap":
        return min(2 * int(ratio * count / 2 + Fraction(1, 2)), 2 * (count // 2))
    return int(ratio * count + Fraction(1, 2))


def flickr(images, captions=5):
    """Some captions an image, one in ten the same for many images."""
    rng = np.random.default_rng(0)
    texts = [
        f"common {rng.integers(3)}" if rng.random() < 0.1 else f"image {image}, caption {number}"
        for image in range(images)
        for number in range(captions)
    ]
    return texts, [image for image in range(images) for _ in range(captions)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("captions", [1, 5])
@pytest.mark.parametrize("ratio", ["0.05", "0.2", "0.5", "0.9"])
def test_exactly_as_many_become_wrong_and_the_texts_stay_the_same_in_all(kind, captions, ratio):
    texts, images = flickr(2000 // captions, captions)

    takes = taken(kind, captioned(texts, images), ratio)

    assert count_noisy(texts, images, takes) == wanted(kind, len(texts), ratio)
    assert np.count_nonzero(takes != np.arange(len(texts))) == wanted(kind, len(texts), ratio)
    assert Counter(texts[row] for row in takes) == Counter(texts)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30),
    images=st.data(),
    ratio=st.sampled_from(["0", "0.2", "0.5", "0.8", "1"]),
    seed=st.integers(0, 9),
)
def test_whatever_the_texts_the_count_is_met_or_refused(kind, texts, images, ratio, seed):
    images = images.draw(st.lists(st.integers(0, 9), min_size=len(texts), max_size=len(texts)))
    try:
        takes = taken(kind, captioned(texts, images), ratio, seed)
    except InvalidInput:
        return

    assert count_noisy(texts, images, takes) == wanted(kind, len(texts), ratio)
    assert sorted(takes.tolist()) == list(range(len(texts)))


@pytest.mark.parametrize("share", [0.3, 0.49])
@pytest.mark.parametrize("kind", KINDS)
def test_one_text_on_nearly_half_of_the_rows(kind, share):
    texts = ["a photo"] * int(1000 * share) + [f"text {i}" for i in range(1000 - int(1000 * share))]

    for ratio in ("0.3", "1"):
        takes = taken(kind, captioned(texts), ratio)
        assert count_noisy(texts, range(1000), takes) == wanted(kind, 1000, ratio)


def test_one_text_on_more_than_half_of_the_rows_names_what_can_be_had():
    texts = ["a photo"] * 510 + [f"text {i}" for i in range(490)]

    takes = taken("swap", captioned(texts), "0.98")
    assert count_noisy(texts, range(1000), takes) == 980
    with pytest.raises(InvalidInput, match=r"980 can become wrong.*--ratio 0\.98 is the largest"):
        taken("swap", captioned(texts), "0.99")


def test_a_larger_ratio_only_adds_to_a_swap():
    texts, images = flickr(400)
    before = np.arange(2000)
    for ratio in ("0.05", "0.1", "0.3", "0.95"):
        larger = taken("swap", captioned(texts, images), ratio)
        changed = before != np.arange(2000)
        assert (larger[changed] == before[changed]).all()
        before = larger


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_does_not_matter(kind):
    texts, images = flickr(400)
    order = np.random.default_rng(1).permutation(2000)
    rows = captioned(texts, images)

    takes, shuffled = taken(kind, rows, "0.2"), taken(kind, picked(rows, order), "0.2")

    one = {row: texts[take] for row, take in enumerate(takes)}
    two = {order[place]: texts[order[take]] for place, take in enumerate(shuffled)}
    assert one == two


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_choose_independently(kind):
    rows = captioned([f"text {i}" for i in range(20_000)])
    first, second = (taken(kind, rows, "0.2", seed) != np.arange(20_000) for seed in (0, 1))

    assert abs((first & second).sum() - 800) < 5 * 800**0.5


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_text_are_left_out_but_counted(kind):
    texts = ["", "  "] * 50 + [f"text {i}" for i in range(900)]

    changed = NOISES[kind].change(captioned(texts), Request(Fraction("0.5")))

    moved = changed.values != np.arange(1000)
    assert moved.sum() == 500
    assert not moved[:100].any()
    assert changed.facts["empty"] == 100
    with pytest.raises(InvalidInput, match="900 can become wrong"):
        taken("swap", captioned(texts), "0.95")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["one"], "has 1 captions"),
        (["", "", "x"], "has 1 captions"),
        (["same"] * 9, "all captions are equal"),
    ],
)
def test_what_cannot_be_exchanged(kind, texts, message):
    with pytest.raises(InvalidInput, match=message):
        taken(kind, captioned(texts), "0.5")


def test_captions_of_one_image_cannot_be_exchanged():
    with pytest.raises(InvalidInput, match="captions 0 can become wrong"):
        taken("swap", captioned(["a", "b", "c", "d"], [0, 0, 0, 0]), "0.5")


def test_a_circle_of_one_is_none():
    with pytest.raises(InvalidInput, match="one caption alone"):
        taken("cycle", captioned([f"text {i}" for i in range(10)]), "0.1")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_noisy_is_what_is_no_true_text_of_the_image(rows):
    groups, truths, values = (np.array(column) for column in zip(*rows, strict=True))
    true = {(image, text) for image, text, _ in rows}

    found = is_noisy(values, groups, truths)

    assert found.tolist() == [(image, text) not in true for image, _, text in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_known_answer(kind):
    texts, images = flickr(200)
    assert digest(taken(kind, captioned(texts, images), "0.3")) == FROZEN[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_on_nearly_half_of_many_rows_is_mended_in_time(kind):
    texts = ["a photo"] * 19_960 + [f"text {i}" for i in range(20_040)]
    takes = taken(kind, captioned(texts), "0.9")
    assert count_noisy(texts, range(40_000), takes) == 36_000


def test_the_row_left_of_an_odd_number_helps_out():
    texts = list("abbabba")
    takes = taken("swap", captioned(texts), "0.86")
    assert count_noisy(texts, range(7), takes) == 6


def test_pairs_are_mended_one_by_one_where_distance_does_not_help(monkeypatch):
    texts = ["a photo"] * 450 + [f"text {i}" for i in range(550)]
    monkeypatch.setattr("nmlcli.noise.captions._ROUNDS", 0)
    takes = taken("swap", captioned(texts), "1")
    assert count_noisy(texts, range(1000), takes) == 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [["same"] * 5, ["one"]])
def test_no_noise_is_no_exchange_whatever_the_captions(kind, texts):
    assert taken(kind, captioned(texts), "0").tolist() == list(range(len(texts)))
