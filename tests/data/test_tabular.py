import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput
from nmlcli.products.tables import write_sidecar
from nmlcli.provenance import Record

ROWS = "image,label,id\npets/train/cat/a.png,tom,x1\npets/train/dog/x/1.png,rex,x2\n"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_row_is_a_sample_with_its_image_beside_the_table(folder, write, make, suffix: str) -> None:
    text = ROWS
    if suffix == "tsv":
        text = ROWS.replace(",", "\t")
    if suffix == "jsonl":
        head, *rows = [line.split(",") for line in ROWS.splitlines()]
        text = "".join(json.dumps(dict(zip(head, row, strict=True))) + "\n" for row in rows)
    samples = open_samples(write(f"t.{suffix}", text))
    assert list(samples.ids) == ["x1", "x2"]
    assert samples.classes == ("rex", "tom")
    assert samples.labels.tolist() == [1, 0]
    assert (np.asarray(samples.read(1)) == make.pixels(2)).all()


def test_integer_labels_are_ordered_by_value_and_ids_default_to_rows(folder, write) -> None:
    samples = open_samples(write("t.csv", "image,label\n" + "".join(
        f"pets/train/cat/a.png,{label}\n" for label in (10, 9, 2, 10))))  # fmt: skip
    assert samples.classes == ("2", "9", "10")
    assert samples.labels.tolist() == [2, 1, 0, 2]
    assert list(samples.ids) == ["0", "1", "2", "3"]


def test_columns_can_have_other_names(folder, write) -> None:
    name = write("t.csv", "file,kind,key\npets/train/cat/a.png,tom,x1\n")
    options = SourceOptions(image_column="file", label_column="kind", id_column="key")
    samples = open_samples(name, options)
    assert (list(samples.ids), samples.classes) == (["x1"], ("tom",))
    with pytest.raises(InvalidInput, match=r"no column image, but file, kind, key.*--image-column"):
        open_samples(name)
    with pytest.raises(InvalidInput, match="no column sort"):
        open_samples(name, SourceOptions(image_column="file", label_column="sort"))


def test_paths_start_from_root_or_are_absolute(tmp_path: Path, folder: str, write) -> None:
    (tmp_path / "lists").mkdir()
    relative = write("lists/t.csv", "image,label\ncat/a.png,tom\n")
    assert len(open_samples(relative, SourceOptions(root=folder))) == 1
    with pytest.raises(InvalidInput, match=r"row 1 \(sample 0\): image .*cat/a.png.*--root"):
        open_samples(relative)
    assert open_samples(write("lists/u.csv", f"image\n{folder}/cat/a.png\n")).read(0).size == (8, 8)


def test_a_path_may_go_into_a_tar(tar: str, write, make) -> None:
    samples = open_samples(
        write("t.csv", "image,label\npets.tar/dog/x/1.png,b\npets.tar/ant/9.png,a\n")
    )
    assert (np.asarray(samples.read(0)) == make.pixels(2)).all()
    assert (np.asarray(samples.read(1)) == make.pixels(3)).all()
    with pytest.raises(InvalidInput, match=r"row 1 \(sample 0\): .*pets.tar has no cow.png"):
        open_samples(write("t.csv", "image\npets.tar/cow.png\n"))


def test_stdin_starts_from_the_current_folder(tmp_path, folder, make, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROWS.encode())))
    samples = open_samples("pets/few:val=-")
    assert str(samples.name) == "pets/few:val"
    assert (np.asarray(samples.read(0)) == make.pixels(1)).all()


def test_texts_are_kept_and_need_no_image(write) -> None:
    samples = open_samples(write("t.csv", "text,label\ngood,pos\nbad,neg\n"))
    assert list(samples.texts) == ["good", "bad"]
    with pytest.raises(InvalidInput, match="has no images"):
        samples.read(0)


