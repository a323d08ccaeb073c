"""A training from its first epoch to its last, between reading the set and writing the network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from nmlcli.errors import UsageError
from nmlcli.models.hub import brief
from nmlcli.models.precision import PRECISIONS, autocast, device
from nmlcli.progress import Advance, silent
from nmlcli.stages.epoch_log import EpochLog
from nmlcli.stages.objectives import Lesson
from nmlcli.training.distributed import Ranks
from nmlcli.training.loop import Progress, fit
from nmlcli.training.objectives import batch_norms, parts_of
from nmlcli.training.optim import timm_optimiser, timm_schedule
from nmlcli.training.state import Crew, Keeper, Stateful, States, check_finite

if TYPE_CHECKING:
    from nmlcli.stages.pretrain_options import PretrainOptions

Measured = dict[str, float]


class Training:
    """A lesson and how it is learned, by one process or several. All randomness is keyed by the seed
    and by the epoch, step or sample, so that a training that goes on from a saved state ends in the
    same bytes."""

    def __init__(self, lesson: Lesson, options: "PretrainOptions", ranks: Ranks) -> None:
        self.lesson, self.options, self.ranks, self.device = lesson, options, ranks, device()
        _check_parts(lesson, options, ranks)
        self.wrapped = ranks.wrapped(lesson.module)
        if options.compile:
            self.wrapped = cast(torch.nn.Module, torch.compile(self.wrapped))
        self.progress = Progress(self.device, ranks.mean)
        self.crew = Crew(ranks.size)
        self.average: Any = None  # of the weights; it follows more closely over the first steps
        if options.ema is not None:
            from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

            self.average = ModelEmaV3(lesson.module, decay=options.ema, use_warmup=True)

    @property
    def kept(self) -> torch.nn.Module:
        """The network whose weights are kept: the average where there is one."""
        return (
            self.lesson.module if self.average is None else cast(torch.nn.Module, self.average.module)
        )

    def weights(self) -> dict[str, Tensor]:
        """The state dict, under the library's names. Raises NotFinite where the last step broke it."""
        state = dict(self.kept.state_dict())
        check_finite(state, "the last step")
        return state

    def run(self, identity: Callable[[Crew], str], states: States | None, advance: Advance) -> Measured:
        """Train; returns the last epoch's loss and accuracies. identity: of a network that so many
        processes trained, for the log; states: the files to go on from."""
        options, lesson, steps = self.options, self.lesson, self.lesson.steps
        optimiser = timm_optimiser(
            lesson.module, options.opt, options.rate, options.weight_decay, options.momentum,
            betas=options.betas, eps=options.eps,
        )  # fmt: skip
        schedule = timm_schedule(
            optimiser, options.sched, options.epochs, steps, options.warmup_epochs,
            warmup_steps=options.warmup_steps,
        )  # fmt: skip
        scaled = PRECISIONS[options.precision].scaled
        scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        parts: dict[str, Stateful] = {
            "network": lesson.module, "optimiser": optimiser, "crew": self.crew
        }  # fmt: skip
        parts |= {"scaler": scaler} if scaled else {}
        parts |= {"average": self.average} if self.average is not None else {}
        keeper = self._keeper(states, parts)
        shown = _Shown(self, advance if self.ranks.writer else silent)
        self.crew.join(self.ranks.size, self.progress.step)
        lesson.hold(shown.advance)
        record = self._log(identity(self.crew))

        def after_epoch(epoch: int, means: Measured) -> None:
            record.stop()
            means |= self.validate()
            record.write(epoch + 1, optimiser.param_groups[0]["lr"], means)
            shown.last.update(means)

        with _compiling(options.compile), keeper.keeping() if keeper else nullcontext():
            fit(
                lesson.objective(self.wrapped), self._batches, optimiser,
                schedule=schedule, epochs=options.epochs, steps_per_epoch=steps, progress=self.progress,
                autocast=autocast(options.precision, self.device), scaler=scaler, clip=options.clip,
                pieces=self._pieces if options.micro_batch else None,
                around_step=keeper.step if keeper else nullcontext, after_step=self._after_step,
                after_epoch=after_epoch, advance=shown,
            )  # fmt: skip
        record.close()
        return shown.last

    def _keeper(self, states: States | None, parts: dict[str, Stateful]) -> Keeper | None:
        """What saves this training; it has taken up the state that there is, if it is to be resumed."""
        if states is None:
            return None
        every = 60 * self.options.save_every
        keeper = Keeper(states, parts, self.progress, self.lesson.steps, every, self.ranks)
        keeper.start(self.options.resume)
        return keeper

    def _log(self, identity: str) -> EpochLog:
        """The log, from the epoch on that this training is in."""
        steps, size = self.lesson.steps, self.lesson.batch_size
        epoch = self.progress.epoch(steps)
        done = self.progress.step - epoch * steps
        name = self.options.log if self.ranks.writer else None
        return EpochLog(name, identity, epoch, (steps - done) * size, steps * size)

    def _batches(self, epoch: int) -> Iterator[Any]:
        self.lesson.module.train()
        return self.lesson.batches(epoch, self.progress.step)

    def _pieces(self, batch: Any) -> Iterator[Any]:
        return self.lesson.pieces(batch, self.wrapped)

    def _after_step(self, step: int) -> None:
        self.lesson.after_step()
        if self.average is not None:
            self.average.update(self.lesson.module, step=step + 1)

    def validate(self) -> Measured:
        """Measures of the weights that are kept on the validation set, where there is one."""
        module = self.kept
        self.ranks.share_buffers(module)
        module.eval()
        return self.lesson.validate(module)


def _check_parts(lesson: Lesson, options: "PretrainOptions", ranks: Ranks) -> None:
    """Raise UsageError where batch norm would see single images, of which it knows no statistics."""
    part = lesson.batch_size // ranks.size
    least = part // parts_of(part, options.micro_batch or part)
    if least < 2 and batch_norms(lesson.module):
        wrong = f"batch norm takes two images at a time, and some are computed by {least}"
        raise UsageError(wrong, "give a larger --batch-size or --micro-batch")


class _Shown:
    """What the bar tells: images, the epoch, the latest means, and what was last validated."""

    def __init__(self, training: Training, advance: Advance) -> None:
        self.lesson, self.epochs = training.lesson, training.options.epochs
        self.advance, self.last = advance, dict[str, float]()

    def __call__(self, done: int, total: int | None, **values: float | str) -> None:
        epoch = f"{min((done - 1) // self.lesson.steps + 1, self.epochs)}/{self.epochs}"
        after = {name: self.last[name] for name in ("val_accuracy",) if name in self.last}
        images = self.lesson.batch_size * np.array([done, total])
        self.advance(int(images[0]), int(images[1]), epoch=epoch, **values, **after)


@contextmanager
def _compiling(asked: bool) -> Iterator[None]:
    """Around the steps, as torch compiles in the first one. Raises UsageError where it cannot, as
    without a C++ compiler."""
    if not asked:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # which takes seconds to load

    try:
        yield
    except TorchDynamoException as error:
        raise UsageError(f"torch cannot compile here: {brief(error)}", "leave out --compile") from error
