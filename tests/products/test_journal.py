"""Rows of a run that was killed: what is there is a prefix of what was written, or is refused."""

import errno
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products import journal
from nmlcli.products.journal import Journal

ABOUT = {"identity": "a" * 32, "options": {"precision": "fp32", "size": None}}
FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)
VALUES = (np.arange(1, 37, dtype=np.float32) / 7).reshape(12, 3)
BOUNDS = [0, 3, 4, 9, 12]  # of the blocks that `written` makes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.h5.partial"


@pytest.fixture
def unflushed(monkeypatch):
    """For tests of many files, which would only wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def opened(path, about=ABOUT, shape=(3,), dtype=FLOAT32):
    return Journal.open(path, about, shape, dtype)


def held(rows, size=5):
    """All rows of an open journal."""
    return np.concatenate([np.empty((0, *rows.shape), rows.dtype), *rows.blocks(size)])


def written(path):
    """VALUES in blocks of several sizes; returns the file's bytes."""
    with opened(path) as rows:
        for start, stop in pairwise(BOUNDS):
            rows.append(VALUES[start:stop])
    return path.read_bytes()


def header_of(data):
    return data[: data.index(b"\n") + 1]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_what_was_written_is_read_back_over_several_runs(data):
    shape = data.draw(st.sampled_from([(1,), (7,), (2, 3)]))
    dtype = data.draw(st.sampled_from([FLOAT32, FLOAT16]))
    sizes = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=3))
    total = sum(map(sum, sizes))
    bits = np.random.default_rng(total).bytes(total * int(np.prod(shape)) * dtype.itemsize)
    values = np.frombuffer(bits, dtype).reshape(total, *shape)  # any bits, NaN and infinity among them
    with tempfile.TemporaryDirectory() as folder:
        done = 0
        for run in sizes:
            with opened(Path(folder) / "x.partial", shape=shape, dtype=dtype) as rows:
                assert rows.rows == done
                for size in run:
                    rows.append(values[done : done + size])
                    done += size
                size = data.draw(st.integers(1, 12))
                blocks = list(rows.blocks(size))
                assert rows.rows == done == sum(map(len, blocks))
        assert {len(block) for block in blocks[:-1]} <= {size}
        assert {(block.dtype, block.shape[1:]) for block in blocks} <= {(dtype, shape)}
        assert b"".join(block.tobytes() for block in blocks) == values.tobytes()


def test_the_form_is_as_it_says(path):
    """Read by a transcription that shares no code."""
    data = written(path)
    line, rest = data.split(b"\n", 1)
    assert line[:11] == b"nml rows 1 " and int(line[-8:], 16) == zlib.crc32(line[11:-9])
    assert json.loads(line[11:-9]) == {"about": ABOUT, "dtype": "float32", "shape": [3]}
    checksum, values = zlib.crc32(line + b"\n"), b""
    while rest:
        count, told = struct.unpack("<II", rest[:8])
        payload, rest = rest[8 : 8 + 12 * count], rest[8 + 12 * count :]
        checksum = zlib.crc32(struct.pack("<I", count) + payload, checksum)
        assert told == checksum
        values += payload
    assert values == VALUES.astype("<f4").tobytes()


@pytest.mark.parametrize("values", [VALUES[:, ::-1], VALUES.T.copy().T, VALUES.astype(">f4")])
def test_any_layout_in_memory(path, values):
    with opened(path, dtype=values.dtype) as rows:
        rows.append(values)
        (block,) = rows.blocks(12)
        assert (block == values).all() and block.dtype == values.dtype
    assert path.read_bytes()[-VALUES.nbytes :] == values.astype("<f4").tobytes()


def test_a_block_that_does_not_fit_is_a_mistake(path):
    with opened(path) as rows:
        rows.append(VALUES)
        for wrong in (VALUES[:, :2], VALUES.astype(np.float16), VALUES[:, None], VALUES[0]):
            with pytest.raises(ValueError, match="is not float32"):
                rows.append(wrong)
        rows.append(VALUES[:0])
        assert rows.rows == 12


def test_blocks_are_read_while_rows_are_added(path):
    with opened(path) as rows:
        rows.append(VALUES[:4])
        blocks = rows.blocks(4)
        rows.append(VALUES[4:8])
        assert (next(blocks) == VALUES[:4]).all()
        rows.append(VALUES[8:])
        assert (held(rows) == VALUES).all()


