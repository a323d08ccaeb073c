"""How fast the linear probe by L-BFGS is, beside scikit-learn and the bare matrix products.

    python bench/probe.py [RUNS] [--cases held,path,streamed]

Synthetic classes with 5 % of the labels wrong, float32, l2 = 1e-3; `isotropic` features, and `power`
ones, whose variances fall as 1/i. One JSON line each; medians over the runs, every alternative in a
process of its own, in turns; objectives are computed again in float64, outside the time.

- held: ours at its usual tolerance, scikit-learn (lbfgs, float32) at tol 1e-6 and 1e-4; `of_sklearn`
  is the ratio of the medians to tol 1e-6, `above` how far, relatively, the objective lies above the
  lowest of all.
- path: eight usual L2 values by `path`, beside one cold fit of the weakest, which costs most, and all
  eight cold; `off` is the largest relative difference of objectives from the cold fits.
- streamed: 400,000 × 512 of 1,000 classes from a file: seconds an evaluation, beside the two products
  (X Wᵀ and Rᵀ X of all rows at once, in memory), seconds before the first, and the peak of memory.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nmlcli.products.features import Features
from nmlcli.products.formats import write_features
from nmlcli.provenance import Record

SIZES = ((20_000, 768, 10), (50_000, 512, 100))
STREAMED = (400_000, 512, 1000)
L2 = 1e-3
LOAD = """
import json, sys, time
import numpy as np
folder, columns, classes, l2 = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
"""
HELD = """
X = np.fromfile(folder + "/x.raw", dtype=np.float32).reshape(-1, columns)
y = np.fromfile(folder + "/y.raw", dtype=np.int64)
def objective(weight, bias, l2):
    total = 0.0
    for start in range(0, len(X), 4096):
        logits = X[start : start + 4096].astype(np.float64) @ weight.T + bias
        own = logits[np.arange(len(logits)), y[start : start + 4096]].copy()
        high = logits.max(axis=1, keepdims=True)
        total += (np.log(np.exp(logits - high).sum(axis=1)) + high[:, 0] - own).sum()
    return total / len(X) + l2 / 2 * np.square(weight, dtype=np.float64).sum()
"""
OURS = """
from nmlcli.numerics.logistic import fit, path, usual_l2s
from nmlcli.numerics.rows import held_rows
rows = held_rows(X, y, classes)
"""
SKLEARN = """
from sklearn.linear_model import LogisticRegression
model = LogisticRegression(C=1 / (l2 * len(X)), tol={tol}, max_iter=10_000)
started = time.perf_counter()
model.fit(X, y)
out = dict(seconds=time.perf_counter() - started, iterations=int(model.n_iter_.max()))
out["objective"] = objective(model.coef_, model.intercept_, l2)
"""
CODE = {
    "ours": HELD + OURS + """
started = time.perf_counter()
found = fit(rows, l2)
out = dict(seconds=time.perf_counter() - started, iterations=found.iterations)
out |= dict(evaluations=found.evaluations, gradient=found.gradient, reason=found.reason)
out["objective"] = objective(found.weight, found.bias, l2)
""",
    "sklearn 1e-6": HELD + SKLEARN.format(tol=1e-6),
    "sklearn 1e-4": HELD + SKLEARN.format(tol=1e-4),
    "path": HELD + OURS + """
l2s = usual_l2s(float(np.square(X).mean()))
started = time.perf_counter()
warm = list(path(rows, l2s))
seconds, each, cold = time.perf_counter() - started, [], []
for value in l2s:
    started = time.perf_counter()
    cold.append(fit(rows, value))
    each.append(time.perf_counter() - started)
off = max(
    abs(objective(a.weight, a.bias, a.l2) / objective(b.weight, b.bias, b.l2) - 1)
    for a, b in zip(warm, cold)
)
out = dict(seconds=seconds, weakest=each[-1], dearest=max(each), cold=sum(each), off=off)
out |= dict(evaluations=sum(f.evaluations for f in warm), reasons=[f.reason for f in warm])
out["cold_evaluations"] = [f.evaluations for f in cold]
""",
    "streamed": """
from nmlcli.numerics.logistic import fit
from nmlcli.numerics.rows import Rows
from nmlcli.products.formats import read_features
features = read_features(folder + "/x.safetensors")
labels = features.labels
calls = []
def blocks():
    calls.append(time.perf_counter())
    start = 0
    for block in features.blocks(2048):
        yield block, labels[start : start + len(block)]
        start += len(block)
found = fit(Rows(features.rows, columns, classes, blocks), l2, iterations=4)
calls.append(time.perf_counter())
passes = np.diff(calls)[1:]  # the first is the survey
out = dict(seconds=float(np.median(passes)), survey=calls[1] - calls[0], evaluations=len(passes))
""",
    "products": """
