"""nml corrupt on all that carries labels or captions: tables byte by byte, sets, binary files."""

import csv
import io
import json
import tarfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products.features import Features
from nmlcli.products.formats import read_features, read_record, write_features
from nmlcli.products.labels import read_labels
from nmlcli.provenance import Record
from nmlcli.stages.corrupt import CorruptOptions, corrupt
from nmlcli.stages.info import describe

IDS = [f"train/{i:04d}" for i in range(400)]
LABELS = [f"class {i * 7 % 10}" for i in range(400)]


def make(source, out, **options):
    return corrupt(str(source), str(out), CorruptOptions(**{"ratio": "0.25", **options}))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The noisy label of each id, from the plainest carrier."""
    folder = tmp_path_factory.mktemp("plain")
    rows = "".join(f"{name},{label}\n" for name, label in zip(IDS, LABELS, strict=True))
    (folder / "t.csv").write_text("id,label\n" + rows)
    make(folder / "t.csv", folder / "o.csv")
    labels = read_labels(str(folder / "o.csv"))
    return dict(zip(labels.ids, [labels.classes[n] for n in labels.labels], strict=True))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_each_byte_of_a_table_outside_the_column_stays(tmp_path, wanted, end, bom, last, delimiter):
    d, long = delimiter, "x" * 200_000
    head = f'{bom}note{d}id{d}"label"{d}text'
    lines = [
        f'{long if i == 7 else i}{d}{name}{d}"{label}"{d}"first ""line""{end}second {d}"'
        for i, (name, label) in enumerate(zip(IDS, LABELS, strict=True))
    ]
    suffix = "tsv" if d == "\t" else "csv"
    source, out = tmp_path / f"t.{suffix}", tmp_path / f"o.{suffix}"
    source.write_bytes((end.join([head, *lines]) + end * last).encode())

    make(source, out)

    new = [
        line.replace(f'"{label}"', f'"{wanted[name]}"') + f'{d}"{label}"'
        for line, name, label in zip(lines, IDS, LABELS, strict=True)
    ]
    assert out.read_bytes() == (end.join([f"{head}{d}clean_label", *new]) + end * last).encode()


def test_json_lines_keep_order_spelling_and_type(tmp_path):
    rows = [
        f'{{"b": 1.50, "label":{i % 4}, "id": "é{i}", "x": [1,{{"label": 9}}]}}' for i in range(100)
    ]
    (tmp_path / "t.jsonl").write_text("\n\n".join(rows))

    make(tmp_path / "t.jsonl", tmp_path / "o.jsonl")

    new = (tmp_path / "o.jsonl").read_text().split("\n\n")
    assert sum(json.loads(line)["label"] != i % 4 for i, line in enumerate(new)) == 25
    for i, (old, line) in enumerate(zip(rows, new, strict=True)):
        label = json.loads(line)["label"]
        assert (
            line
            == old.replace(f'"label":{i % 4},', f'"label":{label},')[:-1] + f',"clean_label":{i % 4}}}'
        )


def test_parquet_keeps_its_schema_and_row_groups(tmp_path, wanted):
    table = pa.table({
        "id": pa.array(IDS, pa.large_string()), "label": pa.array(LABELS).dictionary_encode(),
        "score": pa.array([i / 3 for i in range(400)], pa.float32()),
    }).replace_schema_metadata({"huggingface": "{}", "other": "kept"})  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=150, compression="zstd")

    record = make(tmp_path / "t.parquet", tmp_path / "o.parquet")

    made, file = pq.read_table(tmp_path / "o.parquet"), pq.ParquetFile(tmp_path / "o.parquet")
    assert made["label"].to_pylist() == [wanted[name] for name in IDS]
    assert made["clean_label"].to_pylist() == LABELS
    assert made.select(["id", "score"]).equals(table.select(["id", "score"]))
    assert pa.types.is_dictionary(made.schema.field("label").type)
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [150, 150, 100]
    assert file.metadata.row_group(0).column(2).compression == "ZSTD"
    assert made.schema.metadata[b"other"] == b"kept"
    assert read_record(str(tmp_path / "o.parquet")) == record
    assert read_labels(str(tmp_path / "o.parquet")).noise == record.noise
    assert not (tmp_path / "o.parquet.nml.json").exists()


def features(record=None, ids=IDS, labels=LABELS, clean=None):
    classes = tuple(sorted(set(labels)))
    matrix = np.random.default_rng(0).normal(size=(len(ids), 4)).astype(np.float32)
    numbers = np.array([classes.index(label) for label in labels])
    record = record or Record("features", "f" * 32, "embed", rows=len(ids), columns=4, classes=classes)
    return Features(record, list(ids), numbers, clean, matrix.dtype, lambda rows: iter([matrix]), "f")


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
@pytest.mark.parametrize("out", ["o.csv", "o.jsonl", "o.parquet", "o.h5", "o.safetensors"])
def test_features_carry_labels_and_all_forms_of_labels_agree(tmp_path, wanted, suffix, out):
    write_features(str(tmp_path / f"train{suffix}"), features())

    record = make(tmp_path / f"train{suffix}", tmp_path / out)

    labels = read_labels(str(tmp_path / out))
    assert {
        name: labels.classes[n] for name, n in zip(labels.ids, labels.labels, strict=True)
    } == wanted
    assert [labels.classes[n] for n in labels.clean_labels] == LABELS
    assert labels.record == record
    assert describe(str(tmp_path / out))["noise"] == record.noise
    assert record.parents == ({"kind": "features", "identity": "f" * 32, "command": "embed"},)


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_binary_labels_are_a_carrier_themselves(tmp_path, wanted, suffix):
    write_features(str(tmp_path / "train.h5"), features())
    make(tmp_path / "train.h5", tmp_path / f"clean{suffix}", ratio="0")
    make(tmp_path / "train.h5", tmp_path / f"noisy{suffix}", ratio="0.1")

    with pytest.raises(InvalidInput, match="carries noise already"):
        make(tmp_path / f"noisy{suffix}", tmp_path / "o.csv")
    for name in ("clean", "noisy"):
        record = make(tmp_path / f"{name}{suffix}", tmp_path / "o.csv", replace=True)
        labels = read_labels(str(tmp_path / "o.csv"))
        assert {i: labels.classes[n] for i, n in zip(labels.ids, labels.labels, strict=True)} == wanted
        assert [parent["kind"] for parent in record.parents] == ["labels", "features"]


def test_foreign_binary_files_need_no_more_than_labels(tmp_path):
    numbers = (np.arange(400) * 7 % 10).astype(np.int32)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["labels"] = numbers
    safetensors.numpy.save_file({"labels": numbers}, tmp_path / "t.safetensors")

    for name in ("t.h5", "t.safetensors"):
        make(tmp_path / name, tmp_path / f"{name}.csv")
        labels = read_labels(str(tmp_path / f"{name}.csv"))
        assert labels.classes == tuple(map(str, range(10)))
        assert (labels.clean_labels == numbers).all()
        assert labels.ids[:3] == ["0", "1", "2"]
    safetensors.numpy.save_file({"x": numbers}, tmp_path / "t.safetensors")
    with pytest.raises(InvalidInput, match="has no labels"):
        make(tmp_path / "t.safetensors", tmp_path / "o.csv")


def test_features_whose_labels_are_noisy_are_drawn_anew_from_the_clean_ones(tmp_path, wanted):
    classes = tuple(sorted(set(LABELS)))
    clean = np.array([classes.index(label) for label in LABELS])
    noise = {"kind": "symmetric", "requested": 0.1, "flipped": 40, "of": 400, "seed": 5}
    record = Record("features", "f" * 32, "embed", rows=400, columns=4, classes=classes, noise=noise)
    shifted = [LABELS[(i + 7) % 400] if i < 40 else label for i, label in enumerate(LABELS)]
    write_features(str(tmp_path / "train.h5"), features(record, labels=shifted, clean=clean))
    write_features(str(tmp_path / "lost.h5"), features(record, labels=shifted))

    with pytest.raises(InvalidInput, match="carries noise already"):
        make(tmp_path / "train.h5", tmp_path / "o.csv")
    with pytest.raises(InvalidInput, match="the labels before it are not known"):
        make(tmp_path / "lost.h5", tmp_path / "o.csv", replace=True)
    make(tmp_path / "train.h5", tmp_path / "o.csv", replace=True)
    labels = read_labels(str(tmp_path / "o.csv"))
    assert {i: labels.classes[n] for i, n in zip(labels.ids, labels.labels, strict=True)} == wanted


def test_noise_by_features_joins_them_by_id(tmp_path):
    order = np.random.default_rng(2).permutation(400)
    write_features(str(tmp_path / "train.h5"), features())
    rows = "".join(f"{IDS[i]},{LABELS[i]}\n" for i in order)
    (tmp_path / "t.csv").write_text("id,label\n" + rows)

    make(tmp_path / "train.h5", tmp_path / "own.csv", kind="instance")
    make(tmp_path / "t.csv", tmp_path / "o.csv", kind="instance", features=str(tmp_path / "train.h5"))

    own, joined = (read_labels(str(tmp_path / name)) for name in ("own.csv", "o.csv"))
    found = [dict(zip(each.ids, each.labels.tolist(), strict=True)) for each in (own, joined)]
    assert found[0] == found[1]
    assert len(own.noise["digest"]) == 16
    (tmp_path / "t.csv").write_text("id,label\nq,class 1\nr,class 2\n" + rows)
    with pytest.raises(InvalidInput, match="has no features of q, r: embed the samples"):
        make(
            tmp_path / "t.csv", tmp_path / "o.csv", kind="instance", features=str(tmp_path / "train.h5")
        )


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures and a tar of it, in three classes."""
    for i in range(30):
        path = tmp_path / "set" / f"class {i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(path)
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for path in sorted((tmp_path / "set").rglob("*.png")):
            tar.add(path, path.relative_to(tmp_path / "set").as_posix())
    return tmp_path


