"""What the README tells people to type works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_the_checks_install_and_test_as_the_readme_says():
    start, test = BLOCKS[:2]
    run = (ROOT / ".ci" / "run").read_text()
    assert test.strip() in run
    assert "python3 -m venv" in start and "python3 -m venv" in run
    assert (ROOT / start.split("&&")[-1].strip()).stat().st_mode & 0o111


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.process
def test_the_chain_by_hand(tmp_path):
    chain, pipes = BLOCKS[2:4]
    assert "nml corrupt" in chain and "| nml spectrum" in pipes
    (tmp_path / "nml").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nmlcli "$@"\n')
    (tmp_path / "nml").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", chain + pipes],
        cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("id,label,clean_label\na,dog,cat\nb,dog,dog\nc,cat,cat\nd,cat,dog\n")
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3
    assert len((tmp_path / "noisy.csv").read_text().splitlines()) == 2001
