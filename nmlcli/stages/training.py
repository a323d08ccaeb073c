"""A supervised training from its first epoch to its last, between reading the set and writing."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nmlcli import keyed
from nmlcli.data.samples import Samples
from nmlcli.errors import NmlError, UsageError
from nmlcli.models.networks import build
from nmlcli.models.precision import PRECISIONS, autocast, device
from nmlcli.models.preprocessing import SMALL, Normalise, of_timm
from nmlcli.progress import Advance
from nmlcli.stages.images import Images
from nmlcli.training.augmentation import AUGMENTATIONS, Strength
from nmlcli.training.loop import Progress, fit
from nmlcli.training.objectives import Examples, Mixer, supervised
from nmlcli.training.optim import timm_optimiser, timm_schedule
from nmlcli.training.state import Keeper, Stateful, States, check_finite

if TYPE_CHECKING:
    from nmlcli.stages.pretrain import PretrainOptions

log = logging.getLogger(__name__)

Measured = dict[str, float]


class Training:
    """A network, what it learns from and how. All randomness is keyed by the seed and by the epoch,
    step or sample, so that a training that goes on from a saved state ends in the same bytes."""

    def __init__(
        self,
        samples: Samples,
        validation: Samples | None,
        architecture: str,
        options: "PretrainOptions",
    ) -> None:
        self.options, self.device = options, device()
        num_classes = len(samples.classes or ())
        module = build(architecture, num_classes, options.size, options.seed)
        self.preprocessing = of_timm(module, options.size)
        self.module = module.to(self.device)
        self.module.to(memory_format=torch.channels_last)
        self.batch_size, self.mixer = min(options.batch_size, len(samples)), None
        if options.mixup or options.cutmix:  # of pairs
            self.batch_size -= self.batch_size % 2
            self.mixer = Mixer(options.mixup, options.cutmix, num_classes, options.seed)
        self.steps = len(samples) // self.batch_size  # what is left over differs every epoch
        self.progress = Progress(self.device)
        self.normalise = Normalise(self.preprocessing, self.device)
        self.images = Images(samples, self.preprocessing, options.workers)
        self.labels = torch.from_numpy(np.asarray(samples.labels)).to(self.device)
        self.validation = None
        if validation is not None:
            self.validation = Images(validation, self.preprocessing, options.workers)
        small = self.preprocessing.size <= SMALL
        name = options.augment or ("shift" if small else "crop")
        self.augmentation = AUGMENTATIONS[name]
        if self.augmentation.image is None and options.strength != Strength(
            hflip=options.strength.hflip
        ):
            wrong = f"the augmentation {name} neither crops, colours nor erases"
            raise UsageError(wrong, "add --augment crop")
        self.average: Any = None  # of the weights; it follows more closely over the first steps
        if options.ema is not None:
            from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

            self.average = ModelEmaV3(self.module, decay=options.ema, use_warmup=True)

    @property
    def kept(self) -> torch.nn.Module:
        """The network whose weights are kept: the average where there is one."""
        return self.module if self.average is None else self.average.module

    def weights(self) -> dict[str, Tensor]:
        """The state dict, under timm's names. Raises NotFinite where the last step broke it."""
        state = dict(self.kept.state_dict())
        check_finite(state, "the last step")
        return state

    def run(self, identity: str, state: Path | None, advance: Advance) -> Measured:
        """Train; returns the last epoch's loss and accuracies. state: the file to go on from."""
        options, epochs = self.options, self.options.epochs
        settings = (options.opt, options.rate, options.weight_decay, options.momentum)
        optimiser = timm_optimiser(self.module, *settings)
        schedule = timm_schedule(optimiser, options.sched, epochs, self.steps, options.warmup_epochs)
        scaled = PRECISIONS[options.precision].scaled
        scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        parts: dict[str, Stateful] = {"network": self.module, "optimiser": optimiser}
        parts |= {"scaler": scaler} if scaled else {}
        parts |= {"average": self.average} if self.average is not None else {}
        keeper = self._keeper(identity, state, parts)
        if self.augmentation.image is None:
            self.images.hold(advance)
        if self.validation is not None:
            self.validation.hold(advance)
        record = self._log(identity)
        shown: Measured = {}

        def after_epoch(epoch: int, means: Measured) -> None:
            record.stop()
            means |= self.validate()
            record.write(epoch + 1, optimiser.param_groups[0]["lr"], means)
            shown.update(means)

        def show(done: int, total: int | None, **values: float | str) -> None:
            epoch = f"{min((done - 1) // self.steps + 1, epochs)}/{epochs}"
            after = {name: shown[name] for name in ("val_accuracy",) if name in shown}
            images = self.batch_size * np.array([done, total])
            advance(int(images[0]), int(images[1]), epoch=epoch, **values, **after)

        with keeper.keeping() if keeper else nullcontext():
            fit(
                supervised(self.module, options.label_smoothing), self._batches, optimiser,
                schedule=schedule, epochs=epochs, steps_per_epoch=self.steps, progress=self.progress,
                autocast=autocast(options.precision, self.device), scaler=scaler, clip=options.clip,
                around_step=keeper.step if keeper else nullcontext, after_step=self._after_step,
                after_epoch=after_epoch, advance=show,
            )  # fmt: skip
        return shown

    def _keeper(self, identity: str, state: Path | None, parts: dict[str, Stateful]) -> Keeper | None:
        """What saves this training; it has taken up the state that there is, if it is to be resumed."""
        if state is None:
            return None
        every = 60 * self.options.save_every
        keeper = Keeper(States(state, identity), parts, self.progress, self.steps, every)
        keeper.start(self.options.resume)
        return keeper

    def _log(self, identity: str) -> "EpochLog":
        """The log, from the epoch on that this training is in."""
        epoch, size = self.progress.epoch(self.steps), self.batch_size
        done = self.progress.step - epoch * self.steps
        return EpochLog(
            self.options.log, identity, epoch, (self.steps - done) * size, self.steps * size
        )

    def _batches(self, epoch: int) -> Iterator[Examples]:
        self.module.train()
        options, size, first = self.options, self.batch_size, self.progress.step
        order = keyed.permutation(len(self.labels), options.seed, f"order of epoch {epoch}")
        left = order[(first - epoch * self.steps) * size : self.steps * size]
        how = (self.augmentation, options.strength, options.seed, epoch)
        for step, (rows, pixels) in enumerate(self.images.batches(left, size, *how), start=first):
            images = self.normalise(pixels)
            labels = self.labels[torch.from_numpy(rows).to(self.device)]
            examples = Examples(images, labels, labels)
            if self.mixer is not None:
                examples = self.mixer(images, labels, step)
            torch.manual_seed(keyed.scalar(options.seed, f"step {step}"))  # dropout and its kin
            yield examples

    def _after_step(self, step: int) -> None:
        if self.average is not None:
            self.average.update(self.module, step=step + 1)

    def validate(self) -> Measured:
        """Loss and accuracy on the validation set, where there is one."""
        if self.validation is None:
            return {}
        module, correct, loss = self.kept, 0, 0.0
        labels = np.asarray(self.validation.samples.labels)
        module.eval()
        with torch.inference_mode(), autocast(self.options.precision, self.device):
            for rows, pixels in self.validation.batches(np.arange(len(labels)), 512):
                logits = module(self.normalise(pixels)).float()
                wanted = torch.from_numpy(labels[rows]).to(self.device)
                correct += int((logits.argmax(1) == wanted).sum())
                loss += float(F.cross_entropy(logits, wanted, reduction="sum"))
        return {"val_loss": loss / len(labels), "val_accuracy": correct / len(labels)}


