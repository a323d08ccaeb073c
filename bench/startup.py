"""How long `nml` takes to start: help, version and completion, beside a bare Typer application.

One JSON line each: median and quartiles of the wall time of fresh processes and the median of their
processor time, in milliseconds, after a warm-up and in turns, so that whatever else the machine does
hits all alike.

    python bench/startup.py [RUNS]
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

BARE = """
import typer
app = typer.Typer(rich_markup_mode={mode!r}, add_completion=False)
for name in ("corrupt", "pretrain", "embed", "spectrum", "tune", "eval"):
    @app.command(name)
    def command(data: str, ratio: float = 0.5, kind: str = "symmetric", seed: int = 0) -> None:
        "A command."
app()
"""
AS_INSTALLED = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
NML = [sys.executable, "-m", "nmlcli"]
COMPLETION = {"_NML_COMPLETE": "complete_bash", "COMP_WORDS": "nml corrupt --", "COMP_CWORD": "2"}
CASES = {
    "python": ([sys.executable, "-c", ""], {}),
    "bare typer --help": ([sys.executable, "-c", BARE.format(mode=None), "--help"], {}),
    "bare typer, rich --help": ([sys.executable, "-c", BARE.format(mode="rich"), "--help"], {}),
    "bare typer, rich corrupt --help": (
        [sys.executable, "-c", BARE.format(mode="rich"), "corrupt", "--help"], {},
    ),
    "nml --help": ([*NML, "--help"], {}),
    "nml --version": ([*NML, "--version"], {}),
    "nml corrupt --help": ([*NML, "corrupt", "--help"], {}),
    "nml tune --help": ([*NML, "tune", "--help"], {}),
    "nml completion": (NML, COMPLETION),
}  # fmt: skip


def measure(words: list[str], extra: dict[str, str]) -> tuple[float, float]:
    """Milliseconds from start to end of a process, and of the processor."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env={**AS_INSTALLED, **extra}, stdout=subprocess.DEVNULL, check=True)
    ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * (ended - started), 1000 * used


def main(runs: int) -> None:
    """Time every case in turns and write a line each."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for number in range(runs + 2):
        for name, (words, extra) in CASES.items():
            taken = measure(words, extra)
            if number >= 2:
                times[name].append(taken)
    for name, found in times.items():
        low, middle, high = statistics.quantiles([wall for wall, _ in found], n=4)
        values = {"median_ms": middle, "quartile_low_ms": low, "quartile_high_ms": high}
        values["processor_ms"] = statistics.median(used for _, used in found)
        print(json.dumps({"case": name, **{k: round(v, 1) for k, v in values.items()}, "runs": runs}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
