"""`corrupt`: labels or captions to noisy ones, exactly as many as asked for."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nmlcli.atomic import replacing
from nmlcli.data.sources import SourceOptions
from nmlcli.errors import UsageError
from nmlcli.noise.draws import half_up
from nmlcli.noise.kinds import NOISES, parse_ratio
from nmlcli.noise.statistics import statistics
from nmlcli.noise.terms import Changed, Request
from nmlcli.products.features import Features
from nmlcli.products.formats import FORMATS, binary_stdout, read_features, read_record
from nmlcli.products.labels import noise_facts
from nmlcli.products.tables import SUFFIXES, sidecar
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, hash_file, identity_of
from nmlcli.stages.carriers import Carrier, noisy_already, open_carrier, places_of
from nmlcli.stages.edited import Columns, Content
from nmlcli.stages.outputs import check_apart, check_place, up_to_date

log = logging.getLogger(__name__)

REVISION = 1


@dataclass(frozen=True)
class CorruptOptions:
    """What `nml corrupt` is asked for; ratio is decimal text, so that no row is lost to rounding.

    kind, draw, ratio_of: rows of NOISES, DRAWS, RATIOS_OF. stratify: each class and each cell gets its
    share exactly. classes: only labels of these change. map, matrix, features: what a kind goes by.
    from_column: instead of a kind, labels that people gave. replace: the noise of a carrier that is
    noisy already is drawn anew, from the clean values. limit, domain: what is taken of a set that is no
    table. The columns are a table's.
    """

    ratio: str | None = None
    kind: str = "symmetric"
    draw: str = "exact"
    stratify: bool = False
    ratio_of: str = "selected"
    classes: tuple[str, ...] = ()
    map: str | None = None
    matrix: str | None = None
    features: str | None = None
    from_column: str | None = None
    replace: bool = False
    seed: int = 0
    label_column: str = "label"
    text_column: str = "text"
    id_column: str = "id"
    group_column: str = "image"
    limit: int | None = None
    domain: str | None = None
    data_dir: str = "data"
    download: bool = False
    stats: str | None = None
    reuse: bool = False


_OF_KINDS = tuple(dict.fromkeys(name for noise in NOISES.values() for name in noise.takes))
_OF_INPUT = ("from_column", "replace", "label_column", "text_column", "id_column", "group_column")


def corrupt(
    source: str,
    out: str | None,
    options: CorruptOptions,
    advance: Advance = silent,
    tell: Callable[[Facts], None] = lambda facts: None,
) -> Record:
    """Put noise on the labels or captions of a table (or stdin, `-`), of a set of samples, of features.

    A table keeps its form: each byte outside the one column stays, and a column of the clean values is
    added. Anything else gives a product of its own, id, label, clean_label. out: a file, None for
    stdout. tell: gets the counts of what was done. Returns the record. Raises UsageError for options
    that do not go together, InvalidInput for what cannot be corrupted, or not by as much.
    """
    ratio = None if options.ratio is None else parse_ratio(options.ratio)
    _check_options(options, ratio)
    out = None if out == "-" else out
    given = [Path(name) for name in (options.map, options.matrix, options.features) if name]
    pipes = [str(path) for path in given if path.exists() and not path.is_file()]
    if pipes:
        raise UsageError(f"{pipes[0]} is read more than once, which a pipe cannot be", "give a file")
    carrier = open_carrier(
        source, _columns(options), captions=NOISES[options.kind].captions, replace=options.replace,
        select=SourceOptions(
            limit=options.limit, domain=options.domain, data_dir=options.data_dir,
            download=options.download,
        ),
    )  # fmt: skip
    _check_form(source, out, carrier)
    files = [path for path in given if path.is_file()]
    _check_places(source, out, options, carrier, files)
    features = _features(source, options) if "features" in NOISES[options.kind].takes else None
    told = _told(options, ratio)
    contents = [carrier.identity, *map(hash_file, files)]
    identity = identity_of("corrupt", REVISION, told, contents)
    if (
        options.reuse
        and out
        and _has_stats(options, identity)
        and up_to_date(out, identity, [*carrier.files, *files])
    ):
        record = read_record(out)
        if record is not None:
            return record
    content = carrier.read(advance)
    held = content.noisy if options.from_column is None and not options.replace else None
    if held is not None and (held != content.rows.values).any():
        raise noisy_already(content.rows.source)
    changed = _changed(content, features, options, ratio)
    noise = _noise(content, changed, options, ratio)
    record = Record(
        "labels", identity, "corrupt", told, content.rows.classes or None, data=carrier.data,
        rows=len(changed.values), noise=noise, parents=carrier.parents,
    )  # fmt: skip
    content.write(out, changed.values, record, advance)
    _report(content, changed, record, options, tell)
    return record


def _check_options(options: CorruptOptions, ratio: Fraction | None) -> None:
    """Refuse what would have no effect, and ask for what is missing."""
    noise, default = NOISES[options.kind], CorruptOptions()
    kind = f"--kind {options.kind}"
    takes = (*noise.takes, *(("text_column", "group_column") if noise.captions else ("label_column",)))
    if options.from_column is not None:
        kind, takes = "--from-column", ("label_column",)
        if options.kind != default.kind or ratio is not None or options.seed or options.replace:
            remedy = "leave --kind, --ratio, --seed and --replace out"
            raise UsageError("--from-column takes noise as it is", remedy)
    for name in (*_OF_KINDS, "label_column", "text_column", "group_column"):
        if getattr(options, name) != getattr(default, name) and name not in takes:
            kinds = [other for other, row in NOISES.items() if name in row.takes]
            remedy = f"it is for {', '.join(kinds)}" if kinds else "leave it out"
            raise UsageError(f"--{name.replace('_', '-')} has no effect with {kind}", remedy)
    if options.stratify and options.draw != "exact":
        raise UsageError("--stratify makes counts exact, --draw bernoulli does not", "give one of them")
    if options.ratio_of != "selected" and ratio is None:
        raise UsageError("--ratio-of says what --ratio is of", "give --ratio")
    needs = () if options.from_column is not None else noise.needs
    for name in needs:
        if getattr(options, name) is None:
            raise UsageError(f"--{name} is missing", f"{kind} needs it")


def _columns(options: CorruptOptions) -> Columns:
    return Columns(
        options.label_column, options.text_column, options.id_column, options.group_column,
        options.from_column,
    )  # fmt: skip


def _told(options: CorruptOptions, ratio: Fraction | None) -> dict[str, Any]:
    """The options that decide the product: those of every kind, what else differs from a default."""
    default = CorruptOptions()
    told: dict[str, Any] = {"kind": options.kind, "seed": options.seed, "draw": options.draw}
    if options.from_column is not None:
        told = {}
    if ratio is not None:
        told["ratio"] = str(ratio)
    if options.from_column is None:
        column = "text_column" if NOISES[options.kind].captions else "label_column"
        told |= {column: getattr(options, column), "id_column": options.id_column}
    for name in (*_OF_KINDS, *_OF_INPUT):
        value = getattr(options, name)
        if value != getattr(default, name) and name not in told:
            told[name] = Path(value).name if name in ("matrix", "features") else value
    if told.get("map"):
        told["map"] = Path(str(told["map"])).name
    if options.from_column is not None and options.label_column != default.label_column:
        told["true_column"] = told.pop("label_column")  # the product has a column `label` of its own
    return told


def _check_places(
    source: str, out: str | None, options: CorruptOptions, carrier: Carrier, files: Sequence[Path]
) -> None:
    """Both outputs must have a place of their own, and one that no input lies in; only a table that
    keeps its form may take the place of itself.
    """
    beside = None if out is None else str(sidecar(out))
    check_apart(out=out, stats=options.stats)
    check_apart(record=beside, stats=options.stats)
    inputs = [*carrier.files, *files]
    if options.stats == "-":
        raise UsageError("--stats - would mix with the table on stdout", "give the name of a file")
    check_place(options.stats, inputs, "--stats")
    check_place(out, [name for name in inputs if carrier.new or str(name) != source])
    if out is None and carrier.suffixes == (".parquet",):
        binary_stdout()  # which no terminal is


def _has_stats(options: CorruptOptions, identity: str) -> bool:
    """Whether the statistics asked for, if any, are there and are those of this product."""
    if options.stats is None:
        return True
    try:
        found = json.loads(Path(options.stats).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("identity") == identity


def _check_form(source: str, out: str | None, carrier: Carrier) -> None:
    """The output's suffix must name the form that the product has, or none that is known of a table."""
    suffix = Path(out or "").suffix.lower()
    if out and suffix not in carrier.suffixes and (suffix in (*SUFFIXES, *FORMATS) or carrier.new):
        what = "no form of labels" if carrier.new else f"a table keeps the form of {source}"
        raise UsageError(f"{out}: {what}", f"end the name in {' or '.join(carrier.suffixes)}")


