"""Saved states: what they give back, what they refuse, and which of two is taken."""

import logging
import pickle
import signal
import threading
import zlib
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pytest
import torch

from nmlcli import atomic
from nmlcli.errors import InvalidInput, NmlError, Terminated
from nmlcli.training import state
from nmlcli.training.distributed import Ranks
from nmlcli.training.loop import NotFinite, Progress
from nmlcli.training.state import Crew, Keeper, States


def parts(seed):
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {"network": network, "optimiser": optimiser}


def values(parts):
    """All numbers of a network and its optimiser."""
    momenta = parts["optimiser"].state_dict()["state"]
    kept = [*parts["network"].state_dict().values(), *(m["momentum_buffer"] for m in momenta.values())]
    return torch.cat([value.flatten() for value in kept]).tolist()


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "a.safetensors.state", "abc")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_state_gives_back_what_was_saved(states):
    saved, other = parts(0), parts(1)
    assert not states.load(other)
    states.save(saved)
    assert states.load(other)
    assert values(other) == values(saved) != values(parts(1))


def test_the_one_before_is_kept_until_both_are_removed(states, tmp_path):
    for seed in (0, 1, 2):
        states.save(parts(seed))
    assert names(tmp_path) == ["a.safetensors.state", "a.safetensors.state.previous"]
    for path, seed in ((states.path, 2), (states.previous, 1)):
        other = parts(5)
        assert States(path, "abc").load(other)
        assert values(other) == values(parts(seed))
    (tmp_path / ".a.safetensors.abcdefgh.state").touch()  # of a run that was killed
    states.remove()
    assert names(tmp_path) == []


def test_a_state_of_another_training_is_refused(states):
    states.save(parts(0))
    states.save(parts(1))
    with pytest.raises(InvalidInput, match="other data or options"):
        States(states.path, "abd").load(parts(0))


def test_there_is_a_newest_state_at_any_time(states, monkeypatch):
    """Whatever a save does is seen by another process, which finds a whole state at each moment."""
    states.save(parts(0))
    found = []
    for name in ("unlink", "hardlink_to", "replace"):
        real = getattr(Path, name)

        def watched(*arguments, real=real, **keywords):
            real(*arguments, **keywords)
            other = parts(5)
            assert states.path.exists()
            assert states.load(other)
            found.append(values(other))

        monkeypatch.setattr(Path, name, watched)
    for seed in (1, 2):
        states.save(parts(seed))
    monkeypatch.undo()
    assert [each for each, _ in groupby(found)] == [values(parts(seed)) for seed in (0, 1, 2)]


def damages(whole):
    """Every kind of truncation, and a changed byte in a weight."""
    for size in (0, 2, 30, 100, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        yield whole[:size]
    place = whole.index(parts(1)["network"].bias.detach().numpy().tobytes())
    yield whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    yield bytes(len(whole))


def test_a_damaged_newest_state_gives_way_to_the_one_before(states, caplog):
    states.save(parts(0))
    states.save(parts(1))
    newest, before = states.path.read_bytes(), states.previous.read_bytes()
    for damaged in damages(newest):
        states.path.write_bytes(damaged)
        states.previous.write_bytes(before)
        caplog.clear()
        other = parts(5)
        assert states.load(other)
        assert values(other) == values(parts(0))
        remarks = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
        assert remarks == [f"{states.path} is damaged: going on from the state before it"]
        assert not states.previous.exists()
        states.save(parts(2))  # the damaged one does not take the whole one's place
        assert states.previous.read_bytes() == before


def test_damaged_states_are_refused(states):
    states.save(parts(0))
    states.save(parts(1))
    newest = states.path.read_bytes()
    for damaged in damages(newest):
        states.path.write_bytes(damaged)
        states.previous.write_bytes(newest[:-1])
        words = f"{states.path} and {states.previous} are damaged: leave --resume out to start anew"
        with pytest.raises(InvalidInput) as caught:
            states.load(parts(5))
        assert str(caught.value) == words
        states.previous.unlink()
        with pytest.raises(InvalidInput, match=r"state is damaged: leave --resume out"):
            states.load(parts(5))


def test_whichever_byte_is_changed_the_state_is_refused(states):
    states.save(parts(0))
    whole, other = states.path.read_bytes(), parts(5)
    for place in (*range(0, len(whole), 17), *range(len(whole) - 22, len(whole))):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        states.path.write_bytes(changed)
        with pytest.raises(InvalidInput, match="damaged"):
            states.load(other)


def test_a_missing_newest_state_is_no_damage(states, caplog, monkeypatch):
    """A kill can come between the two renames of a save, where links are not to be had."""

    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    states.save(parts(0))
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    monkeypatch.setattr(atomic, "_flush", killed)
    with pytest.raises(Killed):
        states.save(parts(1))
    monkeypatch.undo()
    assert names(states.path.parent) == ["a.safetensors.state.previous"]
    other = parts(5)
    assert states.load(other)
    assert values(other) == values(parts(0))
    assert not caplog.records


class Touches:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_state_runs_no_code(states, tmp_path):
    witness = tmp_path / "witness"
    for write in (torch.save, lambda value, where: where.write_bytes(pickle.dumps(value))):
        write({"identity": "abc", "parts": {"network": Touches(witness)}}, states.path)
        whole = states.path.read_bytes()
        states.path.write_bytes(whole + b"\nnml state %08x\n" % zlib.crc32(whole))
        with pytest.raises(InvalidInput, match="damaged"):
            states.load({})
    assert not witness.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_both_states(states, tmp_path, monkeypatch, error):
    states.save(parts(0))
    states.save(parts(1))
    before = [path.read_bytes() for path in (states.path, states.previous)]

    def save(value, file):
        file.write(b"half")
        try:
            raise error
        finally:
            if isinstance(error, OSError):  # as torch does
                raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", save)
    wanted = NmlError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted, match="cannot write .*state: No space" if wanted is NmlError else None):
        states.save(parts(2))
    assert [path.read_bytes() for path in (states.path, states.previous)] == before
    assert names(tmp_path) == ["a.safetensors.state", "a.safetensors.state.previous"]


