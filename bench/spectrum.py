"""How fast `nml spectrum` is, and how much memory it takes, beside the bare product and three SVDs.

    python bench/spectrum.py [RUNS] [--beside floor,numpy,torch,released] [--columns 512]

Power-law features with a mean, float32, 200,000 × 512 and 50,000 × 2,048. One JSON line each, medians
and ranges over the runs, every process in turns with the others; peaks of memory by os.wait4:

- start: the command on a tiny file, which is what starting it costs.
- floor: blocks of 4,096 rows cast to float64, their Gram matrices added up, eigvalsh, on data that is
  in memory; only that is timed. It is what the pass cannot do without.
- .safetensors, .h5, pipe: the command on a file, and fed by `cat`; seconds are of the whole process,
  `over_floor` is (seconds - start) / floor, and the same of processor time, which others on the
  machine disturb less (with OMP_NUM_THREADS=1 no thread waits busily for another).
- numpy, torch: the singular values alone, float64 and float32, of data in memory; only that is timed.
- released: scikit-learn's TruncatedSVD with all components, as the paper's code, once, if asked for.
- ill-conditioned: the same sizes with a spectrum down to 1e-9, which takes a second look.
"""

import argparse
import json
import multiprocessing
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
from nmlcli.provenance import Record

SIZES = ((200_000, 512), (50_000, 2048))
NML = [sys.executable, "-m", "nmlcli", "spectrum", "-q"]
LOAD = """
import sys, time
import numpy as np
X = np.fromfile(sys.argv[1], dtype=np.float32).reshape(-1, int(sys.argv[2]))
"""
TIMED = {
    "floor": """
started, used = time.perf_counter(), time.process_time()
gram = np.zeros((X.shape[1], X.shape[1]))
product, rows = np.empty_like(gram), np.empty((4096, X.shape[1]))
for start in range(0, len(X), 4096):
    block = rows[: len(X[start : start + 4096])]
    np.copyto(block, X[start : start + 4096])
    gram += np.matmul(block.T, block, out=product)
np.linalg.eigvalsh(gram)
""",
    "numpy": """
X = X.astype(np.float64)
started, used = time.perf_counter(), time.process_time()
np.linalg.svd(X, compute_uv=False)
""",
    "torch": """
import torch
X = torch.from_numpy(X)
started, used = time.perf_counter(), time.process_time()
torch.linalg.svdvals(X)
""",
    "released": """
from sklearn.decomposition import TruncatedSVD
started, used = time.perf_counter(), time.process_time()
TruncatedSVD(n_components=X.shape[1]).fit(X)
""",
}
END = "print(time.perf_counter() - started, time.process_time() - used)"


def say(case: str, **values: Any) -> None:
    """Write a line."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **rounded}), flush=True)


def power_law(rows: int, columns: int, lowest: float | None) -> np.ndarray:
    """Features float32 [N, D] with a mean; singular values as i^-½, or evenly down to `lowest`."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, columns + 1.0) ** -0.5
    if lowest is not None:
        scale = np.geomspace(1, lowest, columns)
    rotation = (
        np.linalg.qr(rng.normal(size=(columns, columns)))[0] if lowest is None else np.eye(columns)
    )
    turn = (scale[:, None] * rotation).astype(np.float32)
    drawn = rng.standard_normal((rows, columns), dtype=np.float32) @ turn
    return drawn + np.float32(0.1) if lowest is None else drawn


def write(features: np.ndarray, path: Path) -> None:
    """Write features as embed does."""
    rows, columns = features.shape
    record = Record("features", "0" * 32, "embed", rows=rows, columns=columns)
    ids = [str(row) for row in range(rows)]

    def blocks(size: int) -> Any:
        return (features[start : start + size] for start in range(0, rows, size))

    write_features(str(path), Features(record, ids, None, None, features.dtype, blocks, str(path)))


