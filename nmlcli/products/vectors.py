"""VECTORS: features in the files of other programs, by suffix; the door that `convert` goes through.

Products travel as FORMATS has them; these forms hold the same rows for numpy, pandas and their kin.
Light, like the menus.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nmlcli.provenance import Record

if TYPE_CHECKING:
    from nmlcli.products.features import Features


@dataclass(frozen=True)
class Asked:
    """How a file of vectors is read.

    key: the array, column or dotted path of the vectors, of CSV the start of their columns' names;
    None: the form's own. id_column, label_column: None: the form's own, where it is there; ids are row
    numbers where it is not. lenient: one that is missing counts as None.
    """

    key: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    lenient: bool = False


@dataclass(frozen=True)
class Form:
    """A form of files. read: a path, its name for messages and what is asked. write: features into
    a path under a key (None: the form's own); the record goes in where it can. record: from a path.
    beside: the record lies beside the file."""

    help: str
    read: "Callable[[str, str, Asked], Features]"
    write: "Callable[[Path, Features, str | None], None]"
    record: Callable[[str], Record | None]
    beside: bool = True


def _read_npy(path: str, source: str, asked: Asked) -> "Features":
    from nmlcli.products.numpy_files import read_npy

    return read_npy(path, source, asked)


def _write_npy(path: Path, features: "Features", key: str | None) -> None:
    from nmlcli.products.numpy_files import write_npy

    write_npy(path, features)


def _read_npz(path: str, source: str, asked: Asked) -> "Features":
    from nmlcli.products.numpy_files import read_npz

    return read_npz(path, source, asked)


def _write_npz(path: Path, features: "Features", key: str | None) -> None:
    from nmlcli.products.numpy_files import write_npz

    write_npz(path, features, key or "features")


def _npz_record(path: str) -> Record | None:
    from nmlcli.products.numpy_files import NpzFile

    return NpzFile(path, path).record


def _read_jsonl(path: str, source: str, asked: Asked) -> "Features":
    from nmlcli.products.text_vectors import read_jsonl

    return read_jsonl(path, source, asked)


def _write_jsonl(path: Path, features: "Features", key: str | None) -> None:
    from nmlcli.products.text_vectors import write_jsonl

    write_jsonl(path, features, key or "embedding")


def _read_csv(path: str, source: str, asked: Asked) -> "Features":
    from nmlcli.products.text_vectors import read_csv

    return read_csv(path, source, asked)


def _write_csv(path: Path, features: "Features", key: str | None) -> None:
    from nmlcli.products.text_vectors import write_csv

    write_csv(path, features, key or "f")


def _read_parquet(path: str, source: str, asked: Asked) -> "Features":
    from nmlcli.products.tables import needing_pyarrow

    with needing_pyarrow(source):
        from nmlcli.products.parquet_vectors import read_parquet

    return read_parquet(path, source, asked)


def _write_parquet(path: Path, features: "Features", key: str | None) -> None:
    from nmlcli.products.tables import needing_pyarrow

    with needing_pyarrow("Parquet"):
        from nmlcli.products.parquet_vectors import write_parquet

    write_parquet(path, features, key or "embedding")


def _table_record(path: str) -> Record | None:
    from nmlcli.products.tables import read_table_record

    return read_table_record(path)


VECTORS = {
    ".npy": Form("the matrix alone", _read_npy, _write_npy, _table_record),
    ".npz": Form("arrays features, labels, ids", _read_npz, _write_npz, _npz_record, beside=False),
    ".parquet": Form("a list column", _read_parquet, _write_parquet, _table_record, beside=False),
    ".jsonl": Form("a list or base64 a line, also what an API answers", _read_jsonl, _write_jsonl,
                   _table_record),
    ".csv": Form("columns f0, f1, …", _read_csv, _write_csv, _table_record),
}  # fmt: skip


def write_vectors(out: str, features: "Features", key: str | None = None) -> None:
    """Write features in the form that a file's suffix names; whole or not at all."""
    from nmlcli.atomic import replacing
    from nmlcli.products.tables import write_sidecar

    form = VECTORS[Path(out).suffix.lower()]
    with replacing(out) as path:
        form.write(path, features, key)
    if form.beside:
        from nmlcli.products.foreign import recorded

        write_sidecar(out, recorded(features))