class EpochLog:
    """A JSON line for each epoch, on the disk before the next one begins. Lines of epochs that are run
    again are dropped. images: of an epoch; left: of those, what is left of the first one."""

    def __init__(self, name: str | None, identity: str, start: int, left: int, images: int) -> None:
        self.path = None if name is None else Path(name)
        self.facts = {"kind": "epoch", "backbone_identity": identity}
        self.images, self.left = images, left
        self.since, self.seconds = time.monotonic(), 0.0
        if self.path is None:
            return
        try:
            lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
            self.path.touch()
            if len(lines) > start:
                os.truncate(self.path, sum(map(len, lines[:start])))
        except OSError as error:
            raise NmlError(f"cannot write the log {self.path}: {error}") from error

    def stop(self) -> None:
        """The epoch's training is over; what comes now until the next one is not its time."""
        self.seconds = time.monotonic() - self.since

    def write(self, epoch: int, lr: float, means: Measured) -> None:
        """Append the line of an epoch, counted from 1, with its speed."""
        speed = round(self.left / self.seconds, 1)
        values = {"images_per_second": speed, "seconds": round(self.seconds, 3)}
        line = json.dumps({**self.facts, "epoch": epoch, **means, "lr": lr, **values})
        log.debug("epoch %d: %s", epoch, line)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(line + "\n")
                file.flush()
                if self.path.is_file():  # no pipe
                    os.fsync(file.fileno())
        self.left, self.since = self.images, time.monotonic()
