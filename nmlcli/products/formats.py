"""FORMATS, and the one door for binary products: files by their suffix, stdin and stdout.

A format is a row here; which arrays a product has is not a format's business.
"""

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.vectors import VECTORS, loaded
from nmlcli.provenance import Record

if TYPE_CHECKING:
    from nmlcli.products.checkpoint import Checkpoint
    from nmlcli.products.container import Arrays, Container, Rows
    from nmlcli.products.features import Features
    from nmlcli.products.head import Head
    from nmlcli.products.labels import Labels
    from nmlcli.products.spectrum import SpectrumState

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")  # products.tables reads and writes them


@dataclass(frozen=True)
class Format:
    """A format of files. opener, writer: what opens a path as a Container, and a function that writes
    everything into a file; compressed: one that says of a path whether it is compressed, "": the format
    cannot be. All are of products, as `module:name`."""

    help: str
    opener: str
    writer: str
    compressed: str = ""

    def open(self, path: str) -> "Container":
        """A file whose header was read and checked."""
        container: Container = loaded(self.opener, path)(path)
        return container

    def write(self, path: Path, record: Record, arrays: "Arrays", rows: "Rows | None") -> None:
        """Write everything into a path."""
        with path.open("wb") as file:
            loaded(self.writer, str(path))(file, record, arrays, rows)

    def is_compressed(self, path: str) -> bool | None:
        """Whether a file is compressed, which no record tells; None: not known."""
        compressed: bool | None = loaded(self.compressed, path)(path) if self.compressed else False
        return compressed


_HDF5 = Format(
    "HDF5, read in any order and by many programs",
    "hdf5:Hdf5File",
    "hdf5:write_hdf5",
    "hdf5:is_compressed",
)
FORMATS = {
    ".safetensors": Format("safetensors, also what flows through pipes",
                           "stream:open_safetensors", "stream:write_safetensors"),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
}  # fmt: skip


def _stream(file: BinaryIO, source: str) -> "Container":
    from nmlcli.products.stream import SafetensorsFile

    return SafetensorsFile(file, source)


def read_features(source: str) -> "Features":
    """Open features: a file, or `-` for a stream on stdin, whose blocks can be read once.

    Values are not looked at here: NaN and infinity are for those to find who read the blocks.
    """
    from nmlcli.products.features import unpack_features

    return unpack_features(open_container(source, "features"))


def write_features(out: str | None, features: "Features") -> None:
    """Write features to a file by its suffix, or to stdout as a safetensors stream."""
    from nmlcli.products.features import pack_features

    _write(out, features.record, *pack_features(features))


def write_labels(out: str | None, labels: "Labels", record: Record) -> None:
    """Write labels as a table id, label, clean_label, or in binary form, as the suffix says."""
    from nmlcli.products.labels import pack_labels, table_of

    if out is None or Path(out).suffix.lower() not in FORMATS:
        from nmlcli.products.tables import write_table

        write_table(out, table_of(labels), record)
    else:
        _write(out, record, pack_labels(labels))


def read_head(source: str) -> "Head":
    """Read a head from a file or from stdin."""
    from nmlcli.products.head import unpack_head

    return unpack_head(open_container(source, "head"))


def write_head(out: str | None, head: "Head") -> None:
    """Write a head to a file by its suffix, or to stdout."""
    from nmlcli.products.head import pack_head

    _write(out, head.record, pack_head(head))


def read_checkpoint(source: str) -> "Checkpoint":
    """Read a checkpoint that nml wrote, its weights as torch tensors in main memory."""
    from nmlcli.products.checkpoint import load_checkpoint

    return load_checkpoint(open_container(source, "checkpoint"))