def _changed(
    content: Content, features: Features | None, options: CorruptOptions, ratio: Fraction | None
) -> Changed:
    """What becomes of the rows."""
    if options.from_column is not None and content.noisy is not None:
        return Changed(content.noisy, len(content.noisy))
    noise, rows = NOISES[options.kind], content.rows
    if features is not None:
        rows = replace(rows, features=features, places=places_of(content, features))
    names = {field.name for field in fields(Request)} - {"ratio"}
    request = Request(ratio=ratio, **{name: getattr(options, name) for name in names})
    return noise.change(rows, request)


def _features(source: str, options: CorruptOptions) -> Features:
    """The features that a kind goes by: those given, or the input where it holds some."""
    given = options.features or source
    if options.features is None and Path(source).suffix.lower() not in FORMATS:
        raise UsageError("--features is missing", f"--kind {options.kind} needs those of the samples")
    if Path(given).suffix.lower() not in FORMATS:
        raise UsageError(
            f"--features {given} is no file of features", f"they end in {', '.join(FORMATS)}"
        )
    return read_features(given)


def _noise(
    content: Content, changed: Changed, options: CorruptOptions, ratio: Fraction | None
) -> dict[str, Any]:
    """What the record says of the noise; what only some kinds have is left out for others."""
    rows, size = content.rows, len(changed.values)
    before = np.arange(size) if rows.groups is not None else rows.values
    requested = None if ratio is None else float(ratio)
    if options.from_column is not None:
        facts = noise_facts(f"human:{options.from_column}", None, changed.values, before, None)
    else:
        facts = noise_facts(options.kind, requested, changed.values, before, options.seed, options.draw)
    if options.stratify:
        facts["stratified"] = True
    if rows.groups is None and changed.eligible not in (0, size):
        share = facts["flipped"] / changed.eligible
        extent = {"selected": changed.eligible, "realised_selected": share}
        facts |= {"ratio_of": options.ratio_of, **extent}
    return {**facts, **changed.facts}


