"""Linear probes by L-BFGS: features held in memory where they fit, else read anew in each pass."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from nmlcli.errors import InvalidInput
from nmlcli.numerics.logistic import Fitted, path
from nmlcli.numerics.rows import Blocks, Overflow, Rows
from nmlcli.products.results import to_json
from nmlcli.progress import Advance
from nmlcli.stages.epoch_log import writing
from nmlcli.stages.selection import Candidate, Outcome, Tried
from nmlcli.stages.splits import Float32, Numbers, Portion, gathered

log = logging.getLogger(__name__)

HELD = 2 * 2**30  # bytes of features that are held; beyond them a pass reads the files


class FullBatch:
    """The rows of a training set, and those to validate on; see selection.Trainer.

    journal: gets a line of JSON a fit. held: the bytes of features that may stay in memory.
    """

    def __init__(
        self,
        training: Portion,
        validation: Portion | None,
        *,
        journal: IO[str] | None = None,
        held: int | None = None,
    ) -> None:
        self.portions = [training, *([validation] if validation else [])]
        self.classes, self.columns = len(training.whole.classes), training.whole.parts[0].columns
        self.journal, self.factor = journal, np.float32(1)
        size = 4 * self.columns * sum(map(len, self.portions))
        sources = [part.source for each in self.portions for part in each.whole.parts]
        once = any(source == "stdin" or not Path(source).is_file() for source in sources)
        self.held: list[Float32] | None = None
        if size <= (HELD if held is None else held) or once:
            self.held = np.split(gathered(self.portions), [len(training)])[: len(self.portions)]
        else:
            log.info("%.1f GB of features are read from their files in each pass", size / 1e9)
        squares = (float(np.einsum("nd,nd->", block, block, dtype=np.float64))
                   for block, _ in Blocks(self._rows([0])).read())  # fmt: skip
        self.mean_square = math.fsum(squares) / (len(training) * self.columns)

    def scale(self, factor: float) -> None:
        """Multiply all features, as the head will do it."""
        self.factor = np.float32(factor)
        for held in self.held or ():
            held *= self.factor

    def steps(self, candidates: Sequence[Candidate], seeds: Sequence[int]) -> int:
        """How many minima are looked for."""
        return len(candidates)

    def tried(
        self, candidates: Sequence[Candidate], seeds: Sequence[int], up: Advance
    ) -> Iterator[Tried]:
        """Fit all candidates, which differ in their L2 alone, from the strongest to the weakest."""
        by_l2 = {candidate.settings.l2: candidate for candidate in candidates}
        for done, fitted in enumerate(self._fitted([0], list(by_l2)), start=1):
            candidate = by_l2[fitted.l2]
            means = {"loss": fitted.objective, **self._assessed(fitted)}
            self._tell(candidate, fitted, means)
            shown = {name: means[name] for name in ("val_accuracy",) if name in means}
            up(done, len(by_l2), l2=fitted.l2, loss=fitted.objective, **shown)
            yield candidate, seeds[0], _outcome(fitted, means)

    def again(self, candidate: Candidate, seed: int, up: Advance) -> Outcome:
        """Fit a candidate on the rows to train and to validate on."""
        (fitted,) = self._fitted(range(len(self.portions)), [candidate.settings.l2])
        means = {"loss": fitted.objective}
        self._tell(candidate, fitted, {"refit": True, **means})
        up(1, 1, l2=fitted.l2, loss=fitted.objective)
        return _outcome(fitted, means)

    def _fitted(self, numbers: Sequence[int], l2s: Sequence[float]) -> Iterator[Fitted]:
        try:
            for fitted in path(self._rows(numbers), l2s):
                if fitted.reason == "iterations":
                    words = "l2 %.3g: stopped short after %d iterations, at gradient %.2g"
                    log.warning(words, fitted.l2, fitted.iterations, fitted.gradient)
                yield fitted
        except Overflow as error:
            raise InvalidInput("the features are too large for float32", "give --scale rms") from error

    def _rows(self, numbers: Sequence[int]) -> Rows:
        """The rows of some portions, one portion after another."""
        count = sum(len(self.portions[number]) for number in numbers)

        def blocks() -> Iterator[tuple[Float32, Numbers]]:
            for number in numbers:
                yield from self._blocks(number)

        return Rows(count, self.columns, self.classes, blocks)

    def _blocks(self, number: int) -> Iterator[tuple[Float32, Numbers]]:
        """The features of a portion, scaled, and its labels."""
        portion = self.portions[number]
        if self.held is not None:
            yield self.held[number], portion.labels
            return
        start, labels = 0, portion.labels
        for block in portion.blocks():
            scaled = block if self.factor == 1 else block * self.factor
            yield scaled, labels[start : start + len(block)]
            start += len(block)

    def _assessed(self, fitted: Fitted) -> dict[str, float]:
        """Accuracy and mean cross-entropy on the rows to validate on; nothing without any."""
        if len(self.portions) < 2:
            return {}
        weight, bias = fitted.weight.astype(np.float32), fitted.bias.astype(np.float32)
        right, losses = 0, []
        for features, labels in Blocks(self._rows([1])).read():
            logits = (features @ weight.T + bias).astype(np.float64)
            right += int((logits.argmax(1) == labels).sum())
            logits -= logits.max(axis=1, keepdims=True)
            own = logits[np.arange(len(labels)), labels]
            losses.append(float((np.log(np.exp(logits).sum(1)) - own).sum()))
        count = len(self.portions[1])
        return {"val_accuracy": right / count, "val_loss": math.fsum(losses) / count}

    def _tell(self, candidate: Candidate, fitted: Fitted, means: dict[str, float]) -> None:
        if self.journal is not None:
            facts = {
                "method": candidate.method, "l2": fitted.l2, "iterations": fitted.iterations,
                "passes": fitted.evaluations, "gradient": fitted.gradient, "ended": fitted.reason,
            }  # fmt: skip
            with writing(self.journal.name):
                self.journal.write(f"{to_json({**facts, **means})}\n")
                self.journal.flush()


def _outcome(fitted: Fitted, means: dict[str, float]) -> Outcome:
    if not (np.isfinite(fitted.weight).all() and np.isfinite(fitted.bias).all()):
        raise InvalidInput("the probe is not finite", "try --scale rms")
    layer = fitted.weight.astype(np.float32), fitted.bias.astype(np.float32)
    return Outcome((layer,), None, means)
