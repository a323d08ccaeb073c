"""Captions laid over sets: joined by id, with their noise, part of what a set is."""

import csv
import io
import json
import random
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.tables import write_sidecar
from nmlcli.provenance import Record
from nmlcli.stages.corrupt import CorruptOptions, corrupt

IDS = ["cat/b", "cat/a", "dog/x/1", "ant/9"]  # of the small tar
TABLE = "id,text\nant/9,an ant\ncat/b,a cat\ncat/a,\ndog/x/1,a dog\n"
NOISY = "id,text,clean_text\nant/9,a dog,an ant\ncat/b,a cat,a cat\ncat/a,,\ndog/x/1,an ant,a dog\n"
NOISE = {"kind": "swap", "requested": 0.5, "realised": 0.5, "flipped": 2, "of": 4, "seed": 7,
         "draw": "exact", "empty": 1, "mended": 0}  # fmt: skip


def laid(source: str, table: str, **more: object):
    return open_samples(source, SourceOptions(captions=table, **more))


@pytest.fixture
def pairs(tmp_path: Path, make) -> str:
    """Forty images with a caption each, in a tar."""
    members = {}
    for i in range(40):
        members[f"{i:03d}.png"] = make.encode(make.pixels(i))
        members[f"{i:03d}.txt"] = f"no. {i}".encode()
    return make.tar(tmp_path / "pairs.tar", members)


def test_captions_are_joined_by_id_and_may_be_empty(tar: str, write) -> None:
    samples = laid(tar, write("c.csv", TABLE))
    assert list(samples.ids) == IDS
    assert samples.texts == ["a cat", "", "a dog", "an ant"]
    assert (samples.clean_texts, samples.text_noise, samples.has_images) == (None, None, True)
    assert samples.labels.tolist() == [1, 1, 2, 0]
    assert Path(samples.files[-1]).name == "c.csv"


