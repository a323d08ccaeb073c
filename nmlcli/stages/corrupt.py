"""`corrupt`: labels of a table or of any set to noisy labels, exactly as many as asked for."""

import hashlib
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmlcli.atomic import replacing
from nmlcli.data.samples import SetName
from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.keyed import Keys, hash_ids
from nmlcli.noise.kinds import DRAWS, NOISES, parse_ratio
from nmlcli.products.labels import CLEAN, class_order, noise_facts, texts
from nmlcli.products.tables import (
    SUFFIXES,
    TextTable,
    is_table,
    missing_column,
    new_table,
    open_table,
    read_sidecar,
    write_sidecar,
)
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.stages.outputs import check_apart, up_to_date

log = logging.getLogger(__name__)

REVISION = 1
_BLOCK = 8192  # rows


@dataclass(frozen=True)
class CorruptOptions:
    """What `nml corrupt` is asked for; ratio is decimal text, so that no row is lost to rounding.

    limit, domain: what is taken of a set that is no table.
    """

    ratio: str
    kind: str = "symmetric"
    draw: str = "exact"
    seed: int = 0
    label_column: str = "label"
    id_column: str = "id"
    limit: int | None = None
    domain: str | None = None
    stats: str | None = None
    reuse: bool = False


@dataclass(frozen=True)
class _Labelled:
    """The labels of a carrier: hashes of the ids uint64 [N], class numbers int64 [N], class names.

    write(names): the product in blocks of bytes, from one new class name a row, None where it stays.
    """

    hashes: Keys
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    write: Callable[[Iterator[str | None]], Iterator[bytes]]


@dataclass(frozen=True)
class _Carrier:
    """What carries labels, opened but not yet read.

    suffixes: those that its product's name may end in. new: the product is a table of its own, not
    the carrier with other labels.
    """

    identity: str
    data: Facts | None
    parents: tuple[Facts, ...]
    files: tuple[str | Path, ...]
    suffixes: tuple[str, ...]
    read: Callable[[Advance], _Labelled]
    new: bool = False


def corrupt(source: str, out: str | None, options: CorruptOptions, advance: Advance = silent) -> Record:
    """Put noise on the labels of a table (or stdin, `-`) or of any set of samples.

    A table keeps its form: each byte outside the label column stays, and a column clean_label is
    added. Another set gives a table id, label, clean_label. out: a file, beside which the record is
    written; None for stdout. Returns the record. Raises UsageError for a ratio outside [0, 1],
    InvalidInput for labels that cannot be corrupted.
    """
    ratio = parse_ratio(options.ratio)
    check_apart(out=out, stats=options.stats)
    out = None if out == "-" else out
    carrier = _open_table(source, options) if is_table(source) else _open_samples(source, out, options)
    _check_form(source, out, carrier)
    told = ("kind", "draw", "seed", "label_column", "id_column")
    asked = {"ratio": str(ratio), **{name: getattr(options, name) for name in told}}
    identity = identity_of("corrupt", REVISION, asked, [carrier.identity])
    made = not options.stats or Path(options.stats).exists()
    if options.reuse and out and made and up_to_date(out, identity, carrier.files):
        record = read_sidecar(out)
        if record is not None:
            return record
    labelled = carrier.read(advance)
    noisy = _relabel(labelled, ratio, options)
    noise = noise_facts(options.kind, float(ratio), noisy, labelled.labels, options.seed, options.draw)
    record = Record(
        "labels", identity, "corrupt", asked, labelled.classes,
        rows=len(noisy), data=carrier.data, noise=noise, parents=carrier.parents,
    )  # fmt: skip
    _write(out, labelled.write(_names(labelled, noisy, advance)), record)
    if options.stats:
        _write_stats(options.stats, labelled, noisy, noise)
    log.info(
        "flipped %s of %s labels (%.2f %%), %s, seed %d",
        f"{noise['flipped']:,}", f"{noise['of']:,}", 100 * noise["realised"],
        options.kind, options.seed,
    )  # fmt: skip
    return record


