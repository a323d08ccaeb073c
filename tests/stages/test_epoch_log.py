"""The log of a training: what it replaces, whom it speaks to, what stops it."""

import json
import os
import threading

import pytest

from nmlcli.errors import NmlError, UsageError
from nmlcli.stages.epoch_log import EpochLog, check_log

LINE = json.dumps({"kind": "epoch", "epoch": 1, "loss": 2.0}) + "\n"


def written(log):
    log.stop()
    log.write(1, 0.1, {"loss": 2.0})
    log.stop()
    log.write(2, 0.1, {"loss": 1.0})


@pytest.mark.parametrize("text", ["", LINE, LINE * 3, LINE * 2 + LINE[:20], LINE[:5], LINE[:30]])
def test_a_log_of_epochs_may_be_replaced(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    check_log(str(path))
    written(EpochLog(str(path), "x", 0, 8, 8))
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "id,label\na,1\n", LINE + "[1]\n", '{"kind":"result"}\n' + LINE, LINE + LINE[:9] + "\n",
        "a line without an end", "\x00\xff", LINE + "\xff a text without an end",
    ],
)  # fmt: skip
def test_what_is_no_log_stays(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"a.jsonl would overwrite what is no log of epochs: give"):
        check_log(str(path))


def test_no_log_is_missing_and_missing_is_no_fault(tmp_path):
    check_log(None)
    check_log(str(tmp_path / "new.jsonl"))


def test_a_reader_of_a_pipe_gets_all_lines(tmp_path):
    path, told = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: told.extend(path.read_text().splitlines()))
    reader.start()
    check_log(str(path))
    log = EpochLog(str(path), "x", 0, 8, 8)
    written(log)
    log.close()
    reader.join(timeout=20)
    assert [json.loads(line)["epoch"] for line in told] == [1, 2]


def test_a_full_disk_is_told_of_the_log():
    log = EpochLog("/dev/full", "x", 0, 8, 8)
    log.stop()
    with pytest.raises(NmlError, match=r"^cannot write the log /dev/full: No space left on device"):
        log.write(1, 0.1, {"loss": 2.0})


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(NmlError, match=r"cannot write the log .*/no/a.jsonl: No such file"):
        EpochLog(str(tmp_path / "no" / "a.jsonl"), "x", 0, 8, 8)


@pytest.mark.parametrize(
    ("epochs", "more", "start", "kept"),
    [
        ([1, 2, 3], LINE[:20], 3, [1, 2, 3]),
        ([1, 2, 3], LINE[:20], 2, [1, 2]),
        ([4, 5, 6], "", 5, [4, 5]),  # of which those before were lost
        ([4, 5, 6], "", 3, []),
        ([1, 2], "", 2, [1, 2]),
    ],
)
def test_lines_of_epochs_that_are_run_again_go_and_so_do_halves(tmp_path, epochs, more, start, kept):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"kind": "epoch", "epoch": epoch}) + "\n" for epoch in epochs]
    path.write_text("".join(lines) + more)
    check_log(str(path))
    EpochLog(str(path), "x", start, 8, 8)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == kept


def test_a_reader_that_left_is_told(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = EpochLog(str(path), "x", 0, 8, 8)
    os.close(reader)
    log.stop()
    with pytest.raises(NmlError, match=r"Broken pipe: who read it has left$"):
        log.write(1, 0.1, {"loss": 2.0})
    log.close()
