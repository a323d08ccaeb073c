"""A network of open_clip and the captions that it learns to match with images."""

import logging
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmlcli.data.loader import in_order
from nmlcli.data.samples import Samples
from nmlcli.errors import InvalidInput
from nmlcli.models.clip import build_clip
from nmlcli.models.precision import autocast, device
from nmlcli.models.preprocessing import resized
from nmlcli.progress import Advance
from nmlcli.stages.feed import Feed, require_size
from nmlcli.training.distributed import Ranks
from nmlcli.training.loop import Piece
from nmlcli.training.objectives import Pairs, contrastive

if TYPE_CHECKING:
    from nmlcli.stages.pretrain_options import PretrainOptions

log = logging.getLogger(__name__)

_MEMORY = 1 << 28  # bytes of tokens that are kept of one set
_HOTTEST = math.log(100)  # the largest logit scale, as in open_clip


class Matching:
    """A Lesson (stages/objectives.py): which caption is whose image's."""

    classes: tuple[str, ...] | None = None

    def __init__(
        self, samples: Samples, validation: Samples | None, architecture: str,
        options: "PretrainOptions", ranks: Ranks,
    ) -> None:  # fmt: skip
        self.options, self.ranks, self.device = options, ranks, device()
        network = build_clip(architecture, options.size, options.seed)
        self.module = network.module.to(self.device)
        self.module.to(memory_format=torch.channels_last)
        visual = cast(nn.Module, network.module.visual)
        require_size(visual, getattr(visual, "trunk", visual), network.preprocessing, options.val_size)
        self.preprocessing = resized(network.preprocessing, options.val_size)
        preprocessings = (network.preprocessing, self.preprocessing)
        self.feed = Feed(samples, validation, preprocessings, options, ranks, device=self.device)
        self.batch_size, self.steps = self.feed.batch_size, self.feed.steps
        self.captions = Captions(samples, network.tokenizer)
        self.validated = None if validation is None else Captions(validation, network.tokenizer)
        label = network.label
        self.facts: dict[str, Any] = {"name": label, "architecture": label, "config": network.config}

    @staticmethod
    def check(samples: Samples, validates: bool = False) -> None:
        """Raise InvalidInput where a set has no pairs of images and captions to tell apart."""
        if not samples.has_images:
            raise InvalidInput(f"{samples.name} has no images", "name their column with --image-column")
        if samples.texts is None:
            remedy = "lay some over it with --captions, or name a table's column with --text-column"
            remedy = "give --val a set with captions" if validates else remedy
            raise InvalidInput(f"{samples.name} has no captions", remedy)
        empty = sum(not text.strip() for text in samples.texts)
        if empty == len(samples):
            raise InvalidInput(f"{samples.name} has only empty captions")
        if empty:
            log.warning("%s: %d of %d captions are empty", samples.name, empty, len(samples))
        if len(samples) < 2:
            raise InvalidInput(f"{samples.name} has a single pair", "two are the least")
        for what, values in (("caption", samples.texts), ("image", samples.images_of())):
            if len({*values}) < 2:
                wrong = f"all pairs of {samples.name} have one {what}"
                raise InvalidInput(wrong, "there is nothing to tell apart")

    def hold(self, advance: Advance) -> None:
        """Read pixels into memory, as far as they fit."""
        self.feed.hold(advance)

    def batches(self, epoch: int, step: int) -> Iterator[Pairs]:
        """Images with the tokens of their captions, and what tells twins."""
        some = min(1, self.options.workers)
        ahead = in_order(self.captions.tokens, self.feed.rows(epoch, step), some)
        batches = self.feed.batches(epoch, step)
        for (_, rows, images), tokens in zip(batches, ahead, strict=True):
            yield self._pairs(self.captions, rows, images, tokens)

    def _pairs(
        self, captions: "Captions", rows: NDArray[np.int64], images: Tensor, tokens: Tensor
    ) -> Pairs:
        keys = torch.from_numpy(captions.keys[rows])
        return Pairs(images, tokens.to(self.device), keys.to(self.device))

    def pieces(self, batch: Pairs, wrapped: nn.Module) -> Iterator[Piece[Pairs]]:
        """The whole batch: its pairs are one another's negatives. See `contrastive` for micro_batch."""
        yield Piece(batch, 1.0)

    def objective(self, wrapped: nn.Module) -> Callable[[Pairs], dict[str, Tensor]]:
        """The contrastive loss over the pairs of all processes."""
        return contrastive(wrapped, self.ranks, self.options.micro_batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """The logit scale stays between 1 and 100."""
        cast(Tensor, self.module.logit_scale).clamp_(0, _HOTTEST)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """The contrastive loss, and how often an image's caption is found, among batches that are drawn
        from the validation set, where there is one."""
        if self.validated is None:
            return {}
        sums, alone = np.zeros(3), contrastive(module, Ranks(), self.options.micro_batch)
        with torch.inference_mode(), autocast(self.options.precision, self.device):
            for rows, images in self.feed.validation_batches(self.batch_size, drawn=True):
                tokens = self.validated.tokens(rows)
                values = alone(self._pairs(self.validated, rows, images, tokens))
                sums += len(rows) * np.array([float(values["loss"]), float(values["accuracy"]), 1.0])
        loss, right, count = self.ranks.total(sums, self.device).tolist()
        return {"val_loss": loss / count, "val_accuracy": right / count}


class Captions:
    """The captions of a set as tokens; keys: int64 [N, 2], what caption it is and of what image."""

    def __init__(self, samples: Samples, tokenizer: Any) -> None:
        self.texts, self.tokenizer = list(samples.texts or ()), tokenizer
        self.keys = np.stack([_numbered(self.texts), _numbered(samples.images_of())], axis=1)
        self._held: Tensor | None = None
        example = self._tokenised(self.texts[:1])
        if len(self.texts) * example[0].numel() * example.element_size() <= _MEMORY:
            parts = range(0, len(self.texts), 1024)
            self._held = torch.cat([self._tokenised(self.texts[i : i + 1024]) for i in parts])

    def tokens(self, rows: NDArray[np.int64]) -> Tensor:
        """int64 [B, T] of these rows [B]."""
        if self._held is None:
            return self._tokenised([self.texts[row] for row in rows.tolist()]).long()
        return self._held[torch.from_numpy(rows)].long()

    def _tokenised(self, texts: Sequence[str]) -> Tensor:
        tokens: Tensor = self.tokenizer.batch(self.tokenizer(texts, None))["tokens"]
        return tokens.int()


def _numbered(values: Sequence[Hashable]) -> NDArray[np.int64]:
    """A number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