def _relabel(labelled: _Labelled, ratio: Fraction, options: CorruptOptions) -> NDArray[np.int64]:
    noise, num_classes = NOISES[options.kind], len(labelled.classes)
    limit = noise.limit(num_classes)
    if ratio > limit:
        words = "above %.4g, with %d classes, the clean class is no longer the likeliest one"
        log.warning(words, limit, num_classes)
    chosen = DRAWS[options.draw].choose(labelled.hashes, ratio, options.seed)
    return noise.relabel(chosen, labelled.labels, labelled.hashes, num_classes, options.seed)


def _names(labelled: _Labelled, noisy: NDArray[np.int64], advance: Advance) -> Iterator[str | None]:
    """The new class name of each row, None where it stays."""
    names = np.array([*labelled.classes, None], dtype=object)
    for start in range(0, len(noisy), _BLOCK):
        block = noisy[start : start + _BLOCK]
        stays = block == labelled.labels[start : start + _BLOCK]
        advance(start + len(block), len(noisy))
        yield from names[np.where(stays, len(names) - 1, block)].tolist()


def _check_form(source: str, out: str | None, carrier: _Carrier) -> None:
    """The output's suffix must name the form that the product has, or none that is known of a table."""
    suffix = Path(out or "").suffix.lower()
    if out and suffix not in carrier.suffixes and (suffix in SUFFIXES or carrier.new):
        what = "labels are written as a table" if carrier.new else f"a table keeps the form of {source}"
        raise UsageError(f"{out}: {what}", f"end the name in {' or '.join(carrier.suffixes)}")


def _open_table(source: str, options: CorruptOptions) -> _Carrier:
    if options.limit is not None or options.domain is not None:
        raise UsageError(f"{source} is a table, which is kept whole", "leave --limit and --domain out")
    table = open_table(source)
    if options.label_column not in table.columns:
        raise missing_column(options.label_column, table.columns, table.source, "--label-column")
    if options.id_column != "id" and options.id_column not in table.columns:
        raise missing_column(options.id_column, table.columns, table.source, "--id-column")
    if CLEAN in table.columns:
        wrong = f"carries noise already, since it has a column {CLEAN}"
        raise InvalidInput(f"{table.source} {wrong}", "corrupt the clean table")
    identity = hashlib.sha256(table.data).hexdigest()[:32]
    data = None
    if source != "-":
        name = SetName.of_path(source)
        data = {"name": str(name), **asdict(name), "identity": identity}
    files = () if source == "-" else (Path(source),)
    return _Carrier(identity, data, (), files, table.suffixes, partial(_read, table, options))


def _read(table: TextTable, options: CorruptOptions, advance: Advance) -> _Labelled:
    """One pass over a table: of ids 8 bytes a row are kept, of labels 4."""
    own_ids = options.id_column in table.columns
    columns = [options.label_column, *([options.id_column] if own_ids else [])]
    codes: defaultdict[str, int] = defaultdict(count().__next__)
    kinds: set[type] = set()
    hashes, numbers, rows = [], [], 0
    for labels, *ids in table.batches(columns):
        kinds.update(map(type, labels))
        names = texts(labels, "label", options.label_column, table.source, rows + 1)
        numbers.append(np.array(list(map(codes.__getitem__, names)), dtype=np.int32))
        stop = rows + len(labels)
        if own_ids:
            hashed = texts(ids[0], "id", options.id_column, table.source, rows + 1)
        else:
            hashed = list(map(str, range(rows, stop)))
        hashes.append(hash_ids(hashed))
        rows = stop
        advance(rows, None)
    _check_classes(tuple(codes), rows, table.source)
    if len(kinds) > 1:
        raise InvalidInput(f"{table.source}: labels are partly text, partly numbers", "make them alike")
    all_hashes = np.concatenate(hashes)
    if own_ids:
        _check_unique(all_hashes, table, options.id_column)
    classes = class_order(codes)
    numbers_of = {name: i for i, name in enumerate(classes)}
    order = np.array([numbers_of[name] for name in codes], dtype=np.int64)
    numeric = kinds == {int}

    def write(names: Iterator[str | None]) -> Iterator[bytes]:
        values = (name and int(name) for name in names) if numeric else names
        return table.relabelled(options.label_column, values, CLEAN)

    return _Labelled(all_hashes, order[np.concatenate(numbers)], classes, write)


