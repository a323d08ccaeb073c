"""Labels: how they are read from tables, joined by id and numbered by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput
from nmlcli.products.labels import (
    Labels,
    align,
    class_order,
    clean_facts,
    noise_facts,
    read_labels,
    renumber,
)
from nmlcli.products.tables import write_sidecar
from nmlcli.provenance import Record


def labels_of(ids, numbers=None, clean=None):
    numbers = np.arange(len(ids)) if numbers is None else np.array(numbers)
    return Labels(ids, numbers, clean, ("a", "b", "c"), None, "t.csv")


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "-1", "0"], ("-1", "0", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["10", "09"], ("09", "10")),
        (["b", "B", "a", "10", "2"], ("10", "2", "B", "a", "b")),
        (["١", "2"], ("2", "١")),
    ],
)
def test_classes_are_sorted_plainly_by_name_and_whole_numbers_as_numbers(names, order):
    assert class_order(names + names) == order


def test_a_table_of_labels(tmp_path):
    read = read_labels(write(tmp_path / "t.csv", "id,label,clean_label\nx,b,a\ny,b,b\n"))

    assert read.ids == ["x", "y"]
    assert read.labels.tolist() == [1, 1]
    assert read.clean_labels.tolist() == [0, 1]
    assert read.classes == ("a", "b")
    assert read.record is None
    assert read.noise == {
        "kind": None, "requested": None, "realised": 0.5, "flipped": 1, "of": 2, "seed": None,
        "draw": None,
    }  # fmt: skip


def test_without_ids_rows_are_counted_and_without_clean_labels_noise_is_not_known(tmp_path):
    read = read_labels(write(tmp_path / "t.jsonl", '{"y": 10}\n{"y": 9}\n'), label_column="y")

    assert read.ids == ["0", "1"]
    assert read.classes == ("9", "10")
    assert read.labels.tolist() == [1, 0]
    assert read.noise is None


def test_the_record_gives_classes_and_noise_of_the_column_that_it_speaks_of(tmp_path):
    path = write(tmp_path / "t.csv", "id,label,other,clean_label\n1,a,z,a\n2,a,z,b\n")
    noise = noise_facts("symmetric", 0.4, np.array([0, 0]), np.array([0, 1]), 3, "exact")
    record = Record(
        kind="labels", identity="0" * 32, command="corrupt", options={"label_column": "label"},
        classes=("b", "a", "unseen"), noise=noise,
    )  # fmt: skip
    write_sidecar(path, record)

    read = read_labels(path)
    assert read.classes == ("b", "a", "unseen")
    assert read.noise == noise
    assert read.noise["realised"] == 0.5
    assert read_labels(path, label_column="other").record is None

    write_sidecar(path, Record(kind="labels", identity="0" * 32, command="corrupt", classes=("a",)))
    with pytest.raises(InvalidInput, match="labels outside the 1 classes: b"):
        read_labels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\n1,a\n2,\n", "row 2 has no label in column label"),
        ("id,label\n1,a\n,b\n", "row 2 has no id in column id"),
        ("id,label\n1,a\n2,b\n1,b\n2,a\n3,a\n", "ids repeat: 1, 2: .*--id-column"),
        ("id,name\n1,a\n", "no column label, but id, name"),
    ],
)
def test_tables_that_label_nothing(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message):
        read_labels(write(tmp_path / "t.csv", text))


@pytest.mark.parametrize("value", ["1.5", "true", "[1]", "null"])
def test_labels_are_text_or_whole_numbers(tmp_path, value):
    with pytest.raises(InvalidInput, match="row 2 has"):
        read_labels(write(tmp_path / "t.jsonl", f'{{"label": 1}}\n{{"label": {value}}}\n'))


@given(st.permutations(range(6)))
def test_labels_join_by_id(order):
    ids = [f"s{i}" for i in range(6)]
    labels = labels_of([ids[i] for i in order], list(order), np.array(order) * 2)

    numbers, clean = align(labels, ids, "set")

    assert numbers.tolist() == list(range(6))
    assert clean.tolist() == [0, 2, 4, 6, 8, 10]


def test_samples_and_labels_must_match():
    labels = labels_of(["a", "b", "c"])

    with pytest.raises(InvalidInput, match="no label for samples of photos: d, e, f and 1 more"):
        align(labels, ["a", "b", "c", "d", "e", "f", "g"], "photos")
    with pytest.raises(InvalidInput, match="labels samples that photos lacks: b, c"):
        align(labels, ["a"], "photos")


def test_classes_are_matched_by_name():
    numbers = np.array([0, 2, 0])

    assert renumber(numbers, ("a", "b", "c"), ("c", "a"), "x").tolist() == [1, 0, 1]
    assert renumber(numbers, ("a", "b", "c"), ("a", "b", "c"), "x") is numbers
    with pytest.raises(InvalidInput, match="x: classes that are not among the 2: c"):
        renumber(numbers, ("a", "b", "c"), ("a", "b"), "x")


def test_clean_labels_are_known_to_be_clean():
    assert clean_facts(7) == {
        "kind": "none", "requested": 0.0, "realised": 0.0, "flipped": 0, "of": 7, "seed": None,
        "draw": None,
    }  # fmt: skip
