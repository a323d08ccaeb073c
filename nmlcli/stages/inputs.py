"""What several commands ask of features: parts as one set, labels, finite values, the right network,
and what result lines say of them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.features import Features
from nmlcli.products.formats import read_features
from nmlcli.products.labels import Labels, align, read_labels, renumber
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, identity_of

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
        """What is known of the samples' set: the first part's name, and an identity of the whole."""
        facts = self.parts[0].record.data
        if len(self.parts) == 1 or facts is None:
            return facts
        identities = [str((part.record.data or {}).get("identity")) for part in self.parts]
        return {**facts, "identity": identity_of("parts", REVISION, {}, identities)}

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
    """Check that features are parts of one set: of one network, layer, width and type of values, with
    no class that the first part lacks and no id in two parts. Raises InvalidInput, naming both files.
    """
    one = parts[0]
    seen = dict.fromkeys(one.ids, one.source)
    for part in parts[1:]:
        check_network(one.record, one.source, part)
        if part.dtype != one.dtype:
            wrong = f"{part.source} holds {part.dtype}, {one.source} {one.dtype}"
            raise InvalidInput(wrong, "take parts of one precision")
        ours, theirs = one.record.classes, part.record.classes
        if ours is not None and theirs is not None and part.labels is not None:
            used = [theirs[number] for number in np.unique(part.labels)]
            if unknown := [name for name in used if name not in set(ours)]:
                wrong = f"{part.source} has labels of classes that {one.source} lacks"
                raise InvalidInput(wrong, first(unknown))
        if shared := [name for name in part.ids if name in seen]:
            wrong = f"{seen[shared[0]]} and {part.source} both hold {first(shared)}"
            raise InvalidInput(wrong, "give each part once")
        seen |= dict.fromkeys(part.ids, part.source)


def open_labelled(sources: Sequence[str], labels: str | None) -> LabelledSet:
    """Open the parts of a training set and settle its labels and classes."""
    parts = open_parts(sources)
    if labels is not None:
        ids = [name for part in parts for name in part.ids]
        return _overlaid(parts, ids, read_labels(labels))
    classes = parts[0].record.classes or _numbered(parts)
    numbers = np.concatenate([labels_of(part, classes) for part in parts])
    _check_labels(numbers, parts[0].source)
    return LabelledSet(parts, numbers, classes, _merged_noise(parts), None)


def _overlaid(parts: tuple[Features, ...], ids: list[str], table: Labels) -> LabelledSet:
    """Labels of a table laid over the parts by id; the noise is the table's."""
    numbers, _ = align(table, ids, parts[0].source)
    classes = parts[0].record.classes or table.classes
    numbers = renumber(numbers, table.classes, classes, table.source)
    _check_labels(numbers, table.source)
    content = [*ids, *(classes[number] for number in numbers)]
    record = table.record or Record("labels", identity_of("labels", REVISION, {}, content), "labels")
    return LabelledSet(parts, numbers, classes, table.noise, record)


def labels_of(part: Features, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels [N] of one part in the numbers of `classes`, matched by name."""
    if part.labels is None:
        remedy = "embed a labelled set, or lay labels over it: nml convert --labels"
        raise InvalidInput(f"{part.source} has no labels", remedy)
    return renumber(part.labels, part.record.classes or classes, classes, part.source)


def _check_labels(numbers: NDArray[np.int64], source: str) -> None:
    if len(np.unique(numbers)) < 2:
        wrong = f"{source}: all {len(numbers)} rows are of one class"
        raise InvalidInput(wrong, "nothing can be learned")


def _numbered(parts: tuple[Features, ...]) -> tuple[str, ...]:
    """Names for classes that have none: their numbers."""
    highest = max((int(part.labels.max()) for part in parts if part.labels is not None), default=0)
    return tuple(str(number) for number in range(highest + 1))


def _merged_noise(parts: tuple[Features, ...]) -> Facts | None:
    """The noise of several parts' labels as one; None where it is not known of any."""
    noises = [part.record.noise for part in parts if part.record.noise is not None]
    if len(noises) < len(parts) or len(parts) == 1:
        return parts[0].record.noise if len(parts) == 1 else None
    one, *others = noises
    common = {key: one[key] for key in one if all(other.get(key) == one[key] for other in others)}
    flipped, of = (sum(int(noise[key]) for noise in noises) for key in ("flipped", "of"))
    counts = {"flipped": flipped, "of": of, "realised": flipped / of}
    return {**dict.fromkeys(one), **common, **counts}


def finite_blocks(features: Features, advance: Advance = silent) -> Iterator[NDArray[np.float32]]:
    """Iterate features in float32 blocks [≤ 4096, D]. Raises InvalidInput, naming the first bad row."""
    start = 0
    for block in features.blocks(BLOCK):
        with np.errstate(over="ignore", invalid="ignore"):
            doubtful = not np.isfinite(block.sum(dtype=np.float32))  # or the sum alone overflowed
        if doubtful and not np.isfinite(block).all():
            row = start + int(np.argmin(np.isfinite(block).all(axis=1)))
            wrong = f"the features of {features.ids[row]} are not finite"
            raise InvalidInput(f"{features.source}: {wrong}", "embed it anew")
        yield np.asarray(block, dtype=np.float32)
        start += len(block)
        advance(start, features.rows)


def check_network(wanted: Record, source: str, features: Features) -> None:
    """Check that features come from the network that a record is for, whose record is that of `source`.

    Raises InvalidInput for another width or network. Where either network is not known, only the
    widths can be compared, and a warning says so.
    """
    if features.columns != wanted.columns:
        widths = f"{features.source} has {features.columns} columns, {source} {wanted.columns}"
        raise InvalidInput(widths, "take features of the same network")
    ours, theirs = wanted.model or {}, features.record.model or {}
    if ours.get("identity") is None or theirs.get("identity") is None:
        names = (source, features.source)
        unknown, known = names if ours.get("identity") is None else names[::-1]
        log.warning("the network of %s is not known: it fits %s by its width alone", unknown, known)
        return
    if any(ours.get(key) != theirs.get(key) for key in ("identity", "layer")):
        raise InvalidInput(
            f"{features.source} holds features of another network than {source}"
            f" ({_network(theirs)}, not {_network(ours)})",
            "embed the set with that network",
        )


def _network(model: Facts) -> str:
    parts = (model.get("name"), str(model.get("identity"))[:8], model.get("layer"))
    return " ".join(str(part) for part in parts if part)


def provenance_keys(record: Record) -> dict[str, Any]:
    """What the record of features knows of their set and network, as keys of a result line.

    None is not known or does not apply. pretrain_* are the set and the label noise that the network
    was trained with; they stay those of the pre-training where the network was tuned since.
    """
    data, model = record.data or {}, record.model or {}
    noise: Facts = model.get("noise") or {}
    return {
        **{key: data.get(key) for key in ("task", "domain", "split")},
        "backbone": model.get("architecture") or model.get("name"),
        "backbone_identity": model.get("identity"),
        "backbone_seed": model.get("seed"),
        "objective": model.get("objective"),
        "pretrain_set": (model.get("data") or {}).get("name"),
        "pretrain_noise": noise.get("kind"),
        "pretrain_ratio": noise.get("requested"),
        "pretrain_realised": noise.get("realised"),
        "pretrain_noise_seed": noise.get("seed"),
        "features": record.identity,
    }
