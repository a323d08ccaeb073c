"""Starting: help, version and completion without the heavy libraries, in fresh processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from nmlcli.cli.main import app
from nmlcli.version import __version__
from tests.cli.processes import CLEAN, nml

pytestmark = pytest.mark.process

HEAVY = {"torch", "numpy", "h5py", "timm", "torchvision", "PIL", "safetensors", "rich", "matplotlib"}
COMMANDS = list(typer.main.get_command(app).commands)


def modules_after(*arguments: str, env: dict[str, str] | None = None) -> tuple[set[str], str]:
    """The modules that a call has imported, and what it wrote to stdout."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nmlcli", *arguments],
        capture_output=True,
        text=True,
        env={**CLEAN, **(env or {})},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-500:]
    names = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, flags=re.M)
    assert "nmlcli.cli.main" in names  # the listing is there
    return {name.split(".")[0] for name in names}, done.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)]
)
def test_help_and_version_are_light(arguments):
    loaded, out = modules_after(*arguments)
    assert not loaded & (HEAVY | {"pydantic"})  # the validator takes 50 ms and help needs none
    assert out.startswith(f"nml {__version__}\n" if arguments == ["--version"] else "Usage: nml ")


@pytest.mark.parametrize("words", ["nml ", "nml corrupt --", "nml corrupt --kind "])
def test_completion_is_light(words):
    env = {"_NML_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    loaded, out = modules_after(env=env)
    assert not loaded & HEAVY
    wanted = {"nml ": "corrupt", "nml corrupt --": "--ratio", "nml corrupt --kind ": "pairflip"}
    assert wanted[words] in out.split()


def test_the_installed_command_is_the_same():
    script = Path(sys.executable).parent / "nml"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, env=CLEAN)
    assert done.stdout == f"nml {__version__}\n"


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "nmlcli.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from nmlcli.__main__ import main
main()
"""


def test_an_interrupt_while_the_commands_are_imported_is_quiet():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, env=CLEAN)
    assert (done.returncode, done.stderr) == (130, b"")


def test_openmp_waits_for_a_moment_unless_the_user_says_otherwise():
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    program = f"import nmlcli, os; print(*map(os.environ.get, {names}))"
    show = [sys.executable, "-c", program]
    env = {name: value for name, value in CLEAN.items() if name not in names}
    said = subprocess.run(show, capture_output=True, text=True, env=env).stdout
    assert said == "PASSIVE 5000\n"
    for own in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}):
        wanted = " ".join(own.get(name, "None" if name[0] == "G" else "PASSIVE") for name in names)
        said = subprocess.run(show, capture_output=True, text=True, env={**env, **own}).stdout
        assert said == f"{wanted}\n"


def test_no_arguments_show_the_help():
    done = nml()
    assert done.returncode == 0
    assert b"Commands:" in done.stdout and done.stderr == b""
