"""How fast `nml convert` is and how much memory it takes, beside bare loops that copy the same rows.

    python bench/convert.py [RUNS]

One JSON line each, medians over the runs, alternatives in turns with ours in the same run. Time that
a process needs to start and that fsync takes is taken off on both sides: starting is measured with a
file of few rows, fsync with one of the bytes that were just written.

- .h5 to .safetensors and back, 410 MB (100,000 rows of 1,024 float32), beside a loop of h5py that
  copies the rows in blocks of 1 MiB, from HDF5 to HDF5, without records, ids, checks or checksums.
- Other forms, 41 MB there and back: seconds, and the largest memory beside that of few rows.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nmlcli.products.features import Features
from nmlcli.products.formats import write_features
from nmlcli.products.vectors import VECTORS
from nmlcli.provenance import Record

ROWS, COLUMNS, FEW = 100_000, 1024, 10
NML = [sys.executable, "-m", "nmlcli", "convert", "-q"]
LOOP = """
import os, sys, h5py
with h5py.File(sys.argv[1], "r") as source, h5py.File(sys.argv[2], "w") as out:
    rows = source["features"]
    copy = out.create_dataset("features", rows.shape, rows.dtype, chunks=rows.chunks)
    for start in range(0, len(rows), 256):
        copy[start : start + 256] = rows[start : start + 256]
descriptor = os.open(sys.argv[2], os.O_RDONLY)
os.fsync(descriptor)
"""
FSYNC = "import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))"


def say(case: str, **values: Any) -> None:
    """Write a line."""
    print(json.dumps({"case": case, **{k: round(v, 3) if isinstance(v, float) else v
                                       for k, v in values.items()}}), flush=True)  # fmt: skip


def write(path: Path, rows: int) -> None:
    """Random features as `embed` writes them."""
    rng = np.random.default_rng(0)
    record = Record("features", "f" * 32, "bench", classes=("a", "b"), rows=rows, columns=COLUMNS)
    write_features(
        str(path),
        Features(
            record=record, ids=[f"set/class/{row:08d}" for row in range(rows)],
            labels=np.arange(rows) % 2, clean_labels=None, dtype=np.dtype(np.float32), source="bench",
            blocks=lambda size: (
                rng.standard_normal((min(size, rows - i), COLUMNS), np.float32)
                for i in range(0, rows, size)
            ),
        ),
    )  # fmt: skip


def run(words: list[str]) -> tuple[float, int]:
    """Seconds that a process takes, and its peak of memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(words)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[:5]} ended with {process.returncode}")
    return time.perf_counter() - started, used.ru_maxrss * 1024


def copy_and_flush(source: Path, target: Path) -> float:
    """Seconds for a plain write and fsync of as many bytes, less those of the write: the fsync."""
    size, piece = source.stat().st_size, os.urandom(2**20)
    with target.open("wb") as file:
        for _ in range(size // 2**20):
            file.write(piece)
        file.flush()
        started = time.perf_counter()
        os.fsync(file.fileno())
    return time.perf_counter() - started


def bench_large(folder: Path, runs: int) -> None:
    """HDF5 to safetensors and back beside the loop."""
    h5, few, out = folder / "a.h5", folder / "few.h5", folder / "b.safetensors"
    write(h5, ROWS)
    write(few, FEW)
    loop, here, back, syncs, starts, loop_starts = ([] for _ in range(6))
    for number in range(runs + 1):  # the first warms the caches up
        found = (
            run([sys.executable, "-c", LOOP, str(h5), str(folder / "loop.h5")]),
            run([*NML, str(h5), str(out)]),
            run([*NML, str(out), str(folder / "back.h5")]),
            (copy_and_flush(h5, folder / "plain"), 0),
            run([*NML, str(few), str(folder / "few.safetensors")]),
            run([sys.executable, "-c", LOOP, str(few), str(folder / "few-loop.h5")]),
        )
        if number:
            for times, one in zip((loop, here, back, syncs, starts, loop_starts), found, strict=True):
                times.append(one)
    seconds, peaks = (
        [statistics.median(each[i] for each in times)
         for times in (loop, here, back, syncs, starts, loop_starts)]
        for i in (0, 1)
    )  # fmt: skip
    sync, start = seconds[3], seconds[4]
    bare = seconds[0] - seconds[5] - sync
    for case, place in ((".h5 to .safetensors", 1), (".safetensors to .h5", 2)):
        ours = seconds[place] - start - sync
        say(case, megabytes=h5.stat().st_size / 1e6, seconds=ours, loop_seconds=bare,
            speed_beside_loop=bare / ours, whole_seconds=seconds[place],
            whole_loop_seconds=seconds[0], start_seconds=start, fsync_seconds=sync,
            peak_megabytes=peaks[place] / 1e6, peak_of_few_rows=peaks[4] / 1e6)  # fmt: skip


def bench_forms(folder: Path) -> None:
    """Every other form, a tenth as large, once."""
    source, few = folder / "small.h5", folder / "few.h5"
    write(source, ROWS // 10)
    write(few, FEW)
    for suffix in VECTORS:
        there, back = folder / f"x{suffix}", folder / "back.h5"
        idle = run([*NML, str(few), str(there)])[1]
        wrote, read = run([*NML, str(source), str(there)]), run([*NML, str(there), str(back)])
        say(suffix, megabytes=source.stat().st_size / 1e6, megabytes_in_it=there.stat().st_size / 1e6,
            write_seconds=wrote[0], read_seconds=read[0], peak_megabytes=max(wrote[1], read[1]) / 1e6,
            peak_of_few_rows=idle / 1e6)  # fmt: skip


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        bench_large(Path(name), count)
        bench_forms(Path(name))
