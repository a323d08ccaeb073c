"""Real `nml` processes for the tests that need one."""

import os
import subprocess
import sys

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NML_DEBUG", "PYTHONUNBUFFERED")
} | {"COLUMNS": "80"}


def command(*arguments: str) -> list[str]:
    """The words that start nml with these arguments, by this interpreter."""
    return [sys.executable, "-m", "nmlcli", *arguments]


def nml(*arguments, stdin=b"", env=None, cwd=None):
    """Run nml to its end; stdout and stderr are bytes."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        env={**CLEAN, **(env or {})},
        cwd=cwd,
        timeout=120,
    )
