"""A comparison as texts: the header and cells of a table, Markdown, CSV and flat rows."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from nmlcli.products.results import FRACTIONS
from nmlcli.report.grouping import BACKBONE_KEYS, NOISE, Cell, Comparison, GroupRow

_NAMES = {
    NOISE: "noise", "backbone_identity": "network", "role": "sets",
    "val_accuracy": "val", "sve": "SVE", "lsvr": "LSVR",
    "lp": "LP", "mlp": "MLP", "nmtune": "NMTune", "id": "ID", "ood": "OOD",
}  # fmt: skip


def name_of(key: str) -> str:
    """What a key, method or role is called in a table."""
    return _NAMES.get(key, key.replace("_", " "))


def texts(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table; what a row shares with the one above it is left blank."""
    keys = list(comparison.keys)
    own = [key for key in keys if key in BACKBONE_KEYS]  # followed by the backbone's own measures
    other = [key for key in keys if key not in BACKBONE_KEYS]
    header = [*own, *comparison.measures, *other, *comparison.methods]
    rows: list[list[str]] = []
    above: list[str] = []
    for row in comparison.rows:
        values = {key: key_text(key, value, row) for key, value in zip(keys, row.key, strict=True)}
        left = [values[key] for key in own]
        left += [_measure(name, row.measures.get(name)) for name in comparison.measures]
        left += [values[key] for key in other]
        same = next((i for i, (new, old) in enumerate(zip(left, above, strict=False)) if new != old), 0)
        above = left
        cells = [cell_text(row.cells.get(method), comparison.metric) for method in comparison.methods]
        rows.append([""] * same + left[same:] + cells)
    return [name_of(key) for key in header], _aligned(rows, len(header) - len(comparison.methods))


def key_text(key: str, value: Any, row: GroupRow) -> str:
    """A row's key value; the noise as it was realised where that is known."""
    if key == NOISE:
        share = row.realised if row.realised is not None else value
        return "unknown" if share is None else f"{100 * share:.1f} %"
    if value is None:
        return "other" if key == "role" else "–"
    if key == "backbone_identity":
        return str(value)[:8]
    return name_of(value) if isinstance(value, str) else str(value)


def cell_text(cell: Cell | None, metric: str) -> str:
    """`81.2 ±1.4 −0.8`: the mean, its spread, the difference to clean; fractions in per cent."""
    if cell is None:
        return "–"
    scale, digits = (100, 1) if metric in FRACTIONS else (1, 3)
    spread = "" if cell.spread is None else f" ±{scale * cell.spread:.{digits}f}"
    difference = "" if cell.difference is None else f" {scale * cell.difference:+.{digits}f}"
    return f"{scale * cell.value:.{digits}f}{spread}{difference}".replace("-", "−")


def _measure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if name in FRACTIONS else f"{value:.3f}"


def _aligned(rows: list[list[str]], start: int) -> list[list[str]]:
    """Pad the parts of the cells from column `start` on, so that they stand below each other."""
    for column in range(start, len(rows[0]) if rows else 0):
        parts = [row[column].split(" ") for row in rows]
        widths = [
            max(len(p[i]) if i < len(p) else 0 for p in parts) for i in range(max(map(len, parts)))
        ]
        for row, part in zip(rows, parts, strict=True):
            padded = [p.rjust(width) for p, width in zip(part, widths, strict=False)]
            row[column] = " ".join(padded).ljust(sum(widths) + len(widths) - 1)
    return rows


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, with its remarks below."""
    header, rows = texts(comparison)
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(" ".join(c.split()) for c in line) + " |" for line in lines)
    return table + "\n\n" + "\n".join(comparison.remarks) + "\n"


def flat(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A flat row a cell: keys, method, metric, value, spread, difference, counts, measures."""
    for row in comparison.rows:
        for method, cell in row.cells.items():
            yield {
                "kind": "comparison", **dict(zip(comparison.keys, row.key, strict=True)),
                "pretrain_realised": row.realised, "method": method, "metric": comparison.metric,
                "value": cell.value, "spread": cell.spread, "difference": cell.difference,
                "backbones": cell.backbones, "heads": cell.heads, "sets": cell.sets, **row.measures,
            }  # fmt: skip


def comma_separated(comparison: Comparison) -> str:
    """The flat rows as CSV."""
    rows = list(flat(comparison))
    out = io.StringIO()
    columns: Sequence[str] = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
