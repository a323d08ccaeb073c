"""nml corrupt as it is typed."""

import subprocess

import pytest

from nmlcli.cli.main import run
from tests.cli.processes import CLEAN, command, nml

TABLE = "id,label\r\n" + "".join(f"{i},{'abc'[i % 3]}\r\n" for i in range(300))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(TABLE.encode())
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--ratio is missing"),
        (("--ratio", "1.1"), 2, "--ratio 1.1 lies outside 0 to 1: 20 % is 0.2"),
        (("--ratio", "-0.1"), 2, "lies outside 0 to 1"),
        (("--ratio", ".1", "--kind", "symetric"), 2, "did you mean symmetric?"),
        (("--ratio", ".1", "--draw", "exactly"), 2, "did you mean exact?"),
        (("--ratio", ".1", "--label-column", "y"), 1, "no column y, but id, label"),
        (("--ratio", ".1", "-o", "none/there.csv"), 1, "none does not exist"),
        (("--ratio", ".1", "-o", "o.tsv"), 2, "end the name in .csv"),
    ],
)
def test_errors_are_one_line(table, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(table.parent)

    assert run(["corrupt", "train.csv", *arguments]) == code

    out, error = capsys.readouterr()
    assert message in error
    assert error.startswith("nml corrupt: ")
    assert error.count("\n") == 1
    assert not out


def test_a_summary_unless_quiet(table, tmp_path, capsys):
    out = tmp_path / "noisy.csv"
    assert run(["corrupt", str(table), "--ratio", "0.2", "--seed", "7", "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == "nml corrupt: flipped 60 of 300 labels (20.00 %), symmetric, seed 7\n"
    assert not said.out

    assert run(["corrupt", str(table), "--ratio", "0.2", "--seed", "7", "-o", str(out), "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.process
def test_a_pipe_gives_what_the_file_gives(table, tmp_path):
    out = tmp_path / "noisy.csv"
    assert run(["corrupt", str(table), "--ratio", "0.2", "-q", "-o", str(out)]) == 0

    piped = nml("corrupt", "--ratio", "0.2", stdin=table.read_bytes())

    assert piped.returncode == 0
    assert piped.stdout == out.read_bytes()


@pytest.mark.process
def test_a_closed_pipe_ends_quietly(table):
    table.write_text(TABLE + "".join(f"{i},a\n" for i in range(300, 200_000)))
    with subprocess.Popen(
        command("corrupt", str(table), "--ratio", "0.2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=CLEAN,
    ) as process:
        assert process.stdout.readline() == b"id,label,clean_label\r\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -13
