"""A pre-training that is stopped goes on in the middle of an epoch, to the same bytes."""

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nmlcli import keyed
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import NmlError, Terminated
from nmlcli.stages import pretrain as stage
from nmlcli.stages import supervised as lesson
from nmlcli.stages import training
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import PretrainOptions
from nmlcli.training.augmentation import Strength

TRAIN = "builtin:shapes:train"
ROWS, BATCH, STEPS = 71, 8, 8  # seven images are left over in each epoch
PLAIN = PretrainOptions(
    source=SourceOptions(limit=ROWS), epochs=3, batch_size=BATCH, lr=0.05, size=24, workers=0
)  # fmt: skip
EVERYTHING = replace(
    PLAIN, augment="crop", strength=Strength(0.3, 0.5, 0.4, "rand-m9-mstd0.5", 0.5), mixup=0.2,
    cutmix=1.0, label_smoothing=0.1, ema=0.9, opt="adamw", lr=1e-3, warmup_epochs=1, clip=1.0,
)  # fmt: skip
WORDS = {
    "plain": "--lr 0.05",
    "everything": "--augment crop --scale 0.3 --color-jitter 0.4 --auto-augment rand-m9-mstd0.5"
    " --reprob 0.5 --mixup 0.2 --cutmix 1 --label-smoothing 0.1 --ema 0.9 --opt adamw --lr 0.001"
    " --warmup-epochs 1 --clip 1",
}
OPTIONS = {"plain": PLAIN, "everything": EVERYTHING}
CLOCK = ("seconds", "images_per_second")

# Processes of one server that has loaded the libraries, since that takes longer than the training.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["nmlcli.cli.main", "nmlcli.stages.training", "timm", "torch._dynamo"])
MAIN = """
import os, resource, sys, time
os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
if most is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
from nmlcli.cli.main import main
from nmlcli.training import loop
update = loop._update
loop._update = lambda *arguments: (time.sleep(pause), update(*arguments))
sys.argv = ["nml", "pretrain", *words]
main()
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    """The name of a small validation set."""
    folder, drawn = tmp_path_factory.mktemp("val"), open_samples(TRAIN, SourceOptions(limit=ROWS + 20))
    for row in range(ROWS, len(drawn)):
        (folder / drawn.classes[drawn.labels[row]]).mkdir(exist_ok=True)
        drawn.read(row).save(folder / drawn.classes[drawn.labels[row]] / f"{row}.png")
    return str(folder)


@pytest.fixture
def plain(val):
    return replace(PLAIN, validation=val)


@pytest.fixture
def everything(val):
    return replace(EVERYTHING, validation=val)


@pytest.fixture
def command(tmp_path, val):
    """Make a command of one of the sets of options."""
    return lambda kind: Command(tmp_path, kind, val)


class Command:
    """`nml pretrain` with the options of one of the sets above, as a process of its own."""

    def __init__(self, folder, kind, val):
        self.out, self.log = folder / "a.safetensors", folder / "a.jsonl"
        self.state, self.errors = folder / "a.safetensors.state", folder / "errors"
        text = f"{TRAIN} -a test_resnet -o {self.out} --limit {ROWS} --val {val} --epochs 3"
        self.words = f"{text} --batch-size {BATCH} --size 24 {WORDS[kind]} --log {self.log}".split()

    def start(self, more, most=None, pause=0.0):
        """most: bytes that a file may have. pause: seconds that a step takes longer."""
        words = {"words": [*self.words, *more.split()], "most": most, "pause": pause}
        process = PROCESSES.Process(target=exec, args=(MAIN, words | {"errors": str(self.errors)}))
        process.start()
        return process

    def finish(self, more):
        process = self.start(more)
        process.join(60)
        assert process.exitcode == 0, self.said()

    def said(self):
        return self.errors.read_text()

    def saved(self):
        """When the state was saved last."""
        try:
            return self.state.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def steps(self):
        found = torch.load(self.state, weights_only=True)
        return found["parts"]["progress"]["step"]


def lines(log):
    """The lines of a log, but for what the clock says."""
    return [
        {k: v for k, v in json.loads(line).items() if k not in CLOCK}
        for line in Path(log).read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, val):
    """The bytes of uninterrupted trainings, and their logs' lines, by the sets of options."""
    torch.set_num_threads(1)
    found = {}
    for kind, options in OPTIONS.items():
        folder = tmp_path_factory.mktemp(kind)
        log = folder / "log.jsonl"
        pretrain(
            TRAIN,
            "test_resnet",
            str(folder / "a.safetensors"),
            replace(options, log=str(log), validation=val),
        )
        found[kind] = ((folder / "a.safetensors").read_bytes(), lines(log))
    return found


