"""Spectra of features: one row a source, from one pass over its blocks."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.numerics.measures import MEASURES, PREPARATIONS, RANKME_EPS, UndefinedError, fit_range
from nmlcli.numerics.spectra import Accumulator, Spectrum
from nmlcli.products import results
from nmlcli.products.features import Features
from nmlcli.products.formats import read_features, write_spectrum_state
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Record, chain, identity_of
from nmlcli.stages.inputs import BLOCK, finite_blocks, provenance_keys
from nmlcli.stages.outputs import check_out, up_to_date

log = logging.getLogger(__name__)

REVISION = 1

Row = dict[str, Any]


@dataclass(frozen=True)
class SpectrumOptions:
    """preset: one of PREPARATIONS. center: take the column means off for all measures. results: a
    file of result lines that the rows are merged into. reuse: take a row from there where it is that
    of the same features and options."""

    preset: str = "raw"
    center: bool = False
    results: str | None = None
    reuse: bool = False

    def facts(self) -> dict[str, str | bool]:
        """The options that change the result."""
        return {"preset": self.preset, "center": self.center}


def measure(
    sources: list[str], out: str | None, options: SpectrumOptions, advance: Advance = silent
) -> Iterator[Row]:
    """Yield a row a source (features, `-` for stdin) as it is measured; out takes the state of one.

    A measure that does not exist is None, and `undefined` says why. Raises InvalidInput where values
    are not finite, or there are no rows.
    """
    _check(sources, out, options)
    for source in sources:
        features = read_features(source)
        identity = identity_of("spectrum", REVISION, options.facts(), [features.record.identity])
        row = _stored(source, out, identity, options) if options.reuse else None
        if row is not None:
            for _ in features.blocks(BLOCK) if source == "-" else ():
                pass  # whoever writes the stream may also write it elsewhere
        else:
            row = _measured(features, identity, out, options, advance)
            if options.results is not None:
                results.merge(options.results, [row])
        yield {"source": "stdin" if source == "-" else source, **row}


def _check(sources: list[str], out: str | None, options: SpectrumOptions) -> None:
    if options.preset not in PREPARATIONS:
        raise UsageError(f"no preset {options.preset!r}", f"take one of {', '.join(PREPARATIONS)}")
    if out == "-":
        raise UsageError("the rows go to stdout, the state needs a file", "give -o FILE")
    if out is not None and len(sources) != 1:
        raise UsageError(f"-o holds the state of one source, and {len(sources)} are given", "give one")
    check_out(out)
    if options.reuse and options.results is None:
        raise UsageError("--reuse looks for rows in a file of results", "give --results FILE")


def _stored(source: str, out: str | None, identity: str, options: SpectrumOptions) -> Row | None:
    """The row of this identity, where it and the state are there and the source is not newer."""
    file = Path(str(options.results))
    if not file.is_file() or (out is not None and not up_to_date(out, identity, [source])):
        return None
    if source != "-" and Path(source).stat().st_mtime_ns > file.stat().st_mtime_ns:
        return None
    found = [line for line in results.read(str(file)) if line.get("identity") == identity]
    if not found:
        return None
    log.info("%s is up to date in %s", "stdin" if source == "-" else source, file)
    return found[-1]


def _measured(
    features: Features, identity: str, out: str | None, options: SpectrumOptions, advance: Advance
) -> Row:
    if features.rows == 0:
        raise InvalidInput(f"{features.source} has no rows", "a spectrum needs at least one")
    sums = Accumulator(features.rows, features.columns, PREPARATIONS[options.preset])
    for block in finite_blocks(features, advance):
        sums.add(block)
    spectrum = sums.spectrum(options.center)
    if features.rows < 10 * features.columns:
        log.warning(
            "%s has %s rows for %s columns: below 10 rows a column SVE depends much on their number,"
            " so compare networks on the same rows",
            features.source, f"{features.rows:,}", f"{features.columns:,}",
        )  # fmt: skip
    if out is not None:
        _write_state(out, features, identity, spectrum, options)
    return {
        "kind": "spectrum",
        "identity": identity,
        "rows": features.rows,
        "columns": features.columns,
        **_values(spectrum),
        "spectrum_preset": options.preset,
        "center": options.center,
        "tolerance": spectrum.tolerance,
        "rankme_eps": RANKME_EPS,
        "zero_rows": sums.zero_rows,
        **provenance_keys(features.record),
    }


def _values(spectrum: Spectrum) -> Row:
    """Every measure; of those that do not exist None, with the reasons in `undefined`."""
    values: Row = {}
    reasons: dict[str, list[str]] = {}
    for name, row in MEASURES.items():
        try:
            values[name] = row.measure(spectrum)
        except UndefinedError as error:
            values[name] = None
            reasons.setdefault(str(error), []).append(name)
    first, last = fit_range(spectrum) if values["alpha_req"] is not None else (None, None)
    why = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    told = {"alpha_req_from": first, "alpha_req_to": last, "undefined": "; ".join(why) or None}
    return values | told


def _write_state(
    out: str, features: Features, identity: str, spectrum: Spectrum, options: SpectrumOptions
) -> None:
    source = features.record
    record = Record(
        "spectrum", identity, "spectrum", options.facts(), source.classes, features.rows,
        features.columns, source.data, source.model, source.noise, chain(source),
    )  # fmt: skip
    sums = spectrum.sums
    write_spectrum_state(out, record, spectrum.values, sums.gram(), sums.column_sums(), sums.count)
