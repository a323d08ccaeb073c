"""What several commands ask of features: parts as one set, labels, finite values, the right network,
and what result lines say of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.features import Features
from nmlcli.products.formats import read_features
from nmlcli.products.labels import Labels, align, read_labels, renumber
from nmlcli.products.spectrum import SpectrumState
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, identity_of, layer_of

log = logging.getLogger(__name__)

REVISION = 1  # of the identities given here
BLOCK = 4096  # rows; fixed, since the last bits of a product of matrices depend on it


@dataclass(frozen=True)
class LabelledSet:
    """Features to learn from or to be checked on: parts of one set, as one.

    labels: int64 [N], in the numbers of classes. noise: of these labels, None where it is not known.
    overlay: the record of the table they come from, where they do not come from the features.
    """

    parts: tuple[Features, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    noise: Facts | None
    overlay: Record | None

    @property
    def records(self) -> list[Record]:
        """The records of all it is made of."""
        return [*(part.record for part in self.parts), *([self.overlay] if self.overlay else [])]

    @property
    def known_as(self) -> list[str]:
        """All identities by which the set can be met again: of its samples and of its features."""
        samples = [str(r.data["identity"]) for r in self.records if r.kind == "features" and r.data]
        return list(dict.fromkeys([*samples, *(part.record.identity for part in self.parts)]))

    @property
    def data(self) -> Facts | None:
        """What is known of the samples' set; see joined."""
        return joined([part.record for part in self.parts]).data

    def matrix(self) -> NDArray[np.float32]:
        """All features [N, D]."""
        out = np.empty((len(self.labels), self.parts[0].columns), dtype=np.float32)
        start = 0
        for part in self.parts:
            for block in finite_blocks(part):
                out[start : start + len(block)] = block
                start += len(block)
        return out


def check_stdin(*sources: str | None) -> None:
    """Raise UsageError where more than one input is stdin."""
    if sources.count("-") > 1:
        raise UsageError("- is given twice", "stdin can be read once")


def open_parts(sources: Sequence[str]) -> tuple[Features, ...]:
    """Open the parts of one set, in order. Raises InvalidInput where they do not fit together."""
    parts = tuple(read_features(source) for source in sources)
    check_parts(parts)
    return parts


def check_parts(parts: Sequence[Features]) -> None:
    """Check that features are parts of one set: of one network, layer, width and type of values, and
    no id in two of them. Raises InvalidInput, naming both files.
    """
    one, *others = parts
    check_network(one.record, one.source, *others)
    seen = dict.fromkeys(one.ids, one.source) if others else {}  # ids are unpacked when asked for
    for part in others:
        if part.dtype != one.dtype:
            wrong = f"{part.source} is {part.dtype}, {one.source} is {one.dtype}"
            raise InvalidInput(wrong, "take parts of one precision")
        if shared := [name for name in part.ids if name in seen]:
            wrong = f"{seen[shared[0]]} and {part.source} both hold {first(shared)}"
            raise InvalidInput(wrong, "give each part once")
        seen |= dict.fromkeys(part.ids, part.source)


def joined(records: Sequence[Record], identities: Sequence[str] | None = None) -> Record:
    """The record of parts as one: rows and flipped labels add up, the names of their sets follow one
    another, and what is not the same in all is not known.

    identities: of the features that the parts are of, where they are not features themselves.
    """
    one, made_of = records[0], list(identities or (record.identity for record in records))
    whole = made_of[0] if len(made_of) == 1 else identity_of("parts", REVISION, {}, made_of)
    if len(records) == 1:
        return replace(one, identity=whole)
    sets = [record.data or {} for record in records]
    data, known = _common(sets), [str(each["identity"]) for each in sets if each.get("identity")]
    if data:
        named = list(dict.fromkeys(str(each["name"]) for each in sets if each.get("name")))
        same = identity_of("parts", REVISION, {}, known) if len(known) == len(sets) else None
        data |= {"name": first(named), "identity": same}
    noises = [record.noise or {} for record in records]
    noise, counts = _common(noises), [(each.get("flipped"), each.get("of")) for each in noises]
    if noise and all(isinstance(flipped, int) and isinstance(of, int) for flipped, of in counts):
        flipped, of = (sum(column) for column in zip(*counts, strict=True))
        noise |= {"flipped": flipped, "of": of, "realised": flipped / max(1, of)}
    classes = one.classes if all(record.classes == one.classes for record in records) else None
    rows = sum(record.rows or 0 for record in records)
    return replace(
        one, identity=whole, rows=rows, classes=classes, data=data or None, noise=noise or None
    )


def _common(several: Sequence[Facts]) -> dict[str, Any]:
    """Facts with None for what is not the same in all; nothing where one of them is empty."""
    one = several[0] if all(several) else {}
    return {key: v if all(each.get(key) == v for each in several) else None for key, v in one.items()}


def open_labelled(sources: Sequence[str], labels: str | None) -> LabelledSet:
    """Open the parts of a training set and settle its labels and classes."""
    parts = open_parts(sources)
    if labels is not None:
        return _overlaid(parts, [name for part in parts for name in part.ids], read_labels(labels))
    numbers, classes = labels_of_parts(parts)
    _check_labels(numbers, parts[0].source)
    noise = joined([part.record for part in parts]).noise
    return LabelledSet(parts, numbers, classes, noise, None)


