"""Parts of one set: what fits together is one set, what does not names both files."""

from dataclasses import replace

import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.products.features import Features
from nmlcli.products.formats import write_features
from nmlcli.provenance import Record
from nmlcli.stages.inputs import open_labelled, open_parts

MODEL = {"name": "resnet", "identity": "m" * 32, "layer": "pre_logits"}
RECORD = Record("features", "0" * 32, "embed", classes=("ant", "bee"), rows=4, columns=3, model=MODEL)


@pytest.fixture
def make(tmp_path):
    """Write a part of four rows with ids from `first` on; returns its name."""

    def write(name, first=0, dtype=np.float32, columns=3, labels=(0, 1, 0, 1), **facts):
        values = np.arange(first, first + 4 * columns, dtype=dtype).reshape(4, columns)
        record = replace(RECORD, columns=columns, **facts)
        ids = [f"{i:04}" for i in range(first, first + 4)]
        blocks = lambda rows: (values[i : i + rows] for i in range(0, 4, rows))  # noqa: E731
        numbers = None if labels is None else np.array(labels)
        path = str(tmp_path / name)
        write_features(path, Features(record, ids, numbers, None, values.dtype, blocks, name))
        return path

    return write


def test_parts_are_joined_in_order(make):
    names = [make("b.h5", 4), make("a.safetensors", 0), make("c.h5", 8, classes=("bee", "ant"))]
    assert [part.ids[0] for part in open_parts(names)] == ["0004", "0000", "0008"]
    whole = open_labelled(names, None)
    assert whole.matrix()[:, 0].tolist() == [4, 7, 10, 13, 0, 3, 6, 9, 8, 11, 14, 17]
    assert whole.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0]


def test_one_part_is_a_set(make):
    assert open_parts([make("a.h5")])[0].rows == 4


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"first": 2}, "a.h5 and {}b.h5 both hold 0002, 0003: give each part once"),
        ({"columns": 4}, "b.h5 has 4 columns, {}a.h5 3"),
        ({"dtype": np.float16}, "b.h5 holds float16, {}a.h5 float32"),
        (
            {"model": {**MODEL, "identity": "n" * 32}},
            "b.h5 holds features of another network than {}a.h5",
        ),
        ({"model": {**MODEL, "layer": "layer4"}}, "b.h5 holds features of another network than {}a.h5"),
        ({"classes": ("ant", "cat")}, "b.h5 has labels of classes that {}a.h5 lacks: cat"),
    ],
)
def test_what_does_not_fit_names_both(make, tmp_path, facts, words):
    names = [make("a.h5"), make("b.h5", **{"first": 8, **facts})]
    with pytest.raises(InvalidInput) as caught:
        open_parts(names)
    assert words.format(f"{tmp_path}/") in str(caught.value)


def test_classes_that_do_not_occur_do_no_harm(make):
    names = [make("a.h5"), make("b.h5", 4, classes=("cat", "bee"), labels=(1, 1, 1, 1))]
    assert open_labelled(names, None).labels.tolist() == [0, 1, 0, 1, 1, 1, 1, 1]


def test_a_third_part_is_compared_with_all_before_it(make, tmp_path):
    names = [make("a.h5"), make("b.h5", 4), make("c.h5", 6)]
    with pytest.raises(
        InvalidInput, match=f"^{tmp_path}/b.h5 and {tmp_path}/c.h5 both hold 0006, 0007"
    ):
        open_parts(names)
