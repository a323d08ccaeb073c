"""Pixels and their normalisation, byte for byte those of timm."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from nmlcli.models.preprocessing import Normalise, Pixels, Preprocessing, resized

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("shape", [(32, 32), (40, 61), (20, 17)])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_an_image_becomes_what_timm_makes_of_it(shape, mode):
    values = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": mode,
    }
    preprocessing = Preprocessing(size=32, **values)
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = create_transform(input_size=(3, 32, 32), is_training=False, **values)(image)
    batch = Pixels(preprocessing)(image, 0)[None]
    assert batch.dtype == torch.uint8
    assert torch.equal(Normalise(preprocessing, torch.device("cpu"))(batch)[0], expected)


def test_small_images_are_not_cropped_at_another_size():
    own = Preprocessing(176, MEAN, STD, "bicubic", 0.875)
    assert resized(own, None) is own
    assert resized(own, 176) is own
    assert resized(own, 32) == Preprocessing(32, MEAN, STD, "bicubic", 1.0)
    assert resized(own, 224) == Preprocessing(224, MEAN, STD, "bicubic", 0.875)
