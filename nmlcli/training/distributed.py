"""The processes of one training, as torchrun starts them: which one this is, and what they share.

Without torchrun there is one, and nothing here costs anything. A batch has the same samples whatever
their number: each process takes its part of every batch, gradients and shown scalars are means over
all. What looks at other samples than its own (batch norm, mixing) sees those of its process.
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from nmlcli.errors import NmlError, UsageError

if TYPE_CHECKING:
    from nmlcli.training.state import Stateful


@dataclass(frozen=True)
class Ranks:
    """rank: the number of this process among `size`, from 0; local: among the `beside` of its machine.

    signals: a group over which the processors, not the GPUs, agree.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    beside: int = 1
    signals: Any = None

    @property
    def writer(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """The rows of a batch that are this process's. Raises UsageError where they are not equal."""
        share, left = divmod(batch_size, self.size)
        if left or not share:
            wrong = f"a batch of {batch_size} cannot be shared by {self.size} processes"
            raise UsageError(wrong, f"give a --batch-size that {self.size} divides")
        return slice(self.rank * share, (self.rank + 1) * share)

    def wrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """The network, with gradients that are means over all processes where there are several.

        The statistics of batch norm are those of a process's own part of a batch; the running ones are
        those of the first process.
        """
        if self.size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        places = [self.local] if next(module.parameters()).is_cuda else None
        return DistributedDataParallel(module, device_ids=places)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows [b, …] of all processes in their order, [size · b, …], with their gradients."""
        if self.size == 1:
            return rows
        found: Tensor = _Gathered.apply(rows, self)
        return found

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of each scalar over all processes, detached."""
        detached = {name: value.detach() for name, value in values.items()}
        if self.size == 1 or not detached:
            return detached
        stacked = torch.stack([value.float() for value in detached.values()])
        dist.all_reduce(stacked)
        return dict(zip(detached, (stacked / self.size).unbind(), strict=True))

    def total(self, values: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
        """The sums of numbers [K] over all processes."""
        if self.size == 1:
            return values
        sums = torch.from_numpy(values).to(device)
        dist.all_reduce(sums)
        return sums.cpu().numpy()

    def share_buffers(self, module: torch.nn.Module) -> None:
        """Give all processes the buffers that the first one has, such as running statistics."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def any(self, value: bool) -> bool:
        """Whether it is so in any process; all must ask."""
        if self.size == 1:
            return value
        flag = torch.tensor(int(value))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.signals)
        return bool(flag)

    def agree(self, what: str, value: str) -> None:
        """Raise NmlError where processes differ in what they should have in common."""
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.signals)
        others = [rank for rank, each in enumerate(found) if each != found[0]]
        if others:
            wrong = f"{what} of process {', '.join(map(str, others))} are not those of process 0"
            raise NmlError(wrong, "give all machines the same files and options")

    @contextmanager
    def one_after_another(self) -> Iterator[None]:
        """The first process of each machine does what is in here before the others there do."""
        if self.local:
            self.any(False)
        yield
        if not self.local:
            self.any(False)

    def spread(self, parts: "Mapping[str, Stateful]") -> None:
        """Give all processes the states that the first one has."""
        if self.size == 1:
            return
        for part in parts.values():
            file = io.BytesIO()  # as torch writes it, so that tensors of one GPU arrive on no GPU
            if self.writer:
                torch.save(part.state_dict(), file)
            held: list[Any] = [file.getvalue()]
            dist.broadcast_object_list(held, group=self.signals)
            if not self.writer:
                state = torch.load(io.BytesIO(held[0]), map_location="cpu", weights_only=True)
                part.load_state_dict(state)


class _Gathered(torch.autograd.Function):
    """The rows of all processes; backwards, what the losses of all of them say of this one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.count = ranks, len(rows)
        parts = [
            torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(ranks.size)
        ]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.ranks.rank * ctx.count :][: ctx.count], None


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one, if it did, until the work is done.

    GPUs share by NCCL, processors by gloo. Raises NmlError where they do not find one another, where a
    machine has fewer GPUs than processes, and where another one ends too early. All but the first
    process keep their remarks.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield Ranks()
        return
    rank, local = _number("RANK", 0), _number("LOCAL_RANK", 0)
    gpus = torch.cuda.device_count()
    if gpus:
        if local >= gpus:
            wrong = f"process {local} of this machine has no GPU of its own: there are {gpus}"
            raise NmlError(wrong, f"start torchrun with --nproc-per-node {gpus}")
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if gpus else "gloo")
        signals = dist.new_group(backend="gloo")
    except (RuntimeError, ValueError) as error:
        brief = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NmlError(f"the processes did not find one another: {brief}") from error
    remarks = logging.getLogger("nmlcli")
    level = remarks.level
    if rank:
        remarks.setLevel(logging.ERROR)
    try:
        yield Ranks(rank, size, local, _number("LOCAL_WORLD_SIZE", size), signals)
        dist.destroy_process_group()  # after a fault it would wait for those that go on
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise NmlError("another process has ended", "see what it said") from error
        raise
    finally:
        remarks.setLevel(level)


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default