def wait(process, ready):
    until = time.monotonic() + 60
    while process.is_alive() and not ready():
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.process
@pytest.mark.parametrize("kind", OPTIONS)
def test_killed_again_and_again_at_any_moment_it_ends_in_the_same_bytes(tmp_path, command, whole, kind):
    draw, command, reached = random.Random(kind), command(kind), []
    process = command.start("--save-every 0 --workers 2", pause=0.02)
    for workers in (0, 1, 3, 2, 0):
        for _ in range(draw.randint(1, 4)):
            before = command.saved()
            wait(process, lambda before=before: command.saved() > before)
        time.sleep(draw.uniform(0.0, 0.04))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached.append(command.steps())
        process = command.start(f"--save-every 0 --resume --workers {workers}", pause=0.02)
    process.join(60)
    assert process.exitcode == 0, command.said()
    assert reached == sorted(reached)
    assert any(step % STEPS for step in reached), reached
    assert command.out.read_bytes() == whole[kind][0]
    assert lines(command.log) == whole[kind][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.safetensors", "errors"]
    assert set(command.said().splitlines()) == {
        f"nml pretrain: going on after {step} step{'s' * (step != 1)}" for step in reached
    }


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "numbers", "codes"),
    [
        ("plain", [signal.SIGTERM], {143}),
        ("everything", [signal.SIGINT], {130}),
        ("everything", [signal.SIGTERM, signal.SIGTERM], {143}),
        ("plain", [signal.SIGINT, signal.SIGINT, signal.SIGINT], {130}),
        ("plain", [signal.SIGTERM, signal.SIGINT], {130, 143}),  # either may be seen first
    ],
)
def test_signals_in_the_midst_of_an_epoch_cost_no_step(command, whole, kind, numbers, codes):
    """The log says that the first epoch is over; what comes after it only the signal can have saved."""
    command = command(kind)
    process = command.start("--save-every 1000 --workers 1", pause=0.05)
    wait(process, lambda: command.log.exists() and command.log.read_text())
    time.sleep(0.15)
    for number in numbers:
        os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode in codes
    assert STEPS < command.steps() < 3 * STEPS
    assert command.said() == ""
    command.finish("--resume --workers 0")
    assert command.out.read_bytes() == whole[kind][0]
    assert lines(command.log) == whole[kind][1]


@pytest.mark.process
def test_a_full_disk_stops_it_and_with_room_it_goes_on(command, whole):
    """The limit on a file's size stands for a full disk. The first state has no momenta yet."""
    command = command("plain")
    stopped = command.start("--save-every 1000")
    wait(stopped, command.saved)
    stopped.kill()
    stopped.join()
    first = command.state.stat().st_size
    process = command.start("--save-every 0", most=first + 1000)
    process.join(60)
    assert process.exitcode == 1
    assert command.said().splitlines()[-1:] == [
        f"nml pretrain: cannot write {command.state}: File too large: make room, then go on after"
        " 0 steps with --resume"
    ]
    command.finish("--resume")
    assert command.out.read_bytes() == whole["plain"][0]


def run(tmp_path, options, **keywords):
    out = tmp_path / "a.safetensors"
    pretrain(TRAIN, "test_resnet", str(out), options, **keywords)
    return out


@pytest.mark.parametrize("step", [0, STEPS - 1, 2 * STEPS + 3, 3 * STEPS - 1])
def test_a_signal_within_a_step_lets_it_end(tmp_path, whole, everything, monkeypatch, step):
    log = str(tmp_path / "log.jsonl")
    interrupt_in(step, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, replace(everything, log=log))
    monkeypatch.undo()
    kept = torch.load(tmp_path / "a.safetensors.state", weights_only=True)
    assert kept["parts"]["progress"]["step"] == step + 1
    out = run(tmp_path, replace(everything, resume=True, workers=2, log=log))
    assert out.read_bytes() == whole["everything"][0]
    assert lines(log) == whole["everything"][1]


def interrupt_in(step, monkeypatch, what=lambda: signal.raise_signal(signal.SIGINT)):
    """Do something, by default press Ctrl-C, within the objective of a step."""
    real, count = lesson.supervised, iter(range(10**6))

    def supervised(*arguments):
        objective = real(*arguments)

        def interrupted(batch):
            if next(count) == step:
                what()
            return objective(batch)

        return interrupted

    monkeypatch.setattr(lesson, "supervised", supervised)