def write_checkpoint(out: str | None, checkpoint: "Checkpoint") -> None:
    """Write a checkpoint, always as safetensors, so that timm's loader reads it."""
    from nmlcli.products.checkpoint import save_checkpoint

    if out is None or out == "-":
        save_checkpoint(checkpoint, binary_stdout())
        return
    if _suffix(out) != ".safetensors":
        raise UsageError(f"a checkpoint cannot be written to {out}", "use .safetensors")
    with replacing(out) as path, path.open("wb") as file:
        save_checkpoint(checkpoint, file)


def write_spectrum_state(out: str | None, state: "SpectrumState") -> None:
    """Write the sums that a spectrum came from: they add up over the parts of a set."""
    from nmlcli.products.spectrum import pack_state

    _write(out, state.record, pack_state(state))


def read_record(source: str) -> Record | None:
    """The record of any product, from its header alone; None where it has none.

    Of a text table it lies beside it, in `FILE.nml.json`.
    """
    if source != "-" and Path(source).suffix.lower() in TABLES:
        from nmlcli.products.tables import read_table_record

        return read_table_record(check_exists(source))
    if source != "-" and Path(source).suffix.lower() in VECTORS:
        return VECTORS[Path(source).suffix.lower()].record(str(check_exists(source)))
    return open_container(source).record


def open_container(source: str, wanted: str = "product") -> "Container":
    """Open a binary file or stream and check its header; wanted: what for, for messages."""
    if source == "-":
        return _stream(binary_stdin(), "stdin")
    path = check_exists(source)
    if not stat.S_ISREG(path.stat().st_mode):
        return _stream(path.open("rb"), source)
    suffix = path.suffix.lower()
    if suffix in VECTORS and (wanted == "features" or suffix not in TABLES):
        raise InvalidInput(f"{source} is no product", "`nml convert` makes features of it")
    if suffix in TABLES:
        raise InvalidInput(f"{source} holds a table, not {'a ' * (wanted != 'features')}{wanted}")
    if suffix not in FORMATS:
        remedy = f"those end in {', '.join(FORMATS)}"
        if path.name.endswith((".state", ".state.previous")):
            remedy = "it may be what `nml pretrain --resume` goes on from"
        raise InvalidInput(f"{source} is no product", remedy)
    return FORMATS[suffix].open(source)


def check_exists(source: str) -> Path:
    """The path of an input file; raises InvalidInput where it is missing or a folder."""
    path = Path(source)
    try:
        if path.is_dir():
            raise InvalidInput(f"{source} is a folder, not a file")
        if not path.exists():
            raise InvalidInput(f"{source}: no such file")
        if not os.access(path, os.R_OK):
            raise InvalidInput(f"{source} cannot be read", "its permissions forbid it")
    except (OSError, ValueError) as error:  # a name that is too long
        raise InvalidInput(f"cannot read {source!r}: {error}") from error
    return path


def binary_stdin() -> BinaryIO:
    """stdin as bytes; raises UsageError where it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("stdin is a terminal", "give a file or pipe a product in")
    return sys.stdin.buffer


def binary_stdout() -> BinaryIO:
    """stdout as bytes; raises UsageError where it is a terminal."""
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("the product is binary", "give -o FILE or pipe it")
    return sys.stdout.buffer


def _write(out: str | None, record: Record, arrays: "Arrays", rows: "Rows | None" = None) -> None:
    if out is None or out == "-":
        from nmlcli.products.stream import write_safetensors

        file = binary_stdout()
        write_safetensors(file, record, arrays, rows)
        file.flush()
        return
    format_ = FORMATS[_suffix(out)]
    with replacing(out) as path:
        format_.write(path, record, arrays, rows)


def _suffix(out: str) -> str:
    """The suffix that decides how a file is written; a pipe or device gets a safetensors stream."""
    if Path(out).exists() and not Path(out).is_file():
        return ".safetensors"
    suffix = Path(out).suffix.lower()
    if suffix not in FORMATS:
        wrong = f"{out}: no format has the suffix {suffix or '(none)'}"
        raise UsageError(wrong, f"use {', '.join(FORMATS)}")
    return suffix
