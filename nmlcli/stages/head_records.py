"""What the record of a tuned head says: what it was tuned as, on what, and what it was chosen by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.stages.inputs import LabelledSet, joined
from nmlcli.stages.realised import noise_among
from nmlcli.stages.selection import Candidate, Ranking
from nmlcli.stages.splits import Numbers, Portion
from nmlcli.tuning.grids import Grid, shown_name

REVISION = 3


@dataclass(frozen=True)
class Origin:
    """What heads come from, and what was asked for of all of them.

    validation: the rows to validate on, whether of a set of their own or split off. clean: the labels
    before the noise int64 [N] of the whole training set, None where not known or not needed. asked:
    preset, scale and what else changes the result, by the names of the options. refit: whether heads
    are tuned again on all rows. views: whether on two views. transition: T [C, C] if a loss needs it.
    """

    training: Portion
    validation: Portion | None
    clean: Numbers | None
    asked: Facts
    refit: bool = False
    views: bool = False
    transition: NDArray[np.float64] | None = None

    @property
    def own_validation(self) -> bool:
        """Whether the rows to validate on are of a set of their own."""
        return self.validation is not None and self.validation.whole is not self.training.whole

    @property
    def checked_on(self) -> list[str] | None:
        """The identities of what was validated on."""
        return self.validation.whole.known_as if self.validation else None

    def identity(self, made_by: Facts) -> str:
        """The identity of a head that is made by these options."""
        records = [record.identity for record in self.training.whole.records]
        own = (self.checked_on or ()) if self.own_validation else ()
        return identity_of("tune", REVISION, made_by, [*records, "validation", *own])

    def told(self, candidate: Candidate, seed: int) -> dict[str, Any]:
        """The options of a head of one candidate, which nothing was chosen from."""
        own = {"method": candidate.method, "seed": seed, "loss": candidate.settings.loss}
        return {**self.asked, **own, **candidate.differing}

    def told_of_choice(
        self, methods: Sequence[str], seeds: Sequence[int], given: Facts, grid: Grid
    ) -> dict[str, Any]:
        """The options of heads that are chosen from several candidates, but for their own seed."""
        knobs = {shown_name(knob): value for knob, value in given.items()}
        values = {shown_name(knob): list(each) for knob, each in grid.items()}
        own = {"method": ",".join(methods), "seeds": list(seeds)}
        return {**self.asked, **own, "given": knobs, "grid": values}

    def record(
        self, candidate: Candidate, seed: int, made_by: Facts, ranking: Ranking | None = None
    ) -> Record:
        """The record of a head. ranking: of the candidates that it was chosen from."""
        used, whole = self._used(), self.training.whole
        one = whole.parts[0].record
        extra = {
            **self.asked, "method": candidate.method, "seed": seed,
            "options": dict(candidate.differing),
            "activation": candidate.settings.activation, "loss": candidate.settings.loss,
            "fraction": self.asked.get("fraction", 1.0),
            "selected_by": None if ranking is None else "val_accuracy",
            "domains": _domains(used.parents),
            "trained_on": list(used.trained_on),
            "validated_on": _met_as(self.validation.whole) if self.validation else None,
        }  # fmt: skip
        if ranking is not None:
            extra["candidates"] = ranking
        return Record(
            "head", self.identity(made_by), "tune", made_by, whole.classes, rows=used.rows,
            columns=one.columns, data=used.data, model=one.model, noise=used.noise,
            parents=chain(*used.parents),
            extra=extra,
        )  # fmt: skip

    def _used(self) -> "_Used":
        """All rows that a head is tuned on in the end."""
        training, validation, whole = self.training, self.validation, self.training.whole
        if validation is None or not self.refit:
            noise = noise_among(training, self.clean)
            return _Used(len(training), _met_as(whole), whole.records, whole.data, noise)
        if not self.own_validation:
            both = _together(training, validation)
            noise = noise_among(both, self.clean)
            return _Used(len(both), _met_as(whole), whole.records, whole.data, noise)
        other = validation.whole
        noise = noise_among(training, self.clean)
        ours = replace(whole.parts[0].record, data=whole.data, noise=noise)
        one = joined([ours, replace(other.parts[0].record, noise=other.noise)])
        return _Used(
            len(training) + len(validation), [*_met_as(whole), *_met_as(other)],
            [*whole.records, *other.records], one.data, one.noise,
        )  # fmt: skip


@dataclass(frozen=True)
class _Used:
    """What a record says of rows: how many, the identities and records of their sets, their noise."""

    rows: int
    trained_on: Sequence[str]
    parents: Sequence[Record]
    data: Facts | None
    noise: Facts | None


def _met_as(whole: LabelledSet) -> list[str]:
    """The identities by which a set can be met again, that of its samples under other labels too."""
    told = [record.data or {} for record in whole.records if record.kind == "features"]
    return [*whole.known_as, *dict.fromkeys(data["samples"] for data in told if data.get("samples"))]


def _domains(records: Sequence[Record]) -> dict[str, list[str | None]] | None:
    """The domains of each task that features are of, None where a task is not known."""
    found: dict[str, list[str | None]] = {}
    for data in (record.data or {} for record in records if record.kind == "features"):
        if not data.get("task"):
            return None
        domains = found.setdefault(data["task"], [])
        if data.get("domain") not in domains:
            domains.append(data.get("domain"))
    return found


def _together(one: Portion, other: Portion) -> Portion:
    """Two portions of one set as one."""
    if one.rows is None or other.rows is None:
        return Portion(one.whole)
    rows = np.union1d(one.rows, other.rows)
    return Portion(one.whole, None if len(rows) == len(one.whole.labels) else rows)
