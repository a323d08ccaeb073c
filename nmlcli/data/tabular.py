"""Tables: a row a sample, with the path of its image, its label, its id, its text, its domain."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.archives import Member, read_members
from nmlcli.data.images import ImageReader
from nmlcli.data.listing import Listing
from nmlcli.data.sources import SourceOptions
from nmlcli.errors import InvalidInput
from nmlcli.products.labels import CLEAN, Labels, class_order, column_ids, column_names, number
from nmlcli.products.tables import Table, missing_column, read_sidecar, read_table
from nmlcli.provenance import hash_file

DOMAIN = "domain"  # the column that --domain selects by


def list_table(source: str, root: str, options: SourceOptions) -> Listing:
    """List the rows of a table; image paths start from root.

    A path may go into a tar (`train.tar/dog/1.jpg`). A table made by nml brings its classes and its
    noise with it; one with a clean_label column is recounted. Raises InvalidInput, naming row and
    sample, where a column, a label or an image is missing.
    """
    table = read_table(source)
    options = _columns(options, table)
    ids = column_ids(table, options.id_column)
    if options.image_column not in table.columns and options.text_column not in table.columns:
        raise missing_column(options.image_column, table.columns, table.source, "--image-column")
    listing = Listing(
        table.source,
        ids,
        None,
        None,
        _Imageless(table.source),
        files=() if source == "-" else (source,),
        texts=_optional(table, options.text_column),
        domains=_optional(table, DOMAIN),
    )
    if options.image_column in table.columns:
        listing = _with_images(listing, table, root, options.image_column)
    return _with_labels(listing, table, source, options)


def _columns(options: SourceOptions, table: Table) -> SourceOptions:
    """The options for this table: where labels are laid over it, names of columns may be those of the
    other table alone."""
    if options.labels:
        if options.label_column not in table.columns:
            options = replace(options, label_column="label")
        if options.id_column not in table.columns:
            options = replace(options, id_column="id")
    return options


def _optional(table: Table, column: str) -> list[str] | None:
    if column not in table.columns:
        return None
    return ["" if value is None else str(value) for value in table.column(column)]


class _Imageless:
    """Reading from a table that has texts alone."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, index: int) -> Any:
        raise InvalidInput(f"{self.source} has no images", "name their column with --image-column")


def _with_images(listing: Listing, table: Table, root: str, column: str) -> Listing:
    @cache
    def members(archive: str) -> dict[str, Member]:
        return {member.name: member for member in read_members(archive)}

    files, offsets, sizes, paths = [], [], [], []
    for row, (sample, value) in enumerate(zip(listing.ids, table.column(column), strict=True), start=1):
        where = f"{table.source}: row {row} (sample {sample})"
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{where} names no image")
        path = str(Path(root, value))
        outer, inside, inner = path.partition(".tar/")
        if inside and Path(f"{outer}.tar").is_file():
            member = members(f"{outer}.tar").get(inner)
            if member is None:
                raise InvalidInput(f"{where}: {outer}.tar has no {inner}")
            place = (f"{outer}.tar", member.offset, member.size)
        else:
            place = (path, 0, _size(path, where))
        files.append(place[0])
        offsets.append(place[1])
        sizes.append(place[2])
        paths.append(path)
    lengths = np.array(sizes, dtype=np.int64)
    archives = sorted({file for file, path in zip(files, paths, strict=True) if file != path})
    return replace(
        listing,
        read=ImageReader(listing.ids, files, np.array(offsets, dtype=np.int64), lengths),
        sizes=lengths,
        contents=tuple(hash_file(archive) for archive in archives),
        files=(*listing.files, *dict.fromkeys(files)),
        paths=paths,
    )


def _size(path: str, where: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise InvalidInput(
            f"{where}: image {path} cannot be read ({error.strerror})",
            "give the folder that the paths start from with --root",
        ) from error


def _with_labels(listing: Listing, table: Table, source: str, options: SourceOptions) -> Listing:
    column = options.label_column
    if column not in table.columns and column == "label":
        return listing
    names = column_names(table, column, "--label-column")
    clean = column_names(table, CLEAN) if CLEAN in table.columns else None
    record = None if source == "-" else read_sidecar(source)
    if record is not None and record.options.get("label_column", column) != column:
        record = None  # it speaks of another column
    classes = (record and record.classes) or class_order({*names, *(clean or ())})
    labels = Labels(
        listing.ids,
        number(names, classes, table.source),
        _numbers(clean, classes, table.source),
        classes,
        record,
        table.source,
    )
    return replace(
        listing,
        labels=labels.labels,
        clean_labels=labels.clean_labels,
        classes=classes,
        noise=labels.noise,
        parents=(record,) if record is not None else (),
    )


def _numbers(
    names: Sequence[str] | None, classes: tuple[str, ...], source: str
) -> NDArray[np.int64] | None:
    return None if names is None else number(names, classes, source)
