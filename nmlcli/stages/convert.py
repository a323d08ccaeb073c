"""Convert features between the forms of files, in row blocks; vectors of others become features."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.features import Features
from nmlcli.products.foreign import features_of_container
from nmlcli.products.formats import (
    FORMATS,
    check_exists,
    open_container,
    write_features,
)
from nmlcli.products.ids import repeated
from nmlcli.products.labels import align, number_names, read_labels, renumber
from nmlcli.products.vectors import VECTORS, Asked, write_vectors
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.stages.inputs import BLOCK, check_stdin, record_of_labels
from nmlcli.stages.outputs import check_out, up_to_date
from nmlcli.version import __version__

log = logging.getLogger(__name__)

REVISION = 1

Blocks = Callable[[int], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class ConvertOptions:
    """labels: a table laid over the rows by id. id_column, label_column: of the input and that table.
    classes: a file of class names in their order. key: where the vectors are. model: the name of the
    network that they come from. dtype: None: as it is. form: of the input, a suffix without its dot,
    where its name does not say it."""

    labels: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    classes: str | None = None
    key: str | None = None
    model: str | None = None
    dtype: str | None = None
    form: str | None = None
    reuse: bool = False


@dataclass(frozen=True)
class _Labelling:
    """What the rows are labelled with. overlay: the record of the table it comes from."""

    labels: NDArray[np.int64] | None
    clean_labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    noise: Facts | None
    overlay: Record | None = None


def convert(
    source: str, out: str | None, options: ConvertOptions, advance: Advance = silent
) -> Record | None:
    """Write the features of a file, or of stdin (`-`), in another form; None where it is up to date.

    What nml wrote keeps its record, unless labels, classes, type or network change. Vectors of others
    get one: its input is a hash of their file, and two files of one `model` are of one network. A
    text is passed over twice, a pipe of text is spooled to a temporary file first. Raises
    InvalidInput, naming file and row or id, for what is no set of finite vectors of one width.
    """
    check_stdin(source, options.labels)
    check_out(out, (source, options.labels, options.classes), "OUT", {**FORMATS, **VECTORS})
    features = _opened(source, options)
    labelling = _labelled(features, options)
    dtype = np.dtype(options.dtype or features.dtype)
    record = _record_of(features, labelling, dtype, options)
    files = [file for file in (source, options.labels, options.classes) if file]
    # The key names the vectors of OUT where it is not that of IN, and no identity knows of it.
    known = options.key is None or _key_of_input(features, source, options)
    if options.reuse and known and up_to_date(out, record.identity, files):
        for _ in features.blocks(BLOCK) if source == "-" else ():
            pass  # whoever writes the stream may also write it elsewhere
        return None
    product = replace(
        features, record=record, labels=labelling.labels, clean_labels=labelling.clean_labels,
        dtype=dtype, blocks=_cast(features, features.blocks, dtype, advance),
        views=features.views and _cast(features, features.views, dtype, silent),
    )  # fmt: skip
    key = None if _key_of_input(features, source, options) else options.key
    if out is not None and _is_vectors(out):
        if features.views is not None:
            log.warning("%s cannot hold the views of %s: they are left out", out, features.source)
        write_vectors(out, product, key)
    elif key is not None:
        wrong = "--key is for vectors of others, and neither of the two are"
        raise UsageError(wrong, "leave it out")
    else:
        write_features(out, product)
    return record


def _is_vectors(name: str) -> bool:
    """Whether a name is of another program's form; a pipe or device takes a safetensors stream."""
    path = Path(name)
    return path.suffix.lower() in VECTORS and (path.is_file() or not path.exists())


def _key_of_input(features: Features, source: str, options: ConvertOptions) -> bool:
    """Whether `--key` has been used up: nml's own files leave it for what is written."""
    return (
        options.form is not None
        or not features.record.command
        or Path(source).suffix.lower() in VECTORS
    )


