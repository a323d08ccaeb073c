"""How long an epoch of NMTune is, beside the plain MLP and two straightforward ways to write it.

    python bench/tune.py [RUNS] [--columns 512]

Random features, 100 classes, batches of 64, the paper's MLP D-4D-D, fused AdamW; 20,000 × 512,
20,000 × 768 and 4,096 × 2,048. All variants take turns, epoch by epoch, in one process; a line each
with the median seconds of an epoch, and the median of the ratios to the MLP epoch of the same turn:

- mlp, nmtune: ours, by `nmlcli.tuning.heads.train`.
- transcription: Eq. 3-5 of the paper as they stand: svdvals, the D × D covariance, autograd.
- released: the form of the released code on one view: torch.svd, the mean of the five largest shares,
  element-wise mean squared error, weights 1, 0.04 and 0.001.

Then linear probes of several rates and seeds by AdamW, an epoch each: one after another, and side by
side as `nml tune --grid` and `--seeds` have them; how many times as long the former takes.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nmlcli import keyed  # before torch, so that threads wait as they do in nml

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor

from nmlcli.training.loop import fit
from nmlcli.training.optim import cosine
from nmlcli.tuning.heads import TrainableHead, steps_per_epoch, train
from nmlcli.tuning.methods import settle
from nmlcli.tuning.probes import Probe, train_together

SIZES = ((20_000, 512), (20_000, 768), (4_096, 2048))
GRIDS = ((768, 10, 1, 3), (768, 10, 4, 1), (768, 10, 4, 3), (512, 100, 4, 3))  # D, C, rates, seeds
CLASSES, SEED = 100, 0

Terms = Callable[[Tensor, Tensor], Tensor]


def transcription(features: Tensor, transformed: Tensor) -> Tensor:
    """0.01 (L_MSE + L_COV + L_SVD), Eq. 3-5."""
    apart = F.normalize(features, dim=1) - F.normalize(transformed, dim=1)
    centred = transformed - transformed.mean(0)
    covariance = centred.T @ centred / (len(transformed) - 1)
    off = covariance - torch.diag(covariance.diagonal())
    values = torch.linalg.svdvals(transformed)
    terms = apart.square().sum(1).mean(), off.square().sum() / off.shape[0], -values[0] / values.sum()
    return 0.01 * (terms[0] + terms[1] + terms[2])


def released(features: Tensor, transformed: Tensor) -> Tensor:
    """The terms of the released code on one view."""
    consistency = F.mse_loss(F.normalize(transformed, dim=1), F.normalize(features, dim=1))
    centred = transformed - transformed.mean(0)
    covariance = centred.T @ centred / (len(transformed) - 1)
    off = covariance.flatten()[:-1].view(len(covariance) - 1, len(covariance) + 1)[:, 1:]
    values = torch.svd(transformed)[1]
    share = -(values / values.sum())[:5].mean()
    return consistency + 0.04 * off.square().sum() / len(covariance) + 0.001 * share


def epoch_of(terms: Terms, features: Tensor, labels: Tensor) -> None:
    """One epoch as ours is, with another way to write the terms."""
    settings, _ = settle("nmtune", "paper", {"epochs": 1})
    head = TrainableHead(features.shape[1], CLASSES, settings, SEED)
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=1e-4, fused=True)
    steps = steps_per_epoch(len(features), settings.batch_size)

    def batches(epoch: int) -> Any:
        order = torch.from_numpy(keyed.permutation(len(features), SEED, f"order/{epoch}"))
        for index in torch.split(order[: steps * settings.batch_size], settings.batch_size):
            yield features.index_select(0, index), labels.index_select(0, index)

    def objective(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        transformed, logits = head(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1]) + terms(batch[0], transformed)}

    head.train()
    schedule = cosine(optimiser, steps)
    fit(objective, batches, optimiser, schedule=schedule, epochs=1, steps_per_epoch=steps)


def ours(method: str, features: Tensor, labels: Tensor) -> None:
    """One epoch of a method of ours."""
    settings = replace(settle(method, "paper", {})[0], epochs=1)
    head = TrainableHead(features.shape[1], CLASSES, settings, SEED)
    train(head, features, labels, settings, SEED)


def bench(rows: int, columns: int, runs: int) -> None:
    """All variants at one size."""
    generator = torch.Generator().manual_seed(SEED)
    features = torch.randn(rows, columns, generator=generator).relu_()
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    variants = {
        "mlp": lambda: ours("mlp", features, labels),
        "nmtune": lambda: ours("nmtune", features, labels),
        "transcription": lambda: epoch_of(transcription, features, labels),
        "released": lambda: epoch_of(released, features, labels),
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(runs + 1):  # the first warms up
        for name, variant in variants.items():
            started = time.perf_counter()
            variant()
            if turn:
                taken[name].append(time.perf_counter() - started)
    for name, seconds in taken.items():
        ratios = [one / other for one, other in zip(seconds, taken["mlp"], strict=True)]
        line = {
            "case": name, "rows": rows, "columns": columns,
            "seconds": round(statistics.median(seconds), 3),
            "of_mlp": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3), "runs": runs,
        }  # fmt: skip
        print(json.dumps(line), flush=True)


def bench_probes(columns: int, classes: int, rates: int, seeds: int, runs: int) -> None:
    """Linear probes of 20,000 rows by `train` in turn and by `train_together`."""
    generator = torch.Generator().manual_seed(SEED)
    features = torch.randn(20_000, columns, generator=generator)
    labels = torch.randint(classes, (20_000,), generator=generator)
    chosen = [settle("lp", "paper", {"lr": 0.1 / 2**n, "epochs": 1})[0] for n in range(rates)]

    def probes() -> list[Probe]:
        asked = [(settings, seed) for settings in chosen for seed in range(seeds)]
        return [Probe(TrainableHead(columns, classes, *each), *each) for each in asked]

    ratios = []
    for turn in range(runs + 1):  # the first warms up
        started = time.perf_counter()
        for probe in probes():
            train(probe.head, features, labels, probe.settings, probe.seed)
        between = time.perf_counter()
        train_together(probes(), features, labels)
        if turn:
            ratios.append((between - started) / (time.perf_counter() - between))
    line = {
        "case": "probes", "rows": 20_000, "columns": columns, "classes": classes, "rates": rates,
        "seeds": seeds, "in_turn_of_together": round(statistics.median(ratios), 2),
        "lowest": round(min(ratios), 2), "highest": round(max(ratios), 2), "runs": runs,
    }  # fmt: skip
    print(json.dumps(line), flush=True)


def main() -> None:
    """Bench all sizes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--columns", type=int, help="only the size with so many")
    asked = parser.parse_args()
    machine = {
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"case": "machine", **machine}), flush=True)
    for rows, columns in SIZES:
        if asked.columns in (None, columns):
            bench(rows, columns, asked.runs)
    for grid in GRIDS:
        if asked.columns in (None, grid[0]):
            bench_probes(*grid, asked.runs)


if __name__ == "__main__":
    main()
