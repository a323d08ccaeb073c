"""How fast `nml corrupt` is, how much memory it takes, and how much noise it really makes.

    python bench/corrupt.py [RUNS]

One JSON line each, medians over the runs, alternatives in turns with ours in the same run:

- table: 1,281,167 rows (ImageNet's size, 1,000 classes) as CSV from stdin to stdout, beside a plain
  loop of Python's csv module that reads and writes the same rows. Memory is what a row takes beyond
  its own bytes, from the peaks of a large and a small table.
- labels: 10 million labels as an array, once the ids are hashed, beside one numpy permutation of that
  length; hashing text ids is a line of its own.
- cleanlab: its `generate_noisy_labels` at 10, 100 and 1,000 classes: time, and the share of labels that
  differ, for 5 and 20 % asked. Left out where cleanlab is not installed (`pip install cleanlab`).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nmlcli.keyed import hash_ids
from nmlcli.noise.kinds import NOISES
from nmlcli.noise.terms import Request, Rows

ROWS, CLASSES, LABELS = 1_281_167, 1000, 10_000_000
NML = [sys.executable, "-m", "nmlcli", "corrupt", "--ratio", "0.2", "-q"]
LOOP = """
import csv, sys
reader, writer = csv.reader(sys.stdin), csv.writer(sys.stdout, lineterminator="\\n")
writer.writerows(row for row in reader)
"""


def say(case: str, **values: Any) -> None:
    """Write a line."""
    print(json.dumps({"case": case, **{k: round(v, 4) if isinstance(v, float) else v
                                       for k, v in values.items()}}), flush=True)  # fmt: skip


def timed(call: Any) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def write_table(path: Path, rows: int) -> None:
    """ids and labels as ImageNet has them, eighty-odd bytes a row."""
    labels = np.random.default_rng(0).integers(0, CLASSES, rows).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write("id,image,label\n")
        for row, label in enumerate(labels):
            wnid = f"n{label:08d}"
            file.write(f"{wnid}/{wnid}_{row},train/{wnid}/{row:07d}.JPEG,class {label}\n")


def run(words: list[str], source: Path) -> tuple[float, float, float]:
    """Wall and processor seconds, peak of memory in bytes, of a process fed with a file by a pipe."""
    started = time.perf_counter()
    feeder = subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE)
    with Path(os.devnull).open("wb") as sink:
        process = subprocess.Popen(words, stdin=feeder.stdout, stdout=sink)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    feeder.wait()
    if process.returncode:
        raise SystemExit(f"{words[:4]} ended with {process.returncode}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def bench_table(runs: int) -> None:
    """The command in a pipe beside the loop."""
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large.csv"), Path(folder, "small.csv")
        write_table(large, ROWS)
        write_table(small, 1000)
        ours, loop = [], []
        for _ in range(runs):
            loop.append(run([sys.executable, "-c", LOOP], large))
            ours.append(run(NML, large))
        empty = run(NML, small)
        bytes_a_row = large.stat().st_size / ROWS
    (wall, processor, peak), (wall_loop, processor_loop, _) = (
        [statistics.median(column) for column in zip(*each, strict=True)] for each in (ours, loop)
    )
    beyond = (peak - empty[2]) / ROWS - bytes_a_row
    say("table", rows=ROWS, seconds=wall, loop_seconds=wall_loop, ratio=wall / wall_loop,
        processor_ratio=processor / processor_loop, start_seconds=empty[0],
        bytes_a_row=bytes_a_row, memory_a_row_beyond_it=beyond)  # fmt: skip


def rows_of(num_classes: int, count: int) -> Rows:
    """Random labels, with hashes as ids would have."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    names = tuple(f"class {i:04d}" for i in range(num_classes))
    return Rows(hashes, rng.integers(0, num_classes, count), "labels", names)


def bench_labels(runs: int) -> None:
    """Labels as an array beside a permutation."""
    rows, rng = rows_of(CLASSES, LABELS), np.random.default_rng(1)
    cases = {
        "symmetric": ("symmetric", Request(Fraction("0.2"))),
        "symmetric, stratified": ("symmetric", Request(Fraction("0.2"), stratify=True)),
        "symmetric, bernoulli": ("symmetric", Request(Fraction("0.2"), draw="bernoulli")),
        "pairflip": ("pairflip", Request(Fraction("0.2"))),
    }
    times: dict[str, list[float]] = {name: [] for name in ("permutation", *cases)}
    for _ in range(runs):
        times["permutation"].append(timed(lambda: rng.permutation(LABELS)))
        for name, (kind, request) in cases.items():
            times[name].append(
                timed(lambda kind=kind, request=request: NOISES[kind].change(rows, request))
            )
    base = statistics.median(times.pop("permutation"))
    for name, found in times.items():
        seconds = statistics.median(found)
        say("labels", kind=name, rows=LABELS, seconds=seconds, permutation_seconds=base,
            ratio=seconds / base)  # fmt: skip
    ids = [f"n{i:08d}/n{i:08d}_{i}" for i in range(LABELS // 10)]
    seconds = statistics.median(timed(lambda: hash_ids(ids)) for _ in range(runs))
    say("hashing text ids", rows=len(ids), seconds=seconds, seconds_per_10_million=10 * seconds)


def bench_cleanlab(runs: int) -> None:
    """cleanlab's generator beside ours: time and what is realised."""
    try:
        from cleanlab.benchmarking.noise_generation import generate_noisy_labels
    except ImportError:
        print("cleanlab is not installed, so it is left out: pip install cleanlab", file=sys.stderr)
        return
    for num_classes in (10, 100, 1000):
        rows = rows_of(num_classes, ROWS)
        for ratio in ("0.05", "0.2"):
            # Column-stochastic, T[noisy, true]: symmetric noise is its own transpose.
            share = float(ratio) / (num_classes - 1)
            matrix = np.full((num_classes, num_classes), share)
            np.fill_diagonal(matrix, 1 - float(ratio))
            made: dict[str, Any] = {}

            def theirs(made: dict[str, Any] = made, matrix: Any = matrix, rows: Rows = rows) -> None:
                made["theirs"] = generate_noisy_labels(rows.values, matrix)

            def ours(made: dict[str, Any] = made, ratio: str = ratio, rows: Rows = rows) -> None:
                made["ours"] = NOISES["symmetric"].change(rows, Request(Fraction(ratio))).values

            found = [(timed(ours), timed(theirs)) for _ in range(runs)]
            seconds, seconds_theirs = (statistics.median(each) for each in zip(*found, strict=True))
            realised = {name: float((labels != rows.values).mean()) for name, labels in made.items()}
            say("cleanlab", classes=num_classes, rows=ROWS, asked=float(ratio),
                realised=realised["ours"], cleanlab_realised=realised["theirs"], seconds=seconds,
                cleanlab_seconds=seconds_theirs, ratio=seconds / seconds_theirs)  # fmt: skip


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    bench_table(count)
    bench_labels(count)
    bench_cleanlab(min(count, 3))
