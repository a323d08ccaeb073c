"""The batches of a training: which samples are in which, and this process's part of each as pixels."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmlcli import keyed
from nmlcli.data.samples import Samples
from nmlcli.errors import UsageError
from nmlcli.models.preprocessing import SMALL, Normalise, Preprocessing
from nmlcli.progress import Advance
from nmlcli.stages.images import Images
from nmlcli.training.augmentation import AUGMENTATIONS, Draws
from nmlcli.training.distributed import Ranks

if TYPE_CHECKING:
    from nmlcli.stages.pretrain_options import PretrainOptions


class Feed:
    """Batches of a set, in an order that is keyed by seed and epoch, and of its validation set.

    preprocessing: of the training set and of the validation set. even: batches of pairs.
    batch_size, part: images of a batch, and the rows of it that are this process's.
    """

    def __init__(
        self, samples: Samples, validation: Samples | None,
        preprocessing: tuple[Preprocessing, Preprocessing], options: "PretrainOptions", ranks: Ranks,
        *, device: torch.device, even: bool = False,
    ) -> None:  # fmt: skip
        self.options, self.ranks, self.device = options, ranks, device
        unit = ranks.size * (2 if even else 1)  # a smaller set is one batch
        self.batch_size = min(options.batch_size, len(samples) - len(samples) % unit)
        self.part = ranks.part(self.batch_size)
        if even and (self.part.stop - self.part.start) % 2:
            wrong = f"mixup takes pairs, and {ranks.size} processes share a batch of {self.batch_size}"
            raise UsageError(wrong, f"give a --batch-size that {unit} divides")
        self.steps = len(samples) // self.batch_size  # what is left over differs every epoch
        self.normalise = Normalise(preprocessing[0], device)
        self.images = Images(samples, preprocessing[0], options.workers, ranks.beside)
        self.validation = None
        if validation is not None:
            self.validation = Images(validation, preprocessing[1], options.workers, ranks.beside)
        name = options.augment or ("shift" if preprocessing[0].size <= SMALL else "crop")
        self.augmentation = AUGMENTATIONS[name]
        if self.augmentation.image is None and (without := options.crops()):
            wrong = f"the augmentation {name} does not do what {without} asks for"
            raise UsageError(wrong, f"add --augment crop, or leave out {without}")
        if self.augmentation.image is not None:
            # An unknown policy is found here, before the state of an earlier training is replaced.
            nobody = Draws(self.images.hashes[:0], options.seed, 0)
            self.augmentation.image(self.images.geometry, nobody, options.strength)

    def hold(self, advance: Advance) -> None:
        """Read pixels into memory, as far as they fit and stay the same in every epoch."""
        if self.augmentation.image is None:
            self.images.hold(advance)
        if self.validation is not None:
            self.validation.hold(advance)

    def rows(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples of this process in the batches of an epoch from a step on, [steps, b]."""
        size = self.batch_size
        draw = f"order of epoch {epoch}"
        order = keyed.permutation(len(self.images.samples), self.options.seed, draw)
        left = order[(step - epoch * self.steps) * size : self.steps * size]
        return left.reshape(-1, size)[:, self.part]

    def batches(self, epoch: int, step: int) -> Iterator[tuple[int, NDArray[np.int64], Tensor]]:
        """Steps, counted over all epochs, rows [b] and normalised images [b, 3, S, S] of an epoch."""
        options, own = self.options, self.rows(epoch, step)
        how = (self.augmentation, options.strength, options.seed, epoch)
        for rows, pixels in self.images.batches(own.reshape(-1), own.shape[1], *how):
            images = self.normalise(pixels)
            apart = f" in process {self.ranks.rank}" if self.ranks.rank else ""
            torch.manual_seed(keyed.scalar(options.seed, f"step {step}{apart}"))  # dropout and its kin
            yield step, rows, images
            step += 1

    def validation_batches(
        self, size: int, *, drawn: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """This process's batches of the validation set: every sample is in one of one process.

        Of up to `size` images, and alike but for a few; drawn: by the seed, in the same way after each
        epoch, not as the samples come.
        """
        if self.validation is None:
            return
        count = len(self.validation.samples)
        size = -(-count // -(-count // size))
        order = np.arange(count)
        if drawn:
            order = keyed.permutation(count, self.options.seed, "order of the validation set")
        starts = range(self.ranks.rank * size, count, self.ranks.size * size)
        rows = [order[start : start + size] for start in starts]
        own = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
        for found, pixels in self.validation.batches(own, size):
            yield found, self.normalise(pixels)


def require_size(
    forward: Callable[[Tensor], Any], module: nn.Module, trained: Preprocessing, size: int | None
) -> None:
    """Raise UsageError where a network that is trained at one size cannot be used at another.

    forward: its tower for images. module: what timm may say has a fixed size; its weights depend on it.
    """
    if size in (None, trained.size):
        return
    config = getattr(module, "pretrained_cfg", None) or {}
    wrong = f"the network takes no images of {size} pixels after a training at {trained.size}"
    remedy = "leave out --val-size"
    if config.get("fixed_input_size"):
        raise UsageError(wrong, remedy)
    device = next(module.parameters()).device
    module.eval()
    try:
        with torch.inference_mode():
            forward(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(wrong, remedy) from error