def _check_classes(classes: tuple[str, ...], rows: int, source: str) -> None:
    if rows == 0:
        raise InvalidInput(f"{source} has no rows")
    if len(classes) < 2:
        remedy = "a wrong label needs a second class"
        raise InvalidInput(f"{source} has one class, {first(classes)}", remedy)


def _check_unique(hashes: Keys, table: TextTable, column: str) -> None:
    """Ids must differ, in their hashes too: only then are draws exact and independent of order."""
    ordered = np.sort(hashes)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return
    repeated: dict[str, None] = {}
    for (ids,) in table.batches([column]):
        found = np.isin(hash_ids(map(str, ids)), again)
        repeated.update((str(ids[i]), None) for i in np.flatnonzero(found))
    raise InvalidInput(
        f"{table.source}: ids repeat: {first(tuple(repeated))}", "name another column with --id-column"
    )


def _open_samples(source: str, out: str | None, options: CorruptOptions) -> _Carrier:
    from nmlcli.data.sources import SourceOptions, open_samples

    if (options.label_column, options.id_column) != ("label", "id"):
        raise UsageError(f"{source} is no table", "leave --label-column and --id-column out")
    samples = open_samples(source, SourceOptions(limit=options.limit, domain=options.domain))
    if samples.labels is None or samples.classes is None:
        raise InvalidInput(f"{source} has no labels", "give a labelled set")
    if samples.clean_labels is not None or (samples.noise and samples.noise["realised"]):
        raise InvalidInput(f"{source} carries noise already", "corrupt the clean set")
    _check_classes(samples.classes, len(samples), source)
    labels, classes, ids = samples.labels, samples.classes, samples.ids

    def write(names: Iterator[str | None]) -> Iterator[bytes]:
        clean = [classes[label] for label in labels]
        noisy = [old if new is None else new for old, new in zip(clean, names, strict=True)]
        return new_table({"id": ids, "label": noisy, CLEAN: clean}, Path(out or "").suffix.lower())

    def read(advance: Advance) -> _Labelled:
        return _Labelled(hash_ids(ids), labels, classes, write)

    parents = chain(*samples.parents)
    return _Carrier(samples.identity, samples.facts(), parents, samples.files, SUFFIXES, read, new=True)


def _write(out: str | None, blocks: Iterator[bytes], record: Record) -> None:
    if out is None:
        sys.stdout.buffer.writelines(blocks)
        return
    with replacing(out) as temporary, temporary.open("wb") as file:
        file.writelines(blocks)
    if Path(out).is_file():  # not a pipe or a device
        write_sidecar(out, record)


def _write_stats(path: str, labelled: _Labelled, noisy: NDArray[np.int64], noise: Facts) -> None:
    """Counts of what was done: in all, for each class, and from class to class."""
    classes, clean = labelled.classes, labelled.labels
    pairs, counts = np.unique(clean * len(classes) + noisy, return_counts=True)
    transitions: dict[str, dict[str, int]] = {name: {} for name in classes}
    for pair, rows in zip(pairs.tolist(), counts.tolist(), strict=True):
        transitions[classes[pair // len(classes)]][classes[pair % len(classes)]] = rows
    by_class = {}
    for name, row in transitions.items():
        of = sum(row.values())
        flipped = of - row.get(name, 0)
        by_class[name] = {"of": of, "flipped": flipped, "realised": flipped / of if of else 0.0}
    stats = {**noise, "classes": by_class, "transitions": transitions}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(stats, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
