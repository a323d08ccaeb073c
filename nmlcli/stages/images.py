"""The images of a set as batches of pixels, for training and validation; small ones stay in memory."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmlcli import keyed
from nmlcli.data.loader import Batch, cached, load_batches
from nmlcli.data.samples import Samples
from nmlcli.models.preprocessing import Pixels, Preprocessing
from nmlcli.progress import Advance
from nmlcli.training.augmentation import AUGMENTATIONS, Augmentation, Draws, Geometry, Strength

_MEMORY = 2 << 30  # bytes of pixels that are kept of one set


class Images:
    """A set behind a preprocessing. workers: threads that read ahead."""

    def __init__(self, samples: Samples, preprocessing: Preprocessing, workers: int) -> None:
        self.samples, self.workers = samples, workers
        self.hashes, self.pixels = keyed.hash_ids(samples.ids), Pixels(preprocessing)
        self._held: Tensor | None = None
        self.geometry = geometry_of(preprocessing)

    def batches(
        self,
        rows: NDArray[np.int64],
        batch_size: int,
        augmentation: Augmentation = AUGMENTATIONS["none"],
        strength: Strength | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> Iterator[Batch]:
        """Iterate over samples in the order of rows [M]: numbers [B], uint8 [B, 3, S, S]."""
        strength, draws = strength or Strength(), Draws(self.hashes, seed, epoch)
        if augmentation.image is not None:
            transform = augmentation.image(self.geometry, draws, strength)
            yield from load_batches(self.decoded, rows, transform, batch_size, workers=self.workers)
            return
        for part, pixels in self._unchanged(rows, batch_size):  # [B, S, S, 3]
            if augmentation.batch is not None:
                yield part, augmentation.batch(pixels, part, draws, strength)
            else:
                yield part, pixels.permute(0, 3, 1, 2)

    @cached_property
    def decoded(self) -> Samples:
        """The set with its decoded images in memory, as far as they fit."""
        return cached(self.samples, _MEMORY)

    def hold(self, advance: Advance) -> None:
        """Read all pixels into memory, if they fit there."""
        shape = (len(self.samples), self.geometry.size, self.geometry.size, 3)
        if np.prod(shape) > _MEMORY:
            return
        held = torch.empty(shape, dtype=torch.uint8)
        done = 0
        for _, pixels in self._unchanged(np.arange(shape[0]), 256):
            held[done : done + len(pixels)] = pixels
            done += len(pixels)
            advance(done, shape[0], reading=str(self.samples.name))
        self._held = held

    def _unchanged(self, rows: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        if self._held is None:
            loaded = load_batches(self.samples, rows, self.pixels, batch_size, workers=self.workers)
            yield from ((part, pixels.permute(0, 2, 3, 1)) for part, pixels in loaded)
            return
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield part, self._held[torch.from_numpy(part)]


def geometry_of(preprocessing: Preprocessing) -> Geometry:
    """What training images become for a network that wants this preprocessing."""
    red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
    return Geometry(preprocessing.size, preprocessing.interpolation, (red, green, blue))
