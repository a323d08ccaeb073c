"""A comparison as texts, Markdown and CSV."""

import csv
import io
import json

import pytest

from nmlcli.report import layout
from nmlcli.report.grouping import Cell, compare
from tests.report.lines import backbone, result

LINES = [
    result(0.8), result(0.5, role="ood", domain="sketch"), result(0.82, method="nmtune"),
    result(0.6, method="nmtune", role="ood", domain="sketch"),
    result(0.7, 0.3), result(0.45, 0.3, role="ood", domain="sketch"),
    result(0.75, 0.3, method="nmtune"), result(0.5, 0.3, method="nmtune", role="ood", domain="sketch"),
    {"kind": "spectrum", "sve": 4.0, "lsvr": 3.0, **backbone(0.0)},
    {"kind": "epoch", "val_accuracy": 0.9, "backbone_identity": "b0.0-0"},
]  # fmt: skip


def test_the_table_of_the_study():
    header, rows = layout.texts(compare(LINES))
    assert header == ["noise", "val", "SVE", "LSVR", "sets", "LP", "NMTune"]
    assert [[" ".join(cell.split()) for cell in row] for row in rows] == [
        ["0.0 %", "90.0", "4.000", "3.000", "ID", "80.0 ±2.0", "82.0 ±2.0"],
        ["", "", "", "", "OOD", "50.0 ±2.0", "60.0 ±2.0"],
        ["29.9 %", "–", "–", "–", "ID", "70.0 ±2.0 −10.0", "75.0 ±2.0 −7.0"],
        ["", "", "", "", "OOD", "45.0 ±2.0 −5.0", "50.0 ±2.0 −10.0"],
    ]  # fmt: skip
    widths = [{len(row[column]) for row in rows} for column in (5, 6)]
    assert all(len(width) == 1 for width in widths)  # the parts stand below each other


@pytest.mark.parametrize(
    ("cell", "metric", "text"),
    [
        (None, "accuracy", "–"),
        (Cell(0.5, None, 1, 1, 1), "accuracy", "50.0"),
        (Cell(0.5, 0.01, 1, 1, 1, 0.0), "accuracy", "50.0 ±1.0 +0.0"),
        (Cell(1.5, 0.25, 3, 1, 1, -0.5), "nll", "1.500 ±0.250 −0.500"),
    ],
)
def test_cells(cell, metric, text):
    assert layout.cell_text(cell, metric) == text


def test_markdown_is_a_table_with_its_remarks():
    comparison = compare(LINES)
    table, remarks = layout.markdown(comparison).split("\n\n")
    lines = table.split("\n")
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {8}
    assert remarks.strip().split("\n") == list(comparison.remarks)


def test_csv_and_flat_rows_say_the_same():
    comparison = compare(LINES)
    flat = list(layout.flat(comparison))
    assert len(flat) == 8
    read = list(csv.DictReader(io.StringIO(layout.comma_separated(comparison))))
    assert [float(row["value"]) for row in read] == [row["value"] for row in flat]
    assert json.loads(json.dumps(flat)) == flat
