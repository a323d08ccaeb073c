"""nml corrupt, on tables and sets, in process."""

import csv
import hashlib
import io
import json
import random

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.noise.kinds import DRAWS, NOISES
from nmlcli.products.features import Features
from nmlcli.products.formats import write_features
from nmlcli.products.labels import read_labels
from nmlcli.products.tables import read_table_record
from nmlcli.provenance import Record
from nmlcli.stages.corrupt import CorruptOptions, corrupt

FROZEN = {
    "pairflip": "da15c9247e035fb0",
    "symmetric": "553f124053f2b0b5",
    "uniform": "fd68b86625e2b559",
    "asymmetric": "da15c9247e035fb0",
    "matrix": "c0cfd3a80cad3ac8",
    "instance": "d5ab7c2b9e294ed3",
    "swap": "16909ad889d84e13",
    "cycle": "fba5924dec0f0636",
}
KINDS = list(NOISES)
DRAWN = [(kind, draw) for kind in KINDS for draw in DRAWS
         if draw == "exact" or "draw" in NOISES[kind].takes]  # fmt: skip


def lines(rows=1000, num_classes=10):
    return [f"train/{i:04d},class {i * 7 % num_classes}" for i in range(rows)]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["id,label", *lines()]) + "\n")
    return path


@pytest.fixture
def inputs(tmp_path, table):
    """What each kind needs besides: captions in the labels' place, a map, a matrix, features."""
    classes = [f"class {i}" for i in range(10)]
    arrows = [f"{one},{two}" for one, two in zip(classes, [*classes[1:], classes[0]], strict=True)]
    (tmp_path / "map.csv").write_text("\n".join(["from,to", *arrows]))
    rows = [[name, *("0.5" if c in (i, (i + 3) % 10) else "0" for c in range(10))]
            for i, name in enumerate(classes)]  # fmt: skip
    (tmp_path / "matrix.csv").write_text("\n".join(map(",".join, [["true", *classes], *rows])))
    ids = [line.split(",")[0] for line in lines()]
    matrix = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    record = Record("features", "0" * 32, "embed", rows=1000, columns=4)
    features = Features(record, ids, None, None, matrix.dtype, lambda rows: iter([matrix]), "f")
    write_features(str(tmp_path / "features.h5"), features)

    def of(kind):
        found = {name: str(tmp_path / file) for name, file in
                 (("map", "map.csv"), ("matrix", "matrix.csv"), ("features", "features.h5"))
                 if name in NOISES[kind].takes}  # fmt: skip
        return found | ({"text_column": "label"} if NOISES[kind].captions else {})

    return of


def made(source, out, **options):
    record = corrupt(str(source), str(out), CorruptOptions(**options))
    return record, list(csv.DictReader(io.StringIO(out.read_text())))


@pytest.mark.parametrize(("kind", "draw"), DRAWN)
def test_the_record_says_what_the_table_holds(table, inputs, tmp_path, kind, draw):
    asked = {"ratio": "0.3", "kind": kind, "draw": draw, "seed": 3, **inputs(kind)}
    record, rows = made(table, tmp_path / "noisy.csv", **asked)

    old = list(csv.DictReader(io.StringIO(table.read_text())))
    clean = "clean_text" if NOISES[kind].captions else "clean_label"
    flipped = sum(row["label"] != row[clean] for row in rows)
    assert [row[clean] for row in rows] == [row["label"] for row in old]
    assert [row["id"] for row in rows] == [row["id"] for row in old]
    assert dict(record.noise) | {
        "kind": kind, "requested": 0.3, "realised": flipped / 1000, "flipped": flipped, "of": 1000,
        "seed": 3, "draw": draw,
    } == record.noise  # fmt: skip
    assert flipped == 300 or draw == "bernoulli" or kind == "uniform"
    assert read_table_record(tmp_path / "noisy.csv") == record
    if NOISES[kind].captions:
        assert record.classes is None
        assert (record.noise["empty"], record.noise["mended"] > 10) == (0, True)
    else:
        assert record.classes == tuple(f"class {i}" for i in range(10))
        assert read_labels(str(tmp_path / "noisy.csv")).noise == record.noise


