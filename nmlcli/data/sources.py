"""SOURCES: the forms that DATA can have, and the one door through which all are opened.

A light module: numpy and Pillow are imported when something is opened.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nmlcli.data.torchvision_sets import TORCHVISION
from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.formats import TABLES

if TYPE_CHECKING:
    from nmlcli.data.samples import Samples

_PARTS = re.compile(r"\{([^{}]*)\}")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class SourceOptions:
    """How DATA is read and what is taken of it.

    labels, captions: tables laid over the set by id. domain, classes and limit select, in this order,
    before they are laid over; where the set has no labels of its own, classes are those of the table.
    root: the folder of a table's image paths. The columns are a table's; rows alike in group_column are
    of one image. data_dir: the folder of torchvision's sets; download: whether those that are missing
    there may be fetched.
    """

    labels: str | None = None
    captions: str | None = None
    limit: int | None = None
    domain: str | None = None
    classes: tuple[str, ...] | None = None
    image_column: str = "image"
    label_column: str = "label"
    id_column: str = "id"
    text_column: str = "text"
    text2_column: str = "text2"
    group_column: str = "image"
    root: str | None = None
    data_dir: str = "data"
    download: bool = False


# Of SourceOptions, what only tables have, and those that are laid over a set.
_COLUMNS = ("image_column", "label_column", "id_column", "text_column", "text2_column", "group_column")
_OF_TABLES = (*_COLUMNS, "root")
_LAID_OVER = {"labels": ("label_column", "id_column"), "captions": ("text_column", "id_column")}


@dataclass(frozen=True)
class Source:
    """A form of DATA: how it is written, what it is, whether a name has it, how it is opened, and
    whether it is a table."""

    form: str
    help: str
    matches: Callable[[str], bool]
    open: "Callable[[str, SourceOptions], Samples]"
    tabular: bool = False


def _builtin(spec: str, options: SourceOptions) -> "Samples":
    from nmlcli.data.named import list_builtin

    if options.domain and spec.count(":") == 3 and not spec.endswith(f":{options.domain}"):
        raise UsageError(f"{spec} is of another domain than {options.domain}", "give one of them")
    named = not options.domain or spec.count(":") == 3
    return list_builtin(spec if named else f"{spec}:{options.domain}")


def _torchvision(spec: str, options: SourceOptions) -> "Samples":
    from nmlcli.data.torchvision_samples import list_torchvision

    return list_torchvision(spec, options)


def _folder(spec: str, options: SourceOptions) -> "Samples":
    from nmlcli.data.folders import list_folder

    return list_folder(spec)


def _archives(spec: str, options: SourceOptions) -> "Samples":
    from nmlcli.data.archives import list_archives

    return list_archives(spec, expand_pattern(spec))


def _table(spec: str, options: SourceOptions) -> "Samples":
    from nmlcli.data.tabular import list_table

    return list_table(spec, options.root or str(Path(spec).parent), options)


def _packed(spec: str, options: SourceOptions) -> "Samples":
    from nmlcli.data.packed import list_packed

    return list_packed(spec)


def _suffix(*suffixes: str) -> Callable[[str], bool]:
    return lambda spec: spec.lower().endswith(suffixes)


SOURCES = {
    "stdin": Source("-", "a table on stdin", lambda spec: spec == "-", _table, tabular=True),
    "builtin": Source(
        "builtin:NAME:SPLIT[:DOMAIN]", "generated images, see nml data list",
        lambda spec: spec.startswith("builtin:"), _builtin,
    ),
    "torchvision": Source(
        "torchvision:NAME:SPLIT", f"below --data-dir: {', '.join(TORCHVISION)}",
        lambda spec: spec.startswith("torchvision:"), _torchvision,
    ),
    "folder": Source("DIR", "images below class folders", lambda spec: Path(spec).is_dir(), _folder),
    "archive": Source(
        "FILE.tar, 'part-{00..11}.tar', '*.tar'", "tars of class folders or WebDataset keys",
        _suffix(".tar"), _archives,
    ),
    "table": Source(
        "TABLE.csv .tsv .jsonl .parquet", "a row a sample: image, label, id", _suffix(*TABLES), _table,
        tabular=True,
    ),
    "packed": Source(
        "FILE.h5", "images uint8 [N,H,W,3], labels, ids", _suffix(".h5", ".hdf5"), _packed
    ),
}  # fmt: skip


def open_samples(spec: str, options: SourceOptions | None = None) -> "Samples":
    """Open `[NAME=]DATA` in any of the forms of SOURCES as an ordered set of samples.

    Raises UsageError for a name that has no form, InvalidInput for what is missing or damaged.
    """
    from nmlcli.data.listing import check_ids
    from nmlcli.data.overlay import lay_captions, lay_labels, select_classes, select_domain, take_first
    from nmlcli.data.samples import split_name
    from nmlcli.products.captions import read_captions
    from nmlcli.products.labels import read_labels

    options = options or SourceOptions()
    name, spec = split_name(spec)
    source = find_source(spec)
    _check_stdin({"the set": spec, "its labels": options.labels, "its captions": options.captions})
    everything = samples = source.open(spec, options)
    if options.domain and source is not SOURCES["builtin"]:
        samples = select_domain(samples, options.domain)
    chosen_by_table = options.classes and samples.labels is None and options.labels
    if options.classes and not chosen_by_table:
        samples = select_classes(samples, options.classes)
    if options.limit is not None and not chosen_by_table:
        samples = take_first(samples, options.limit)
    if options.labels:
        table = read_labels(
            options.labels, label_column=options.label_column, id_column=options.id_column
        )
        samples = lay_labels(samples, table, everything)
    if options.classes and chosen_by_table:
        samples = select_classes(samples, options.classes)
        samples = take_first(samples, options.limit or len(samples))
    if options.captions:
        captions = read_captions(
            options.captions, text_column=options.text_column, id_column=options.id_column
        )
        samples = lay_captions(samples, captions, everything)
    laid = [name for name in (options.labels, options.captions) if name not in (None, "-")]
    if laid:
        samples = replace(samples, files=(*samples.files, *laid))
    check_ids(samples.ids, samples.source)
    return samples if name is None else replace(samples, name=name)


def check_options(specs: Sequence[str], options: SourceOptions) -> None:
    """Raise UsageError for an option on tables where no set is one, nor has a table laid over them a
    use for it. A name without a form is left to `open_samples`."""
    from nmlcli.data.samples import split_name

    found = [[row for row in SOURCES.values() if row.matches(split_name(spec)[1])] for spec in specs]
    if not all(found) or any(rows[0].tabular for rows in found):
        return
    used = {name for table, names in _LAID_OVER.items() if getattr(options, table) for name in names}
    usual = SourceOptions()
    for name in _OF_TABLES:
        if name not in used and getattr(options, name) != getattr(usual, name):
            wrong = f"--{name.replace('_', '-')} does not apply to {first([*specs])}"
            raise UsageError(wrong, "it is for tables")


def _check_stdin(named: dict[str, str | None]) -> None:
    """Raise UsageError where more than one of what is read is on stdin."""
    piped = [what for what, name in named.items() if name == "-"]
    if len(piped) > 1:
        wrong = f"{' and '.join(piped)} are both on stdin"
        raise UsageError(wrong, "name a file for one of them")


def find_source(spec: str) -> Source:
    """The row of SOURCES for a name. Raises where there is none, saying what was expected."""
    for source in SOURCES.values():
        if source.matches(spec):
            return source
    if re.search(r"\.(tar\.\w+|tgz|tbz2?|txz)$", spec, re.IGNORECASE):
        raise InvalidInput(f"{spec} is a compressed tar", "decompress it: images are read by offset")
    if not Path(spec).exists():
        raise InvalidInput(f"{spec} does not exist")
    forms = "; ".join(source.form for source in SOURCES.values())
    raise InvalidInput(f"{spec} has none of the forms of a set", f"give {forms}")


def expand_pattern(spec: str) -> list[str]:
    """The archives that a name stands for: itself, `{000..011}`, `{a,b}`, or a glob, in plain order.

    Raises InvalidInput where one is missing or none matches.
    """
    if Path(spec).exists():
        return [spec]
    names = [spec]
    while _PARTS.search(names[0]):
        names = [name for pattern in names for name in _expand_braces(pattern)]
    if any(_GLOB.search(name) for name in names):
        from glob import glob

        names = [found for name in names for found in sorted(glob(name)) or [name]]  # noqa: PTH207
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        part_of = "" if names == [spec] else f" (of {spec})"
        raise InvalidInput(f"{missing[0]} does not exist{part_of}")
    return names


def _expand_braces(pattern: str) -> list[str]:
    """One pair of braces expanded, as a shell does: a range of numbers, zero-padded, or a list."""
    match = _PARTS.search(pattern)
    if match is None:
        return [pattern]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", match[1]):
        low, high = int(numbers[1]), int(numbers[2])
        if high < low or high - low >= 100_000:
            raise UsageError(f"{pattern}: {{{match[1]}}} is no range of parts", "write {000..011}")
        choices = [str(part).zfill(len(numbers[1])) for part in range(low, high + 1)]
    else:
        choices = match[1].split(",")
    return [pattern[: match.start()] + choice + pattern[match.end() :] for choice in choices]
