"""What the augmentations do to pixels. Every draw is keyed by (seed, epoch, sample).

Images are prepared in threads, so nothing here draws from a generator that threads share, but for
the policies of timm, which take turns.
"""

import math
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from nmlcli import keyed
from nmlcli.errors import UsageError
from nmlcli.training.augmentation import Draws, Geometry, Strength

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

TURNS = threading.Lock()  # held by who uses the generators that random and numpy share

_ATTEMPTS = 10  # to find a box that lies within the image


def shift_and_flip(pixels: Tensor, rows: NDArray[np.int64], draws: Draws, hflip: float) -> Tensor:
    """Move images by up to an eighth of their size, mirrored at the border, and flip some of them.

    pixels: uint8 [B, H, W, 3] of the samples `rows` [B]. Returns uint8 [B, 3, H, W], channels last
    in memory: a crop of the image with a reflected border (He et al. 2016), for all at once.
    """
    hashes = draws.hashes[rows]
    count, height, width = pixels.shape[:3]

    def draw(what: str) -> keyed.Keys:
        return keyed.keys(hashes, draws.seed, f"{what} in epoch {draws.epoch}")

    def places(what: str, size: int) -> NDArray[np.int64]:
        reach = size // 8
        shifts = keyed.below(draw(what), 2 * reach + 1) - reach
        moved: NDArray[np.int64] = np.abs(np.arange(size) + shifts[:, None])  # [B, size]
        return np.minimum(moved, 2 * (size - 1) - moved)

    down, across = places("shift down", height), places("shift across", width)
    flipped = keyed.uniforms(draw("flip")) < hflip
    across[flipped] = across[flipped, ::-1]
    lines = np.arange(count)[:, None] * height + down  # [B, H], of all images
    # A pixel is taken as a whole; by numpy, which leaves torch's threads to the network.
    whole = pixels.contiguous().numpy().view("V3").reshape(-1)
    taken = whole.take(lines[:, :, None] * width + across[:, None]).view(np.uint8)
    return torch.from_numpy(taken.reshape(count, height, width, 3)).permute(0, 3, 1, 2)


class RandomCrops:
    """Random resized crops (Szegedy et al. 2015) with what else a Strength asks for."""

    def __init__(self, geometry: Geometry, draws: Draws, strength: Strength) -> None:
        self.keys = keyed.keys(draws.hashes, draws.seed, f"crop in epoch {draws.epoch}")
        self.geometry, self.strength = geometry, strength
        self.resample = Image.Resampling[geometry.interpolation.upper()]
        self.policy = _policy(strength.policy, geometry) if strength.policy else None

    def __call__(self, image: "Picture", index: int) -> Tensor:
        draw = random.Random(int(self.keys[index]))
        size, strength = self.geometry.size, self.strength
        box = _box(draw, image.height, image.width, (strength.scale, 1.0), (3 / 4, 4 / 3))
        top, left, height, width = box or _middle(image.height, image.width)
        part = image.crop((left, top, left + width, top + height)).resize((size, size), self.resample)
        if draw.random() < strength.hflip:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.policy is not None:
            with TURNS:
                random.seed(draw.getrandbits(32))
                np.random.seed(draw.getrandbits(32))
                part = self.policy(part)
        if strength.color_jitter:
            part = _jitter(draw, part, strength.color_jitter)
        pixels = np.array(part)
        if draw.random() < strength.reprob:
            _erase(draw, pixels, self.geometry.mean)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def _box(
    draw: random.Random, height: int, width: int, share: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int] | None:
    """A box (top, left, height, width) of a random share of the area and shape, if one fits."""
    for _ in range(_ATTEMPTS):
        area = height * width * draw.uniform(*share)
        wider = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * wider)), round(math.sqrt(area / wider))
        if 0 < w <= width and 0 < h <= height:
            return draw.randint(0, height - h), draw.randint(0, width - w), h, w
    return None


def _middle(height: int, width: int) -> tuple[int, int, int, int]:
    """The middle of an image that is very long, at most 4 to 3."""
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def _jitter(draw: random.Random, image: "Picture", by: float) -> "Picture":
    """Change brightness, contrast and saturation in a random order."""
    for change in draw.sample((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), 3):
        image = change(image).enhance(draw.uniform(max(0.0, 1 - by), 1 + by))
    return image


def _erase(draw: random.Random, pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> None:
    """Paint a box of 2 to 33 % of the area in the mean colour, which is 0 once normalised."""
    box = _box(draw, pixels.shape[0], pixels.shape[1], (0.02, 1 / 3), (0.3, 1 / 0.3))
    if box is not None:
        top, left, height, width = box
        pixels[top : top + height, left : left + width] = colour


def _policy(name: str, geometry: Geometry) -> "Callable[[Picture], Picture]":
    """A policy by timm's name for it. Raises UsageError where timm has none."""
    from timm.data import auto_augment as policies

    settings = {"translate_const": int(geometry.size * 0.45), "img_mean": geometry.mean}
    make = policies.auto_augment_transform
    if name.startswith("rand"):
        make = policies.rand_augment_transform
    elif name.startswith("augmix"):
        make, settings["translate_pct"] = policies.augment_and_mix_transform, 0.3
        del settings["translate_const"]
    try:
        policy: Callable[[Picture], Picture] = make(name, settings)
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        known = "try rand-m9-mstd0.5, original, v0 or augmix-m3-w3"
        raise UsageError(f"timm has no augmentation policy {name!r}", known) from error
    return policy
