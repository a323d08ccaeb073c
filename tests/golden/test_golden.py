"""Golden cases: tests/golden/COMMAND/CASE/ holds `cmd`, its inputs, and what is to come of it.

`cmd` is one line of shell. `expout`, `experr` and `code` are what it writes and how it ends; a file
`out/NAME` is what it leaves as NAME. After an intended change write them anew with

    NML_GOLDEN=write python -m pytest tests/golden

and read the diff. A command without pipes runs in this process, others in bash.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nmlcli.cli import main
from tests.cli.processes import CLEAN

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.rglob("cmd"))
OURS = {"cmd", "expout", "experr", "code", "out"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.relative_to(HERE).as_posix())
def test_golden(case, tmp_path, monkeypatch, capsysbinary):
    for entry in case.iterdir():
        if entry.name not in OURS:
            shutil.copy(entry, tmp_path)
    line = (case / "cmd").read_text().strip()
    monkeypatch.chdir(tmp_path)
    if re.search(r"[|<>;&$*]", line):
        code, out, err = in_bash(line, tmp_path)
    else:
        monkeypatch.setenv("COLUMNS", "80")
        program, *words = shlex.split(line)
        assert program == "nml"
        code = main.run(words)
        out, err = capsysbinary.readouterr()
    left = {path.name: path.read_bytes() for path in (case / "out").glob("*")}
    if os.environ.get("NML_GOLDEN") == "write":
        write(case, code, out, err, {name: (tmp_path / name).read_bytes() for name in left})
    assert err.decode() == expected(case, "experr").decode()
    assert out.decode() == expected(case, "expout").decode()
    assert code == int(expected(case, "code") or b"0")
    for name, content in left.items():
        assert (tmp_path / name).read_bytes() == content, name


def in_bash(line, folder):
    """Exit code, stdout and stderr of a line of shell in which nml is this one."""
    words = shlex.join([sys.executable, "-m", "nmlcli"])
    script = f'set -o pipefail; nml() {{ {words} "$@"; }}; {line}'
    env = {**CLEAN, "PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def expected(case, name):
    return (case / name).read_bytes() if (case / name).exists() else b""


def write(case, code, out, err, left):
    """Make this the expectation; what is empty, or 0, has no file."""
    for name, content in (("expout", out), ("experr", err), ("code", b"%d\n" % code if code else b"")):
        if content:
            (case / name).write_bytes(content)
        else:
            (case / name).unlink(missing_ok=True)
    for name, content in left.items():
        (case / "out" / name).write_bytes(content)


def test_there_are_cases():
    assert len(CASES) >= 10