@pytest.mark.parametrize("kind", KINDS)
def test_known_answer(table, inputs, tmp_path, kind):
    made(table, tmp_path / "noisy.csv", ratio="0.3", kind=kind, **inputs(kind))

    assert hashlib.sha256((tmp_path / "noisy.csv").read_bytes()).hexdigest()[:16] == FROZEN[kind]


def test_no_noise_changes_no_byte_but_adds_the_column(table, tmp_path):
    made(table, tmp_path / "noisy.csv", ratio="0")

    wanted = [f"{line},{line.split(',')[1]}" for line in lines()]
    assert (tmp_path / "noisy.csv").read_text() == "\n".join(["id,label,clean_label", *wanted]) + "\n"


def test_the_order_of_rows_does_not_matter(table, tmp_path):
    shuffled = lines()
    random.Random(0).shuffle(shuffled)
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["id,label", *shuffled]))

    one = made(table, tmp_path / "one.csv", ratio="0.2")[1]
    two = made(other, tmp_path / "two.csv", ratio="0.2")[1]

    assert sorted(map(str, one)) == sorted(map(str, two))


def test_forms_agree_and_numbers_stay_numbers(tmp_path):
    rows = [{"id": str(i), "label": i % 5} for i in range(200)]
    (tmp_path / "a.csv").write_text("label\r\n" + "".join(f"{row['label']}\r\n" for row in rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.tsv").write_text("id\tlabel\n" + "".join(f"{r['id']}\t{r['label']}\n" for r in rows))
    for name in ("a.csv", "b.jsonl", "c.tsv"):
        corrupt(str(tmp_path / name), str(tmp_path / f"out-{name}"), CorruptOptions(ratio="0.5"))

    products = [read_labels(str(tmp_path / f"out-{name}")) for name in ("a.csv", "b.jsonl", "c.tsv")]

    assert len({tuple(p.labels.tolist()) for p in products}) == 1
    assert {p.classes for p in products} == {("0", "1", "2", "3", "4")}
    objects = [json.loads(line) for line in (tmp_path / "out-b.jsonl").read_text().splitlines()]
    assert all(type(o["label"]) is int and o["clean_label"] == i % 5 for i, o in enumerate(objects))
    assert b"\r\n" in (tmp_path / "out-a.csv").read_bytes()


def test_many_chunks(tmp_path):
    rows = [
        f'"{i}","line\n{i % 3}",{i % 11}' if i % 5 == 0 else f"{i},x,{i % 11}" for i in range(30_000)
    ]
    (tmp_path / "t.csv").write_text("id,text,y\n" + "\n".join(rows))

    record, product = made(tmp_path / "t.csv", tmp_path / "o.csv", ratio="0.29", label_column="y")

    assert sum(row["y"] != row["clean_label"] for row in product) == 8700 == record.noise["flipped"]
    assert [row["clean_label"] for row in product] == [str(i % 11) for i in range(30_000)]


def test_stdin_to_stdout_gives_the_same_table(table, tmp_path, monkeypatch, capfdbinary):
    made(table, tmp_path / "noisy.csv", ratio="0.2")
    with table.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        corrupt("-", None, CorruptOptions(ratio="0.2"))

    import sys

    sys.stdout.flush()
    assert capfdbinary.readouterr().out == (tmp_path / "noisy.csv").read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_set_gives_a_table_of_its_labels(tmp_path, suffix):
    out = tmp_path / f"noisy{suffix}"

    record = corrupt("builtin:shapes:test", str(out), CorruptOptions(ratio="0.1"))

    labels = read_labels(str(out))
    assert labels.record == record
    assert (
        (labels.labels != labels.clean_labels).sum() == record.noise["flipped"] == len(labels.ids) / 10
    )
    assert set(labels.classes) > {"star"}
    assert record.data["task"] == "shapes"


def test_statistics(table, tmp_path):
    made(table, tmp_path / "o.csv", ratio="0.2", kind="pairflip", stats=str(tmp_path / "s.json"))

    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["flipped"] == 200
    assert stats["classes"]["class 3"]["of"] == 100
    assert stats["transitions"]["class 9"].keys() == {"class 9", "class 0"}
    assert sum(row["flipped"] for row in stats["classes"].values()) == 200


def test_reuse(table, tmp_path, caplog):
    caplog.set_level("INFO", logger="nmlcli")
    out = tmp_path / "noisy.csv"
    record, _ = made(table, out, ratio="0.2", reuse=True)
    written = out.stat().st_ino

    assert made(table, out, ratio="0.20", reuse=True)[0] == record
    assert out.stat().st_ino == written
    assert "up to date" in caplog.text
    assert made(table, out, ratio="0.21", reuse=True)[0] != record
    assert out.stat().st_ino != written
    table.write_text("id,label\n1,a\n2,b\n")
    assert made(table, out, ratio="0.21", reuse=True)[0].rows == 2


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("id,label\n1,a\n2,b\n", {"ratio": "1.5"}, "outside 0 to 1"),
        ("id,label\n1,a\n2,b\n", {"ratio": "20%"}, "no decimal number"),
        ("id,label\n1,a\n2,a\n", {"ratio": "0.5"}, "one class, a"),
        ("id,label\n", {"ratio": "0.5"}, "no rows"),
        ("id,label\n1,a\n2,\n", {"ratio": "0.5"}, "row 2 has no label"),
        ("id,label,clean_label\n1,a,b\n2,a,a\n", {"ratio": "0.5"}, "carries noise already"),
        ("id,label\n1,a\n2,b\n1,b\n", {"ratio": "0.5"}, "ids repeat: 1"),
        ("id,label\n1,a\n2,b\n", {"ratio": "0.5", "label_column": "y"}, "no column y, but id, label"),
        ("id,label\n1,a\n2,b\n", {"ratio": "0.5", "id_column": "y"}, "no column y"),
        ("1,a\n2,b\n", {"ratio": "0.5"}, "no column label, but 1, a"),
        ("", {"ratio": "0.5"}, "is empty"),
    ],
)
def test_what_is_refused(tmp_path, text, options, message):
    (tmp_path / "t.csv").write_text(text)

    with pytest.raises(NmlError, match=message):
        corrupt(str(tmp_path / "t.csv"), str(tmp_path / "o.csv"), CorruptOptions(**options))
    assert not (tmp_path / "o.csv").exists()


