"""What carries labels or captions into `corrupt`: a table, which keeps its form, or anything else."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nmlcli.data.samples import Samples, SetName
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.keyed import hash_ids
from nmlcli.noise.terms import Rows
from nmlcli.products.features import Features
from nmlcli.products.formats import FORMATS, open_container, write_labels
from nmlcli.products.labels import CLEAN, CLEAN_TEXT, Labels, speaks_of, unpack_labels
from nmlcli.products.tables import (
    SUFFIXES,
    is_table,
    missing_column,
    open_table,
    read_table_record,
    write_table,
)
from nmlcli.progress import Advance
from nmlcli.provenance import Facts, Record, chain, hash_file
from nmlcli.stages.edited import (
    Columns,
    Content,
    Edited,
    Numbers,
    caption_rows,
    check_classes,
    number_texts,
    read_captions,
    read_labels,
)


@dataclass(frozen=True)
class Carrier:
    """What carries labels or captions, opened but not yet read.

    suffixes: those that its product's name may end in. new: the product is one of its own, not the
    carrier with other values.
    """

    identity: str
    read: Callable[[Advance], Content]
    suffixes: tuple[str, ...]
    new: bool
    data: Facts | None = None
    parents: tuple[Facts, ...] = ()
    files: tuple[str | Path, ...] = ()


def open_carrier(
    source: str, columns: Columns, *, captions: bool, replace: bool, select: SourceOptions
) -> Carrier:
    """Open a table, a set or a binary file that carries labels or captions.

    captions: its captions are wanted, not its labels. replace: noise that is already there makes room
    for a new one; else it is refused, that of a table when it has been read. select: what is taken of
    a set that is no table.
    """
    selects = select.limit is not None or select.domain is not None
    if is_table(source):
        if selects:
            kept = f"{source} is a table, which is kept whole"
            raise UsageError(kept, "leave --limit and --domain out")
        return _of_table(source, columns, captions)
    if columns != Columns():
        raise UsageError(f"{source} is no table", "leave the names of columns out")
    if _is_binary(source):
        if captions or selects:
            what = "holds no captions" if captions else "is taken whole"
            raise UsageError(f"{source} {what}", "give a table or a set of samples")
        return _of_binary(source, replace)
    return _of_samples(open_samples(source, select), captions, replace)


def _of_table(source: str, columns: Columns, captions: bool) -> Carrier:
    table = open_table(source)
    column, option = (columns.text, "--text-column") if captions else (columns.label, "--label-column")
    clean = CLEAN_TEXT if captions else CLEAN
    wanted = {
        option: (column, None), "--from-column": (columns.noisy, None),
        "--id-column": (columns.id, "id"), "--group-column": (columns.group, "image"),
    }  # fmt: skip
    for named, (name, default) in wanted.items():
        if name not in (None, default, *table.columns):
            raise missing_column(str(name), table.columns, table.source, named)
    truth = clean if clean in table.columns and columns.noisy is None else column
    edited = Edited(table, column, truth, columns)
    record = None if source == "-" else read_table_record(source)
    if captions:
        read = partial(read_captions, edited)
    else:
        known = record.classes if record and speaks_of(record, column) else None
        read = partial(read_labels, edited, known)
    return Carrier(
        table.identity, read, (*SUFFIXES, *FORMATS) if columns.noisy else table.suffixes,
        columns.noisy is not None, None if source == "-" else _facts(source, table.identity),
        chain(record), () if source == "-" else (source,),
    )  # fmt: skip


def _of_samples(samples: Samples, captions: bool, replace: bool) -> Carrier:
    carrier = partial(
        Carrier, samples.identity, new=True, data=samples.facts(), parents=chain(*samples.parents),
        files=samples.files,
    )  # fmt: skip
    if captions:
        if samples.texts is None:
            raise InvalidInput(f"{samples.source} has no captions", "give a set or table that has some")
        return carrier(partial(_captions_of, samples), SUFFIXES)
    if samples.labels is None or samples.classes is None:
        raise InvalidInput(f"{samples.source} has no labels", "there is nothing to corrupt")
    labels = Labels(
        samples.ids, samples.labels, samples.clean_labels, samples.classes, None, samples.source
    )
    truth = _truth(labels, samples.noise, replace)
    return carrier(partial(_labels_of, truth), (*SUFFIXES, *FORMATS))


def _is_binary(source: str) -> bool:
    """Whether a file holds labels or features, not images."""
    if Path(source).suffix.lower() not in FORMATS or not Path(source).is_file():
        return False
    return "images" not in open_container(source).tensors


def _of_binary(source: str, replace: bool) -> Carrier:
    labels = unpack_labels(open_container(source, "labels"))
    truth = _truth(labels, labels.noise, replace)
    identity = labels.record.identity if labels.record else hash_file(source)
    known = labels.record.data if labels.record else None
    return Carrier(
        identity, partial(_labels_of, truth), (*SUFFIXES, *FORMATS), True,
        known or _facts(source, identity), chain(labels.record), (source,),
    )  # fmt: skip


def _facts(source: str, identity: str) -> Facts:
    name = SetName.of_path(source)
    return {"name": str(name), **asdict(name), "identity": identity}


def _truth(labels: Labels, noise: Facts | None, replace: bool) -> Labels:
    """The labels before any noise. Raises InvalidInput for noise that is not to be replaced."""
    if not (noise or {}).get("flipped"):
        return labels
    if labels.clean_labels is None:
        wrong = f"{labels.source} carries noise, and the labels before it are not known"
        raise InvalidInput(wrong, "corrupt the clean set")
    if not replace:
        raise noisy_already(labels.source)
    return Labels(labels.ids, labels.clean_labels, None, labels.classes, None, labels.source)


def noisy_already(source: str) -> InvalidInput:
    """The error for noise that is not to be replaced."""
    remedy = "corrupt the clean one, or draw anew from its clean values with --replace"
    return InvalidInput(f"{source} carries noise already", remedy)


def _labels_of(labels: Labels, advance: Advance) -> Content:
    """Labels whose product is one of their own."""
    check_classes(labels.classes, len(labels.ids), labels.source)

    def write(out: str | None, values: Numbers, record: Record, advance: Advance) -> None:
        noisy = Labels(labels.ids, values, labels.labels, labels.classes, None, labels.source)
        write_labels(out, noisy, record)

    rows = Rows(hash_ids(labels.ids), labels.labels, labels.source, labels.classes)
    return Content(rows, write, lambda some: [labels.ids[row] for row in some])


def _captions_of(samples: Samples, advance: Advance) -> Content:
    """Captions of a set, which become a table of their own: images stay where they are."""
    old, ids = list(samples.texts or ()), list(samples.ids)

    def write(out: str | None, values: Numbers, record: Record, advance: Advance) -> None:
        new = [old[row] for row in values.tolist()]
        write_table(out, {"id": ids, "text": new, CLEAN_TEXT: old}, record)

    numbers = number_texts(old)
    rows = caption_rows(hash_ids(ids), old, numbers, np.arange(len(ids)), samples.source)
    return Content(rows, write, lambda some: [ids[row] for row in some])


def places_of(content: Content, features: Features) -> Numbers:
    """Where in some features each row of a carrier is, by id, int64 [N].

    Raises InvalidInput, naming the first three, where a row has no features.
    """
    hashes = hash_ids(features.ids)
    order = np.argsort(hashes)
    found = np.searchsorted(hashes, content.rows.hashes, sorter=order)
    places = order[np.minimum(found, len(order) - 1)]
    (lacking,) = np.nonzero(hashes[places] != content.rows.hashes)
    if len(lacking):
        names = content.name(lacking[:3])
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        wrong = f"{features.source} has no features of {', '.join(names)}{more}"
        raise InvalidInput(wrong, f"embed the samples of {content.rows.source}")
    return places
