"""Parts of one set: what fits together is one set, what does not names both files."""

from dataclasses import replace

import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.products.features import Features
from nmlcli.products.formats import read_record, write_features
from nmlcli.provenance import Record
from nmlcli.stages.convert import ConvertOptions, convert
from nmlcli.stages.inputs import check_network, joined, open_labelled, open_parts

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


def test_what_is_not_the_same_in_all_parts_is_not_known():
    noise = {"kind": "symmetric", "requested": 0.2, "realised": 0.25, "flipped": 1, "of": 4, "seed": 0}
    data = {"name": "toy:train", "task": "toy", "split": "train", "identity": "1"}
    one = replace(RECORD, data=data, noise=noise)
    other = {**data, "name": "toy:test", "split": "test", "identity": "2"}
    noisier = {**noise, "flipped": 3, "realised": 0.75, "seed": 1}
    two = replace(one, identity="2" * 32, data=other, noise=noisier)
    whole = joined([one, two])
    assert whole.noise == {**noise, "flipped": 4, "of": 8, "realised": 0.5, "seed": None}
    assert (whole.rows, whole.classes) == (8, RECORD.classes)
    assert {**whole.data, "identity": None} == {
        "name": "toy:train, toy:test", "task": "toy", "split": None, "identity": None
    }  # fmt: skip
    identities = {record.identity for record in (one, two, whole, joined([two, one]))}
    assert len(identities) == 4 and len({whole.data["identity"], "1", "2"}) == 3
    assert joined([one]) == one
    assert joined([one], ["9"]).identity == "9"
    unlike = joined([one, replace(two, noise=None, data=None, classes=("a", "b"))])
    assert (unlike.noise, unlike.data, unlike.classes) == (None, None, None)
    foreign = joined([replace(one, noise={"kind": "x", "realised": 0.5})] * 2)
    assert foreign.noise == {"kind": "x", "realised": 0.5}


def test_an_unrecorded_table_is_one_thing_to_all_commands(make, tmp_path):
    """A head tuned on labels laid over features came from the table that `convert` laid over them."""
    table, out = tmp_path / "labels.csv", str(tmp_path / "laid.h5")
    table.write_text("id,label\n0003,bee\n0001,ant\n0000,ant\n0002,bee\n")
    source = make("a.h5", labels=None)
    convert(source, out, ConvertOptions(labels=str(table)))
    laid = next(p for p in read_record(out).parents if p["kind"] == "labels")
    assert open_labelled([source], str(table)).overlay.identity == laid["identity"]
    table.write_text(table.read_text().replace("0002,bee", "0002,ant"))
    assert open_labelled([source], str(table)).overlay.identity != laid["identity"]


def test_labels_laid_over_parts_need_no_classes_of_their_own(make, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("id,label\n" + "".join(f"{i:04},{'ant' if i % 2 else 'bee'}\n" for i in range(8)))
    parts = [make("a.h5"), make("b.h5", 4, classes=("x", "y"))]
    assert open_labelled(parts, str(table)).labels.tolist() == [1, 0] * 4


def test_networks_that_are_not_known_are_warned_of_in_one_line(make, caplog):
    parts = open_parts([make("a.h5")])
    strangers = [open_parts([make(f"{name}.h5", model=None)])[0] for name in "bc"]
    caplog.clear()
    check_network(parts[0].record, "a.h5", *parts, *strangers)
    (said,) = caplog.messages
    assert said.endswith("c.h5 is not known: it fits a.h5 by its width alone") and "b.h5, " in said
    caplog.clear()
    check_network(strangers[0].record, "b.h5", *parts)
    assert caplog.messages[0].startswith("the network of b.h5 is not known: it fits ")


def test_one_part_is_a_set(make):
    assert open_parts([make("a.h5")])[0].rows == 4


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"first": 2}, "a.h5 and {}b.h5 both hold 0002, 0003: give each part once"),
        ({"columns": 4}, "b.h5 has 4 columns, {}a.h5 3"),
        ({"dtype": np.float16}, "b.h5 is float16, {}a.h5 is float32: take parts of one precision"),
        ({"model": {**MODEL, "identity": "n" * 32}}, "b.h5 is of another network than {}a.h5"),
        ({"model": {**MODEL, "layer": "layer4"}}, "b.h5 is of another network than {}a.h5"),
        (
            {"classes": ("ant", "cat")},
            "b.h5 has labels of classes that {}a.h5 lacks (cat): give both one list: nml convert",
        ),
    ],
)
def test_what_does_not_fit_names_both(make, tmp_path, facts, words):
    names = [make("a.h5"), make("b.h5", **{"first": 8, **facts})]
    with pytest.raises(InvalidInput) as caught:
        open_labelled(names, None)
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
