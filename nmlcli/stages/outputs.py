"""What commands ask of outputs: are they there already, can they be written; the record of a set."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nmlcli.data.samples import Samples
from nmlcli.errors import NmlError, UsageError
from nmlcli.products import results
from nmlcli.products.formats import FORMATS, read_record
from nmlcli.provenance import Facts, Record, chain

log = logging.getLogger(__name__)


def up_to_date(out: str | None, identity: str, inputs: Iterable[str | Path] = ()) -> bool:
    """`--reuse`: whether out carries this identity and none of the input files is newer; says so.

    Inputs that are no files (stdin, generated sets) count through the identity alone. An output that
    cannot be read is simply made again.
    """
    if out in (None, "-") or not Path(str(out)).is_file():
        return False
    try:
        record = read_record(str(out))
    except NmlError as error:
        log.debug("%s; it is made again", error)
        return False
    if record is None or record.identity != identity:
        return False
    made = Path(str(out)).stat().st_mtime_ns
    if any(path.stat().st_mtime_ns > made for path in map(Path, inputs) if path.exists()):
        return False
    log.info("%s is up to date", out)
    return True


def check_out(
    out: str | None,
    inputs: Iterable[str | Path | None] = (),
    option: str = "-o",
    suffixes: Iterable[str] | None = FORMATS,
) -> None:
    """Find before any work what would stop a file from being written, or destroy an input.

    suffixes: those that a file may have, None for any; a pipe or device may have any. Raises UsageError
    for the name of a folder or of an input and for a suffix, NmlError where there is no such folder.
    """
    if out in (None, "-"):
        return
    path = Path(str(out))
    if is_folder(out):
        raise UsageError(f"{option} {out} is a folder", "give the name of a file")
    check_no_input(out, inputs, option)
    if path.exists() and not path.is_file():
        return
    if suffixes is not None and (suffix := path.suffix.lower()) not in (known := [*suffixes]):
        wrong = f"{out}: no format has the suffix {suffix or '(none)'}"
        raise UsageError(wrong, f"use {', '.join(known)}")
    if not path.parent.is_dir():
        raise NmlError(f"folder {path.parent} does not exist", "make it first")


def check_apart(**outputs: str | None) -> None:
    """Raise UsageError where two outputs, given by the names of their options, are one file."""
    named = {name: os.path.realpath(out) for name, out in outputs.items() if out not in (None, "-")}
    for name, path in named.items():
        twins = [other for other in named if other != name and named[other] == path]
        if twins:
            raise UsageError(f"--{name} and --{twins[0]} are one file", "give two names")


def check_place(out: str | None, inputs: Iterable[str | Path | None], option: str = "-o") -> None:
    """check_out for a file that may have any suffix, or none."""
    check_out(out, inputs, option, None)


def check_results(out: str | None, inputs: Iterable[str | Path]) -> None:
    """check_place for a file that result lines are merged into: what is there must be such lines."""
    if out == "-":
        raise UsageError("--results adds lines to a file, not to stdout", "they go there without it")
    check_place(out, inputs, "--results")
    if out is not None and Path(out).is_file():
        results.read(out)


def check_no_input(out: str | None, inputs: Iterable[str | Path | None], option: str = "-o") -> None:
    """Raise UsageError where an output is the file of an input."""
    if out not in (None, "-") and Path(str(out)).is_file():
        path = os.path.realpath(str(out))
        if any(path == os.path.realpath(each) for each in inputs if each not in (None, "-")):
            raise UsageError(f"{option} {out} would overwrite an input", "give another name")


def is_folder(out: str | None) -> bool:
    """Whether out is the name of a folder: it is one, or ends with /."""
    return out not in (None, "-") and (str(out).endswith("/") or Path(str(out)).is_dir())


def make_folder(out: str, *, parents: bool = True) -> Path:
    """The folder of that name, made where it is missing. Raises NmlError where it cannot be."""
    folder = Path(out)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise NmlError(f"cannot make the folder {out}: {error.strerror}") from error
    return folder


def record_of(
    samples: Samples, kind: str, identity: str, command: str, options: Facts, **more: Any
) -> Record:
    """The record of what a command makes of a set: what is not told otherwise is as the set has it."""
    own = {"classes": samples.classes, "rows": len(samples), "data": samples.facts()}
    values = {**own, "noise": samples.noise, "parents": chain(*samples.parents), **more}
    return Record(kind, identity, command, options, **values)