def _report(
    content: Content,
    changed: Changed,
    record: Record,
    options: CorruptOptions,
    tell: Callable[[Facts], None],
) -> None:
    """Say what was done, in a line, in a file of statistics, and to who wants to know."""
    noise, rows = dict(record.noise or {}), content.rows
    found: dict[str, Any] = {}
    if rows.groups is None:
        found = statistics(rows.values, changed.values, rows.classes)
    if options.stats:
        of = changed.eligible if options.ratio_of == "selected" else noise["of"]
        wanted = None if noise["requested"] is None else half_up(Fraction(str(options.ratio)) * of)
        if rows.groups is not None:
            wanted = noise["flipped"]  # exact, by whatever the kind can reach
        with replacing(options.stats) as temporary:
            facts = {"identity": record.identity, **noise, "wanted": wanted, **found}
            text = json.dumps(facts, ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    what = "labels" if rows.groups is None else "captions"
    seed = "" if noise["seed"] is None else f", seed {noise['seed']}"
    rate = f"{100 * noise['realised']:.2f} %"
    if "selected" in noise:
        of_selected = f"{100 * noise['realised_selected']:.2f} %"
        rate += f"; {of_selected} of the {noise['selected']:,} that can change"
    if noise.get("empty"):
        rate += f"; {noise['empty']:,} without text"
    extent = (f"{noise['flipped']:,}", f"{noise['of']:,}", what, rate)
    log.info("flipped %s of %s %s (%s), %s%s", *extent, noise["kind"], seed)
    tell({**noise, **found})
