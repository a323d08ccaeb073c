"""Features out of a network: batches of samples to rows of numbers, on its device."""

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from nmlcli.allocator import keep_freed_memory
from nmlcli.models.precision import autocast, device
from nmlcli.models.preprocessing import Normalise, Pixels, Preprocessing
from nmlcli.models.schemes import Network, Tokenizer
from nmlcli.products.features import FloatBlock

_TIMED = 4  # images of which the time is taken


class _Extractor:
    """A network on its device. columns: the features' width D."""

    columns: int

    def __init__(self, network: Network, precision: str, dtype: str) -> None:
        keep_freed_memory()
        self.network, self.device, self.precision = network, device(), precision
        self.dtype = np.dtype(dtype)
        self.module = network.module.eval().to(self.device)

    def _encode(self, batch: Any, precision: str | None = None) -> FloatBlock:
        with torch.inference_mode(), autocast(precision or self.precision, self.device):
            features = self.network.encode(batch).float()
        block: FloatBlock = features.to(getattr(torch, self.dtype.name)).cpu().numpy()
        return block


class ImageExtractor(_Extractor):
    """Features of images. pixels: the transform of an image, to be done before."""

    takes = "images"

    def __init__(self, network: Network, precision: str, dtype: str) -> None:
        super().__init__(network, precision, dtype)
        self.preprocessing = cast(Preprocessing, network.preprocessing)
        self.module.to(memory_format=torch.channels_last)
        self.pixels = Pixels(self.preprocessing)
        self.normalise = Normalise(self.preprocessing, self.device)
        shape = (1, 3, self.preprocessing.size, self.preprocessing.size)
        self.columns = self(torch.zeros(shape, dtype=torch.uint8)).shape[1]

    def __call__(self, images: Tensor) -> FloatBlock:
        """uint8 [B, 3, H, W] to features [B, D] of the dtype."""
        return self._encode(self.normalise(images))

    def share_of_time(self, precision: str) -> float:
        """How long another precision takes, as a share of its own; measured on a few images."""
        shape = (_TIMED, 3, self.preprocessing.size, self.preprocessing.size)
        images, seconds = self.normalise(torch.zeros(shape, dtype=torch.uint8)), []
        for each in (precision, self.precision):
            self._encode(images[:1], each)  # the first is slow
            started = time.perf_counter()
            self._encode(images, each)
            seconds.append(time.perf_counter() - started)
        return seconds[0] / seconds[1]


class TextExtractor(_Extractor):
    """Features of texts. tokenizer: what makes tokens of them, to be done before."""

    takes = "texts"

    def __init__(self, network: Network, precision: str, dtype: str) -> None:
        super().__init__(network, precision, dtype)
        self.tokenizer = cast(Tokenizer, network.preprocessing)
        self.columns = self(self.tokenizer(["a"], None)).shape[1]

    def __call__(self, tokens: Sequence[Any]) -> FloatBlock:
        """The tokens of B texts to features [B, D] of the dtype."""
        batch = self.tokenizer.batch(tokens)
        return self._encode({name: each.to(self.device) for name, each in batch.items()})
