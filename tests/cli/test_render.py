"""Answers for people and programs, and progress that leaves stdout alone."""

import io
import json
import logging
import re
import sys
import textwrap

import pexpect
import pytest

from nmlcli.cli import render
from nmlcli.errors import UsageError
from nmlcli.progress import silent
from tests.cli.processes import CLEAN


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown():
    """What was written to the pretended terminal, without its escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stdout.getvalue())


ROW = {
    "source": "clean.h5", "rows": 12000, "sve": 4.23123, "accuracy": 0.9123, "accuracy_low": 0.9,
    "accuracy_high": 0.93, "seed": 12345, "seen": False, "options": {"epochs": 30}, "none": None,
}  # fmt: skip


def test_programs_get_json_lines(capsys):
    render.answer([ROW, {"a": "ä"}])
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [ROW, {"a": "ä"}]
    assert "ä" in lines[1]


def test_people_get_a_table(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    render.answer([ROW, {**ROW, "source": "noisy.h5"}])
    text = shown()
    assert "91.2 % (90.0–93.0)" in text
    for word in ("source", "clean.h5", "noisy.h5", "12,000", "4.231", "12345", "no", "epochs 30"):
        assert word in text
    assert "none" not in text and "accuracy_low" not in text  # nothing there; shown in the interval


@pytest.mark.parametrize(("as_json", "as_table"), [(True, False), (False, True)])
@pytest.mark.parametrize("stdout", [io.StringIO, Terminal])
def test_either_can_be_forced(monkeypatch, stdout, as_json, as_table):
    monkeypatch.setattr("sys.stdout", stdout())
    render.answer([ROW], as_json, as_table)
    assert sys.stdout.getvalue().startswith("{") == as_json


def test_both_at_once_is_an_error():
    with pytest.raises(UsageError):
        render.answer([], as_json=True, as_table=True)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_no_table_is_wider_than_the_terminal(monkeypatch, count):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    wide = {f"measure_number_{i}": 1234.5678 + i for i in range(14)}
    render.answer([wide] * count)
    lines = shown().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("measure number 13" in line for line in lines) == (1 if count < 9 else 9)


def test_columns_choose_and_order(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    render.answer([ROW], columns=["sve", "source"])
    head = shown().splitlines()[0].split()
    assert head == ["sve", "source"]


def test_rows_are_written_as_they_come(capsys):
    def rows():
        yield {"a": 1}
        assert capsys.readouterr().out == '{"a": 1}\n'
        yield {"a": 2}

    render.answer(rows())


def test_binary_is_refused_only_at_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    with pytest.raises(UsageError, match="the product is binary: give -o FILE or pipe it"):
        render.refuse_terminal(None)
    with pytest.raises(UsageError):
        render.refuse_terminal("-")
    render.refuse_terminal("x.h5")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    render.refuse_terminal(None)


def test_no_progress_without_a_terminal(capsys):
    with render.progress("embed") as advance:
        advance(1, 2, loss=1.0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("how", [{"quiet": True}, {"draining": True}])
def test_no_progress_where_it_is_not_wanted(monkeypatch, how):
    monkeypatch.setattr("sys.stderr", Terminal())
    with render.progress("embed", **how) as advance:
        assert advance is silent


def test_plain_lines_with_verbose(caplog):
    caplog.set_level(logging.DEBUG, "nmlcli")
    with render.progress("embed") as advance:
        for done in range(1, 2001):
            advance(done, 2000, loss=0.25, accuracy=0.5)
    assert caplog.messages == ["embed 2,000/2,000  loss 0.250  accuracy 50.0 %"]


BAR = textwrap.dedent("""
    import logging, sys, time
    from nmlcli.cli import render
    with render.progress("pretrain") as advance:
        for done in range(1, 1201):
            advance(done, 1200, loss=2.5, accuracy=0.875)
            time.sleep(0.001)
            if done % 400 == 0:
                print(done)
                sys.stdout.buffer.write(b"\\x00\\xff\\n")
    with render.progress("nothing"):
        pass
""")


@pytest.mark.process
def test_the_bar_is_on_the_terminal_and_stdout_in_its_file(tmp_path):
    out = tmp_path / "out.bin"
    line = f"exec {sys.executable} -c '{BAR}' > {out}"
    terminal = pexpect.spawn("/bin/sh", ["-c", line], env=CLEAN, dimensions=(24, 80), timeout=60)
    terminal.expect(pexpect.EOF)
    shown = terminal.before.decode()
    assert sorted(out.read_bytes().splitlines()) == sorted(
        [b"400", b"800", b"1200", *3 * [b"\x00\xff"]]
    )
    for word in ("pretrain", "1,200/1,200", "/s", "loss 2.500", "accuracy 87.5 %"):
        assert word in shown
    assert "400\r" not in shown and "nothing" not in shown
