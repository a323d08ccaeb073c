"""Augmentations against slow transcriptions, and their keys."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from nmlcli import keyed
from nmlcli.errors import UsageError
from nmlcli.training.augmentation import AUGMENTATIONS, Draws, Geometry, Strength
from nmlcli.training.pixels import shift_and_flip

HASHES = keyed.hash_ids([f"sample {i}" for i in range(40)])
GEOMETRY = Geometry(24, "bicubic", (124, 116, 104))


def pictures(count=40, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def shifted(pixels, rows, epoch=0, hflip=0.5, seed=3):
    draws = Draws(HASHES, seed, epoch)
    return shift_and_flip(torch.from_numpy(pixels[rows]), rows, draws, hflip)


def test_a_shift_is_a_crop_of_the_image_with_a_reflected_border():
    pixels, rows = pictures(), np.arange(40)
    found = shifted(pixels, rows).permute(0, 2, 3, 1).numpy()
    offsets, flips = set(), 0
    for image, result in zip(pixels, found, strict=True):
        wide = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        fitting = [
            (down, across, flip)
            for down in range(9)
            for across in range(9)
            for flip in (False, True)
            if np.array_equal(
                wide[down : down + 32, across : across + 32][:, :: -1 if flip else 1], result
            )
        ]
        assert len(fitting) == 1
        offsets.add(fitting[0][:2])
        flips += fitting[0][2]
    assert len(offsets) > 20
    assert 10 <= flips <= 30


def test_a_shift_depends_on_sample_epoch_and_seed_alone():
    pixels, rows = pictures(), np.arange(40)
    whole = shifted(pixels, rows)
    some = np.array([17, 3, 39])
    assert torch.equal(shifted(pixels, some), whole[some])
    assert not torch.equal(shifted(pixels, rows, epoch=1), whole)
    assert not torch.equal(shifted(pixels, rows, seed=4), whole)
    assert whole.is_contiguous(memory_format=torch.channels_last)


def crop(image, index=0, epoch=0, **strength):
    draws = Draws(HASHES, 0, epoch)
    return AUGMENTATIONS["crop"].image(GEOMETRY, draws, Strength(**strength))(image, index)


def test_a_crop_of_everything_is_the_resized_image():
    image = Image.fromarray(pictures(1, 48)[0])
    strength = {"scale": 1.0, "hflip": 0.0}
    # a share of 1 fits only where the drawn shape is nearly square; else the whole middle is taken
    expected = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))
    whole = [np.array_equal(crop(image, i, **strength).permute(1, 2, 0), expected) for i in range(40)]
    assert all(whole)


def test_crops_are_keyed_and_leave_no_trace_on_shared_generators():
    image = Image.fromarray(pictures(1, 48)[0])
    strength = {"color_jitter": 0.4, "reprob": 0.5, "policy": "rand-m9-mstd0.5"}
    random.seed(1)
    first = [crop(image, i, **strength) for i in range(10)]
    random.seed(2)
    again = [crop(image, i, **strength) for i in reversed(range(10))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.numpy().tobytes() for a in first}) == 10
    assert not torch.equal(first[0], crop(image, 0, epoch=1, **strength))
    assert all(a.shape == (3, 24, 24) and a.dtype == torch.uint8 for a in first)


def test_erased_parts_have_the_mean_colour():
    image = Image.fromarray(np.full((48, 48, 3), 7, dtype=np.uint8))
    found = [crop(image, i, reprob=1.0).permute(1, 2, 0).numpy() for i in range(20)]
    shares = []
    for pixels in found:
        erased = (pixels == (124, 116, 104)).all(axis=2)
        assert ((pixels == 7).all(axis=2) | erased).all()
        shares.append(erased.mean())
    assert min(shares) > 0
    assert max(shares) < 0.36


def test_an_unknown_policy_is_named():
    with pytest.raises(UsageError, match="no augmentation policy 'rund-m9'"):
        crop(Image.new("RGB", (32, 32)), policy="rund-m9")


def test_a_shift_of_images_that_are_not_square_and_not_contiguous():
    tall = np.ascontiguousarray(pictures(6, 32)[:, :, :16])
    draws, rows = Draws(HASHES, 3, 0), np.arange(6)
    apart = torch.from_numpy(tall).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    found = shift_and_flip(apart, rows, draws, 0.5).permute(0, 2, 3, 1).numpy()
    for image, result in zip(tall, found, strict=True):
        wide = np.pad(image, ((4, 4), (2, 2), (0, 0)), mode="reflect")
        parts = [wide[y : y + 32, x : x + 16] for y in range(9) for x in range(5)]
        assert any(np.array_equal(part[:, ::turn], result) for part in parts for turn in (1, -1))
