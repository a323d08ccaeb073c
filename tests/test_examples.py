"""The scripts in examples/ do what they say."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nmlcli.products.formats import read_features
from nmlcli.stages.embed import EmbedOptions, embed

ROOT = Path(__file__).parents[1]
SET, NETWORK = "builtin:shapes:val:sketch", "timm:test_resnet"
AROUND = [
    (["0/3"], {}),
    ([], {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3"}),
    ([], {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}),
]


@pytest.mark.process
def test_parts_by_parallel_slurm_and_torchrun_are_the_whole(tmp_path):
    options = "--random-init --size 32 --batch-size 64 --workers 0"
    nml = f'#!/bin/sh\nexec "{sys.executable}" -m nmlcli "$@" {options}\n'
    (tmp_path / "nml").write_text(nml)
    (tmp_path / "nml").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    known = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    known |= {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script, folder = ROOT / "examples" / "embed.sh", tmp_path / "features"
    for words, around in AROUND:
        command = ["bash", str(script), SET, NETWORK, str(folder), *words]
        done = subprocess.run(command, env={**known, **around}, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0000-of-0003.h5", "0001-of-0003.h5", "0002-of-0003.h5"]
    embed([SET], NETWORK, str(tmp_path / "whole.h5"), EmbedOptions(random_init=True, size=32))
    whole = read_features(str(tmp_path / "whole.h5"))
    parts = [read_features(str(folder / name)) for name in names]
    assert [each for part in parts for each in part.ids] == list(whole.ids)
    joined = np.concatenate([part.matrix() for part in parts])
    np.testing.assert_allclose(joined, whole.matrix(), atol=1e-5)
