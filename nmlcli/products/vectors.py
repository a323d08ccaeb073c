"""VECTORS: features in the files of other programs, by suffix; the door that `convert` goes through.

Products travel as FORMATS has them; these forms hold the same rows for numpy, pandas and their kin.
Light, like the menus.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmlcli.provenance import Record

if TYPE_CHECKING:
    from nmlcli.products.container import Tensor
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
    """A form of files. reader, writer, recorder, lister: functions of products, as `module:name`. key:
    what the vectors are called where nothing else is asked for. beside: the record lies beside the
    file. lister: tells the arrays by their headers; "": the form is a table, told by its columns."""

    help: str
    reader: str
    writer: str
    key: str = ""
    recorder: str = "tables:read_table_record"
    beside: bool = True
    lister: str = ""

    def read(self, path: str, source: str, asked: Asked) -> "Features":
        """Read a file; source: its name for messages."""
        features: Features = loaded(self.reader, source)(path, source, asked)
        return features

    def write(self, path: Path, features: "Features", key: str | None = None) -> None:
        """Write features into a path under a key; the record goes in where it can."""
        loaded(self.writer, "Parquet")(path, features, key or self.key)

    def record(self, path: str) -> Record | None:
        """The record of a file."""
        record: Record | None = loaded(self.recorder, path)(path)
        return record

    def arrays(self, path: str) -> "Mapping[str, Tensor]":
        """The arrays of a file that is no table, by their headers."""
        arrays: Mapping[str, Tensor] = loaded(self.lister, path)(path)
        return arrays


VECTORS = {
    ".npy": Form("the matrix alone", "numpy_files:read_npy", "numpy_files:write_npy",
                 lister="numpy_files:npy_arrays"),
    ".npz": Form("arrays features, labels, ids", "numpy_files:read_npz", "numpy_files:write_npz",
                 "features", "numpy_files:npz_record", beside=False, lister="numpy_files:npz_arrays"),
    ".parquet": Form("a list column", "parquet_vectors:read_parquet", "parquet_vectors:write_parquet",
                     "embedding", beside=False),
    ".jsonl": Form("a list or base64 a line, also what an API answers", "text_vectors:read_jsonl",
                   "text_vectors:write_jsonl", "embedding"),
    ".csv": Form("columns f0, f1, …", "text_vectors:read_csv", "text_vectors:write_csv", "f"),
}  # fmt: skip


def loaded(name: str, source: str) -> Any:
    """The function `module:name` of products; its module is heavy, and imported here at the earliest.

    Raises NmlError, naming source, where pyarrow is wanted and missing.
    """
    from nmlcli.products.tables import needing_pyarrow

    module, _, function = name.partition(":")
    with needing_pyarrow(source):
        return getattr(import_module(f"nmlcli.products.{module}"), function)


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
