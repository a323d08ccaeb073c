"""Tables: a row a sample, with the path of its image, its label, its id, its texts, its domain."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.images import image_reader
from nmlcli.data.samples import Samples, SetName
from nmlcli.data.sources import SourceOptions
from nmlcli.data.tars import Member, read_members
from nmlcli.errors import InvalidInput
from nmlcli.products.captions import captions_of_table, optional_texts
from nmlcli.products.labels import column_ids, labels_of_table, texts
from nmlcli.products.tables import Table, missing_column, read_table
from nmlcli.provenance import Record, hash_file

DOMAIN = "domain"  # the column that --domain selects by


def list_table(source: str, root: str, options: SourceOptions) -> Samples:
    """List the rows of a table; image paths start from root.

    A path may go into a tar (`train.tar/dog/1.jpg`). A table made by nml brings its classes and its
    noise with it; one with a clean_label or clean_text column is recounted. Texts may be empty, and are
    where there is none. Raises InvalidInput, naming row and sample, where a column, a label or an image
    is missing.
    """
    table = read_table(source)
    options = _columns(options, table)
    ids = column_ids(table, options.id_column)
    samples = Samples(
        SetName("stdin", options.domain) if source == "-" else SetName.of_path(source), table.source,
        ids, None, None, partial(_no_images, table.source), files=() if source == "-" else (source,),
        texts2=_optional(table, options.text2_column, "text2", "--text2-column"),
        domains=_optional(table, DOMAIN), groups=_groups(table, options),
        has_images=options.image_column in table.columns,
    )  # fmt: skip
    if options.text_column != "text" or options.text_column in table.columns:
        captions = captions_of_table(table, source, ids, options.text_column)
        samples = replace(
            samples, texts=captions.texts, clean_texts=captions.clean_texts,
            text_noise=captions.noise, parents=_made_with(captions.record),
        )  # fmt: skip
    if samples.has_images:
        samples = _with_images(samples, table, root, options.image_column)
    elif samples.texts is None or options.image_column != "image":
        raise missing_column(options.image_column, table.columns, table.source, "--image-column")
    column = options.label_column
    if column not in table.columns and column == "label":
        return samples
    labels = labels_of_table(table, source, ids, column)
    return replace(
        samples,
        labels=labels.labels,
        clean_labels=labels.clean_labels,
        classes=labels.classes,
        noise=labels.noise,
        parents=(*samples.parents, *_made_with(labels.record)),
    )


def _made_with(record: Record | None) -> tuple[Record, ...]:
    return () if record is None else (record,)


def _columns(options: SourceOptions, table: Table) -> SourceOptions:
    """The options for this table: where another is laid over it, names of columns may be those of the
    other one alone."""
    if options.labels and options.label_column not in table.columns:
        options = replace(options, label_column="label")
    if options.captions and options.text_column not in table.columns:
        options = replace(options, text_column="text")
    if (options.labels or options.captions) and options.id_column not in table.columns:
        options = replace(options, id_column="id")
    return options


def _groups(table: Table, options: SourceOptions) -> list[str] | None:
    """What image each row is of, where another column than that of the images tells it."""
    column = options.group_column
    if column in ("image", options.image_column):
        return None
    return texts(table.column(column, "--group-column"), "image", column, table.source)


def _optional(table: Table, column: str, usual: str = DOMAIN, option: str = "") -> list[str] | None:
    """The texts of a column; one that was named otherwise than usual has to be there."""
    if column == usual and column not in table.columns:
        return None
    return optional_texts(table.column(column, option))


def _no_images(source: str, rows: NDArray[np.int64]) -> Any:
    raise InvalidInput(f"{source} has no images", "name their column with --image-column")


def _with_images(samples: Samples, table: Table, root: str, column: str) -> Samples:
    @cache
    def members(archive: str) -> dict[str, Member]:
        return {member.name: member for member in read_members(archive)}

    files, offsets, sizes, paths = [], [], [], []
    for row, (sample, value) in enumerate(zip(samples.ids, table.column(column), strict=True), start=1):
        where = f"{table.source}: row {row} (sample {sample})"
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{where} names no image")
        path = str(Path(root, value))
        outer, inside, inner = path.partition(".tar/")
        if inside and Path(f"{outer}.tar").is_file():
            member = members(f"{outer}.tar").get(inner)
            if member is None:
                raise InvalidInput(f"{where}: {outer}.tar has no {inner}")
            file, offset, size = f"{outer}.tar", member.offset, member.size
        else:
            file, offset, size = path, 0, _size(path, where)
        files.append(file)
        offsets.append(offset)
        sizes.append(size)
        paths.append(path)
    lengths = np.array(sizes, dtype=np.int64)
    archives = sorted({file for file, path in zip(files, paths, strict=True) if file != path})
    return replace(
        samples,
        images=image_reader(samples.ids, files, np.array(offsets, dtype=np.int64), lengths),
        sizes=lengths,
        contents=tuple(hash_file(archive) for archive in archives),
        files=(*samples.files, *dict.fromkeys(files)),
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
