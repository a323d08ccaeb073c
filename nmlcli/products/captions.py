"""Captions of samples: texts that are laid over a set by id, or that a table of samples holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.labels import CLEAN_TEXT, column_ids, join_ids, noise_facts, told_noise
from nmlcli.products.tables import Table, read_table, read_table_record
from nmlcli.provenance import Record


@dataclass(frozen=True)
class Captions:
    """Captions of N samples.

    ids: unique texts [N]. texts: [N], empty where there is none. clean_texts: [N] where those before
    the noise are known, else None. record: None where the table came without one that speaks of them
    (then noise is recounted from clean_texts). source: the file's name, for messages.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    clean_texts: Sequence[str] | None
    record: Record | None
    source: str

    @property
    def noise(self) -> dict[str, Any] | None:
        """The noise as in a Record: from the record, else recounted, else None for not known."""
        if (told := told_noise(self.record)) is not None or self.clean_texts is None:
            return told
        wrong = differing(self.texts, self.clean_texts)
        return noise_facts(None, None, wrong, np.zeros_like(wrong), None)


def read_captions(source: str, *, text_column: str = "text", id_column: str = "id") -> Captions:
    """Read captions from a table, or one on stdin (`-`).

    Ids are row numbers where there is no id column. Raises InvalidInput for a missing column, a
    repeated id, and where no row has a caption.
    """
    table = read_table(source)
    captions = captions_of_table(table, source, column_ids(table, id_column), text_column)
    if not any(text.strip() for text in captions.texts):
        wrong = f"{captions.source} has no captions in column {text_column}"
        raise InvalidInput(wrong, "name the right one with --text-column")
    return captions


def captions_of_table(table: Table, source: str, ids: Sequence[str], text_column: str) -> Captions:
    """The captions in a table that was read from source, for its rows' ids [N]; else as read_captions.

    A record of the captions in another column says that the clean ones are of that column too.
    """
    texts = optional_texts(table.column(text_column, "--text-column"))
    record = None if source == "-" else read_table_record(source)
    told = None if record is None else record.options.get("text_column")
    record = record if told == text_column else None
    clean = None
    if CLEAN_TEXT in table.columns and told in (None, text_column):
        clean = optional_texts(table.column(CLEAN_TEXT))
    return Captions(ids, texts, clean, record, table.source)


def optional_texts(cells: Sequence[Any]) -> list[str]:
    """Cells as texts, empty where there is none."""
    return ["" if value is None else str(value) for value in cells]


def align_captions(
    captions: Captions, ids: Sequence[str], source: str, everything: Sequence[str] | None = None
) -> tuple[list[str], list[str] | None]:
    """Captions and clean ones [N] for samples, joined by id; see products.labels.join_ids."""
    order = join_ids(captions.ids, captions.source, ids, source, everything, "caption").tolist()
    clean = captions.clean_texts
    texts = [captions.texts[row] for row in order]
    return texts, None if clean is None else [clean[row] for row in order]


def differing(texts: Sequence[str], clean_texts: Sequence[str]) -> NDArray[np.int64]:
    """1 for each caption that is not the clean one, else 0: int64 [N]."""
    differ = (text != clean for text, clean in zip(texts, clean_texts, strict=True))
    return np.fromiter(differ, dtype=np.int64, count=len(texts))
