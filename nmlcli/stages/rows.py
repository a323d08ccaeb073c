"""Rows of features as they are computed: the samples of a set through a network, batch by batch."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmlcli import keyed
from nmlcli.data.loader import load_batches
from nmlcli.data.samples import Samples
from nmlcli.errors import NmlError
from nmlcli.models.extraction import ImageExtractor, TextExtractor
from nmlcli.products.features import FloatBlock
from nmlcli.progress import Advance
from nmlcli.stages.images import geometry_of
from nmlcli.stages.kept_rows import Blocks
from nmlcli.training.augmentation import AUGMENTATIONS, Draws, Strength

log = logging.getLogger(__name__)

# The views of the released code, by turns weak and strong: crops of 0.8-1 of the image, mirrored or
# not; the same with RandAugment(3, 5).
VIEWS = (Strength(scale=0.8), Strength(scale=0.8, policy="rand-m5-n3"))

WINDOW = 8  # batches of texts that are sorted by their lengths together
_REASONS = 10  # that are shown of samples that cannot be read


@dataclass
class Batching:
    """How samples are taken. size: at once, fewer where memory runs out and the size is not fixed.
    workers: threads that read ahead. skip: whether samples that cannot be read become rows of NaN."""

    size: int
    fixed: bool = True
    workers: int = 0
    skip: bool = False

    def through(self, encode: Callable[[Any], FloatBlock], batch: Any) -> FloatBlock:
        """A batch through the network, in as many parts as memory asks for. Raises NmlError where it
        runs out and the size is fixed."""
        parts: list[FloatBlock] = []
        start = 0
        while start < len(batch):
            try:
                parts.append(encode(batch[start : start + self.size]))
                start += len(parts[-1])
            except (MemoryError, RuntimeError) as error:
                self._halve(error, len(batch))
        return parts[0] if len(parts) == 1 else cast(FloatBlock, np.concatenate(parts))

    def _halve(self, error: Exception, tried: int) -> None:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error)):
            raise error
        tried = min(self.size, tried)
        if self.fixed or tried == 1:
            wrong = f"memory is too small for {tried} samples at once"
            raise NmlError(wrong, "give a smaller --batch-size, or auto") from error
        self.size = tried // 2
        log.info("memory is too small; it goes on with %d samples at once", self.size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Work:
    """What is to be computed of a set of N samples, from any row on, where another run ended.

    Blocks are of whole batches [≤ size, D], or of K views of each sample [≤ size, K, D]. advance: told
    of N rows of features, and of N more with views.
    """

    extractor: ImageExtractor | TextExtractor
    samples: Samples
    batching: Batching
    seed: int
    advance: Advance

    def features(self, start: int) -> Blocks:
        """The features of the evaluation transform, or of texts."""
        if isinstance(self.extractor, TextExtractor):
            return self._told(self._of_texts(self.extractor, start), start)
        return self._told(self._of_images(self.extractor, self.extractor.pixels, start, ()), start)

    def views(self, count: int, start: int) -> Blocks:
        """Those of count augmented views, drawn by sample and seed: even ones weak, odd ones strong."""
        extractor, crop = self.extractor, AUGMENTATIONS["crop"].image
        if not isinstance(extractor, ImageExtractor) or crop is None:
            raise ValueError("only images have views")
        geometry = geometry_of(extractor.preprocessing)
        hashes = keyed.hash_ids(self.samples.ids)
        changes = [
            crop(geometry, Draws(hashes, self.seed, view), VIEWS[view % len(VIEWS)])
            for view in range(count)
        ]

        def transform(image: Any, row: int) -> Tensor:
            return torch.stack([change(image, row) for change in changes])

        blocks = self._of_images(extractor, transform, start, (count,))
        return self._told(blocks, start + len(self.samples))

    def _of_images(
        self, extractor: ImageExtractor, transform: Any, start: int, views: tuple[int, ...]
    ) -> Blocks:
        size, stop = max(1, self.batching.size // math.prod(views)), len(self.samples)
        bad: list[tuple[int, str]] | None = [] if self.batching.skip else None

        def encode(images: Tensor) -> FloatBlock:  # [B, 3, H, W] or [B, K, 3, H, W]
            flat = extractor(images.flatten(0, -4))
            return flat.reshape(len(images), *views, extractor.columns)

        read = load_batches(
            self.samples, np.arange(start, stop), transform, size,
            workers=self.batching.workers, bad=bad,
        )  # fmt: skip
        runs = iter([np.arange(low, min(stop, low + size)) for low in range(start, stop, size)])
        for rows, images in read:
            block = self._checked(rows, self.batching.through(encode, images))
            yield from _up_to(runs, rows, block)
        for run in runs:
            yield np.full((len(run), *views, extractor.columns), np.nan, extractor.dtype)
        for _, why in (bad or [])[: 0 if views else _REASONS]:
            log.info("%s", why)

    def _of_texts(self, extractor: TextExtractor, start: int) -> Blocks:
        """Batches are of texts of about one length, so that little is spent on padding; the longest
        come first, so that memory that is too small shows at once."""
        samples = self.samples
        if samples.texts is None:
            raise ValueError("the set has no texts")
        window = WINDOW * self.batching.size
        for low in range(start, len(samples), window):
            some = slice(low, low + window)
            pairs = None if samples.texts2 is None else samples.texts2[some]
            tokens = extractor.tokenizer(samples.texts[some], pairs)
            order = np.argsort([-len(each) for each in tokens], kind="stable")
            found = self.batching.through(extractor, [tokens[row] for row in order])
            block = np.empty_like(found)
            block[order] = found
            yield self._checked(np.arange(low, low + len(block)), block)

    def _checked(self, rows: NDArray[np.int64], block: FloatBlock) -> FloatBlock:
        finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if not finite.all():
            wrong = f"the features of {self.samples.ids[rows[np.argmin(finite)]]} are not finite"
            remedy = "compute with --precision fp32 --dtype float32, or look at the weights"
            raise NmlError(wrong, remedy)
        return block

    def _told(self, blocks: Blocks, done: int) -> Blocks:
        for block in blocks:
            done += len(block)
            self.advance(done, None)
            yield block


def _up_to(runs: Iterator[NDArray[np.int64]], rows: NDArray[np.int64], block: FloatBlock) -> Blocks:
    """A block for each run of rows up to that of the given ones, NaN where a row is not given."""
    for run in runs:
        inside = bool(rows[0] <= run[-1])
        if inside and len(rows) == len(run):
            yield block
            return
        whole = np.full((len(run), *block.shape[1:]), np.nan, block.dtype)
        if inside:
            whole[rows - run[0]] = block
        yield whole
        if inside:
            return
