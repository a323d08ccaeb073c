"""`info --noise`: what noise labels or captions carry, counted from the clean ones beside them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.noise.captions import is_noisy
from nmlcli.noise.statistics import in_short, statistics
from nmlcli.noise.terms import Rows
from nmlcli.products.formats import FORMATS, open_container
from nmlcli.products.labels import CLEAN, CLEAN_TEXT, noise_facts, unpack_labels
from nmlcli.products.tables import missing_column, open_table
from nmlcli.progress import silent
from nmlcli.provenance import Facts
from nmlcli.report.transitions import MOST_DRAWN, SUFFIXES, draw_transitions, shares
from nmlcli.stages.edited import Columns, Content, Edited, Numbers, read_captions, read_labels

_WHOLE = 10  # classes, up to which the matrix is shown whole
_MOST = 15  # classes that are shown of more


@dataclass(frozen=True)
class AuditOptions:
    """The two columns that are compared; clean_column None: clean_label, or clean_text for captions."""

    label_column: str = "label"
    clean_column: str | None = None
    text_column: str = "text"
    plot: str | None = None


def audit(source: str, options: AuditOptions) -> Facts:
    """Count the noise of a label table, a caption table, or of labels in a binary file.

    Returns `flipped`, `of`, `realised`, and of labels their statistics, by class and from class to
    class. Raises InvalidInput where there are no clean values to compare with.
    """
    if options.plot and Path(options.plot).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{options.plot}: no picture has that suffix", f"use {', '.join(SUFFIXES)}")
    name = "stdin" if source == "-" else source
    binary = Path(source).suffix.lower() in FORMATS
    if binary and replace(options, plot=None) != AuditOptions():
        raise UsageError(f"{source} has no columns to name", "leave them out")
    facts = _of_binary(source) if binary else _of_table(source, options)
    if options.plot:
        if "classes" not in facts:
            raise UsageError("captions have no classes to draw", "leave --plot out")
        if len(facts["classes"]) > MOST_DRAWN:
            raise UsageError(f"{name} has more than {MOST_DRAWN:,} classes to draw", "leave --plot out")
        title = f"{Path(name).name}: {100 * facts['realised']:.2f} % of {facts['of']:,} labels"
        with replacing(options.plot) as temporary:
            draw_transitions(facts, temporary, title)
    return {"source": name, **facts}


def _of_binary(source: str) -> dict[str, Any]:
    labels = unpack_labels(open_container(source, "labels"))
    clean = labels.clean_labels
    if clean is None:
        if (labels.noise or {}).get("flipped") != 0:
            raise InvalidInput(f"{source} has no clean labels", "its noise is not known")
        clean = labels.labels
    counted = noise_facts(None, None, labels.labels, clean, None)
    return {**_extent(counted), **statistics(clean, labels.labels, labels.classes)}


def _of_table(source: str, options: AuditOptions) -> dict[str, Any]:
    table = open_table(source)
    captions = options.clean_column == CLEAN_TEXT
    if options.clean_column is None:
        captions = CLEAN_TEXT in table.columns and CLEAN not in table.columns
    option, other = ("--text-column", "--label-column")[:: 1 if captions else -1]
    if (options.label_column if captions else options.text_column) not in ("label", "text"):
        raise UsageError(f"{other} has no effect here", f"name the column with {option}")
    value = options.text_column if captions else options.label_column
    clean = options.clean_column or (CLEAN_TEXT if captions else CLEAN)
    if value == clean:
        raise UsageError(f"{value} is compared with itself", "name two columns")
    for column, named in ((value, option), (clean, "--clean-column")):
        if column not in table.columns:
            raise missing_column(column, table.columns, table.source, named)
    if captions:
        rows, now = _both(
            read_captions(Edited(table, value, clean, Columns(text=value, id=None)), silent)
        )
        images = rows.values if rows.groups is None else rows.groups
        flipped = int(is_noisy(now, images, rows.values).sum())
        return {"flipped": flipped, "of": len(now), "realised": flipped / len(now)}
    columns = Columns(label=clean, noisy=value, id=None)
    rows, now = _both(read_labels(Edited(table, clean, clean, columns), None, silent, union=True))
    counted = noise_facts(None, None, now, rows.values, None)
    return {**_extent(counted), **statistics(rows.values, now, rows.classes)}


def _both(content: Content) -> tuple[Rows, Numbers]:
    if content.noisy is None:
        raise ValueError("a column is compared with itself")
    return content.rows, content.noisy


def _extent(noise: Facts) -> dict[str, Any]:
    return {name: noise[name] for name in ("flipped", "of", "realised")}


def worded(facts: Facts) -> dict[str, str]:
    """What was counted, in words."""
    rate = f"{facts['flipped']:,} of {facts['of']:,} differ ({100 * facts['realised']:.2f} %)"
    return {"file": str(facts["source"]), "noise": rate, **in_short(facts)}


def in_table(facts: Facts) -> tuple[list[str], list[list[str]]]:
    """A table's header and rows: of few classes the matrix in per cent, else the noisiest classes."""
    if "classes" not in facts:
        return ["captions", "noisy"], [[f"{facts['of']:,}", f"{facts['flipped']:,}"]]
    names = list(facts["classes"])
    if len(names) <= _WHOLE:
        cells = [[f"{share:.1f}" if share else "" for share in row] for row in 100 * shares(facts)]
        return ["clean \\ noisy, %", *names], [[n, *row] for n, row in zip(names, cells, strict=True)]
    counts = facts["classes"]
    order = sorted(range(len(names)), key=lambda c: (-counts[names[c]]["realised"], names[c]))[:_MOST]
    rows = []
    for c in order:
        row = facts["transitions"][names[c]]
        largest = sorted((-n, name) for name, n in row.items() if name != names[c])[:3]
        to = ", ".join(f"{name} {-n:,}" for n, name in largest)
        count = counts[names[c]]
        rows.append([names[c], f"{count['of']:,}", f"{count['flipped']:,}",
                     f"{100 * count['realised']:.1f} %", to])  # fmt: skip
    return ["noisiest classes", "rows", "flipped", "rate", "to"], rows