@pytest.fixture
def keeper(states):
    progress = Progress()
    keeper = Keeper(states, parts(0), progress, 100, every=1e9)
    keeper.start(False)
    return keeper


def take_step(keeper, during=lambda: None):
    with keeper.step():
        during()
        keeper.progress.add({"loss": torch.tensor(1.0)})


def steps_saved(keeper):
    found = Progress()
    assert keeper.states.load({"progress": found})
    return found.step


def test_a_signal_waits_for_the_end_of_the_step_and_the_state_is_saved(keeper):
    reached = []

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append(True)

    with pytest.raises(KeyboardInterrupt), keeper.keeping():
        take_step(keeper)
        take_step(keeper, twice)
        reached.append("too far")
    assert reached == [True]
    assert steps_saved(keeper) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_between_steps_a_signal_comes_at_once_and_others_cut_nothing_short(keeper, monkeypatch):
    """Neither while what was under way ends, a loader's threads say, nor before the state is saved."""
    reached = []

    def means():
        signal.raise_signal(signal.SIGINT)
        reached.append("means")

    monkeypatch.setattr(keeper.progress, "means", means)
    with pytest.raises(KeyboardInterrupt), keeper.keeping():
        take_step(keeper)
        try:
            signal.raise_signal(signal.SIGINT)
            reached.append("too far")
        finally:
            signal.raise_signal(signal.SIGINT)
            reached.append("end")
    assert reached == ["end", "means"]
    assert steps_saved(keeper) == 1


def test_a_signal_while_a_state_is_written_comes_after_it(keeper, monkeypatch):
    real, reached = torch.save, []

    def save(value, file):
        signal.raise_signal(signal.SIGINT)
        real(value, file)
        reached.append(keeper.progress.step)

    monkeypatch.setattr(torch, "save", save)
    keeper.every = 0.0
    with pytest.raises(KeyboardInterrupt), keeper.keeping():
        take_step(keeper)
        reached.append("too far")
    assert reached == [1]
    assert steps_saved(keeper) == 1


