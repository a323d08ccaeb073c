"""Heads tuned by AdamW on features that stay in memory: linear probes side by side, others in turn."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmlcli.errors import NmlError
from nmlcli.products.results import to_json
from nmlcli.progress import Advance, shifted
from nmlcli.stages.epoch_log import writing
from nmlcli.stages.selection import Candidate, Outcome, Tried
from nmlcli.stages.splits import Portion, gathered
from nmlcli.training.loop import Means, NotFinite
from nmlcli.tuning.heads import TrainableHead, assess, steps_per_epoch, train
from nmlcli.tuning.probes import Probe, together, train_together

log = logging.getLogger(__name__)

Run = tuple[Candidate, int]  # with the seed
_LOGGED = {"loss": "criterion"}  # what a log calls a knob, since its loss is a number


class Descent:
    """The rows of a training set and after them those to validate on; see selection.Trainer.

    transition: T [C, C] where it is known. views: whether heads with layers train on the set's views;
    refit: whether `again` will be asked for. journal: gets a line of JSON an epoch.
    """

    def __init__(
        self,
        training: Portion,
        validation: Portion | None,
        *,
        views: bool = False,
        refit: bool = False,
        transition: NDArray[np.float64] | None = None,
        journal: IO[str] | None = None,
    ) -> None:
        portions = [training, *([validation] if validation else [])]
        matrix = gathered(portions)
        self.rows, self.classes = len(training), len(training.whole.classes)
        own = matrix[: self.rows]
        self.mean_square = float(np.einsum("nd,nd->", own, own, dtype=np.float64)) / own.size
        self.features = torch.from_numpy(matrix)
        self.labels = torch.from_numpy(np.concatenate([portion.labels for portion in portions]))
        viewed = portions if refit else portions[:1]
        self.views = torch.from_numpy(gathered(viewed, views=True)) if views else None
        self.transition, self.journal = transition, journal

    def scale(self, factor: float) -> None:
        """Multiply all features in place, as the head will do it."""
        for held in (self.features, self.views):
            if held is not None:
                held *= factor

    def steps(self, candidates: Sequence[Candidate], seeds: Sequence[int]) -> int:
        """Steps that trying these takes."""
        return len(seeds) * sum(self._steps(candidate, self.rows) for candidate in candidates)

    def tried(
        self, candidates: Sequence[Candidate], seeds: Sequence[int], up: Advance
    ) -> Iterator[Tried]:
        """Tune each candidate with each seed; with one candidate a training that fails raises."""
        done, total = 0, self.steps(candidates, seeds)
        runs = [(candidate, seed) for candidate in candidates for seed in seeds]
        settings = [candidate.settings for candidate, _ in runs]
        for part in together(settings, self.rows, self.features.shape[1], self.classes):
            own = shifted(up, done, total)
            for (candidate, seed), found in zip(runs[part], self._found(runs[part], own), strict=True):
                if isinstance(found, NmlError):
                    if len(candidates) == 1:
                        raise found
                    which = f", seed {seed}" if len(seeds) > 1 else ""
                    log.warning("%s%s: %s", described(candidate), which, found.wrong)
                yield candidate, seed, found if isinstance(found, Outcome) else None
                done += self._steps(candidate, self.rows)

    def again(self, candidate: Candidate, seed: int, up: Advance) -> Outcome:
        """Tune a candidate on the rows to train and to validate on."""
        return self._tuned(candidate, seed, len(self.labels), up, refit=True)

    def _steps(self, candidate: Candidate, rows: int) -> int:
        return candidate.settings.epochs * steps_per_epoch(rows, candidate.settings.batch_size)

    def _found(self, runs: Sequence[Run], up: Advance) -> list[Outcome | NmlError]:
        """What came of each of these: a head, or why there is none."""
        if len(runs) > 1:
            return self._together(runs, up)
        try:
            return [self._tuned(*runs[0], self.rows, up)]
        except NmlError as error:
            return [error]

    def _together(self, runs: Sequence[Run], up: Advance) -> list[Outcome | NmlError]:
        watches = [self._watch(*run, self.rows, up) for run in runs]

        def after_epoch(epoch: int, means: Sequence[Means]) -> None:
            for watch, own in zip(watches, means, strict=True):
                watch.after_epoch(epoch, own)

        def advance(done: int, total: int | None, **values: float | str) -> None:
            up(done, total, method=f"{runs[0][0].method} × {len(runs)}", **values)

        probes = [Probe(w.head, w.candidate.settings, w.seed) for w in watches]
        with suppress(NotFinite):  # of all of them: each watch knows its own
            train_together(
                probes, self.features[: self.rows], self.labels[: self.rows],
                transition=self.transition, after_epoch=after_epoch, advance=advance,
            )  # fmt: skip
        return [watch.failure or Outcome(*watch.head.folded(), watch.last) for watch in watches]

    def _watch(self, candidate: Candidate, seed: int, rows: int, up: Advance) -> "_Watch":
        head = TrainableHead(self.features.shape[1], self.classes, candidate.settings, seed)
        held_out = (self.features[rows:], self.labels[rows:]) if rows < len(self.labels) else None
        return _Watch(head, candidate, seed, held_out, self.journal, up)

    def _tuned(
        self, candidate: Candidate, seed: int, rows: int, up: Advance, *, refit: bool = False
    ) -> Outcome:
        settings, watch = candidate.settings, self._watch(candidate, seed, rows, up)
        watch.refit = refit
        train(
            watch.head, self.features[:rows], self.labels[:rows], settings, seed,
            views=self.views[:rows] if self.views is not None and settings.layers else None,
            transition=self.transition,
            after_epoch=watch.after_epoch, advance=watch.advance,
        )  # fmt: skip
        return Outcome(*watch.head.folded(), watch.last)


@dataclass
class _Watch:
    """What is told of one head while it is tuned: the log's lines and the bar (`up`)."""

    head: TrainableHead
    candidate: Candidate
    seed: int
    held_out: tuple[Tensor, Tensor] | None
    journal: IO[str] | None
    up: Advance
    refit: bool = False
    last: Means = field(default_factory=dict)
    failure: NotFinite | None = None

    def after_epoch(self, epoch: int, means: Means) -> None:
        if self.failure is not None:
            return
        if not math.isfinite(means["loss"]):
            self.failure = NotFinite(f"the loss of epoch {epoch + 1} is {means['loss']}")
            return
        self.last = dict(means)
        if self.held_out is not None:
            self.last["val_accuracy"], self.last["val_loss"] = assess(self.head, *self.held_out)
        if self.journal is not None:
            point = {_LOGGED.get(knob, knob): value for knob, value in self.candidate.point.items()}
            named = {"method": self.candidate.method, **point, "seed": self.seed}
            again = {"refit": True} if self.refit else {}
            line = {**named, **again, "epoch": epoch + 1, **self.last}
            with writing(self.journal.name):
                self.journal.write(f"{to_json(line)}\n")
                self.journal.flush()

    def advance(self, done: int, total: int | None, **values: float | str) -> None:
        held_out = {name: self.last[name] for name in ("val_accuracy",) if name in self.last}
        shown = described(self.candidate)
        self.up(done, total, method=shown, loss=values.get("loss", ""), **held_out)


def described(candidate: Candidate) -> str:
    """A candidate in a word: `nmtune lr=0.01`."""
    return " ".join([candidate.method, *(f"{k}={v}" for k, v in candidate.point.items())])
