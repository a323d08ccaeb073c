"""Two processes against one with the same batches: losses, gradients, and what they tell each other.

This file is also what the processes run.
"""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed import DistBackendError

from nmlcli.errors import NmlError, UsageError
from nmlcli.training import distributed
from nmlcli.training.distributed import Ranks, joined
from nmlcli.training.loop import Piece, Progress, fit
from nmlcli.training.objectives import Examples, Pairs, contrastive, supervised

BATCH, STEPS = 12, 3


def images(seed):
    return torch.randn(STEPS, BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


class Twin(nn.Module):
    """As open_clip's networks are called; with batch norm where norm is."""

    def __init__(self, norm=False):
        super().__init__()
        more = [nn.BatchNorm1d(16)] if norm else []
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), *more, nn.GELU(), nn.Linear(16, 6))
        self.text = nn.Embedding(50, 6)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, pictures, tokens):
        texts = self.text(tokens).mean(1)
        scale = self.logit_scale.exp()
        return F.normalize(self.image(pictures), dim=-1), F.normalize(texts, dim=-1), scale


def learn(module, ranks, objective, batches, pieces=None):
    """Three steps, with the gradients of each: {"STEP NAME": gradient}, and the shown means."""
    seen = {}

    def after_step(step):
        for name, value in module.named_parameters():
            seen[f"{step} {name}"] = value.grad.clone()

    def after_epoch(epoch, means):
        seen["means"] = torch.tensor([means[name] for name in sorted(means)], dtype=torch.float64)

    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    fit(
        objective, lambda epoch: batches, optimiser, schedule=lambda step: None, epochs=1,
        steps_per_epoch=STEPS, progress=Progress(None, ranks.mean), pieces=pieces,
        after_step=after_step, after_epoch=after_epoch,
    )  # fmt: skip
    return seen


def classify(ranks, micro_batch):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    )
    wrapped, own = ranks.wrapped(module), ranks.part(BATCH)
    labels = torch.randint(5, (STEPS, BATCH), generator=torch.Generator().manual_seed(1))
    batches = [Examples(x[own], y[own], y[own]) for x, y in zip(images(2), labels, strict=True)]

    def pieces(batch):
        parts = [Examples(*(each[i : i + 2] for each in batch)) for i in range(0, len(batch[0]), 2)]
        for number, part in enumerate(parts):
            alone = ranks.size > 1 and number < len(parts) - 1
            yield Piece(part, 1 / len(parts), *([wrapped.no_sync()] if alone else []))

    return learn(module, ranks, supervised(wrapped, 0.1), batches, pieces if micro_batch else None)


def match(ranks, micro_batch, norm=False):
    torch.manual_seed(0)
    module = Twin(norm)
    wrapped, own = ranks.wrapped(module), ranks.part(BATCH)
    draw = torch.Generator().manual_seed(3)
    tokens = torch.randint(50, (STEPS, BATCH, 4), generator=draw)
    keys = torch.arange(BATCH)[:, None].repeat(1, 2)
    keys[7, 0], keys[10, 1] = keys[1, 0], keys[2, 1]  # twins whose other half is in another process
    keys[4, 0] = keys[5, 0]
    batches = [Pairs(x[own], t[own], keys[own]) for x, t in zip(images(4), tokens, strict=True)]
    return learn(module, ranks, contrastive(wrapped, ranks, micro_batch), batches)


def told(ranks):
    """What the processes tell each other."""
    rank, device = ranks.rank, torch.device("cpu")
    rows = torch.full((2, 3), float(rank))
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, rank + 1.0)
    ranks.spread({"network": network})
    buffers = nn.BatchNorm1d(2)
    buffers.running_mean.fill_(rank + 5.0)
    ranks.share_buffers(buffers)
    ranks.agree("what", "alike")
    with pytest.raises(NmlError, match="what of process 1 are not those of process 0"):
        ranks.agree("what", f"of {rank}")
    order = []
    with Ranks(rank, 2, rank, 2, ranks.signals).one_after_another():
        order += [time.monotonic()]
        time.sleep(0.2)
    return {
        "entered": torch.tensor(order, dtype=torch.float64),
        "gathered": ranks.gathered(rows),
        "numbers": ranks.gathered(torch.full((1,), rank)),
        "mean": ranks.mean({"loss": torch.tensor(rank + 1.0, requires_grad=True)})["loss"],
        "total": torch.from_numpy(ranks.total(np.array([2.0**40 + rank, rank]), device)),
        "any": torch.tensor([ranks.any(rank == 1), ranks.any(False), ranks.any(True)]),
        "weight": network.weight.detach(),
        "buffer": buffers.running_mean,
    }


