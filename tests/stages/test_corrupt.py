"""nml corrupt, on tables and sets, in process."""

import csv
import hashlib
import io
import json
import random

import pytest

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.noise.kinds import DRAWS, NOISES
from nmlcli.products.labels import read_labels
from nmlcli.products.tables import read_sidecar
from nmlcli.stages.corrupt import CorruptOptions, corrupt

FROZEN = {
    "pairflip": "da15c9247e035fb0",
    "symmetric": "553f124053f2b0b5",
    "uniform": "fd68b86625e2b559",
}


def lines(rows=1000, num_classes=10):
    return [f"train/{i:04d},class {i * 7 % num_classes}" for i in range(rows)]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["id,label", *lines()]) + "\n")
    return path


def made(source, out, **options):
    record = corrupt(str(source), str(out), CorruptOptions(**options))
    return record, list(csv.DictReader(io.StringIO(out.read_text())))


@pytest.mark.parametrize("draw", sorted(DRAWS))
@pytest.mark.parametrize("kind", sorted(NOISES))
def test_the_record_says_what_the_table_holds(table, tmp_path, kind, draw):
    record, rows = made(table, tmp_path / "noisy.csv", ratio="0.3", kind=kind, draw=draw, seed=3)

    old = list(csv.DictReader(io.StringIO(table.read_text())))
    flipped = sum(row["label"] != row["clean_label"] for row in rows)
    assert [row["clean_label"] for row in rows] == [row["label"] for row in old]
    assert [row["id"] for row in rows] == [row["id"] for row in old]
    assert record.noise == {
        "kind": kind, "requested": 0.3, "realised": flipped / 1000, "flipped": flipped, "of": 1000,
        "seed": 3, "draw": draw,
    }  # fmt: skip
    assert flipped == 300 or draw == "bernoulli" or kind == "uniform"
    assert record.classes == tuple(f"class {i}" for i in range(10))
    assert read_sidecar(tmp_path / "noisy.csv") == record
    assert read_labels(str(tmp_path / "noisy.csv")).noise == record.noise


@pytest.mark.parametrize("kind", sorted(NOISES))
def test_known_answer(table, tmp_path, kind):
    made(table, tmp_path / "noisy.csv", ratio="0.3", kind=kind)

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
        ("id,label,clean_label\n1,a,b\n2,b,b\n", {"ratio": "0.5"}, "carries noise already"),
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


@pytest.mark.parametrize(("source", "out"), [("table", "o.jsonl"), ("builtin:shapes:test", "o.h5")])
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
