"""The images of a set as batches of pixels, for training and validation; small ones stay in memory."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmlcli import keyed
from nmlcli.data.loader import Batch, Finish, cached, cut, in_order, load_batches
from nmlcli.data.samples import Samples
from nmlcli.models.preprocessing import Pixels, Preprocessing
from nmlcli.progress import Advance
from nmlcli.training.augmentation import AUGMENTATIONS, Augmentation, Draws, Geometry, Strength

_MEMORY = 2 << 30  # bytes of pixels that are kept of one set


class Images:
    """A set behind a preprocessing. workers: threads that read ahead. holders: how many processes keep
    pixels of it in the same memory."""

    def __init__(
        self, samples: Samples, preprocessing: Preprocessing, workers: int, holders: int = 1
    ) -> None:
        self.memory = _MEMORY // holders
        self.samples, self.workers = samples, workers
        self.hashes, self.pixels = keyed.hash_ids(samples.ids), Pixels(preprocessing)
        self._held: NDArray[np.uint8] | None = None  # [N, S, S, 3]
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
            return load_batches(self.decoded, rows, transform, batch_size, workers=self.workers)

        def changed(part: NDArray[np.int64], pixels: Tensor) -> Tensor:  # [B, 3, S, S]
            if augmentation.batch is None:
                return pixels
            return augmentation.batch(pixels.permute(0, 2, 3, 1), part, draws, strength)

        return self._unchanged(rows, batch_size, changed)

    @cached_property
    def decoded(self) -> Samples:
        """The set with its decoded images in memory, as far as they fit."""
        return cached(self.samples, self.memory)

    def hold(self, advance: Advance) -> None:
        """Read all pixels into memory, if they fit there."""
        shape = (len(self.samples), self.geometry.size, self.geometry.size, 3)
        if np.prod(shape) > self.memory:
            return
        held = np.empty(shape, dtype=np.uint8)
        done = 0
        for _, pixels in self._unchanged(np.arange(shape[0]), 256):
            held[done : done + len(pixels)] = pixels.permute(0, 2, 3, 1).numpy()
            done += len(pixels)
            advance(done, shape[0], reading=str(self.samples.name))
        self._held = held

    def _unchanged(
        self, rows: NDArray[np.int64], batch_size: int, finish: Finish = lambda rows, images: images
    ) -> Iterator[Batch]:
        """Batches as in evaluation, and what finish makes of them."""
        held, workers = self._held, self.workers
        if held is None:
            return load_batches(
                self.samples, rows, self.pixels, batch_size, workers=workers, finish=finish
            )

        def taken(part: NDArray[np.int64]) -> Batch:
            return part, finish(part, torch.from_numpy(held[part]).permute(0, 3, 1, 2))

        return in_order(taken, cut(rows, batch_size), workers)


def geometry_of(preprocessing: Preprocessing) -> Geometry:
    """What training images become for a network that wants this preprocessing."""
    red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
    return Geometry(preprocessing.size, preprocessing.interpolation, (red, green, blue))
