"""Commands joined by real pipes give what they give through files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.process

NETWORK = "-m timm:test_resnet --random-init --size 32"


@pytest.fixture
def shell(tmp_path):
    """Run a line in bash with `nml` on its path: exit code, stdout, stderr."""
    (tmp_path / "nml").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nmlcli "$@"\n')
    (tmp_path / "nml").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environment = {**os.environ, **path, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(line):
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


def test_features_through_a_pipe_and_through_a_file_have_one_spectrum(shell, tmp_path):
    embed = f"nml embed builtin:textures:test {NETWORK} --limit 60"
    piped = shell(f"{embed} | tee f.safetensors | nml spectrum -q")
    assert piped.returncode == 0, piped.stderr
    kept = shell(f"{embed} -q -o f.h5 && nml spectrum -q f.h5")
    one, two = json.loads(piped.stdout), json.loads(kept.stdout)
    assert (one.pop("source"), two.pop("source")) == ("stdin", "f.h5")
    assert one == two
    assert load_file(tmp_path / "f.safetensors")["features"].shape == (60, 96)

    whole = (tmp_path / "f.safetensors").stat().st_size
    cut = shell(f"head -c {whole - 96 * 4 * 5} f.safetensors | nml spectrum -q")
    assert (cut.returncode, cut.stdout) == (1, "")
    assert cut.stderr == "nml spectrum: stdin was cut short: 55 of 60 rows are there\n"


def test_a_head_goes_from_tune_to_eval_and_realised_noise_through_text(shell):
    line = (
        f"nml embed builtin:textures:train {NETWORK} --limit 60 -q -o f.h5"
        " && nml corrupt builtin:textures:train --limit 60 --ratio 0.2 -q"
        " | nml tune f.h5 --labels - --method lp --epochs 2 -q | nml eval - f.h5"
    )
    done = shell(line)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["method"], found["seen"], found["train_set"]) == ("lp", True, "textures:train")
    assert (found["train_noise"], found["train_ratio"], found["train_realised"]) == (None, None, 0.2)
