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
    "source": "clean.h5", "rows": 12000, "sve": 4.23123, "accuracy": 0.9123, "seed": 12345,
    "seen": False, "options": {"epochs": 30}, "none": None, "large": 1234.5, "endless": float("inf"),
}  # fmt: skip
FLAT = [{"a": 1, "b": "ä"}, {"a": float("nan")}]
JSON = '{"a": 1, "b": "ä"}\n{"a": null}\n'


def write(form, as_json=False, as_table=False):
    if form == "table":
        render.table(["name"], [["shown"]], FLAT, as_json, as_table)
    else:
        render.cards(FLAT, as_json, as_table, lambda row: {"name": "shown"})


@pytest.mark.parametrize("form", ["table", "cards"])
def test_programs_get_json_lines(capsys, form):
    write(form)
    assert capsys.readouterr().out == JSON


@pytest.mark.parametrize("form", ["table", "cards"])
@pytest.mark.parametrize("stdout", [io.StringIO, Terminal])
def test_either_can_be_forced(monkeypatch, form, stdout):
    monkeypatch.setattr("sys.stdout", stdout())
    write(form, as_json=True)
    assert sys.stdout.getvalue() == JSON
    monkeypatch.setattr("sys.stdout", stdout())
    write(form, as_table=True)
    assert "shown" in shown() and "{" not in shown()


@pytest.mark.parametrize("form", ["table", "cards"])
def test_both_at_once_is_an_error(form):
    with pytest.raises(UsageError, match="--json and --table exclude each other"):
        write(form, as_json=True, as_table=True)


def test_people_get_a_table_of_the_chosen_columns(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    rows = [ROW, {**ROW, "source": "noisy.h5"}]
    keys = ["sve", "source", "rows", "accuracy", "seed", "seen", "options", "none", "large", "endless"]
    render.table(*render.columns(rows, keys), rows, False, False, ["a remark"])
    head, _, first, second, remark = shown().splitlines()
    assert head.split() == keys
    words = [
        *("4.231", "clean.h5", "12,000", "91.2 %", "12345", "no", "epochs 30", "–", "1,234", "inf")
    ]
    assert re.split(r" {2,}", first.strip()) == words
    assert "noisy.h5" in second and remark.strip() == "a remark"


def test_people_get_cards_of_what_there_is(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    render.cards([ROW, ROW], False, False, lambda row: {key: row[key] for key in ("none", "rows")})
    assert [line.split() for line in shown().splitlines()] == [
        ["rows", "12,000"],
        [],
        ["rows", "12,000"],
    ]


@pytest.mark.parametrize("form", ["table", "cards"])
def test_names_from_files_do_not_steer_the_terminal(monkeypatch, capsys, form):
    """Neither by what Rich lets through (escapes) nor by what it takes out (a bell)."""
    name, told = "é\n\x1b[2J\x9b\a\x7f", r"é\n\x1b[2J\x9b\x07\x7f"
    monkeypatch.setenv("COLUMNS", "200")
    if form == "table":
        render.table(["two\nwords", "\x1b[2J"], [["a", name]], [{}], False, True, [f"remark {name}"])
    else:
        render.cards([{"name": name, "held": {name: name}, "all": [name]}], False, True)
    out = capsys.readouterr().out
    assert out.count(told) == (2 if form == "table" else 4)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    if form == "table":
        assert "".join(out.splitlines()[:2]).split() == ["two", "words", r"\x1b[2J"]
    assert rf"run {told}" in render._shown({"run": name})
    render.cards([{"name": name}], True, False)
    assert json.loads(capsys.readouterr().out) == {"name": name}


def test_names_in_the_bar_are_no_markup():
    bar = render._Bar("embed")
    bar(1, 2, set="a[/b]")
    bar.close()
    text = bar.bar.columns[-1](bar.bar.tasks[0])
    assert str(text) == "set a[/b]"


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("form", ["table", "cards"])
def test_nothing_is_wider_than_the_terminal(monkeypatch, form, count):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"source": 30 * "wide", **{f"measure_{i}": 1234.5678 + i for i in range(9)}}] * count
    if form == "table":
        render.table(*render.columns(rows, list(rows[0])), rows, False, False)
    else:
        render.cards(rows, False, False)
    assert max(map(len, shown().splitlines())) <= 80
    assert shown().count("1,243") == count


@pytest.mark.parametrize("as_table", [False, True])
def test_rows_are_written_as_they_come(capsys, as_table):
    def rows():
        yield {"a": 1}
        assert "1" in capsys.readouterr().out
        yield {"a": 2}

    render.cards(rows(), not as_table, as_table)
    assert "2" in capsys.readouterr().out


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


def test_a_sparkline_has_logarithmic_axes():
    assert render.sparkline([2.0**-k for k in range(8)], 8) == "█▇▆▅▃▁"
    assert render.sparkline([8.0, 4.0, 1.0, 0.0]) == "█▆▁ "
    assert render.sparkline([3.0]) == "█"
    assert render.sparkline([5.0] * 2048) == "█" * 10
    assert render.sparkline([0.0, 0.0]) == render.sparkline([]) == ""


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