def test_labels_of_two_types_are_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"label": 1}\n{"label": "1"}\n{"label": 2}\n')

    with pytest.raises(InvalidInput, match="partly text, partly numbers"):
        corrupt(str(tmp_path / "t.jsonl"), None, CorruptOptions(ratio="0.5"))


@pytest.mark.parametrize(("source", "out"), [("table", "o.jsonl"), ("builtin:shapes:test", "o.txt")])
def test_the_suffix_of_the_output_must_fit(table, tmp_path, source, out):
    with pytest.raises(UsageError, match=r"end the name in \.csv"):
        corrupt(
            str(table) if source == "table" else source, str(tmp_path / out), CorruptOptions(ratio=".1")
        )


def test_ratios_that_leave_labels_without_meaning_are_warned_of(table, tmp_path, caplog):
    made(table, tmp_path / "o.csv", ratio="0.9")
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    made(table, tmp_path / "o.csv", ratio="0.91")
    assert "no longer the likeliest" in caplog.text


def test_no_noise_of_captions_changes_no_byte_but_adds_the_column(table, tmp_path):
    made(table, tmp_path / "noisy.csv", ratio="0", kind="swap", text_column="label")

    wanted = [f"{line},{line.split(',')[1]}" for line in lines()]
    assert (tmp_path / "noisy.csv").read_text() == "\n".join(["id,label,clean_text", *wanted]) + "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--ratio is missing: --kind symmetric needs it"),
        ({"ratio": ".1", "kind": "asymmetric"}, "--map is missing"),
        ({"ratio": ".1", "kind": "matrix"}, "--matrix is missing"),
        ({"ratio": ".1", "kind": "instance"}, "--features is missing"),
        (
            {"ratio": ".1", "map": "cifar10"},
            "--map has no effect with --kind symmetric: it is for asymm",
        ),
        (
            {"ratio": ".1", "matrix": "t.csv"},
            "--matrix has no effect with --kind symmetric: it is for ma",
        ),
        ({"ratio": ".1", "features": "t.h5"}, "--features has no effect with --kind symmetric"),
        ({"ratio": ".1", "text_column": "t"}, "--text-column has no effect with --kind symmetric"),
        ({"ratio": ".1", "group_column": "t"}, "--group-column has no effect with --kind symmetric"),
        (
            {"ratio": ".1", "kind": "swap", "label_column": "t"},
            "--label-column has no effect with --kind",
        ),
        (
            {"ratio": ".1", "kind": "swap", "stratify": True},
            "--stratify has no effect with --kind swap",
        ),
        ({"ratio": ".1", "kind": "swap", "draw": "bernoulli"}, "--draw has no effect with --kind swap"),
        (
            {"ratio": ".1", "kind": "swap", "classes": ("a",)},
            "--classes has no effect with --kind swap",
        ),
        (
            {"ratio": ".1", "kind": "matrix", "matrix": "m", "stratify": True},
            "--stratify has no effect",
        ),
        ({"ratio": ".1", "stratify": True, "draw": "bernoulli"}, "--stratify makes counts exact"),
        ({"kind": "matrix", "matrix": "m", "ratio_of": "all"}, "--ratio-of says what --ratio is of"),
        ({"ratio": ".1", "from_column": "y"}, "takes noise as it is: leave --kind, --ratio, --seed"),
        (
            {"kind": "pairflip", "from_column": "y"},
            "takes noise as it is: leave --kind, --ratio, --seed",
        ),
        ({"from_column": "y", "stratify": True}, "--stratify has no effect with --from-column"),
        ({"from_column": "y"}, "has no column y, but id, label: name the right one with --from-column"),
        ({"ratio": ".1", "kind": "swap"}, "has no column text.*--text-column"),
        (
            {"ratio": ".1", "kind": "swap", "text_column": "label", "group_column": "g"},
            "--group-column",
        ),
    ],
)
def test_options_that_do_not_go_together(table, tmp_path, options, message):
    with pytest.raises(NmlError, match=message):
        corrupt(str(table), str(tmp_path / "o.csv"), CorruptOptions(**options))
    assert not (tmp_path / "o.csv").exists()