def test_the_order_of_rows_moves_nothing(tar: str, write) -> None:
    head, *rows = NOISY.splitlines(keepends=True)
    samples = laid(tar, write("a.csv", NOISY))
    random.Random(0).shuffle(rows)
    other = laid(tar, write("b.csv", "".join([head, *rows])))
    assert other.texts == samples.texts
    assert (other.identity, other.text_noise) == (samples.identity, samples.text_noise)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (TABLE.replace("ant/9,an ant\n", ""), r"has no caption for samples of .*: ant/9$"),
        ("id,text\nx,y\n", r"captions samples that .* lacks: x$"),
        (TABLE + "p,a\nq,b\nr,c\ns,d\n", r"captions samples that .* lacks: p, q, r and 1 more$"),
        ("id,text\ncat/b,x\n", r"samples of .*: cat/a, dog/x/1, ant/9$"),
        (TABLE + "cat/b,again\n", "ids repeat: cat/b"),
        (TABLE.replace("cat/b,", ","), "row 2 has no id"),
        ("id,words\ncat/b,x\n", "has no column text, but id, words: .*--text-column"),
        ("text\na\nb\nc\nd\n", r"captions samples that .* lacks: 0, 1, 2 and 1 more"),
        ("id,text\n" + "".join(f"{name}, \n" for name in IDS), "has no captions in column text"),
        ("id,text\n", "has no captions in column text"),
        ("", "is empty"),
    ],
)
def test_what_does_not_fit_is_named(tar: str, write, text: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        laid(tar, write("c.csv", text))


def test_columns_can_have_other_names(tar: str, folder: str, write) -> None:
    table = write("c.csv", TABLE.replace("id,text", "key,caption3"))
    columns = {"text_column": "caption3", "id_column": "key"}
    assert laid(tar, table, **columns).texts == ["a cat", "", "a dog", "an ant"]
    with pytest.raises(InvalidInput, match=r"no column caption4, but key, caption3.*--text-column"):
        laid(tar, table, **{**columns, "text_column": "caption4"})
    with pytest.raises(InvalidInput, match=r"no column name, but key, caption3.*--id-column"):
        laid(tar, table, **{**columns, "id_column": "name"})
    rows = write("t.csv", "image,id,text\npets/train/cat/a.png,1,old\npets/train/cat/b.png,2,older\n")
    short = write("s.csv", "key,caption3\n2,two\n1,one\n")
    assert laid(rows, short, **columns).texts == ["one", "two"]


def test_a_selection_takes_captions_of_the_whole(tar: str, write) -> None:
    table = write("c.csv", NOISY)
    few = laid(tar, table, limit=3)
    assert few.texts == ["a cat", "", "an ant"]
    assert few.clean_texts == ["a cat", "", "a dog"]
    assert (few.text_noise["flipped"], few.text_noise["of"]) == (1, 3)
    dogs = laid(tar, table, classes=("dog",))
    assert (dogs.texts, dogs.text_noise["realised"]) == (["an ant"], 1.0)
    with pytest.raises(InvalidInput, match="has no caption for samples"):
        laid(tar, write("d.csv", "id,text\ncat/b,x\n"), limit=2)


def test_noise_is_counted_or_as_the_record_has_it(tar: str, write) -> None:
    table = write("c.csv", NOISY)
    counted = laid(tar, table)
    unknown = dict.fromkeys(("kind", "requested", "seed", "draw"))
    assert counted.text_noise == {**unknown, "realised": 0.5, "flipped": 2, "of": 4}
    record = Record("labels", "i" * 32, "corrupt", {"text_column": "text"}, noise=NOISE)
    write_sidecar(table, record)
    samples = laid(tar, table)
    assert samples.text_noise == NOISE
    assert samples.noise is None
    assert [each.identity for each in samples.parents] == ["i" * 32]
    few = laid(tar, table, limit=2)
    known = {name: value for name, value in NOISE.items() if name not in ("empty", "mended")}
    assert few.text_noise == {**known, "realised": 0.0, "flipped": 0, "of": 2}
    taken = samples.take(np.array([3, 0]))
    assert (taken.texts, taken.clean_texts) == (["a dog", "a cat"], ["an ant", "a cat"])
    assert (taken.text_noise["flipped"], taken.text_noise["of"]) == (1, 2)
    assert taken.text_noise["seed"] == 7


def test_known_clean_captions_stay_so_in_a_selection(tar: str, write) -> None:
    table = write("c.csv", TABLE)
    noise = {**NOISE, "kind": "none", "requested": 0.0, "realised": 0.0, "flipped": 0}
    write_sidecar(table, Record("labels", "i" * 32, "corrupt", {"text_column": "text"}, noise=noise))
    taken = laid(tar, table).take(np.array([1]))
    assert (taken.text_noise["flipped"], taken.text_noise["of"]) == (0, 1)


def test_a_record_of_another_column_says_nothing_of_this_one(tar: str, write) -> None:
    rows = NOISY.splitlines()[1:]
    lines = ["id,caption,clean_text,caption2", *(f"{row},x" for row in rows)]
    table = write("c.csv", "\n".join(lines))
    record = Record("labels", "i" * 32, "corrupt", {"text_column": "caption"}, noise=NOISE)
    write_sidecar(table, record)
    other = laid(tar, table, text_column="caption2")
    assert (set(other.texts), other.clean_texts, other.text_noise) == ({"x"}, None, None)
    assert other.parents == ()
    assert laid(tar, table, text_column="caption").text_noise == NOISE


def test_captions_are_part_of_the_identity(tar: str, write) -> None:
    plain = open_samples(tar)
    one = laid(tar, write("a.csv", TABLE))
    two = laid(tar, write("b.csv", TABLE.replace("an ant", "ants")))
    noisy = laid(tar, write("c.csv", NOISY))
    mended = replace(noisy, clean_texts=None)
    assert len({each.identity for each in (plain, one, two, noisy, mended)}) == 5
    assert len({each.facts()["samples"] for each in (plain, one, two, noisy)}) == 4


def test_clean_texts_and_groups_do_not_pass_for_one_another(tar: str) -> None:
    samples = replace(open_samples(tar), texts=IDS)
    held = (IDS, IDS[::-1], None)
    kinds = {
        replace(samples, clean_texts=clean, groups=groups).identity for clean in held for groups in held
    }
    assert len(kinds) == 9


def test_labels_and_captions_keep_their_own_noise(tar: str, write) -> None:
    labels = write("l.csv", "id,label\ncat/b,dog\ncat/a,cat\ndog/x/1,dog\nant/9,ant\n")
    samples = laid(tar, write("c.csv", NOISY), labels=labels)
    assert (samples.noise["flipped"], samples.text_noise["flipped"]) == (1, 2)
    few = samples.take(np.array([1, 3]))
    assert (few.noise["flipped"], few.text_noise["flipped"]) == (0, 1)
    assert [Path(name).name for name in samples.files[-2:]] == ["l.csv", "c.csv"]


def test_captions_on_stdin(tar: str, write, monkeypatch) -> None:
    def pipe(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    pipe(NOISY)
    samples = laid(tar, "-")
    assert samples.texts == ["a cat", "", "an ant", "a dog"]
    assert samples.files == open_samples(tar).files
    pipe("id,words\n")
    with pytest.raises(InvalidInput, match="stdin has no column text"):
        laid(tar, "-")
    with pytest.raises(UsageError, match="the set and its captions are both on stdin: name a file"):
        laid("-", "-")
    with pytest.raises(UsageError, match="its labels and its captions are both on stdin"):
        laid(tar, "-", labels="-")


def test_images_in_hdf5_are_still_images_when_they_have_captions(tmp_path: Path, write, make) -> None:
    path = str(tmp_path / "t.h5")
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([make.pixels(0), make.pixels(1)])
    samples = laid(path, write("c.jsonl", '{"id": 1, "text": "b"}\n{"id": 0, "text": null}\n'))
    assert (samples.texts, samples.paths, samples.has_images) == (["", "b"], None, True)
    assert (np.asarray(samples.read(1)) == make.pixels(1)).all()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["swap", "cycle"])
def test_noise_on_a_set_goes_back_over_it(tmp_path: Path, pairs: str, kind: str, suffix: str) -> None:
    out = str(tmp_path / f"noisy.{suffix}")
    record = corrupt(pairs, out, CorruptOptions(ratio="0.3", kind=kind, seed=3))
    clean, samples = open_samples(pairs), laid(pairs, out)
    assert samples.text_noise == record.noise
    assert samples.text_noise["flipped"] == sum(map(str.__ne__, samples.texts, clean.texts)) == 12
    assert list(samples.clean_texts) == list(clean.texts)
    assert [each.identity for each in samples.parents] == [record.identity]


def test_a_corrupted_table_is_a_set_with_that_noise(folder: str, write, tmp_path: Path) -> None:
    names = ["cat/a", "cat/b", "ant/9"] * 3
    rows = [f"pets/train/{name}.png,text {i}\n" for i, name in enumerate(names)]
    table = write("t.csv", "image,words\n" + "".join(rows))
    plain = open_samples(table, SourceOptions(text_column="words"))
    assert (plain.text_noise, plain.clean_texts) == (None, None)
    out = str(tmp_path / "noisy.csv")
    record = corrupt(table, out, CorruptOptions(ratio="0.5", kind="swap", text_column="words"))
    samples = open_samples(out, SourceOptions(text_column="words"))
    assert samples.text_noise == record.noise
    assert (
        samples.text_noise["flipped"] == sum(map(str.__ne__, samples.texts, samples.clean_texts)) == 4
    )
    assert [each.identity for each in samples.parents] == [record.identity]
    assert samples.noise is None
    few = open_samples(out, SourceOptions(text_column="words", limit=3))
    assert few.text_noise["of"] == 3 and few.text_noise["kind"] == "swap"
    # Without the record, as from a pipe, the extent is what is known.
    Path(f"{out}.nml.json").unlink()
    counted = open_samples(out, SourceOptions(text_column="words"))
    assert (counted.text_noise["kind"], counted.text_noise["flipped"]) == (None, 4)
    assert counted.parents == ()


def test_rows_of_one_image_are_told_by_its_path_or_a_column(folder: str, tar: str, write) -> None:
    rows = "".join(
        f"pets/train/cat/{name}.png,{text},{text}{text}\n" for name, text in ("ax", "bx", "ay")
    )
    table = write("t.csv", "image,text,shot\n" + rows)
    samples = open_samples(table)
    one, two, three = samples.images_of()
    assert (one == three, one == two) == (True, False)
    one, two, three = samples.take(np.array([0, 2, 1])).images_of()
    assert (one == two, one == three) == (True, False)
    shots = open_samples(table, SourceOptions(group_column="shot"))
    assert list(shots.images_of()) == ["xx", "xx", "yy"]
    assert shots.take(np.array([2, 0])).images_of() == ["yy", "xx"]
    assert shots.identity != samples.identity
    assert open_samples(table, SourceOptions(group_column="image")).identity == samples.identity
    with pytest.raises(InvalidInput, match=r"no column group, but image, text, shot: .*--group-column"):
        open_samples(table, SourceOptions(group_column="group"))
    with pytest.raises(InvalidInput, match="row 1 has no image in column shot"):
        open_samples(write("u.csv", "text,shot\nx,\n"), SourceOptions(group_column="shot"))
    assert len(set(open_samples(tar).images_of())) == 4
    assert list(open_samples(write("v.csv", "text\na\na\n")).images_of()) == ["0", "1"]


def test_generated_sets_know_what_they_show() -> None:
    samples = open_samples("builtin:shapes:val")
    names = [samples.classes[label] for label in samples.labels]
    assert all(f" {name} on " in text for name, text in zip(names, samples.texts, strict=True))
    assert (samples.has_images, samples.paths, samples.clean_texts) == (True, None, None)
    assert open_samples("builtin:glyphs:val").texts is None
    few = open_samples("builtin:shapes:val", SourceOptions(limit=5))
    assert few.texts == samples.texts[:5]
    assert (few.text_noise["kind"], few.text_noise["flipped"], few.text_noise["of"]) == ("none", 0, 5)
    assert open_samples("builtin:glyphs:val").text_noise is None


def test_what_follows_from_the_images_is_no_part_of_the_identity(tmp_path: Path) -> None:
    samples = open_samples("builtin:shapes:test")
    # As it was before there were texts: products that were made then stay up to date.
    assert samples.identity == "69f4b6245963d5f113c93200767f1d3e"
    bare = replace(samples, texts=None)
    assert bare.facts() == samples.facts()
    out = str(tmp_path / "captions.csv")
    record = corrupt("builtin:shapes:test", out, CorruptOptions(ratio="0.3", kind="swap"))
    noisy = laid("builtin:shapes:test", out)
    assert noisy.identity != samples.identity
    assert noisy.facts()["samples"] != samples.facts()["samples"]
    assert noisy.clean_texts == samples.texts
    assert noisy.text_noise == record.noise and record.noise["flipped"] == 1500
    assert noisy.noise["flipped"] == 0


@pytest.mark.data
def test_real_captions_over_real_images(shared_data: Path, tmp_path: Path) -> None:
    table, tar = (
        shared_data / "captions" / "captions.tsv",
        shared_data / "captions" / "flickr8k-1500.tar",
    )
    if not (table.is_file() and tar.is_file()):
        pytest.skip(f"the captions are not at {table.parent}")
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file, delimiter="\t")}
    plain = open_samples(str(tar))
    second = laid(str(tar), str(table), text_column="caption2")
    assert second.texts == [rows[name]["caption2"] for name in plain.ids]
    assert (second.text_noise, len(set(second.images_of()))) == (None, 1500)
    out = str(tmp_path / "noisy.tsv")
    record = corrupt(str(table), out, CorruptOptions(ratio="0.2", kind="swap", text_column="caption"))
    noisy = laid(str(tar), out, text_column="caption")
    assert noisy.text_noise == record.noise and record.noise["flipped"] == 300
    assert sum(map(str.__ne__, noisy.texts, plain.texts)) == 300
    assert list(noisy.clean_texts) == list(plain.texts)
    with tarfile.open(tar) as members:
        words = members.extractfile(f"{plain.ids[7]}.txt").read().decode()
    assert words.strip() == noisy.clean_texts[7]
    assert json.loads(Path(f"{out}.nml.json").read_text())["noise"] == noisy.text_noise
