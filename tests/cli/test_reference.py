"""The man pages, completions and reference page are what the declarations make."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.cli.processes import CLEAN

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(["man", "completions", "reference"])


def test_they_are_current(made):
    stale = [path for path, text in made.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run: make man completions reference"


def test_nothing_else_lies_beside_them(made):
    lying = {
        path.relative_to(ROOT).as_posix()
        for folder in ("man", "completions")
        for path in (ROOT / folder).iterdir()
    }
    assert lying == {path for path in made if not path.startswith("docs/")}


def test_they_name_no_path_of_this_machine(made):
    for path, text in made.items():
        assert str(ROOT) not in text and sys.prefix not in text, path


@pytest.mark.process
@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
def test_the_man_pages_have_no_warnings(made):
    for path in made:
        if path.startswith("man/"):
            done = subprocess.run(
                ["man", "--warnings", "-l", ROOT / path], capture_output=True, env=CLEAN
            )
            assert (done.returncode, done.stderr) == (0, b""), path


@pytest.fixture
def environment(tmp_path):
    """An environment whose `nml` is this one."""
    script = tmp_path / "bin" / "nml"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m nmlcli "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{CLEAN['PATH']}"
    return {**CLEAN, "PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}


@pytest.mark.process
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(environment):
    script = (
        f"source {ROOT}/completions/nml.bash; COMP_WORDS=(nml cor); COMP_CWORD=1; _nml_completion nml; "
        'echo "${COMPREPLY[@]}"; COMP_WORDS=(nml corrupt --kind p); COMP_CWORD=3; _nml_completion nml; '
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.split("\n")[:2] == ["corrupt", "pairflip"]


@pytest.mark.process
@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(environment):
    script = f"source {ROOT}/completions/nml.fish; complete -C 'nml cor'"
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("corrupt")


@pytest.mark.process
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_completes_at_the_first_tab(environment):
    shell = pexpect.spawn("zsh", ["-f"], env=environment, timeout=30, encoding="utf-8")
    shell.sendline(
        f"PS1='> '; fpath=({ROOT}/completions $fpath); autoload -U compinit; compinit -u; echo rea''dy"
    )
    shell.expect("ready")
    shell.send("nml cor\t")
    shell.expect("corrupt")
    shell.close(force=True)