def test_cut_short_anywhere_a_prefix_of_whole_blocks_stays(path, unflushed):
    whole = written(path)
    head, row = len(header_of(whole)), VALUES[0].nbytes
    ends = [head + 8 * number + row * bound for number, bound in enumerate(BOUNDS)]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = max((n for n, end in zip(BOUNDS, ends, strict=True) if end <= length), default=0)
        with opened(path) as rows:
            assert rows.rows == kept and (held(rows) == VALUES[:kept]).all()
            rows.append(VALUES[kept:])
        with opened(path) as rows:
            assert (held(rows) == VALUES).all()


@pytest.mark.parametrize("flip", [1, 128])
def test_a_changed_byte_anywhere_never_gives_wrong_rows(path, flip, unflushed):
    whole = written(path)
    head, row = len(header_of(whole)), VALUES[0].nbytes
    starts = [head + 8 * number + row * bound for number, bound in enumerate(BOUNDS)]
    for index in range(len(whole)):
        data = bytearray(whole)
        data[index] ^= flip
        path.write_bytes(data)
        if index < head:
            with pytest.raises(InvalidInput):
                opened(path)
            assert path.read_bytes() == data
            continue
        kept = max(bound for bound, start in zip(BOUNDS, starts, strict=True) if start <= index)
        with opened(path) as rows:
            assert rows.rows == kept and (held(rows) == VALUES[:kept]).all()
            rows.append(VALUES[kept:])
        with opened(path) as rows:
            assert (held(rows) == VALUES).all()


@pytest.mark.parametrize("tail", [bytes(1), bytes(8), bytes(5000), b"\xff" * 5000, b"\1\0\0\0" * 5])
def test_what_a_power_cut_leaves_at_the_end_goes(path, tail):
    whole = written(path)
    path.write_bytes(whole + tail)
    with opened(path) as rows:
        assert (held(rows) == VALUES).all()
    assert path.read_bytes() == whole


def test_frames_from_elsewhere_are_not_taken_for_rows(path):
    """Those of another run, those that stand twice, those that are not in order."""
    with opened(path, {"identity": "b"}) as rows:
        rows.append(VALUES[:3])
    other = path.read_bytes()
    path.unlink()
    whole = written(path)
    head, last = header_of(whole), whole[-8 - 3 * 12 :]
    stale = other[len(header_of(other)) :]
    assert len(stale) == len(last)
    for data, kept in (
        (whole + last, 12), (whole + stale, 12), (head + stale, 0),
        (head + last + whole[len(head) :], 0), (whole[: -len(last)] + stale, 9),
    ):  # fmt: skip
        path.write_bytes(data)
        with opened(path) as rows:
            assert rows.rows == kept and (held(rows) == VALUES[:kept]).all()


def test_a_start_that_was_cut_short_is_made_anew(path, unflushed):
    head = header_of(written(path))
    for length in range(len(head)):
        for start in (head[:length], head[: length // 9 * 9] + bytes(len(head) - length)):
            path.write_bytes(start)
            with opened(path) as rows:
                rows.append(VALUES)
            with opened(path) as rows:
                assert (held(rows) == VALUES).all()


FOREIGN = [
    b"\x89HDF\r\n\x1a\n" + bytes(500), b"x", b"id,label\na,1\n", b"\n", bytes(5000), b"nml rows 2 {}\n",
    b"nml rows 1 {} 00000000\n", b"nml rows 1 " + b"x" * 5000, b"nml rows 1 \0{", b"\x80" * 3_000_000,
]  # fmt: skip


@pytest.mark.parametrize("data", FOREIGN)
def test_what_is_not_ours_is_refused_and_left_alone(path, data):
    path.write_bytes(data)
    with pytest.raises(
        InvalidInput, match=r"x\.h5\.partial is (not of nml|damaged in its first line): "
    ):
        opened(path)
    assert path.read_bytes() == data


@settings(deadline=None, max_examples=60)
@given(
    st.binary(min_size=1, max_size=400).filter(
        lambda data: not b"nml rows 1 ".startswith(data.rstrip(b"\0"))
    )
)
def test_other_bytes_are_refused_and_left_alone(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.partial"
        path.write_bytes(data)
        with pytest.raises(InvalidInput):
            opened(path)
        assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"about": {**ABOUT, "identity": "b"}}, f'identity "{"a" * 32}", not "b"'),
        ({"about": {"identity": "a" * 32}}, 'options {"precision":"fp32","size":null}, not null'),
        ({"about": {**ABOUT, "model": "m"}}, 'model null, not "m"'),
        ({"shape": (4,)}, "shape [3], not [4]"),
        ({"shape": (1, 3)}, "shape [3], not [1,3]"),
        ({"dtype": FLOAT16}, 'dtype "float32", not "float16"'),
    ],
)
def test_another_run_is_refused_in_words_and_left_alone(path, changes, words):
    whole = written(path)
    with pytest.raises(InvalidInput) as caught:
        opened(path, **changes)
    remedy = "repeat that one, or remove the file to start anew"
    assert str(caught.value) == f"{path} is of another run ({words}): {remedy}"
    assert path.read_bytes() == whole