def _overlaid(parts: tuple[Features, ...], ids: list[str], table: Labels) -> LabelledSet:
    """Labels of a table laid over the parts by id; the noise is the table's."""
    numbers, _ = align(table, ids, parts[0].source)
    classes = parts[0].record.classes or table.classes
    numbers = renumber(numbers, table.classes, classes, table.source)
    _check_labels(numbers, table.source)
    return LabelledSet(parts, numbers, classes, table.noise, record_of_labels(table))


def record_of_labels(table: Labels) -> Record:
    """The record of a table that is laid over a set: its own, else one by its ids and labels."""
    content = [*table.ids, *(table.classes[number] for number in table.labels)]
    return table.record or Record("labels", identity_of("labels", REVISION, {}, content), "labels")


def labels_of_parts(parts: Sequence[Features]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels [N] of the parts of a set, and its classes: the first part's, else numbers.

    Raises InvalidInput where a part has no labels, or some of a class that the first part lacks.
    """
    one = parts[0]
    classes = one.record.classes
    if classes is None:
        highest = max((int(part.labels.max()) for part in parts if part.labels is not None), default=0)
        classes = tuple(map(str, range(highest + 1)))
    return np.concatenate([labels_of(part, classes, one.source) for part in parts]), classes


def labels_of(
    part: Features, classes: tuple[str, ...], source: str = "the training set"
) -> NDArray[np.int64]:
    """Labels [N] of one part in the numbers of the classes of `source`, matched by name."""
    if part.labels is None:
        remedy = "embed a labelled set, or lay labels over it: nml convert --labels"
        raise InvalidInput(f"{part.source} has no labels", remedy)
    try:
        return renumber(part.labels, part.record.classes or classes, classes, part.source)
    except InvalidInput as error:
        wrong = f"{part.source} has labels of classes that {source} lacks ({error.remedy})"
        raise InvalidInput(wrong, "give both one list: nml convert --classes FILE") from error


def _check_labels(numbers: NDArray[np.int64], source: str) -> None:
    if len(np.unique(numbers)) < 2:
        wrong = f"{source}: all {len(numbers)} rows are of one class"
        raise InvalidInput(wrong, "nothing can be learned")


def finite_blocks(features: Features, advance: Advance = silent) -> Iterator[NDArray[np.float32]]:
    """Iterate features in float32 blocks [≤ 4096, D]. Raises InvalidInput, naming the first bad row."""
    start = 0
    for block in features.blocks(BLOCK):
        if not np.isfinite(block).all():
            row = start + int(np.argmin(np.isfinite(block).all(axis=1)))
            wrong = f"the features of {features.ids[row]} are not finite"
            raise InvalidInput(f"{features.source}: {wrong}", "embed it anew")
        yield np.asarray(block, dtype=np.float32)
        start += len(block)
        advance(start, features.rows)


def check_network(wanted: Record, source: str, *parts: Features | SpectrumState) -> None:
    """Check that parts come from the network that a record is for, whose record is that of `source`.

    Raises InvalidInput for another width or network. Where either network is not known, only the
    widths can be compared, and one warning says so.
    """
    ours, unknown = wanted.model or {}, []
    for part in parts:
        if part.record.columns != wanted.columns:
            widths = f"{part.source} has {part.record.columns} columns, {source} {wanted.columns}"
            raise InvalidInput(widths, "take features of the same network")
        theirs = part.record.model or {}
        if ours.get("identity") is None or theirs.get("identity") is None:
            unknown.append(part.source)
        elif (ours["identity"], layer_of(ours)) != (theirs["identity"], layer_of(theirs)):
            raise InvalidInput(
                f"{part.source} is of another network than {source}"
                f" ({_network(theirs)}, not {_network(ours)})",
                "embed the set with that network",
            )
    if unknown:
        names = (source, first(unknown))[:: 1 if ours.get("identity") is None else -1]
        log.warning("the network of %s is not known: it fits %s by its width alone", *names)


def _network(model: Facts) -> str:
    parts = (model.get("name"), str(model.get("identity"))[:8], layer_of(model))
    return " ".join(str(part) for part in parts if part)


def provenance_keys(record: Record) -> dict[str, Any]:
    """What the record of features knows of their set and network, as keys of a result line.

    None is not known or does not apply. pretrain_* are the set and the label noise that the network
    was trained with; they stay those of the pre-training where the network was tuned since.
    """
    data, model = record.data or {}, record.model or {}
    pretrained, noise = (_facts(model.get(key)) for key in ("data", "noise"))
    return {
        **{key: data.get(key) for key in ("task", "domain", "split")},
        "backbone": model.get("architecture") or model.get("name"),
        "backbone_identity": model.get("identity"),
        "backbone_seed": model.get("seed"),
        "layer": layer_of(model),
        "objective": model.get("objective"),
        "pretrain_set": pretrained.get("name"),
        "pretrain_noise": noise.get("kind"),
        "pretrain_ratio": noise.get("requested"),
        "pretrain_realised": noise.get("realised"),
        "pretrain_noise_seed": noise.get("seed"),
        "features": record.identity,
    }


def _facts(value: object) -> Facts:
    """Facts within facts, which no reader has looked at."""
    return value if isinstance(value, Mapping) else {}