def test_a_signal_that_its_handler_ignores_from_then_on_stays_ignored(keeper):
    def terminated(number, frame):
        signal.signal(number, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        with pytest.raises(Terminated), keeper.keeping():
            take_step(keeper, lambda: signal.raise_signal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps_saved(keeper) == 1


def test_a_step_that_was_torn_is_not_saved(keeper):
    def torn():
        raise Terminated

    with pytest.raises(Terminated), keeper.keeping():
        take_step(keeper)
        take_step(keeper, torn)
    assert steps_saved(keeper) == 0


def test_another_thread_leaves_signals_alone(keeper):
    found = []

    def run():
        with keeper.keeping():
            take_step(keeper)
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_a_state_is_saved_after_each_epoch_and_when_it_is_time(keeper, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: clock[0])
    keeper.since, keeper.every, keeper.steps_per_epoch, saved = 0.0, 60.0, 4, []
    with keeper.keeping():
        for _ in range(12):
            clock[0] += 25
            take_step(keeper)
            saved.append(keeper.saved)
    assert saved == [0, 0, 3, 4, 4, 4, 7, 8, 8, 8, 11, 12]


def test_a_state_that_is_not_finite_is_not_saved(keeper):
    keeper.every = 0.0
    said = r"the loss of step 1 is nan: .*state, after 1 step, of these options$"
    with pytest.raises(NmlError, match=said):  # noqa: SIM117
        with keeper.keeping():
            take_step(keeper)
            with keeper.step():
                keeper.progress.add({"loss": torch.tensor(torch.nan)})
    assert steps_saved(keeper) == 1


def test_weights_that_are_not_finite_are_not_saved(keeper):
    keeper.every = 0.0
    network = keeper.parts["network"]
    said = r"not finite after 2 steps \(bias\): .*, after 1 step, of these options$"
    with pytest.raises(NmlError, match=said):  # noqa: SIM117
        with keeper.keeping():
            take_step(keeper)
            take_step(keeper, lambda: network.bias.data.fill_(torch.inf))
    assert steps_saved(keeper) == 1


def test_a_full_disk_says_how_to_go_on(keeper, monkeypatch):
    def full(value, file):
        raise OSError(28, "No space left on device")

    keeper.every = 0.0
    with keeper.keeping():
        take_step(keeper)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NmlError) as caught, keeper.keeping():
        take_step(keeper)
    monkeypatch.undo()
    assert str(caught.value) == (
        f"cannot write {keeper.states.path}: No space left on device: make room, then go on"
        " after 1 step with --resume"
    )
    assert steps_saved(keeper) == 1


def test_no_training_starts_anew_in_silence(states, caplog):
    caplog.set_level(logging.INFO)
    for resume, words in (
        (False, []),
        (False, [f"starting anew over {states.path}, as --resume is not given"]),
        (True, ["going on after 0 steps"]),
    ):
        caplog.clear()
        Keeper(states, parts(0), Progress(), 100, every=1e9).start(resume)
        assert [record.getMessage() for record in caplog.records] == words
    states.remove()
    caplog.clear()
    Keeper(states, parts(0), Progress(), 100, every=1e9).start(True)
    assert caplog.messages == [f"there is no {states.path} to go on from: starting anew"]


@dataclass(frozen=True)
class Several(Ranks):
    """One of two processes; `elsewhere` says whether a signal has come to the other one."""

    size: int = 2
    elsewhere: list[bool] = field(default_factory=lambda: [False])

    def any(self, value):
        return value or self.elsewhere[0]


def keeper_of(states, ranks):
    progress = Progress()
    return Keeper(states, parts(0), progress, 100, every=1e9, ranks=ranks)


def test_of_several_processes_all_leave_at_the_end_of_a_step(states):
    """A signal between two steps waits for the end of the next one, which all take together."""
    reached, keeper = [], keeper_of(states, Several())
    keeper.start(False)
    with pytest.raises(KeyboardInterrupt), keeper.keeping():
        take_step(keeper)
        signal.raise_signal(signal.SIGINT)
        reached.append("between")
        take_step(keeper)
        reached.append("too far")
    assert reached == ["between"]
    assert steps_saved(keeper) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_another_process_is_one_to_all(states, rank):
    def terminated(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    elsewhere = [False]
    keeper = keeper_of(states, Several(rank=rank, elsewhere=elsewhere))
    if rank == 0:
        keeper.start(False)
    try:
        with pytest.raises(Terminated), keeper.keeping():
            take_step(keeper)
            elsewhere[0] = True
            take_step(keeper)
            take_step(keeper, lambda: pytest.fail("a step was taken alone"))
    finally:
        signal.signal(signal.SIGTERM, before)
    if rank == 0:
        assert steps_saved(keeper) == 2
    else:
        assert not states.path.exists()  # the first one saves


def test_a_signal_after_the_last_step_comes_before_what_is_next(states):
    keeper, reached = keeper_of(states, Several()), []
    keeper.start(False)
    with pytest.raises(KeyboardInterrupt):
        with keeper.keeping():
            take_step(keeper)
            signal.raise_signal(signal.SIGINT)
            reached.append("validation")
        reached.append("too far")
    assert reached == ["validation"]


def test_only_the_process_that_saves_names_a_state(states):
    keeper = keeper_of(states, Several(rank=1))
    with pytest.raises(NotFinite) as caught, keeper.keeping():
        keeper.progress.add({"loss": torch.tensor(torch.nan)})
        keeper.progress.means()
    assert "state" not in str(caught.value)


def test_a_crew_tells_since_which_step_how_many_train():
    crew = Crew(2)
    crew.join(2, 0)
    assert crew.shifts == [(0, 2)]
    crew.join(1, 35)
    crew.join(1, 40)
    taken = Crew(3)
    taken.load_state_dict(crew.state_dict())
    assert taken.shifts == [(0, 2), (35, 1)]
    taken.join(3, 35)  # those before took no step
    assert taken.shifts == [(0, 2), (35, 3)]
    taken.join(2, 35)
    assert taken.shifts == [(0, 2)]