def _opened(source: str, options: ConvertOptions) -> Features:
    asked = Asked(
        options.key, options.id_column, options.label_column, lenient=options.labels is not None
    )
    suffix = Path(source).suffix.lower() if options.form is None else f".{options.form}"
    regular = source != "-" and check_exists(source).is_file()
    if suffix in VECTORS and (regular or options.form is not None):
        return VECTORS[suffix].read(source, "stdin" if source == "-" else source, asked)
    if regular and suffix not in FORMATS:
        forms = ", ".join({**FORMATS, **VECTORS})
        raise InvalidInput(f"{source} is of no form that is known by its suffix", f"use {forms}")
    return features_of_container(open_container(source, "features"), asked)


def _labelled(features: Features, options: ConvertOptions) -> _Labelling:
    """The labels of a table or those that are there, in the numbers of the classes asked for."""
    record, wanted = features.record, _read_classes(options.classes)
    found = _Labelling(features.labels, features.clean_labels, record.classes, record.noise)
    if options.labels is not None:
        table = read_labels(
            options.labels,
            label_column=options.label_column or "label",
            id_column=options.id_column or "id",
        )
        labels, clean = align(table, features.ids, features.source)
        found = _Labelling(labels, clean, table.classes, table.noise, record_of_labels(table))
        wanted = wanted or (record.classes if record.command else None)
    if wanted is None or wanted == found.classes:
        return found
    if found.labels is None:
        raise InvalidInput(f"{features.source} has no labels", "give --labels TABLE")
    where = features.source if options.labels is None else options.labels
    classes = found.classes or number_names(found.labels, found.clean_labels)
    labels = renumber(found.labels, classes, wanted, where)
    clean = found.clean_labels
    clean = None if clean is None else renumber(clean, classes, wanted, where)
    return replace(found, labels=labels, clean_labels=clean, classes=wanted)


def _read_classes(file: str | None) -> tuple[str, ...] | None:
    """The class names of a file, one a line."""
    if file is None:
        return None
    try:
        lines = check_exists(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8", "recode it") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InvalidInput(f"{file} names no classes", "write one a line")
    if twice := repeated(names):
        raise InvalidInput(f"{file} names classes twice: {first(twice)}")
    return names


def _record_of(
    features: Features, labelling: _Labelling, dtype: "np.dtype[Any]", options: ConvertOptions
) -> Record:
    """The record of the product: the input's own where nothing but the form changes."""
    record, overlay = features.record, labelling.overlay
    if options.model is not None and record.model is not None:
        name = record.model.get("name")
        raise UsageError(
            f"{features.source} already says that its network is {name}", "leave --model out"
        )
    changed = dtype != features.dtype or options.model or overlay or labelling.classes != record.classes
    if record.command and not changed:
        return record
    names = ("key", "id_column", "label_column", "model")
    given = {name: getattr(options, name) for name in names}
    facts = {"dtype": dtype.name, **{name: value for name, value in given.items() if value is not None}}
    inputs = [record.identity, overlay.identity if overlay else "", *(labelling.classes or ())]
    model = record.model
    if options.model is not None:
        model = {"name": options.model, "identity": identity_of("model", REVISION, {}, [options.model])}
    return replace(
        record, identity=identity_of("convert", REVISION, facts, inputs), command="convert",
        options=facts, classes=labelling.classes, model=model, noise=labelling.noise,
        parents=chain(record, overlay), version=__version__,
    )  # fmt: skip


def _cast(features: Features, blocks: Blocks, dtype: "np.dtype[Any]", advance: Advance) -> Blocks:
    """The blocks in another type. They raise InvalidInput, naming the id, for NaN and infinity."""

    def cast_blocks(rows: int) -> Iterator[NDArray[Any]]:
        start = 0
        for block in blocks(rows):
            with np.errstate(over="ignore"):  # it becomes infinite, and is refused
                cast = block.astype(dtype, copy=False)
            finite = np.isfinite(cast)
            if not finite.all():
                row = start + int(np.argmin(finite.reshape(len(cast), -1).all(axis=1)))
                wrong = f"the features of {features.ids[row]} are not finite as {dtype.name}"
                raise InvalidInput(f"{features.source}: {wrong}", "mend or drop the row")
            yield cast
            start += len(block)
            advance(start, features.rows)

    return cast_blocks