def write_all(rows: int, columns: int, folder: Path) -> None:
    """Everything that the cases read."""
    features = power_law(rows, columns, None)
    features.tofile(folder / "x.raw")
    for suffix in (".safetensors", ".h5"):
        write(features, folder / f"x{suffix}")
    write(features[:64, :4].copy(), folder / "tiny.safetensors")
    write(power_law(rows, columns, 1e-9), folder / "poor.safetensors")


def run(words: list[str], pipe: Path | None = None) -> tuple[float, float, float, str]:
    """Wall and processor seconds, peak of memory in MiB and output of a process, maybe fed a file."""
    started = time.perf_counter()
    feeder = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) if pipe else None
    source = feeder.stdout if feeder else subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out = process.stdout.read().decode() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - started
    if feeder:
        feeder.wait()
    if process.returncode:
        raise SystemExit(f"{words[:5]} ended with {process.returncode}: {process.stderr.read()}")
    return taken, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, out


def inner(case: str, raw: Path, columns: int) -> tuple[float, ...]:
    """Wall and processor seconds that an alternative says it took, and the peak of its memory."""
    words = [sys.executable, "-c", LOAD + TIMED[case] + END, str(raw), str(columns)]
    *_, peak, out = run(words)
    return *map(float, out.split()), peak


def bench(rows: int, columns: int, runs: int, alternatives: list[str], folder: Path) -> None:
    """All cases of one size."""
    raw, tiny, poor = folder / "x.raw", folder / "tiny.safetensors", folder / "poor.safetensors"
    ours = {suffix: folder / f"x{suffix}" for suffix in (".safetensors", ".h5")}
    # In a process of its own: a child's peak of memory counts from what its parent has.
    make = multiprocessing.get_context("spawn").Process(target=write_all, args=(rows, columns, folder))
    make.start()
    make.join()
    calls = {
        "start": lambda: run([*NML, str(tiny)])[:3],
        **{name: lambda path=path: run([*NML, str(path)])[:3] for name, path in ours.items()},
        "pipe": lambda: run(NML, ours[".safetensors"])[:3],
        "ill-conditioned": lambda: run([*NML, str(poor)])[:3],
        **{
            name: lambda name=name: inner(name, raw, columns)
            for name in alternatives
            if name != "released"
        },
    }
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            found[name].append(call())
    if "released" in alternatives:
        found["released"] = [inner("released", raw, columns)]
    middle, used = (
        {name: statistics.median(each[place] for each in taken) for name, taken in found.items()}
        for place in (0, 1)
    )
    for name, taken in found.items():
        seconds = [each[0] for each in taken]
        more: dict[str, Any] = {}
        if name in (*ours, "pipe", "ill-conditioned"):
            more["over_floor"] = (middle[name] - middle["start"]) / middle["floor"]
            more["processor_over_floor"] = (used[name] - used["start"]) / used["floor"]
            others = [other for other in ("numpy", "torch", "released") if other in middle]
            more |= {f"of_{other}": middle[name] / middle[other] for other in others}
        if name == "pipe":
            more["over_file"] = middle[name] / middle[".safetensors"]
        more |= {"peak_mib": max(each[2] for each in taken), "runs": len(taken)}
        spread = {"lowest": min(seconds), "highest": max(seconds), "processor": used[name]}
        say(name, rows=rows, columns=columns, seconds=middle[name], **spread, **more)


def main() -> None:
    """Bench both sizes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--beside", default="floor,numpy,torch", help="of " + ",".join(TIMED))
    parser.add_argument("--columns", type=int, help="only the size with so many")
    asked = parser.parse_args()
    try:
        from threadpoolctl import threadpool_info

        kernels = {
            f"{found.get('internal_api')} {found.get('architecture')}" for found in threadpool_info()
        }
    except ImportError:
        kernels = set()
    say("machine", processors=os.cpu_count(), numpy=np.__version__, kernels=sorted(kernels))
    for rows, columns in (size for size in SIZES if asked.columns in (None, size[1])):
        with tempfile.TemporaryDirectory() as folder:
            bench(rows, columns, asked.runs, asked.beside.split(","), Path(folder))


if __name__ == "__main__":
    main()