WORK = {
    "supervised": lambda ranks: classify(ranks, None),
    "supervised in parts": lambda ranks: classify(ranks, 2),
    "contrastive": lambda ranks: match(ranks, None),
    "contrastive in parts": lambda ranks: match(ranks, 4),
    "contrastive in parts with batch norm": lambda ranks: match(ranks, 3, norm=True),
    "told": told,
}


def main(folder):
    torch.set_num_threads(1)
    with joined() as ranks:
        found = {name: work(ranks) for name, work in WORK.items()}
        torch.save(found, Path(folder) / f"{ranks.rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("pair")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, __file__, folder], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.process
@pytest.mark.parametrize(
    ("work", "alone"),
    [
        ("supervised", "supervised"),
        ("supervised in parts", "supervised"),
        ("contrastive", "contrastive"),
        ("contrastive in parts", "contrastive"),
    ],
)
def test_gradients_and_means_of_two_processes_are_those_of_one(pair, work, alone):
    torch.set_num_threads(1)
    whole = WORK[alone](Ranks())
    assert len(whole) > 6
    for found in pair:
        assert found[work].keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(found[work][name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.process
def test_batch_norm_of_the_same_parts_gives_the_same_gradients(pair):
    """Three pairs at a time in each of two processes, and in one."""
    torch.set_num_threads(1)
    whole, others = match(Ranks(), 3, norm=True), match(Ranks(), 4, norm=True)
    for name, value in whole.items():
        apart = (others[name] - value).abs().max()
        for found in (each["contrastive in parts with batch norm"][name] for each in pair):
            # Three values have variances near 0 now and then, over which rounding errors grow.
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4, msg=name)
        assert apart > 2e-3 or name.endswith("image.1.bias"), name


@pytest.mark.process
def test_processes_tell_each_other_what_they_have(pair):
    for found in (each["told"] for each in pair):
        assert found["gathered"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
        assert found["numbers"].tolist() == [0, 1]
        assert found["mean"].item() == 1.5
        assert not found["mean"].requires_grad
        assert found["total"].tolist() == [2.0**41 + 1, 1.0]  # exactly: the sums are in float64
        assert found["any"].tolist() == [True, False, True]
        assert found["weight"].tolist() == [[1.0] * 2] * 2
        assert found["buffer"].tolist() == [5.0] * 2


def test_one_process_asks_nobody():
    ranks, rows = Ranks(), torch.ones(2, 3)
    assert ranks.gathered(rows) is rows
    assert ranks.wrapped(module := nn.Linear(1, 1)) is module
    assert ranks.part(7) == slice(0, 7)
    assert ranks.any(True)
    assert not ranks.any(False)
    loss = ranks.mean({"loss": torch.tensor(2.0, requires_grad=True)})["loss"]
    assert (loss.item(), loss.requires_grad) == (2.0, False)
    assert ranks.total(np.array([3.0]), torch.device("cpu")).tolist() == [3.0]


def test_processes_of_a_machine_take_turns_where_they_must(pair):
    first, second = (found["told"]["entered"].item() for found in pair)  # of one clock
    assert second - first > 0.19


def test_parts_of_a_batch_are_equal_and_all_of_it():
    rows = np.arange(12)
    parts = [rows[Ranks(rank, 3).part(12)] for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert np.concatenate(parts).tolist() == rows.tolist()
    for batch, size in ((12, 5), (1, 2), (0, 2)):
        with pytest.raises(UsageError, match=f"give a --batch-size that {size} divides"):
            Ranks(0, size).part(batch)


def test_processes_that_cannot_meet_are_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NmlError) as caught, joined():
        pass
    assert str(caught.value).startswith("the processes did not find one another: ")
    assert "\n" not in str(caught.value)


@pytest.fixture
def started(monkeypatch):
    """As if torchrun had started this process as the second one of two."""
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("init_process_group", "new_group", "destroy_process_group"):
        monkeypatch.setattr(distributed.dist, name, lambda *_, **__: None)


def test_only_the_first_process_makes_remarks(started, caplog):
    remarks = logging.getLogger("nmlcli")
    caplog.set_level(logging.INFO)
    with joined() as ranks:
        assert (ranks.rank, ranks.size, ranks.local, ranks.writer) == (1, 2, 1, False)
        remarks.warning("once")
    remarks.warning("again")
    assert caplog.messages == ["again"]


def test_a_process_that_loses_another_says_so(started):
    for error in (RuntimeError("[gloo/pair.cc:561] Connection closed"), DistBackendError("NCCL")):
        with pytest.raises(NmlError, match="another process has ended: see what it said"), joined():
            raise error
    with pytest.raises(RuntimeError, match="of its own"), joined():
        raise RuntimeError("of its own")


def test_a_process_without_a_gpu_of_its_own_is_told(started, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = "process 1 of this machine has no GPU of its own: there are 1: .* --nproc-per-node 1"
    with pytest.raises(NmlError, match=words), joined():
        pass


if __name__ == "__main__":
    main(sys.argv[1])
