"""Candidates for a head, tried on all seeds, and which of them is kept: the best on validation."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from nmlcli.errors import NmlError
from nmlcli.products.head import Float32
from nmlcli.progress import Advance
from nmlcli.tuning.grids import Grid, points, shown_name
from nmlcli.tuning.methods import own_knobs, settle
from nmlcli.tuning.presets import Settings

Ranking = list[dict[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """A method with its settings. differing: those unlike the preset's. point: those of the grid."""

    method: str
    settings: Settings
    differing: Mapping[str, Any]
    point: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A head that was tuned: what is left of it (see Head), and the means of its last epoch."""

    layers: tuple[tuple[Float32, Float32], ...]
    residual: Float32 | None
    means: Mapping[str, float]


Tried = tuple[Candidate, int, Outcome | None]  # with the seed; None where the training failed


class Trainer(Protocol):
    """What a solver offers: it holds the rows to train and to validate on.

    mean_square: of all features to train on, ‖f‖² / D on average, before `scale` multiplies them all.
    steps: of trying candidates with seeds. tried: tunes each candidate with each seed, candidate by
    candidate, on the rows to train on. again: tunes one on those to validate on too. up: is told of the
    steps of this call.
    """

    mean_square: float

    def scale(self, factor: float) -> None: ...

    def steps(self, candidates: Sequence[Candidate], seeds: Sequence[int]) -> int: ...

    def tried(
        self, candidates: Sequence[Candidate], seeds: Sequence[int], up: Advance
    ) -> Iterator[Tried]: ...

    def again(self, candidate: Candidate, seed: int, up: Advance) -> Outcome: ...


def candidates_of(
    methods: Iterable[str], preset: str, given: Mapping[str, Any], grid: Grid, solver: str
) -> tuple[Candidate, ...]:
    """All methods at all points of a grid, each distinct one once."""
    found: dict[tuple[str, Settings], Candidate] = {}
    for method in methods:
        for point in points(grid):
            settings, differing = settle(method, preset, {**given, **point}, solver)
            known = own_knobs(method, settings.loss)
            own = {shown_name(knob): value for knob, value in point.items() if knob in known}
            found.setdefault((method, settings), Candidate(method, settings, differing, own))
    return tuple(found.values())


def best_of(
    tried: Iterable[Tried], show: Callable[[Ranking], None]
) -> tuple[Candidate, dict[int, Outcome], Ranking]:
    """The candidate with the best validation accuracy, its heads by seed, and all of them ranked.

    Several seeds of a candidate count as their mean, so no seed is chosen; of equals the one with the
    smaller validation loss is taken, then the earlier one. Only the best one's heads are kept. Raises
    NmlError where no training came to an end.
    """
    best: tuple[tuple[float, float], Candidate, dict[int, Outcome]] | None = None
    ranking: Ranking = []
    for candidate, runs in groupby(tried, key=lambda run: run[0]):
        outcomes = {seed: outcome for _, seed, outcome in runs}
        kept = {seed: outcome for seed, outcome in outcomes.items() if outcome is not None}
        line: dict[str, Any] = {"method": candidate.method, **candidate.point}
        accuracy, loss = (_mean(kept.values(), name) for name in ("val_accuracy", "val_loss"))
        if len(kept) < len(outcomes) or not math.isfinite(loss):
            ranking.append({**line, "val_accuracy": None, "val_loss": None})
            continue
        ranking.append({**line, "val_accuracy": accuracy, "val_loss": loss})
        if best is None or (accuracy, -loss) > best[0]:
            best = (accuracy, -loss), candidate, kept
    if best is None:
        raise NmlError("no training came to an end", "try smaller learning rates")
    ranking.sort(key=_rank)
    show(ranking)
    return best[1], best[2], ranking


def _rank(line: Mapping[str, Any]) -> tuple[float, float]:
    if line["val_accuracy"] is None:
        return math.inf, math.inf
    return -line["val_accuracy"], line["val_loss"]


def _mean(outcomes: Iterable[Outcome], name: str) -> float:
    values = [outcome.means[name] for outcome in outcomes]
    return sum(values) / max(1, len(values))