def test_a_folder_and_a_tar_of_it_get_the_same_noise(pictures):
    for name in ("set", "set.tar"):
        make(pictures / name, pictures / f"{name}.csv", ratio="0.2")
    rows = [(pictures / f"{name}.csv").read_text() for name in ("set", "set.tar")]

    assert rows[0] == rows[1]
    samples = open_samples(str(pictures / "set.tar"), SourceOptions(labels=str(pictures / "set.csv")))
    assert samples.noise["flipped"] == 6


def test_images_in_hdf5_are_a_set_with_labels(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["images"] = np.zeros((20, 4, 4, 3), dtype=np.uint8)
        file["labels"] = np.arange(20) % 4
    record = make(tmp_path / "t.h5", tmp_path / "o.csv")
    assert (record.noise["flipped"], record.rows) == (5, 20)


def test_captions_of_a_tar_become_a_small_table(tmp_path):
    with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
        for i in range(40):
            picture = io.BytesIO()
            Image.new("RGB", (4, 4), (i, 0, 0)).save(picture, "PNG")
            for name, content in (
                (f"{i:03d}.png", picture.getvalue()),
                (f"{i:03d}.txt", f"no. {i}".encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    record = make(tmp_path / "pairs.tar", tmp_path / "o.csv", kind="swap", ratio="0.5")

    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [row["id"] for row in rows] == [f"{i:03d}" for i in range(40)]
    assert [row["clean_text"] for row in rows] == [f"no. {i}" for i in range(40)]
    assert sum(row["text"] != row["clean_text"] for row in rows) == record.noise["flipped"] == 20
    with pytest.raises(UsageError, match=r"no form of labels"):
        make(tmp_path / "pairs.tar", tmp_path / "o.h5", kind="swap")
    with pytest.raises(InvalidInput, match="has no labels"):
        make(tmp_path / "pairs.tar", tmp_path / "o.csv")


@pytest.mark.parametrize("kind", ["swap", "cycle"])
def test_captions_of_a_generated_set_are_exchanged_among_different_ones(tmp_path, kind):
    samples = open_samples("builtin:shapes:val:sketch")  # sixteen texts for 2,000 images
    record = make("builtin:shapes:val:sketch", tmp_path / "o.csv", kind=kind, ratio="0.3")

    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [row["clean_text"] for row in rows] == samples.texts
    assert [row["id"] for row in rows] == list(samples.ids)
    assert sum(row["text"] != row["clean_text"] for row in rows) == record.noise["flipped"] == 600
    assert sorted(row["text"] for row in rows) == sorted(samples.texts)
    labels = make("builtin:shapes:val:sketch", tmp_path / "l.csv", ratio="0.3")
    assert labels.noise["kind"] == "symmetric"


@pytest.mark.data
def test_captions_of_real_pairs(shared_data, tmp_path):
    captions = shared_data / "captions"
    make(captions / "flickr8k-1500.tar", tmp_path / "tar.csv", kind="swap", ratio="0.2")
    make(captions / "captions.tsv", tmp_path / "t.tsv", kind="swap", ratio="0.2", text_column="caption")

    tar = {row["id"]: row["text"] for row in csv.DictReader((tmp_path / "tar.csv").open())}
    table = {row["id"]: row["caption"]
             for row in csv.DictReader((tmp_path / "t.tsv").open(), delimiter="\t")}  # fmt: skip
    assert tar == table


def test_rows_of_one_image_share_their_captions(tmp_path):
    lines = [f"{i}.jpg,caption {i} {k}" for i in range(20) for k in range(5)]
    (tmp_path / "t.csv").write_text("image,text\n" + "\n".join(lines))
    (tmp_path / "g.csv").write_text("photo,text\n" + "\n".join(lines))

    make(tmp_path / "t.csv", tmp_path / "o.csv", kind="swap", ratio="1")
    make(tmp_path / "g.csv", tmp_path / "p.csv", kind="swap", ratio="1", group_column="photo")

    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert all(row["text"].split()[1] != row["image"].removesuffix(".jpg") for row in rows)
    assert [row["text"] for row in rows] == [
        row["text"] for row in csv.DictReader((tmp_path / "p.csv").open())
    ]


def test_json_captions_may_be_missing_but_not_numbers(tmp_path):
    rows = [{"id": i, "text": None if i < 5 else f"text {i}"} for i in range(30)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = make(tmp_path / "t.jsonl", tmp_path / "o.jsonl", kind="cycle", ratio="0.5")
    assert (record.noise["empty"], record.noise["flipped"]) == (5, 15)
    assert [json.loads(line)["text"] for line in (tmp_path / "o.jsonl").open()][:5] == [None] * 5
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": 7}\n')
    with pytest.raises(InvalidInput, match="row 2 has a caption that is no text in column text"):
        make(tmp_path / "t.jsonl", tmp_path / "o.jsonl", kind="cycle")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("builtin:shapes:test", {"label_column": "y"}, "is no table: leave the names of columns out"),
        ("builtin:shapes:test", {"from_column": "y", "ratio": None}, "is no table"),
        ("builtin:glyphs:test", {"kind": "swap"}, "has no captions"),
        ("train.h5", {"limit": 5}, "is taken whole"),
        ("train.h5", {"kind": "swap"}, "holds no captions"),
        ("none.h5", {}, "does not exist|no such file"),
    ],
)
def test_what_a_carrier_cannot_do(tmp_path, monkeypatch, name, options, message):
    monkeypatch.chdir(tmp_path)
    write_features("train.h5", features())
    with pytest.raises(NmlError, match=message):
        make(name, "o.csv", **options)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=9), st.sampled_from(["a", "b,c", 'd"e', " f", "g\nh"])), min_size=3
    )
)
def test_any_text_survives_beside_the_column(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    notes = [note.replace("\0", "").encode("utf-8", "replace").decode() for note, _ in rows]
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\r\n")
    writer.writerow(["note", "label"])
    writer.writerows((f"x{note}", label) for note, (_, label) in zip(notes, rows, strict=True))
    (folder / "t.csv").write_bytes(held.getvalue().encode())
    try:
        record = make(folder / "t.csv", folder / "o.csv", ratio="0.5")
    except InvalidInput as error:
        assert "one class" in str(error) or "no label" in str(error)
        return
    made = list(csv.DictReader(io.StringIO((folder / "o.csv").read_bytes().decode(), newline="")))
    old = list(csv.DictReader(io.StringIO(held.getvalue(), newline="")))
    assert [row["note"] for row in made] == [row["note"] for row in old]
    assert [row["clean_label"] for row in made] == [row["label"] for row in old]
    assert sum(row["label"] != row["clean_label"] for row in made) == record.noise["flipped"]
    assert record.noise["flipped"] == (len(rows) + 1) // 2


@pytest.mark.parametrize(
    "images", [[{"bytes": b"a", "path": None}, {"bytes": None, "path": "b"}], [b"a", b"b"], [1, 2]]
)
def test_images_packed_in_parquet_tell_captions_apart(tmp_path, images):
    texts = [f"caption {i}" for i in range(8)]
    table = pa.table({"image": [images[i % 2] for i in range(8)], "text": texts})
    pq.write_table(table, tmp_path / "t.parquet")

    make(tmp_path / "t.parquet", tmp_path / "o.parquet", kind="swap", ratio="1")

    made = pq.read_table(tmp_path / "o.parquet")["text"].to_pylist()
    assert all(int(text[-1]) % 2 != row % 2 for row, text in enumerate(made))


def test_rows_without_an_image_are_images_of_their_own(tmp_path):
    (tmp_path / "t.csv").write_text("image,text\n" + "".join(f",text {i}\n" for i in range(2000)))
    assert make(tmp_path / "t.csv", tmp_path / "o.csv", kind="swap").noise["flipped"] == 500


def test_one_image_for_all_is_refused_at_once(tmp_path):
    (tmp_path / "t.csv").write_text("image,text\n" + "".join(f"x,text {i}\n" for i in range(50_000)))
    with pytest.raises(InvalidInput, match="captions 0 can become wrong"):
        make(tmp_path / "t.csv", tmp_path / "o.csv", kind="swap")


def test_features_are_not_replaced_by_their_labels(tmp_path):
    write_features(str(tmp_path / "train.h5"), features())
    with pytest.raises(UsageError, match="would overwrite an input"):
        make(tmp_path / "train.h5", tmp_path / "train.h5")
    assert read_features(str(tmp_path / "train.h5")).rows == 400


def test_numbers_of_classes_with_gaps_are_those_that_occur(tmp_path):
    safetensors.numpy.save_file({"labels": np.array([0, 5000] * 10)}, tmp_path / "t.safetensors")
    record = make(tmp_path / "t.safetensors", tmp_path / "o.csv")
    assert record.classes == ("0", "5000")
    safetensors.numpy.save_file({"labels": np.array([0, 10**9] * 10)}, tmp_path / "t.safetensors")
    with pytest.raises(InvalidInput, match="row 1 has 1000000000 in labels, which is no class number"):
        make(tmp_path / "t.safetensors", tmp_path / "o.csv")
    safetensors.numpy.save_file({"labels": np.array([0, -1] * 10)}, tmp_path / "t.safetensors")
    with pytest.raises(InvalidInput, match="row 1 has -1 in labels, which is no class number"):
        make(tmp_path / "t.safetensors", tmp_path / "o.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"label":"a"}\n{"id":"b","label":"b"}\n', "first row has no id, a later one has"),
        ('{"id":"\\ud800","label":"a"}\n{"id":"b","label":"b"}\n', "line 1 holds half a character"),
    ],
)
def test_json_lines_that_are_not_what_they_seem(tmp_path, text, message):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        make(tmp_path / "t.jsonl", tmp_path / "o.jsonl")