def test_the_same_facts_in_another_order_and_as_tuples(path):
    with opened(path, {"a": [1, 2], "b": "é\n"}) as rows:
        rows.append(VALUES)
    with opened(path, {"b": "é\n", "a": (1, 2)}) as rows:
        assert rows.rows == 12


def test_only_one_holds_a_file(path):
    with opened(path) as rows:
        rows.append(VALUES)
        with pytest.raises(NmlError, match=r"another run is writing .*: wait for it"):
            opened(path)
        rows.append(VALUES)
        assert rows.rows == 24
    opened(path).close()


@pytest.mark.process
def test_another_process_is_kept_out_until_the_first_is_gone(path):
    script = WRITER + "    input()\n"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path), "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert [writer.stdout.readline() for _ in range(2)] == [b"1\n", b"3\n"]
        with pytest.raises(NmlError, match="another run is writing"):
            opened(path)
        writer.kill()
    with pytest.raises(InvalidInput, match="is of another run"):  # and nobody holds it
        opened(path)


def test_a_file_that_was_removed_between_is_not_written_to(path, monkeypatch):
    """A run that ends takes its file away while another one opens it."""
    first, real = opened(path), os.open

    def removing(*arguments):
        handle = real(*arguments)
        first.remove()
        return handle

    monkeypatch.setattr(os, "open", removing)
    with pytest.raises(NmlError, match="another run is writing"):
        opened(path)
    assert not path.exists()


