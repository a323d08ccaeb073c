"""`torchrun … nml pretrain`: two processes end as one does, also where they are stopped on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nmlcli.products.formats import read_checkpoint
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import PretrainOptions

pytestmark = pytest.mark.process

ROWS, BATCH, STEPS, EPOCHS = 70, 8, 8, 3
CLOCK = ("seconds", "images_per_second")
WORDS = f"--batch-size {BATCH} --epochs {EPOCHS} --size 32 --lr 0.02 --workers 0".split()
OPTIONS = PretrainOptions(batch_size=BATCH, epochs=EPOCHS, size=32, lr=0.02, workers=0)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A training set, and a validation set of odd size that is more than a block of each process."""
    folder, draw = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, count in (("train", ROWS), ("val", 1033)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            labels = draw.integers(0, 4, count)
            images = draw.integers(0, 200, (count, 32, 32, 3))
            file["images"] = (images + 15 * labels[:, None, None, None]).astype(np.uint8)
            file["labels"] = labels
    return folder


@pytest.fixture(scope="module")
def whole(sets):
    """The record, weights and log of one process that nobody stops."""
    torch.set_num_threads(1)
    out, log = sets / "whole.safetensors", sets / "whole.jsonl"
    options = replace(OPTIONS, validation=str(sets / "val.h5"), log=str(log))
    pretrain(str(sets / "train.h5"), "test_vit", str(out), options)
    return read_checkpoint(str(out)), lines(log)


class Command:
    """`nml pretrain` in two processes, whose steps may be made to take longer."""

    def __init__(self, folder, sets):
        self.folder, self.out, self.log = folder, folder / "a.safetensors", folder / "a.jsonl"
        self.state = folder / "a.safetensors.state"
        files = [str(sets / "train.h5"), "--val", str(sets / "val.h5")]
        self.words = ["pretrain", *files, "-a", "test_vit", *WORDS]
        self.words += ["-o", str(self.out), "--log", str(self.log)]

    def start(self, *more, program=("-m", "--", "nmlcli")):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
        return subprocess.Popen(
            [*TORCHRUN, *program, *self.words, *more], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def steps(self):
        return torch.load(self.state, weights_only=True)["parts"]["progress"]["step"]


@pytest.fixture
def command(tmp_path, sets):
    return Command(tmp_path, sets)


def lines(log):
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in found]


def remarks(said):
    return [line for line in said.splitlines() if line.startswith("nml ")]


def same(checkpoint, log, whole, processes=2):
    """Weights and measures are those of one process; sums in another order differ a little. The record
    tells how many there were, since batch norm would have seen fewer images."""
    wanted, told = whole
    made = {"processes": processes}
    assert checkpoint.record.options == {**wanted.record.options, **made}
    assert checkpoint.record.identity != wanted.record.identity
    assert checkpoint.weights.keys() == wanted.weights.keys()
    for name, value in wanted.weights.items():
        torch.testing.assert_close(checkpoint.weights[name], value, rtol=1e-6, atol=1e-6, msg=name)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    for line, alone in zip(log, told, strict=True):
        other = dict(alone)
        del line["backbone_identity"], other["backbone_identity"]  # by the number of processes
        assert line == pytest.approx(other, abs=1e-6)
    assert checkpoint.record.extra["last_epoch"] == pytest.approx(
        wanted.record.extra["last_epoch"], abs=1e-6
    )


def test_two_processes_end_as_one_does(command, whole):
    command.state.write_bytes(b"of another one")
    process = command.start()
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert out == ""
    anew = f"starting anew over {command.state}, as --resume is not given"
    assert remarks(said) == [f"nml pretrain: {anew}"]
    same(read_checkpoint(str(command.out)), lines(command.log), whole)
    right = 1033 * lines(command.log)[-1]["val_accuracy"]
    assert right == pytest.approx(round(right), abs=1e-6)
    assert sorted(path.name for path in command.folder.iterdir()) == ["a.jsonl", "a.safetensors"]


SLOW = """
import time
from nmlcli.training import loop
update = loop._update
loop._update = lambda *arguments: (time.sleep(0.1), update(*arguments))
from nmlcli.cli.main import main
main()
"""


def test_stopped_amid_an_epoch_two_or_one_go_on(command, sets, whole, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    process = command.start("--save-every", "1000", program=("--", str(tmp_path / "slow.py")))
    until = time.monotonic() + 90
    while not (command.log.exists() and command.log.read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.25)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert remarks(said) == []
    step = command.steps()
    assert STEPS < step < 2 * STEPS
    alone = Command(tmp_path / "alone", sets)
    alone.folder.mkdir()
    for one, other in ((command.state, alone.state), (command.log, alone.log)):
        shutil.copy(one, other)
    process = command.start("--resume")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert remarks(said) == [f"nml pretrain: going on after {step} steps"]
    same(read_checkpoint(str(command.out)), lines(command.log), whole)
    torch.set_num_threads(1)
    options = replace(OPTIONS, validation=str(sets / "val.h5"), log=str(alone.log), resume=True)
    pretrain(str(sets / "train.h5"), "test_vit", str(alone.out), options)
    same(read_checkpoint(str(alone.out)), lines(alone.log), whole, [[0, 2], [step, 1]])