def test_recorded_classes_keep_their_order_and_those_without_rows(tmp_path):
    names = ("z", "a", "m")
    record = Record("features", "f" * 32, "embed", rows=40, columns=4, classes=names)
    matrix = np.zeros((40, 4), dtype=np.float32)
    ids, numbers = [str(i) for i in range(40)], np.arange(40) % 2
    given = Features(record, ids, numbers, None, matrix.dtype, lambda rows: iter([matrix]), "f")
    write_features(str(tmp_path / "f.h5"), given)
    make(tmp_path / "f.h5", tmp_path / "clean.csv", ratio="0")

    record = make(tmp_path / "clean.csv", tmp_path / "o.csv", kind="pairflip", ratio="1")

    assert record.classes == names
    assert [parent["kind"] for parent in record.parents] == ["labels", "features"]
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert {(row["clean_label"], row["label"]) for row in rows} == {("z", "a"), ("a", "m")}


def test_a_record_of_another_column_says_nothing_of_this_one(tmp_path):
    rows = "".join(f"{i},{'abc'[i % 3]},{'xy'[i % 2]}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("id,label,other\n" + rows)
    make(tmp_path / "t.csv", tmp_path / "o.csv", ratio="0.1")
    text = (tmp_path / "o.csv").read_text().replace("clean_label", "was")
    (tmp_path / "p.csv").write_text(text)
    record = make(tmp_path / "p.csv", tmp_path / "q.csv", label_column="other")
    assert record.classes == ("x", "y")