def test_what_was_seen_of_an_epoch_is_not_decoded_again(tmp_path, everything, monkeypatch):
    monkeypatch.setattr(stage, "open_samples", counting := Counting())
    options = replace(everything, validation=None)
    interrupt_in(2 * STEPS + 4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, options)
    counting.rows.clear()
    run(tmp_path, replace(options, resume=True))
    order = keyed.permutation(ROWS, options.seed, "order of epoch 2")
    assert counting.rows == order[5 * BATCH : STEPS * BATCH].tolist()


class Counting:
    """open_samples, with the numbers of the samples that were read."""

    def __init__(self):
        self.rows = []

    def __call__(self, *arguments):
        samples = open_samples(*arguments)

        def images(rows):
            self.rows += rows.tolist()
            return samples.images(rows)

        return replace(samples, images=images)


def test_an_interrupt_while_the_last_epoch_is_validated_costs_no_step(
    tmp_path, whole, plain, monkeypatch
):
    log, real, calls = str(tmp_path / "log.jsonl"), training.Training.validate, iter(range(10))

    def validate(self):
        if next(calls) == 2:
            raise Terminated
        return real(self)

    monkeypatch.setattr(training.Training, "validate", validate)
    with pytest.raises(Terminated):
        run(tmp_path, replace(plain, log=log))
    monkeypatch.undo()
    assert len(lines(log)) == 2
    seen = []

    def advance(done, total, **values):
        seen.append((done, values))

    out = run(tmp_path, replace(plain, log=log, resume=True), advance=advance)
    assert out.read_bytes() == whole["plain"][0]
    assert lines(log) == whole["plain"][1]
    assert [done for done, values in seen if "epoch" in values] == [3 * STEPS * BATCH]


def test_a_checkpoint_that_cannot_be_written_costs_no_step(tmp_path, whole, plain, monkeypatch):
    from nmlcli.products import formats

    def full(*_):
        raise NmlError("cannot write a.safetensors: No space left on device")

    monkeypatch.setattr(formats, "write_checkpoint", full)
    with pytest.raises(NmlError, match=r"No space left on device: make room, then .* with --resume"):
        run(tmp_path, plain)
    monkeypatch.undo()
    interrupt_in(0, monkeypatch, lambda: pytest.fail("a step was taken"))
    assert run(tmp_path, replace(plain, resume=True)).read_bytes() == whole["plain"][0]


def test_a_loss_that_is_not_finite_names_the_last_good_state(tmp_path, plain, monkeypatch):
    real = lesson.supervised

    def supervised(*arguments):
        objective, count = real(*arguments), iter(range(10**6))

        def broken(batch):
            values = objective(batch)
            return {**values, "loss": values["loss"] * (np.nan if next(count) == 11 else 1.0)}

        return broken

    monkeypatch.setattr(lesson, "supervised", supervised)
    words = rf"step 11 is nan: lower .* start anew; {tmp_path}/a\.safetensors\.state is the last good"
    for every, good in ((0.0, 11), (1000.0, 8)):
        with pytest.raises(NmlError, match=f"{words} state, after {good} steps, of these options$"):
            run(tmp_path, replace(plain, save_every=every))
        kept = torch.load(tmp_path / "a.safetensors.state", weights_only=True)["parts"]
        assert kept["progress"]["step"] == good
        assert all(value.isfinite().all() for value in kept["network"].values())


def test_a_damaged_state_costs_the_steps_since_the_one_before(
    tmp_path, whole, everything, monkeypatch, caplog
):
    log = str(tmp_path / "log.jsonl")
    interrupt_in(2 * STEPS + 3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, replace(everything, log=log))
    monkeypatch.undo()
    path = tmp_path / "a.safetensors.state"
    path.write_bytes(path.read_bytes()[:-1])
    caplog.set_level("INFO")
    out = run(tmp_path, replace(everything, log=log, resume=True))
    assert caplog.messages == [
        f"{path} is damaged: going on from the state before it", f"going on after {2 * STEPS} steps",
    ]  # fmt: skip
    assert out.read_bytes() == whole["everything"][0]
    assert lines(log) == whole["everything"][1]


def test_a_log_line_that_was_cut_short_is_written_again(tmp_path, whole, plain, monkeypatch):
    log = tmp_path / "log.jsonl"
    interrupt_in(STEPS + 2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, replace(plain, log=str(log)))
    monkeypatch.undo()
    with log.open("a") as file:
        file.write('{"kind": "epo')
    run(tmp_path, replace(plain, log=str(log), resume=True))
    assert lines(log) == whole["plain"][1]