def test_a_file_system_without_locks(path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with opened(path) as rows:
        rows.append(VALUES)
    with opened(path) as rows:
        assert rows.rows == len(VALUES)


def test_it_goes_when_it_has_served(path):
    with opened(path) as rows:
        rows.append(VALUES)
        rows.remove()
        rows.remove()
    assert not path.exists()


# Rows of 64 values that are their own number; says after every block how many are there.
WRITER = """
import signal, sys
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs behind it
from nmlcli.products.journal import Journal
with Journal.open(sys.argv[1], {"of": "numbers"}, (64,), np.dtype("float32")) as rows:
    while rows.rows < int(sys.argv[2]):
        start, size = rows.rows, rows.rows % 7 + 1
        block = np.arange(start, start + size, dtype=np.float32)[: int(sys.argv[2]) - start]
        rows.append(np.repeat(block[:, None], 64, axis=1))
        print(rows.rows, flush=True)
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_writer_leaves_what_it_said_and_is_gone_on_from(path, number):
    chance, kept = random.Random(1), 0
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(path), str(10**7)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            said = int(writer.stdout.readline())
            time.sleep(chance.random() / 20)
            writer.send_signal(number)
            said = int([said, *writer.stdout.read().split(b"\n")[:-1]][-1])
        assert writer.returncode == -number
        with Journal.open(path, {"of": "numbers"}, (64,), FLOAT32) as rows:
            values = held(rows, 1000)
        assert len(values) >= said > kept
        assert (values == np.arange(len(values), dtype=np.float32)[:, None]).all()
        kept = len(values)


@pytest.mark.process
def test_a_full_disk_is_said_in_words_and_what_was_whole_stays(path):
    """The limit on a file's size stands for a full disk: writing fails in the same way."""
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n{WRITER}"
    command = [sys.executable, "-c", limit, str(path), str(10**7)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout.split()
    error = done.stderr.splitlines()[-1]
    assert error == f"nmlcli.errors.NmlError: cannot write {path}: File too large"
    assert path.stat().st_size == 10_000
    with Journal.open(path, {"of": "numbers"}, (64,), FLOAT32) as rows:
        assert rows.rows == int(said[-1]) > 10
        assert (held(rows)[:, 5] == np.arange(rows.rows)).all()
        rows.append(np.zeros((50, 64), np.float32))
        assert len(held(rows)) == int(said[-1]) + 50


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_whichever_write_is_stopped_the_rows_before_stay(path, monkeypatch, error, calls):
    """Half of what was to be written is, and then no more; the same journal goes on, or another."""
    real, left = os.pwrite, calls

    def stopped(handle, data, position):
        nonlocal left
        left -= 1
        if left > 0:
            return real(handle, data, position)
        if left == 0:
            return real(handle, data[: len(data) // 2], position)
        raise error

    with opened(path) as rows:
        rows.append(VALUES[:4])
        monkeypatch.setattr(os, "pwrite", stopped)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else NmlError):
            for start in (4, 8):
                rows.append(VALUES[start : start + 4])
        kept = 4 if calls < 3 else 8
        assert rows.rows == kept and (held(rows) == VALUES[:kept]).all()
        monkeypatch.undo()
        left_over = path.read_bytes()
        rows.append(VALUES[kept : kept + 1])  # shorter than what is left behind it
        assert (held(rows) == VALUES[: kept + 1]).all()
    with opened(path) as rows:
        assert (held(rows) == VALUES[: kept + 1]).all()
    path.write_bytes(left_over)
    with opened(path) as rows:
        assert (held(rows) == VALUES[:kept]).all()


def test_writes_and_reads_in_several_calls(path, monkeypatch):
    """A call may do less than it was asked for, on network file systems and by signals."""
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: write(handle, data[:3], at))
    monkeypatch.setattr(os, "preadv", lambda handle, views, at: read(handle, [views[0][:5]], at))
    written(path)
    with opened(path) as rows:
        assert (held(rows) == VALUES).all()


def test_a_folder_that_is_none_and_one_that_cannot_be_written(tmp_path):
    with pytest.raises(NmlError, match=r"cannot write .*none/x\.partial: No such file"):
        opened(tmp_path / "none" / "x.partial")
    with pytest.raises(NmlError, match="cannot write /proc/self/x"):
        opened("/proc/self/x.partial")  # one that cannot be written even by root
    with pytest.raises(NmlError, match=r"cannot write .*: Is a directory"):
        opened(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(InvalidInput, match="is no plain file: give another -o"):
            opened(special)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def test_rows_that_are_lost_while_it_is_open_are_noticed(path):
    whole = written(path)
    data = bytearray(whole)
    data[-40] ^= 1
    with opened(path) as rows:
        path.write_bytes(data)
        blocks = rows.blocks(9)
        assert (next(blocks) == VALUES[:9]).all()
        with pytest.raises(InvalidInput, match="is damaged from row 9 on: run it again"):
            next(blocks)
        path.write_bytes(whole[:-1])
        with pytest.raises(InvalidInput, match="is damaged from row 9 on"):
            held(rows)
    with opened(path) as rows:
        assert rows.rows == 9


def test_a_disk_that_cannot_be_read_loses_no_rows(path, monkeypatch):
    whole = written(path)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with opened(path) as rows, monkeypatch.context() as patch:
        patch.setattr(os, "preadv", broken)
        with pytest.raises(NmlError, match=r"cannot read .*: Input/output error"):
            held(rows)
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(NmlError, match="Input/output error"):
        opened(path)
    assert path.read_bytes() == whole


def test_the_disk_is_waited_for_every_few_seconds_and_at_the_end(path, monkeypatch):
    times, now, real = [], [100.0], os.fsync
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(os, "fsync", lambda handle: (times.append(now[0]), real(handle)))
    rows = opened(path)
    assert times == [100.0, 100.0]  # the header, and its name in the folder, before any row
    times.clear()
    for _ in range(60):
        now[0] += 0.1
        rows.append(VALUES)
    assert times == pytest.approx([102.1, 104.2], abs=0.25)
    now[0] += 60
    rows.append(VALUES)
    assert times[2:] == [now[0]]
    rows.close()
    rows.close()
    assert times[3:] == [now[0]]


def test_large_blocks_are_several_frames_and_a_wrong_count_takes_no_memory(path, monkeypatch):
    monkeypatch.setattr(journal, "_LARGEST", 100)  # 8 rows of 12 bytes
    with opened(path) as rows:
        rows.append(np.concatenate([VALUES, VALUES]))
        assert (held(rows) == np.concatenate([VALUES, VALUES])).all()
    data = path.read_bytes()
    assert len(data) == len(header_of(data)) + 3 * 8 + 24 * 12
    with path.open("r+b") as file:
        file.seek(len(header_of(data)))
        file.write(struct.pack("<I", 2**24))
        file.truncate(2**29)  # a hole, which takes no room on the disk
    tracemalloc.start()
    with opened(path) as rows:
        assert rows.rows == 0
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_memory_is_a_block(tmp_path):
    block = np.ones((1000, 256), np.float32)  # 1 MB
    with opened(tmp_path / "x", shape=(256,)) as rows:
        for _ in range(40):
            rows.append(block)
    tracemalloc.start()
    with opened(tmp_path / "x", shape=(256,)) as rows:
        rows.append(block)
        assert sum(map(len, rows.blocks(500))) == 41_000
    assert tracemalloc.get_traced_memory()[1] < 5 * block.nbytes
    tracemalloc.stop()