def test_noise_drawn_anew_is_that_of_the_clean_table(table, inputs, tmp_path):
    for kind in KINDS:
        asked = {"kind": kind, **inputs(kind)}
        made(table, tmp_path / "one.csv", ratio="0.2", **asked)
        made(tmp_path / "one.csv", tmp_path / "two.csv", ratio="0.4", seed=1, replace=True, **asked)
        made(table, tmp_path / "wanted.csv", ratio="0.4", seed=1, **asked)
        assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "wanted.csv").read_bytes(), kind
        with pytest.raises(InvalidInput, match=r"carries noise already.*--replace"):
            made(tmp_path / "one.csv", tmp_path / "two.csv", ratio="0.4", **asked)


def test_people_s_labels_are_packaged_like_any_others(tmp_path):
    source = tmp_path / "people.tsv"
    source.write_text("id\ttrue\tworse\n" + "".join(
        f"{i}\t{'abc'[i % 3]}\t{'abc'[(i + (i % 4 == 0)) % 3]}\n" for i in range(120)
    ))  # fmt: skip
    out = tmp_path / "worse.csv"

    record, rows = made(source, out, label_column="true", from_column="worse")

    assert list(rows[0]) == ["id", "label", "clean_label"]
    assert record.noise["kind"] == "human:worse"
    assert (record.noise["requested"], record.noise["seed"]) == (None, None)
    assert (record.noise["flipped"], record.noise["of"], record.noise["realised"]) == (30, 120, 0.25)
    labels = read_labels(str(out))
    assert labels.record == record
    assert int((labels.labels != labels.clean_labels).sum()) == 30
    assert record.classes == ("a", "b", "c")
    source.write_text("id\ttrue\tworse\n1\ta\tb\n2\tb\td\n")
    with pytest.raises(InvalidInput, match="worse has labels that true lacks: d"):
        made(source, out, label_column="true", from_column="worse")


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "swap"])
def test_statistics_recounted(table, inputs, tmp_path, kind):
    stats = tmp_path / "s.json"
    asked = {"ratio": "0.25", "kind": kind, "stats": str(stats), **inputs(kind)}
    _, rows = made(table, tmp_path / "o.csv", **asked)

    found = json.loads(stats.read_text())
    assert found["requested"] == 0.25
    assert found["wanted"] == found["flipped"] == 250
    if kind == "swap":
        assert "transitions" not in found
        return
    for name, row in found["transitions"].items():
        for other, count in row.items():
            held = sum(r["clean_label"] == name and r["label"] == other for r in rows)
            assert count == held
    assert sum(map(sum, (row.values() for row in found["transitions"].values()))) == 1000
    received = {
        name: sum(r["label"] == name != r["clean_label"] for r in rows) for name in found["classes"]
    }
    assert {name: row["received"] for name, row in found["classes"].items()} == received


