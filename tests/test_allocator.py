"""Arrays that come and go: pages that the kernel has to give, counted in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

COUNT = """
import resource, sys
import torch
from nmlcli.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    torch.ones(10 << 20)  # 40 MiB: above any default threshold
step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


def faults(how: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_freed_arrays_are_used_again() -> None:
    assert 4 * faults("keep") < faults("leave")


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_what_the_user_has_set_stands(name: str) -> None:
    assert faults("keep", **{name: "131072"}) > 150_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from nmlcli import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("called"))
    allocator.keep_freed_memory()
