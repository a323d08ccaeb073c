"""Arrays that come and go: pages that the kernel has to give, counted in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

from nmlcli import allocator
from nmlcli.allocator import _OF_THE_USER

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

COUNT = """
import resource, sys
from types import SimpleNamespace
import torch
if sys.argv[1] == "training":
    from nmlcli.training.loop import fit
    fit(None, None, None, schedule=None, epochs=0, steps_per_epoch=1)
if sys.argv[1] == "embedding":
    from nmlcli.models.extraction import _Extractor
    _Extractor(SimpleNamespace(module=torch.nn.Identity()), "fp32", "float32")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    torch.ones(10 << 20)  # 40 MiB: above any default threshold
step()
before = faults()
for _ in range(100):
    step()
print(faults() - before)
"""


def faults(work: str, **environment: str) -> int:
    """How many pages arrays take that come and go after this work."""
    own = {name: value for name, value in os.environ.items() if name not in _OF_THE_USER}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, work],
        env=own | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("work", ["training", "embedding"])
def test_freed_arrays_are_used_again(work: str) -> None:
    assert 5 * faults(work) < faults("none")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072"),
    ],
)
def test_what_the_user_has_set_stands(name: str, value: str) -> None:
    assert faults("training", **{name: value}) > 750_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("called"))
    allocator.keep_freed_memory()