def test_what_was_done_is_told(table, tmp_path):
    told = []
    corrupt(str(table), str(tmp_path / "o.csv"), CorruptOptions(ratio="0.2"), tell=told.append)
    assert told[0]["flipped"] == 200
    assert len(told[0]["classes"]) == 10


def test_a_map_or_matrix_that_changed_makes_the_product_anew(table, inputs, tmp_path):
    for kind, name in (("asymmetric", "map.csv"), ("matrix", "matrix.csv")):
        asked = {"ratio": "0.2", "kind": kind, "reuse": True, **inputs(kind)}
        one = made(table, tmp_path / "o.csv", **asked)[0]
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "\n")
        assert made(table, tmp_path / "o.csv", **asked)[0].identity != one.identity
        (tmp_path / name).write_text(text)


def test_both_rates_are_told_where_only_some_classes_change(table, tmp_path):
    asked = {"classes": ("class 1", "class 2"), "ratio": "0.1", "ratio_of": "all"}
    noise = made(table, tmp_path / "o.csv", **asked)[0].noise

    assert (noise["flipped"], noise["selected"], noise["realised_selected"]) == (100, 200, 0.5)
    assert (noise["realised"], noise["ratio_of"]) == (0.1, "all")


def test_the_first_samples_of_a_domain(tmp_path):
    _, rows = made("builtin:shapes:test", tmp_path / "a.csv", ratio="0.5", limit=40, domain="sketch")
    _, whole = made("builtin:shapes:test:sketch", tmp_path / "b.csv", ratio="0.5")
    assert [(row["id"], row["clean_label"]) for row in rows] == [
        (row["id"], row["clean_label"]) for row in whole[:40]
    ]
    assert sum(row["label"] != row["clean_label"] for row in rows) == 20


