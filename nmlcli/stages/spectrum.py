"""Spectra of features: a row a source, or a class, from one pass over blocks of rows."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.atomic import replacing
from nmlcli.errors import UsageError
from nmlcli.numerics.measures import PREPARATIONS, RANKME_EPS
from nmlcli.numerics.spectra import Spectrum
from nmlcli.numerics.sums import CLEAR
from nmlcli.products import results
from nmlcli.products.features import Features
from nmlcli.products.formats import read_head, write_spectrum_state
from nmlcli.products.head import Head
from nmlcli.products.spectrum import SpectrumState
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.report.spectra import SUFFIXES, Curve, draw_spectra
from nmlcli.stages.gauges import Task, gauge, measured
from nmlcli.stages.inputs import BLOCK, check_network, check_stdin, provenance_keys
from nmlcli.stages.outputs import check_apart, check_out, check_place, check_results, up_to_date
from nmlcli.stages.spectra_sources import RowSet, StateSet, choose_rows, open_sources, open_twin

log = logging.getLogger(__name__)

REVISION = 1
TOP = 10  # left singular vectors whose subspaces are compared

Row = dict[str, Any]
Keep = Callable[[Row, NDArray[np.float64]], None]


@dataclass(frozen=True)
class SpectrumOptions:
    """What `nml spectrum` is asked for.

    preset: one of PREPARATIONS; None is raw, or that of a state. center: take the column means off
    for all measures. by_class: a line a class. sample: of so many rows, drawn by id and seed. concat:
    the sources are parts of one set. against: features of the same rows to compare with, by CKA and
    by the first `top` left singular vectors. moments: skewness and kurtosis of the columns. head: of
    its Z. plot: a picture of all spectra. results: a file of result lines that the rows are merged
    into. reuse: take a row from there where it is that of the same features and options.
    """

    preset: str | None = None
    center: bool = False
    results: str | None = None
    reuse: bool = False
    by_class: bool = False
    sample: int | None = None
    seed: int = 0
    concat: bool = False
    against: str | None = None
    top: int | None = None
    moments: bool = False
    head: str | None = None
    plot: str | None = None

    def facts(self) -> dict[str, Any]:
        """The options that decide which rows are measured, and how they are prepared."""
        sampled = {} if self.sample is None else {"sample": self.sample, "seed": self.seed}
        return {"preset": self.preset or "raw", "center": self.center, **sampled}


@dataclass(frozen=True)
class _Plan:
    """All that is measured of one source. facts: what decides its sums, with the head's identity;
    lines: identity and class of each, before anything is measured."""

    source: RowSet | StateSet
    facts: Facts
    lines: list[tuple[str, str | None]]
    counts: list[int] = field(default_factory=list)
    numbers: NDArray[np.int64] | None = None
    head: Head | None = None
    twin: Features | None = None

    @property
    def parents(self) -> list[Record]:
        """The records of all that a state is made from."""
        return [*self.source.records, *([self.head.record] if self.head is not None else ())]


def measure(
    sources: list[str],
    out: str | None,
    options: SpectrumOptions,
    advance: Advance = silent,
    keep: Keep | None = None,
) -> Iterator[Row]:
    """Yield a row a source, or a class, as it is measured; out takes the state.

    sources: features or states, `-` for stdin; with --concat, or with out, they are parts of one set.
    A measure that does not exist is None, and `undefined` says why. keep is called with each row and
    its singular values, unless the row is taken from the results. Raises InvalidInput where values are
    not finite, there are no rows, or parts do not fit together.
    """
    _check(sources, out, options)
    joined = options.concat or (out is not None and len(sources) > 1)
    curves: list[Curve] = []
    seen: dict[str, tuple[int, str]] = {}
    for names in [sources] if joined else [[source] for source in sources]:
        plan = _plan(names, options)
        rows = _stored(names, out, plan, options) if options.reuse else None
        if rows is not None:
            parts = plan.source.parts if isinstance(plan.source, RowSet) else ()
            for part in (*parts, plan.twin):
                for _ in part.blocks(BLOCK) if part is not None and part.source == "stdin" else ():
                    pass  # whoever writes the stream may also write it elsewhere
            yield from ({"source": plan.source.name, **row} for row in rows)
            continue
        made: list[Row] = []
        for row, spectrum in _measured(plan, out, options, advance):
            made.append(row)
            shown = {"source": plan.source.name, **row}
            curves.append(Curve(_label(shown, curves), spectrum.values))
            if keep is not None:
                keep(shown, spectrum.values)
            yield shown
        if options.results is not None:
            results.merge(options.results, made)
        if not options.by_class:
            seen[plan.source.name] = (made[0]["rows"], plan.source.precision)
    _warn_unequal(seen)
    if options.plot is not None:
        with replacing(options.plot) as temporary:
            draw_spectra(curves, temporary, centred=options.center)


def _check(sources: list[str], out: str | None, options: SpectrumOptions) -> None:
    if options.preset not in (None, *PREPARATIONS):
        raise UsageError(f"no preset {options.preset!r}", f"take one of {', '.join(PREPARATIONS)}")
    if out == "-":
        raise UsageError("the rows go to stdout, the state needs a file", "give -o FILE")
    inputs = [
        str(name) for name in (*sources, options.head, options.against) if name not in (None, "-")
    ]
    check_out(out, inputs)
    check_apart(out=out, results=options.results, plot=options.plot)
    check_stdin(*sources, options.head, options.against)
    check_place(options.plot, inputs, "--plot")
    check_results(options.results, inputs)
    joined = options.concat or (out is not None and len(sources) > 1)
    for wrong, why, remedy in (
        (options.reuse and options.results is None,
         "--reuse looks for rows in a file of results", "give --results FILE"),
        (options.reuse and options.plot, "--plot draws what --reuse does not measure", "give one"),
        (options.by_class and out, "-o holds the state of one set", "leave --by-class out"),
        (options.by_class and options.against, "--against compares whole sets", "leave --by-class out"),
        (joined and options.against, "--against compares one file with another", "give whole sets"),
        (options.top and not options.against, "--top says what --against compares", "give --against"),
        (options.seed and options.sample is None, "--seed draws a sample", "give --sample N"),
        (options.against == "-" and len(sources) > 1,
         "stdin can be compared with one source", "save it to a file"),
        (options.plot and Path(str(options.plot)).suffix.lower() not in SUFFIXES,
         f"{options.plot}: no picture has that suffix", f"use {', '.join(SUFFIXES)}"),
    ):  # fmt: skip
        if wrong:
            raise UsageError(why, remedy)


def _plan(names: list[str], options: SpectrumOptions) -> _Plan:
    """Open a source and all that goes with it, check that they fit, and say which lines it gives."""
    source = open_sources(names)
    if isinstance(source, StateSet):
        facts = {**_state_facts(source, options), "center": options.center}
        identity = identity_of("spectrum", REVISION, facts, source.identities)
        return _Plan(source, facts, [(identity, None)])
    facts, more = options.facts(), {}
    head = twin = None
    if options.head is not None:
        head = read_head(options.head)
        for part in source.parts:
            check_network(head.record, head.source, part)
        facts["head"] = head.record.identity
    if options.against is not None:
        twin = open_twin(options.against, source)
        more = {"against": twin.record.identity, "top": options.top or TOP}
    if options.moments:
        more["moments"] = True
    numbers, classes, counts = choose_rows(source, options.by_class, options.sample, options.seed)
    lines = []
    for name in classes:
        own = {**facts, **more, **({} if name is None else {"class": name})}
        lines.append((identity_of("spectrum", REVISION, own, source.identities), name))
    return _Plan(source, facts, lines, counts, numbers, head, twin)


def _state_facts(source: StateSet, options: SpectrumOptions) -> Facts:
    """How the rows of a state were prepared. Raises UsageError for options that need the rows."""
    for name in ("by_class", "sample", "head", "against", "moments"):
        if getattr(options, name):
            wrong = f"{source.name} is a state, and --{name.replace('_', '-')} needs the rows"
            raise UsageError(wrong, "give the features")
    preset = source.options.get("preset")
    if options.preset not in (None, preset):
        wrong = f"the rows of {source.name} were prepared as {preset}, not {options.preset}"
        raise UsageError(wrong, "leave --preset out, or give the features")
    return source.options


def _stored(
    names: Sequence[str], out: str | None, plan: _Plan, options: SpectrumOptions
) -> list[Row] | None:
    """The rows of these lines, where they and the state are there and no source is newer."""
    file = Path(str(options.results))
    files = [name for name in (*names, options.head, options.against) if name not in (None, "-")]
    if not file.is_file() or (out is not None and not up_to_date(out, plan.lines[0][0], files)):
        return None
    if any(Path(name).stat().st_mtime_ns > file.stat().st_mtime_ns for name in map(str, files)):
        return None
    known = {line.get("identity"): line for line in results.read(str(file))}
    rows = [known[identity] for identity, _ in plan.lines if identity in known]
    if len(rows) < len(plan.lines):
        return None
    log.info("%s is up to date in %s", plan.source.name, file)
    return rows


def _measured(
    plan: _Plan, out: str | None, options: SpectrumOptions, advance: Advance
) -> Iterator[tuple[Row, Spectrum]]:
    source, facts = plan.source, plan.facts
    preparation = PREPARATIONS[str(facts["preset"])]
    if isinstance(source, StateSet):
        spectrum = Spectrum(source.sums, options.center, preparation.lost)
        if not spectrum.resolved:
            words = "%s: singular values below %.1e of the largest are not told from 0 by sums alone"
            log.warning(words, source.name, max(spectrum.tolerance, CLEAR))
        if out is not None:
            _write_state(out, plan, spectrum, source.zero_rows)
        yield _row(plan, 0, measured(spectrum), spectrum, source.zero_rows), spectrum
        return
    task = Task(source, preparation, options.center, plan.head, plan.numbers, plan.counts,
                plan.twin, options.top or TOP, options.moments)  # fmt: skip
    few = 0
    for number, done in enumerate(gauge(task, advance)):
        few += done.rows < 10 * done.columns
        if out is not None:
            _write_state(out, plan, done.spectrum, done.sums.zero_rows)
        yield _row(plan, number, done.measures(), done.spectrum, done.sums.zero_rows), done.spectrum
    _warn_few(plan, few, task.columns)


def _row(plan: _Plan, number: int, values: Row, spectrum: Spectrum, zero_rows: int) -> Row:
    identity, name = plan.lines[number]
    if not spectrum.resolved:  # of a stream, or of sums: another line than that of the file's rows
        identity = identity_of("spectrum", REVISION, {"unresolved": identity}, [])
    facts, parts = plan.facts, len(plan.source.identities)
    told = {key: facts[key] for key in ("sample", "seed", "head") if key in facts}
    if parts > 1:
        told["parts"] = parts
    return {
        "kind": "spectrum",
        "identity": identity,
        **({} if name is None else {"class": name}),
        "rows": spectrum.sums.count,
        "columns": spectrum.sums.columns,
        **values,
        "spectrum_preset": facts["preset"],
        "center": facts["center"],
        "tolerance": spectrum.tolerance,
        "rankme_eps": RANKME_EPS,
        "zero_rows": zero_rows,
        **told,
        **provenance_keys(plan.source.record),
    }


def _write_state(out: str, plan: _Plan, spectrum: Spectrum, zero_rows: int) -> None:
    source, sums = plan.source.record, spectrum.sums
    extra = {
        "features": plan.source.identities, "precision": plan.source.precision,
        "tolerance": spectrum.tolerance, "zero_rows": zero_rows,
    }  # fmt: skip
    record = Record(
        "spectrum", plan.lines[0][0], "spectrum", plan.facts, source.classes, sums.count,
        sums.columns, source.data, source.model, source.noise, chain(*plan.parents), extra,
    )  # fmt: skip
    state = SpectrumState(record, spectrum.values, sums.centred_gram(), sums.column_sums(), sums.count)
    write_spectrum_state(out, state)


def _warn_few(plan: _Plan, few: int, columns: int) -> None:
    """SVE depends on the number of rows where they are few (measures of i.i.d. rows: by N / 8 D)."""
    if not few:
        return
    if plan.lines[0][1] is None:
        which = f"has {plan.counts[0]:,} rows for"
    else:
        which = f"has {few} of {len(plan.lines)} classes with fewer than 10 rows for each of"
    log.warning(
        "%s %s %s columns: below 10 rows a column SVE depends much on their number,"
        " so compare networks on the same rows",
        plan.source.name, which, f"{columns:,}",
    )  # fmt: skip


def _warn_unequal(seen: dict[str, tuple[int, str]]) -> None:
    rows, precisions = ({each[place] for each in seen.values()} for place in (0, 1))
    if len(rows) > 1:
        log.warning(
            "the sources have %s to %s rows, and SVE depends on their number:"
            " --sample N measures as many of each", f"{min(rows):,}", f"{max(rows):,}",
        )  # fmt: skip
    if len(precisions) > 1:
        named = " and ".join(sorted(map(str, precisions)))
        log.warning("the sources are %s, and small singular values depend on the precision", named)


def _label(row: Row, curves: list[Curve]) -> str:
    """A short name for a curve that no curve before it has."""
    label = " ".join(str(part) for part in (Path(row["source"]).stem, row.get("class")) if part)
    taken = {curve.label for curve in curves}
    while label in taken:
        label += "′"
    return label
