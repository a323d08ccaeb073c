"""A classifier of timm and the labels that it learns."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmlcli.data.samples import Samples
from nmlcli.errors import InvalidInput
from nmlcli.models.networks import build
from nmlcli.models.precision import autocast, device
from nmlcli.models.preprocessing import of_timm, resized
from nmlcli.progress import Advance
from nmlcli.stages.feed import Feed, require_size
from nmlcli.training.distributed import Ranks
from nmlcli.training.loop import Piece
from nmlcli.training.objectives import Examples, Mixer, parts_of, supervised

if TYPE_CHECKING:
    from nmlcli.stages.pretrain_options import PretrainOptions

_BLOCK = 512  # images of a validation batch


class Classification:
    """A Lesson (stages/objectives.py): a loss of logits and labels."""

    def __init__(
        self, samples: Samples, validation: Samples | None, architecture: str,
        options: "PretrainOptions", ranks: Ranks,
    ) -> None:  # fmt: skip
        self.options, self.ranks, self.device = options, ranks, device()
        self.classes: tuple[str, ...] | None = samples.classes
        num_classes = len(samples.classes or ())
        module = build(architecture, num_classes, options.size, options.seed, options.drop_path)
        trained = of_timm(module, options.size)
        self.preprocessing = resized(trained, options.val_size)
        self.module = module.to(self.device)
        require_size(module, module, trained, options.val_size)
        self.module.to(memory_format=torch.channels_last)
        mixes = bool(options.mixup or options.cutmix)
        self.feed = Feed(
            samples, validation, (trained, self.preprocessing), options, ranks,
            device=self.device, even=mixes,
        )  # fmt: skip
        self.batch_size, self.steps = self.feed.batch_size, self.feed.steps
        self.mixer = Mixer(options.mixup, options.cutmix, num_classes, options.seed) if mixes else None
        self.labels = torch.from_numpy(np.asarray(samples.labels)).to(self.device)
        self.facts = {"name": architecture, "architecture": architecture}

    @staticmethod
    def check(samples: Samples, validates: bool = False) -> None:
        """Raise InvalidInput where a set cannot teach a classifier, or validate one."""
        if samples.labels is None or samples.classes is None:
            remedy = "lay some over it with --labels, or sort it into folders"
            remedy = "give --val a set with labels" if validates else remedy
            raise InvalidInput(f"{samples.name} has no labels", remedy)
        outside = (samples.labels < 0) | (samples.labels >= len(samples.classes))
        if outside.any():
            bad = int(np.argmax(outside))
            raise InvalidInput(
                f"{samples.name}: sample {samples.ids[bad]} has label {samples.labels[bad]},"
                f" outside the {len(samples.classes)} classes"
            )
        if not validates and (len(samples) < 2 or len(samples.classes) < 2):
            counts = f"{len(samples)} samples of {len(samples.classes)} classes"
            raise InvalidInput(f"{samples.name} has {counts}", "two of each are the least")

    def hold(self, advance: Advance) -> None:
        """Read pixels into memory, as far as they fit."""
        self.feed.hold(advance)

    def batches(self, epoch: int, step: int) -> Iterator[Examples]:
        """Images with their labels, or what mixing made of both."""
        for number, rows, images in self.feed.batches(epoch, step):
            labels = self.labels[torch.from_numpy(rows).to(self.device)]
            examples = Examples(images, labels, labels)
            yield examples if self.mixer is None else self.mixer(images, labels, number)

    def pieces(self, batch: Examples, wrapped: nn.Module) -> Iterator[Piece[Examples]]:
        """Parts of a batch, of up to micro_batch images; processes meet after the last of them."""
        whole = len(batch.images)
        count = parts_of(whole, self.options.micro_batch or whole)
        parts = zip(*(values.tensor_split(count) for values in batch), strict=True)
        for number, part in enumerate(map(Examples._make, parts), 1):
            share = len(part.images) / whole
            if number < count and self.ranks.size > 1:
                yield Piece(part, share, wrapped.no_sync())  # type: ignore[operator]
            else:
                yield Piece(part, share)

    def objective(self, wrapped: nn.Module) -> Callable[[Examples], dict[str, Tensor]]:
        """The loss of the logits."""
        return supervised(wrapped, self.options.label_smoothing, self.options.loss)

    def after_step(self) -> None:
        """Nothing else holds of the weights."""

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Cross-entropy and accuracy on the validation set, where there is one."""
        if self.feed.validation is None:
            return {}
        sums = np.zeros(3)  # of the loss, of right ones, of all
        labels = np.asarray(self.feed.validation.samples.labels)
        with torch.inference_mode(), autocast(self.options.precision, self.device):
            for rows, images in self.feed.validation_batches(_BLOCK):
                logits = module(images).float()
                wanted = torch.from_numpy(labels[rows]).to(self.device)
                loss = F.cross_entropy(logits, wanted, reduction="sum")
                sums += [float(loss), float((logits.argmax(1) == wanted).sum()), len(rows)]
        loss_, right, count = self.ranks.total(sums, self.device).tolist()
        return {"val_loss": loss_ / count, "val_accuracy": right / count}
