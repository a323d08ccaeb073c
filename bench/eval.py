"""How fast `nml eval` is, and how much memory it takes, beside the matrix products it needs.

    python bench/eval.py [RUNS] [--rows 50000]

50,000 × 512 features, 1,000 classes, a head 512-2048-512-1000 (mlp) and a linear one (lp). One JSON
line each, medians and ranges over the runs, every process in turns with the others; peaks by os.wait4:

- products: the head's layers as bare float32 products of data in memory, nothing else; only that is
  timed. `with_gram` adds the float64 Gram matrix of Z, which SVE and LSVR are computed from.
- eval: all that the command does with a file of features and of a head, from opening them to its line,
  without the start of the process; `of_products` and `of_with_gram` are their seconds over ours, and
  the same of processor time, which others on the machine disturb less (with OMP_NUM_THREADS=1 no
  thread waits busily for another).
- bootstrap: the same with 1,000 resamplings. restrict: to a tenth of the classes' columns.
- torch: the plain way with the same head: logits of all rows, softmax, cross-entropy, top-5, argmax; no
  spectrum.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nmlcli.products.features import Features
from nmlcli.products.formats import write_features, write_head
from nmlcli.products.head import Head
from nmlcli.provenance import Record

CLASSES = tuple(f"class {number:04d}" for number in range(1000))
HEADS = {"mlp": (512, 2048, 512, 1000), "lp": (512, 1000)}
LOAD = """
import sys, time
import numpy as np
from nmlcli.products.formats import read_features, read_head
features, head = read_features(sys.argv[1]), read_head(sys.argv[2])
X, labels, layers = features.matrix(), features.labels, head.layers
started, used = time.perf_counter(), time.process_time()
"""
PRODUCTS = """
gram = np.zeros((layers[-1][0].shape[1],) * 2)
for start in range(0, len(X), 4096):
    Z = X[start : start + 4096]
    for weight, _ in layers[:-1]:
        Z = Z @ weight.T
    Z @ layers[-1][0].T
"""
WITH_GRAM = "    rows = Z.astype(np.float64)\n    gram += rows.T @ rows\n"
EVAL = """
import sys, time
from nmlcli.stages.eval import EvalOptions, evaluate
from nmlcli.stages.scoring import Scoring
asked = EvalOptions(scoring=Scoring(resamplings=int(sys.argv[3])), restrict=sys.argv[4] == "restrict")
started, used = time.perf_counter(), time.process_time()
evaluate(sys.argv[2], [sys.argv[1]], asked)
"""
TORCH = """
import torch
from torch.nn.functional import cross_entropy, linear, relu
tensors = [tuple(map(torch.from_numpy, layer)) for layer in layers]
F, y = torch.from_numpy(X), torch.from_numpy(labels)
started, used = time.perf_counter(), time.process_time()
with torch.no_grad():
    for number, (weight, bias) in enumerate(tensors):
        F = linear(F, weight, bias)
        F = relu(F) if number < len(tensors) - 2 else F
    cross_entropy(F, y).item()
    F.softmax(1).max(1)
    (F.topk(5, dim=1).indices == y[:, None]).any(1).float().mean().item()
    (F.argmax(1) == y).float().mean().item()
"""
END = "\nprint(time.perf_counter() - started, time.process_time() - used)"
CASES = {
    "products": LOAD + PRODUCTS,
    "with_gram": LOAD + PRODUCTS + WITH_GRAM,
    "eval": EVAL,
    "bootstrap": EVAL,
    "restrict": EVAL,
    "torch": LOAD + TORCH,
}


def say(case: str, **values: Any) -> None:
    """Write a line."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **rounded}), flush=True)


def write_all(rows: int, folder: Path) -> None:
    """Features of random labels, also of a tenth of the classes, and heads of random weights."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, 512), dtype=np.float32)
    for name, classes in (("all", CLASSES), ("few", CLASSES[::10])):
        labels = rng.integers(0, len(classes), rows)
        record = Record("features", name * 8, "embed", classes=classes, rows=rows, columns=512)

        def blocks(size: int) -> Any:
            return (features[start : start + size] for start in range(0, rows, size))

        ids, path = [str(row) for row in range(rows)], str(folder / f"{name}.safetensors")
        write_features(path, Features(record, ids, labels, None, features.dtype, blocks, path))
    for name, widths in HEADS.items():
        layers = tuple(
            (
                rng.standard_normal((out, into), dtype=np.float32) * np.float32(2 / into) ** 0.5,
                np.zeros(out, dtype=np.float32),
            )
            for into, out in pairwise(widths)
        )
        path = str(folder / f"{name}.safetensors")
        record = Record("head", name * 8, "tune", classes=CLASSES, columns=512)
        write_head(path, Head(record, layers, None, None, path))


def run(case: str, head: str, folder: Path) -> tuple[float, float, float]:
    """Wall and processor seconds that a case says it took, and its peak of memory in MiB."""
    features = folder / f"{'few' if case == 'restrict' else 'all'}.safetensors"
    words = [str(features), str(folder / f"{head}.safetensors"), "1000" if case == "bootstrap" else "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", CASES[case] + END, *words, case],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    out = process.stdout.read().decode() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{case} ended with {process.returncode}")
    seconds, used = map(float, out.split())
    return seconds, used, usage.ru_maxrss / 1024


def bench(head: str, rows: int, runs: int, folder: Path) -> None:
    """All cases of one head."""
    found: dict[str, list[tuple[float, float, float]]] = {case: [] for case in CASES}
    for _ in range(runs):
        for case in CASES:
            found[case].append(run(case, head, folder))
    middle, used = (
        {case: statistics.median(each[place] for each in taken) for case, taken in found.items()}
        for place in (0, 1)
    )
    for case, taken in found.items():
        more: dict[str, Any] = {}
        if case in ("eval", "bootstrap", "restrict"):
            for other in ("products", "with_gram", "torch"):
                more[f"of_{other}"] = middle[other] / middle[case]
                more[f"processor_of_{other}"] = used[other] / used[case]
        seconds = [each[0] for each in taken]
        more |= {"peak_mib": max(each[2] for each in taken), "runs": len(taken)}
        spread = {"lowest": min(seconds), "highest": max(seconds), "processor": used[case]}
        say(case, head=head, rows=rows, seconds=middle[case], **spread, **more)


def main() -> None:
    """Bench both heads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--rows", type=int, default=50_000)
    asked = parser.parse_args()
    say("machine", processors=os.cpu_count(), numpy=np.__version__)
    with tempfile.TemporaryDirectory() as folder:
        write_all(asked.rows, Path(folder))
        for head in HEADS:
            bench(head, asked.rows, asked.runs, Path(folder))


if __name__ == "__main__":
    main()
