"""What data there is, what it looks like, generated sets as folders, and sets in parts."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed
from nmlcli.atomic import replacing
from nmlcli.data.contact import MOST, contact_sheet
from nmlcli.data.generated.menu import GENERATORS
from nmlcli.data.samples import Samples
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, NmlError, UsageError, first
from nmlcli.products.formats import binary_stdout
from nmlcli.products.labels import CLEAN, CLEAN_TEXT
from nmlcli.products.tables import write_table
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Record, identity_of
from nmlcli.stages.outputs import make_folder, record_of

log = logging.getLogger(__name__)

REVISION = 1  # of split: rises when the same parts would get other samples

_BLOCK = 64  # images rendered at once


def list_sets() -> Iterator[dict[str, Any]]:
    """A row for each generated set."""
    for name, generator in GENERATORS.items():
        yield {
            "kind": "set",
            "data": f"builtin:{name}",
            "about": generator.help,
            "classes": list(generator.classes),
            "domains": list(generator.domains) or None,
            "splits": dict(generator.splits),
        }


def show(
    source: str,
    out: str | None,
    options: SourceOptions,
    *,
    columns: int = 10,
    size: int = 64,
    advance: Advance = silent,
) -> None:
    """Draw a contact sheet of a set as PNG, a row a class, to a file or stdout."""
    if out not in (None, "-") and Path(str(out)).suffix.lower() != ".png":
        raise UsageError(f"{out} is no name of a picture", "end it with .png")
    samples = open_samples(source, options)
    if samples.labels is not None and len(samples.classes or ()) > MOST:
        log.info("the first %d of %d classes are shown", MOST, len(samples.classes or ()))
    sheet = contact_sheet(samples, columns, size, advance)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    if out in (None, "-"):
        stdout = binary_stdout()
        stdout.write(buffer.getvalue())
        stdout.flush()
        return
    with replacing(str(out)) as temporary:
        temporary.write_bytes(buffer.getvalue())


def make(source: str, out: str, options: SourceOptions, advance: Advance = silent) -> int:
    """Write a set's images as PNG into class folders, which appear whole or not at all.

    Files are named by the samples' ids, so that the folder is the same set. Returns their number.
    Raises NmlError where the folder is there already and not empty.
    """
    target = Path(os.path.realpath(out))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise NmlError(f"{out} is there already", "remove it, or give another name")
    if not target.parent.is_dir():
        raise NmlError(f"folder {target.parent} does not exist", "make it first")
    samples = open_samples(source, options)
    names = [_file_name(samples, row) for row in range(len(samples))]
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    except OSError as error:
        raise NmlError(f"cannot write into {target.parent}: {error.strerror}") from error
    try:
        _write_images(samples, names, temporary, advance)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders
        temporary.replace(target)
    except OSError as error:
        raise NmlError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("%s holds %d images", out, len(samples))
    return len(samples)


def _file_name(samples: Samples, row: int) -> str:
    """Where a sample goes below its folder: CLASS/….png; an id that begins with its class is kept."""
    name = samples.ids[row]
    if samples.labels is not None and samples.classes is not None:
        folder = samples.classes[samples.labels[row]]
        name = name if name.startswith(f"{folder}/") else f"{folder}/{name}"
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name or str(PurePosixPath(name)) != name:
        raise InvalidInput(f"{name} cannot be the name of a file", "give the samples other ids")
    return f"{name}.png"


def _write_images(samples: Samples, names: list[str], folder: Path, advance: Advance) -> None:
    for start in range(0, len(samples), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(samples)))
        for row, image in zip(rows, samples.images(rows), strict=True):
            path = folder / names[row]
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        advance(int(rows[-1]) + 1, len(samples))


def split(
    source: str, parts: Mapping[str, Fraction], out: str, options: SourceOptions, seed: int = 0
) -> list[Record]:
    """Split a set into tables `OUT/PART.csv` (image, label, text, id) that are sets themselves.

    Every class is split alike, exactly to one sample, by draws keyed by the samples' ids. The tables
    point at the images where they lie, be it in a tar. Raises UsageError for a set without files.
    """
    samples = open_samples(source, options)
    if samples.paths is None:
        remedy = f"write it to a folder first: nml data make {source} -o DIR"
        raise UsageError(f"{source} has no image files that tables could point at", remedy)
    folder = make_folder(out, parents=False)
    shares = {name: str(share) for name, share in parts.items()}
    records = []
    for part, rows in draw_parts(samples, parts, seed).items():
        made_by = {"part": part, "parts": shares, "seed": seed}
        identity = identity_of("data split", REVISION, made_by, [samples.identity])
        records.append(_write_part(samples, rows, folder / f"{part}.csv", identity, made_by))
        log.info("%s holds %d samples", folder / f"{part}.csv", len(rows))
    return records


def parse_parts(text: str) -> dict[str, Fraction]:
    """Read `train=.8,val=.2`. Raises UsageError for shares that are none or add up to more than 1."""
    parts: dict[str, Fraction] = {}
    for entry in text.split(","):
        match = re.fullmatch(r"\s*(\w[\w.-]*)=(\d*\.?\d+|\d+/\d+)\s*", entry)
        share = Fraction(match[2]) if match and not match[2].endswith("/0") else Fraction(0)
        if match is None or not 0 < share <= 1:
            raise UsageError(f"--parts has {entry!r}", "write NAME=SHARE,… as in train=.8,val=.2")
        if match[1] in parts:
            raise UsageError(f"--parts names {match[1]} twice", "name each part once")
        parts[match[1]] = share
    if sum(parts.values()) > 1:
        raise UsageError("the shares of --parts add up to more than 1", "leave some for the others")
    return parts


def draw_parts(
    samples: Samples, parts: Mapping[str, Fraction], seed: int
) -> dict[str, NDArray[np.int64]]:
    """The rows of each part, ascending, disjoint; of every class as many as its share to one sample.

    Systematic sampling of the samples in order of class and keyed draw: whatever stretch one looks at,
    its share is met to one sample, so classes and total are at once.
    """
    keys = keyed.keys(keyed.hash_ids(samples.ids), seed, "data split")
    labels = samples.clean_labels if samples.clean_labels is not None else samples.labels
    if labels is None:
        labels = np.zeros(len(samples), dtype=np.int64)
    rest = np.lexsort((keys, labels)).astype(np.int64)
    left, chosen = Fraction(1), {}
    for name, share in parts.items():
        of_rest = share / left
        steps = [step * of_rest.numerator // of_rest.denominator for step in range(len(rest) + 1)]
        taken = np.diff(np.array(steps, dtype=np.int64)).astype(bool)
        if not taken.any():
            wrong = f"{samples.name} is too small for a part {name}"
            raise InvalidInput(wrong, "give it a larger share")
        chosen[name] = np.sort(rest[taken])
        rest, left = rest[~taken], left - share
    return chosen


def _write_part(
    samples: Samples, rows: NDArray[np.int64], path: Path, identity: str, options: dict[str, Any]
) -> Record:
    part, folder = samples.take(rows), path.parent.resolve()
    columns = {"image": [os.path.relpath(each, folder) for each in part.paths or ()]}
    if broken := [value for value in columns["image"] if "\n" in value or "\r" in value]:
        raise InvalidInput(f"{samples.name}: paths hold line breaks ({first(broken)})", "rename them")
    held, noise = _labels_of(part), part.noise
    if not held and part.texts is not None:  # the record then speaks of the captions
        options, noise = {**options, "text_column": "text"}, part.text_noise
    texts = {"text": part.texts, CLEAN_TEXT: part.clean_texts}
    held |= {name: list(values) for name, values in texts.items() if values is not None}
    columns |= {**held, "id": list(part.ids)}
    record = record_of(samples, "labels", identity, "data split", options, rows=len(rows), noise=noise)
    write_table(str(path), columns, record)
    return record


def _labels_of(samples: Samples) -> dict[str, list[str]]:
    """Labels and clean labels by name, as columns; none where there are none."""
    names, numbers = samples.classes, {"label": samples.labels, CLEAN: samples.clean_labels}
    if samples.labels is None or names is None:
        return {}
    known = {column: of.tolist() for column, of in numbers.items() if of is not None}
    return {column: [names[number] for number in of] for column, of in known.items()}
