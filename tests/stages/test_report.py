"""The report from files to files."""

import json

import pytest

from nmlcli.cli import main
from nmlcli.errors import UsageError
from nmlcli.stages.report import ReportOptions, report, write
from tests.report.lines import result


@pytest.fixture
def files(tmp_path):
    for name, accuracy, ratio in (("a", 0.8, 0.0), ("b", 0.7, 0.3)):
        line = {**result(accuracy, ratio), "identity": name}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]


def test_several_files_are_one_comparison_and_a_line_counts_once(files):
    comparison = report([*files, files[0]], ReportOptions())
    assert [row.cells["lp"].value for row in comparison.rows] == [0.8, 0.7]
    assert [row.cells["lp"].heads for row in comparison.rows] == [1, 1]


@pytest.mark.parametrize("suffix", [".md", ".csv", ".png", ".pdf"])
def test_written_whole_by_the_suffix_and_the_same_twice(files, tmp_path, suffix):
    comparison = report(files, ReportOptions())
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    write(comparison, str(first))
    write(comparison, str(second))
    assert first.read_bytes() == second.read_bytes() != b""


def test_an_unknown_suffix(files, tmp_path):
    with pytest.raises(UsageError, match=r"x.txt: no report has the suffix .txt: choose from .md"):
        write(report(files, ReportOptions()), str(tmp_path / "x.txt"))
    assert not (tmp_path / "x.txt").exists()


def test_the_command_writes_an_svg(files, tmp_path, capsys):
    out = tmp_path / "table.svg"
    assert main.run(["report", *files, "-o", str(out)]) == 0
    first = out.read_bytes()
    assert first.startswith(b"<svg") and b"29.9" in first
    assert main.run(["report", *files, "-o", str(out)]) == 0
    assert out.read_bytes() == first
    assert capsys.readouterr() == ("", "")


def test_the_command_answers_programs_and_people(files, capsys):
    assert main.run(["report", *files]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["value"] == 0.8
    assert main.run(["report", *files, "--table"]) == 0
    text = capsys.readouterr().out
    assert "LP" in text and "80.0 ±2.0" in text and "takes more seeds" in " ".join(text.split())
