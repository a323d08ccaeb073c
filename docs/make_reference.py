"""Write the man pages, completions and reference page from the commands' declarations.

    python docs/make_reference.py [man] [completions] [reference]

Without names it writes all three. tests/cli/test_reference.py holds the files to what this makes.
"""

import re
import sys
from pathlib import Path
from typing import Any

import typer
from typer.completion import get_completion_script

from nmlcli.cli.main import app
from nmlcli.cli.usage import sections
from nmlcli.version import __version__

ROOT = Path(__file__).parent.parent
DATE = "2026-11-24"  # of the version
EXAMPLES = """\
nml corrupt builtin:shapes:train --ratio 0.3 -o noisy.csv
nml pretrain builtin:shapes:train --labels noisy.csv -a resnet10t -o noisy.safetensors
nml embed builtin:textures:train -m noisy.safetensors -o train.h5
nml embed builtin:textures:test -m noisy.safetensors -o test.h5
nml spectrum test.h5
nml tune train.h5 --method nmtune -o head.safetensors
nml eval head.safetensors test.h5 --results results.jsonl
nml report results.jsonl
"""
EXIT_STATUS = (
    ("0", "done"), ("1", "the run failed"), ("2", "usage"), ("3", "a threshold was missed"),
    ("130", "interrupted"), ("143", "terminated"),
)  # fmt: skip
ENVIRONMENT = (("NML_DEBUG", "set to 1, errors come with a traceback"),)


def commands() -> list[tuple[str, Any, Any]]:
    """Name, command and context of nml and all commands below it, in the order of its help."""
    root = typer.main.get_command(app)
    found: list[tuple[str, Any, Any]] = []

    def walk(name: str, command: Any, parent: Any) -> None:
        context = typer.Context(
            command, info_name=name.split()[-1], parent=parent, **command.context_settings
        )
        found.append((name, command, context))
        for below, child in getattr(command, "commands", {}).items():
            walk(f"{name} {below}", child, context)

    walk("nml", root, None)
    return found


def usage_of(command: Any, context: Any) -> str:
    """The synopsis without the program's name, on one line."""
    return " ".join(command.collect_usage_pieces(context))


def paragraphs(command: Any) -> list[str]:
    """The help text as paragraphs, each on one line; the first is the summary."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", command.help or "")]


def roff(text: str) -> str:
    """Text as roff: backslashes, hyphens of options and leading dots made safe."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def man_page(name: str, command: Any, context: Any) -> str:
    """A man page in roff for one command."""
    title = name.replace(" ", "-")
    summary, *rest = paragraphs(command)
    lines = [f'.TH {title.upper()} 1 "{DATE}" "nml {__version__}" "nml manual"', ".SH NAME"]
    lines += [f"{roff(title)} \\- {roff(summary.rstrip('.'))}", ".SH SYNOPSIS", f".B {roff(name)}"]
    lines += [roff(usage_of(command, context)), ".SH DESCRIPTION", roff(summary)]
    for part in rest:
        lines += [".PP", roff(part)]
    if children := getattr(command, "commands", {}):
        lines.append(".SH COMMANDS")
        for below, child in children.items():
            lines += [".TP", f".B {roff(below)}", roff(paragraphs(child)[0])]
    for heading, rows in sections(command, context).items():
        lines.append(f".SH {heading.upper()}")
        for left, right in rows:
            lines += [".TP", f".B {roff(left)}", roff(right)]
    if name == "nml":
        lines += [".SH EXAMPLES", ".nf", *(roff(line) for line in EXAMPLES.splitlines()), ".fi"]
    for heading, words in (("EXIT STATUS", EXIT_STATUS), ("ENVIRONMENT", ENVIRONMENT)):
        lines.append(f".SH {heading}")
        for word, meaning in words:
            lines += [".TP", f".B {word}", meaning]
    others = [n.replace(" ", "\\-") for n, *_ in commands() if n != name]
    lines += [".SH SEE ALSO", ",\n".join(f".BR {other} (1)" for other in others)]
    return "\n".join(lines) + "\n"


def reference_page() -> str:
    """Every command's help in Markdown."""
    about = "Made from the declarations by `docs/make_reference.py`; do not edit."
    lines = ["# Commands", "", about, ""]
    for name, command, context in commands():
        lines += [f"## {name}", "", "```", f"{name} {usage_of(command, context)}", "```", ""]
        for part in paragraphs(command):
            lines += [part, ""]
        for heading, rows in sections(command, context).items():
            lines += [f"{heading}:", "", *(f"- `{left}`: {right}" for left, right in rows), ""]
    return "\n".join(lines)


def completions() -> dict[str, str]:
    """The completion scripts of bash, zsh and fish, as files of the names their shells look for."""
    made = {
        shell: get_completion_script(prog_name="nml", complete_var="_NML_COMPLETE", shell=shell)
        for shell in ("bash", "zsh", "fish")
    }
    # zsh runs the file as the function at the first Tab, so it must complete and not only define.
    first_tab = 'if [ "$funcstack[1]" = "_nml" ]; then _nml_completion "$@"; else \\0; fi'
    made["zsh"] = re.sub(r"^compdef .*$", first_tab.replace("\\0", r"\g<0>"), made["zsh"], flags=re.M)
    return {
        "completions/nml.bash": made["bash"] + "\n",
        "completions/_nml": made["zsh"] + "\n",
        "completions/nml.fish": made["fish"] + "\n",
    }


def make(parts: list[str]) -> dict[str, str]:
    """The files of these parts, by their paths in the repository."""
    files: dict[str, str] = {}
    if "man" in parts:
        for name, command, context in commands():
            files[f"man/{name.replace(' ', '-')}.1"] = man_page(name, command, context)
    if "completions" in parts:
        files |= completions()
    if "reference" in parts:
        files["docs/reference.md"] = reference_page()
    return files


if __name__ == "__main__":
    for path, text in make(sys.argv[1:] or ["man", "completions", "reference"]).items():
        (ROOT / path).write_text(text, encoding="utf-8")