PAIRS = [
    {"text": "a man, a dog", "text2": "a dog", "label": "yes"},
    {"text": "", "text2": 'the "sea"', "label": "no"},
    {"text": "tea", "text2": None, "label": "no"},
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_pairs_of_texts_need_no_image_whatever_the_form(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, PAIRS[0], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(PAIRS)
    samples = open_samples(str(path))
    assert list(samples.texts) == ["a man, a dog", "", "tea"]
    assert list(samples.texts2) == ["a dog", 'the "sea"', ""]
    assert samples.labels.tolist() == [1, 0, 0]
    few = samples.take(np.array([2, 0]))
    assert (few.texts, few.texts2) == (["tea", "a man, a dog"], ["", "a dog"])


def test_second_texts_are_part_of_the_identity_where_there_are_some(write) -> None:
    single = open_samples(write("t.csv", "text,label\ngood,pos\n"))
    assert single.texts2 is None and single.take(np.array([0])).texts2 is None
    # As it was before there were second texts: products that were made then stay up to date.
    assert single.identity == "98d2e020ecc8850fb7c5044613482e63"
    pairs = open_samples(write("p.csv", "text,label,text2\ngood,pos,best\n"))
    assert replace(pairs, texts2=None).identity == single.identity
    others = {replace(pairs, texts2=texts).identity for texts in (["best"], ["bad"], [""], None)}
    assert len(others) == 4 and pairs.identity in others


def test_columns_of_texts_can_have_other_names_and_then_have_to_be_there(write) -> None:
    name = write("t.csv", "premise,hypothesis,label\na,b,x\n")
    samples = open_samples(name, SourceOptions(text_column="premise", text2_column="hypothesis"))
    assert (list(samples.texts), list(samples.texts2)) == (["a"], ["b"])
    with pytest.raises(InvalidInput, match=r"no column claim, but premise.*--text-column"):
        open_samples(name, SourceOptions(text_column="claim"))
    with pytest.raises(InvalidInput, match=r"no column claim, but premise.*--text2-column"):
        open_samples(name, SourceOptions(text_column="premise", text2_column="claim"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("image,id\npets/train/cat/a.png,1\npets/train/cat/b.png,1\n", "ids repeat: 1"),
        ("image,id\npets/train/cat/a.png,\n", "row 1 has no id"),
        ("image,label\npets/train/cat/a.png,\n", "row 1 has no label"),
        ("image,label\n,x\n", r"row 1 \(sample 0\) names no image"),
        ("image,label\n", "holds no samples"),
        ("id,label\n1,a\n", "no column image"),
        ("", "is empty"),
        ("image,label\npets/train/cat,x\n", "."),
    ],
)
def test_what_is_missing_is_named(folder, write, text: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        open_samples(write("t.csv", text)).read(0)


def test_a_corrupted_table_brings_its_noise(folder, write) -> None:
    name = write("t.csv", "image,label,clean_label\n" + "".join(
        f"pets/train/cat/a.png,{a},{b}\n" for a, b in ("xx", "yx", "yy", "xy")))  # fmt: skip
    samples = open_samples(name)
    assert samples.clean_labels.tolist() == [0, 0, 1, 1]
    assert samples.noise["realised"] == 0.5
    assert samples.noise["kind"] is None
    noise = {"kind": "symmetric", "requested": 0.5, "realised": 0.5, "flipped": 2, "of": 4, "seed": 3}
    write_sidecar(name, Record("labels", "i" * 32, "corrupt", classes=("x", "y", "z"), noise=noise))
    samples = open_samples(name)
    assert samples.noise == noise
    assert samples.classes == ("x", "y", "z")
    few = open_samples(name, SourceOptions(limit=1))
    assert few.noise == {**noise, "draw": None, "realised": 0.0, "flipped": 0, "of": 1}
    assert [record.identity for record in samples.parents] == ["i" * 32]


def test_a_record_of_another_column_says_nothing_of_this_one(folder, write) -> None:
    name = write("t.csv", "image,label,kind\npets/train/cat/a.png,x,u\n")
    noise = {"kind": "symmetric", "realised": 0.0, "flipped": 0, "of": 1}
    record = Record("labels", "i" * 32, "corrupt", {"label_column": "kind"}, ("u",), noise=noise)
    write_sidecar(name, record)
    samples = open_samples(name)
    assert (samples.classes, samples.noise, samples.parents) == (("x",), None, ())
    assert open_samples(name, SourceOptions(label_column="kind")).noise == noise


@pytest.mark.data
def test_a_real_table_of_texts(shared_data: Path) -> None:
    samples = open_samples(str(shared_data / "reviews" / "books-test.csv"))
    assert (len(samples), samples.classes) == (400, ("negative", "positive"))
    assert str(samples.name) == "reviews/books:test"
