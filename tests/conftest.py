"""What all tests share: one thread for torch, and the real data where it is."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; several tests may run at once
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):  # they force escapes into captured help
    os.environ.pop(name, None)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the small real data sets; a test that needs it is left out where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data is not at {SHARED_DATA}")
    return SHARED_DATA