X = np.fromfile(folder + "/x.raw", dtype=np.float32).reshape(-1, columns)
W = np.random.default_rng(0).standard_normal((classes, columns), dtype=np.float32)
Z, G, taken = np.zeros((len(X), classes), dtype=np.float32), np.empty_like(W), []
for _ in range(4):
    started = time.perf_counter()
    np.matmul(X, W.T, out=Z)
    np.matmul(Z.T, X, out=G)
    taken.append(time.perf_counter() - started)
out = dict(seconds=float(np.median(taken[1:])))
""",
}  # fmt: skip
END = "\nprint(json.dumps(out))\n"


def say(case: str, **values: Any) -> None:
    """Write a line."""
    rounded = {k: float(f"{v:.9g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **rounded}), flush=True)


def write(rows: int, columns: int, classes: int, kind: str, folder: Path, streamed: bool) -> None:
    """Features and labels that the cases read."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=rows)
    centres = 0.15 * rng.standard_normal((classes, columns), dtype=np.float32)
    features = rng.standard_normal((rows, columns), dtype=np.float32)
    features += centres[labels]
    if kind == "power":
        scale = np.arange(1, columns + 1.0) ** -0.5
        scale /= np.sqrt(np.square(scale).mean())
        turn = scale[:, None] * np.linalg.qr(rng.normal(size=(columns, columns)))[0]
        features = features @ turn.astype(np.float32)
    wrong = rng.random(rows) < 0.05
    labels[wrong] = rng.integers(classes, size=int(wrong.sum()))
    features.tofile(folder / "x.raw")
    labels.tofile(folder / "y.raw")
    if not streamed:
        return
    names = [str(number) for number in range(classes)]
    record = Record("features", "0" * 32, "embed", classes=names, rows=rows, columns=columns)
    ids = [str(row) for row in range(rows)]

    def blocks(size: int) -> Any:
        return (features[start : start + size] for start in range(0, rows, size))

    out = str(folder / "x.safetensors")
    write_features(out, Features(record, ids, labels, None, features.dtype, blocks, out))


def inner(case: str, folder: Path, columns: int, classes: int) -> dict[str, Any]:
    """What a process says of one case, and the peak of its memory in MiB."""
    words = [sys.executable, "-c", LOAD + CODE[case] + END, str(folder), str(columns), str(classes)]
    process = subprocess.Popen([*words, str(L2)], stdout=subprocess.PIPE)
    out = process.stdout.read().decode() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{case} ended with {process.returncode}")
    return {**json.loads(out), "peak_mib": used.ru_maxrss / 1024}


def bench(size: tuple[int, int, int], kind: str, cases: list[str], runs: int) -> None:
    """Cases beside each other on one set of rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak of memory counts from what its parent has.
        make = multiprocessing.get_context("spawn").Process(
            target=write, args=(*size, kind, folder, "streamed" in cases)
        )
        make.start()
        make.join()
        found: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
        for _ in range(runs):
            for case in cases:
                found[case].append(inner(case, folder, *size[1:]))
    middle = {
        case: statistics.median(each["seconds"] for each in taken) for case, taken in found.items()
    }
    lowest = min(each.get("objective", 0.0) for taken in found.values() for each in taken)
    for case, taken in found.items():
        seconds = [each["seconds"] for each in taken]
        more: dict[str, Any] = {**taken[-1], "seconds": middle[case]}
        more |= {"lowest": min(seconds), "highest": max(seconds)}
        if "objective" in more:
            more["above"] = more["objective"] / lowest - 1
            more["of_sklearn"] = middle[case] / middle["sklearn 1e-6"]
        if case == "path":
            for other in ("weakest", "dearest", "cold"):
                more[f"of_{other}"] = statistics.median(e["seconds"] / e[other] for e in taken)
        if case == "streamed":
            more["of_products"] = middle[case] / middle["products"]
        say(case, size=size, kind=kind, runs=runs, **more)


def main() -> None:
    """Bench what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--cases", default="held,path,streamed")
    asked = parser.parse_args()
    cases = asked.cases.split(",")
    say("machine", processors=os.cpu_count(), numpy=np.__version__)
    for size in SIZES:
        for kind in ("isotropic", "power"):
            if "held" in cases:
                bench(size, kind, ["ours", "sklearn 1e-6", "sklearn 1e-4"], asked.runs)
            if "path" in cases:
                bench(size, kind, ["path"], asked.runs)
    if "streamed" in cases:
        bench(STREAMED, "power", ["streamed", "products"], asked.runs)


if __name__ == "__main__":
    main()