def test_a_table_is_kept_whole(table, tmp_path):
    with pytest.raises(UsageError, match="is a table, which is kept whole"):
        made(table, tmp_path / "noisy.csv", ratio="0.1", limit=5)


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        ({"stats": "train.csv"}, "o.csv", "--stats train.csv would overwrite an input"),
        ({"kind": "asymmetric", "map": "map.csv"}, "map.csv", "-o map.csv would overwrite an input"),
        (
            {"kind": "matrix", "matrix": "matrix.csv", "stats": "matrix.csv"},
            "o.csv",
            "overwrite an input",
        ),
        ({"kind": "instance", "features": "features.h5"}, "features.h5", "overwrite|keeps the form"),
        ({"stats": "o.csv.nml.json"}, "o.csv", "are one file"),
        ({"stats": "o.csv"}, "o.csv", "are one file"),
        ({"stats": "."}, "o.csv", "is a folder"),
        ({"stats": "none/s.json"}, "o.csv", "folder none does not exist"),
        ({"stats": "-"}, None, "would mix with the table"),
        ({}, "none/", "is a folder"),
        ({"kind": "instance", "features": "map.csv"}, "o.csv", "map.csv is no file of features"),
    ],
)
def test_no_input_is_lost_and_no_half_is_left(
    inputs, table, tmp_path, monkeypatch, options, out, message
):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(NmlError, match=message):
        corrupt("train.csv", out, CorruptOptions(ratio="0.2", **options))

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_people_s_labels_do_not_take_the_place_of_their_table(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text("id,label,worse,other\n1,a,b,x\n2,b,b,y\n")
    with pytest.raises(UsageError, match="would overwrite an input"):
        corrupt(str(source), str(source), CorruptOptions(from_column="worse"))


def test_a_table_may_be_edited_in_place(table, tmp_path):
    made(table, tmp_path / "o.csv", ratio="0.2")
    made(table, table, ratio="0.2")
    assert table.read_bytes() == (tmp_path / "o.csv").read_bytes()


def test_labels_known_clean_may_be_corrupted_without_asking(table, tmp_path):
    made(table, tmp_path / "clean.csv", ratio="0")
    made(tmp_path / "clean.csv", tmp_path / "two.csv", ratio="0.2")
    made(table, tmp_path / "one.csv", ratio="0.2")
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_statistics_of_another_product_are_made_anew(table, tmp_path):
    stats = tmp_path / "s.json"
    for ratio in ("0.1", "0.2"):
        made(table, tmp_path / f"{ratio}.csv", ratio=ratio, stats=str(stats), reuse=True)
    made(table, tmp_path / "0.1.csv", ratio="0.1", stats=str(stats), reuse=True)
    assert json.loads(stats.read_text())["flipped"] == 100
    written = (tmp_path / "0.1.csv").stat().st_ino
    made(table, tmp_path / "0.1.csv", ratio="0.1", stats=str(stats), reuse=True)
    assert (tmp_path / "0.1.csv").stat().st_ino == written


def test_a_map_on_a_pipe_is_refused(table, tmp_path):
    import os

    os.mkfifo(tmp_path / "map")
    with pytest.raises(UsageError, match="is read more than once, which a pipe cannot be"):
        made(table, tmp_path / "o.csv", ratio="0.1", kind="asymmetric", map=str(tmp_path / "map"))


def test_noise_of_captions_says_nothing_of_the_labels_beside_them(tmp_path):
    rows = "".join(f"{i},{'abc'[i % 3]},text {i}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("id,label,text\n" + rows)
    made(tmp_path / "t.csv", tmp_path / "captions.csv", ratio="0.2", kind="swap")
    made(tmp_path / "t.csv", tmp_path / "labels.csv", ratio="0.3")
    made(tmp_path / "labels.csv", tmp_path / "both.csv", ratio="0.1", kind="swap")

    assert read_labels(str(tmp_path / "captions.csv")).noise is None
    noise = read_labels(str(tmp_path / "both.csv")).noise
    assert (noise["flipped"], noise["kind"]) == (18, None)


def test_a_matrix_of_many_classes_is_read_at_once(tmp_path):
    names = [f"class {i:03d}" for i in range(300)]
    cells = "\n".join(
        ",".join(
            [name, *("0.9" if a == b else "0.1" if b == (a + 1) % 300 else "0" for b in range(300))]
        )
        for a, name in enumerate(names)
    )
    (tmp_path / "matrix.csv").write_text(f"true,{','.join(names)}\n{cells}\n")
    (tmp_path / "t.csv").write_text("label\n" + "".join(f"{names[i % 300]}\n" for i in range(3000)))
    matrix = str(tmp_path / "matrix.csv")
    assert (
        made(tmp_path / "t.csv", tmp_path / "o.csv", kind="matrix", matrix=matrix)[0].noise["flipped"]
        == 300
    )


def test_strata_are_recorded(table, tmp_path):
    assert made(table, tmp_path / "o.csv", ratio="0.2", stratify=True)[0].noise["stratified"] is True
    assert "stratified" not in made(table, tmp_path / "o.csv", ratio="0.2")[0].noise
