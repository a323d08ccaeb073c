"""nml info --noise: what noise labels carry, beside scikit-learn's count and the published rates."""

import csv
import gzip
import json
import shutil

import pytest
from sklearn.metrics import confusion_matrix

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, NmlError
from nmlcli.stages.audit import AuditOptions, audit, in_table
from nmlcli.stages.corrupt import CorruptOptions, corrupt


@pytest.fixture
def noisy(tmp_path):
    rows = "".join(f"{i},class {i * 7 % 12}\n" for i in range(600))
    (tmp_path / "t.csv").write_text("id,label\n" + rows)
    corrupt(str(tmp_path / "t.csv"), str(tmp_path / "o.csv"), CorruptOptions(ratio="0.3"))
    return tmp_path / "o.csv"


def test_it_counts_what_scikit_learn_counts(noisy):
    found = audit(str(noisy), AuditOptions())

    rows = list(csv.DictReader(noisy.open()))
    names = sorted({row["clean_label"] for row in rows})
    wanted = confusion_matrix(
        [row["clean_label"] for row in rows], [row["label"] for row in rows], labels=names
    )
    assert (found["flipped"], found["of"], found["realised"]) == (180, 600, 0.3)
    for i, one in enumerate(names):
        for j, two in enumerate(names):
            assert found["transitions"][one].get(two, 0) == wanted[i, j]
        assert found["classes"][one]["of"] == wanted[i].sum()
        assert found["classes"][one]["received"] == wanted[:, i].sum() - wanted[i, i]


def test_all_forms_of_labels_are_audited_alike(noisy):
    wanted = audit(str(noisy), AuditOptions())
    for name in ("p.h5", "p.safetensors", "p.parquet"):
        options = CorruptOptions(label_column="clean_label", from_column="label")
        corrupt(str(noisy), str(noisy.parent / name), options)
        found = audit(str(noisy.parent / name), AuditOptions())
        assert {**found, "source": ""} == {**wanted, "source": ""}


def test_any_pair_of_columns_with_classes_of_its_own(tmp_path):
    (tmp_path / "t.tsv").write_text("who\ttrue\n" + "a\ta\nb\ta\nz\tb\n1\tb\n")
    found = audit(str(tmp_path / "t.tsv"), AuditOptions(label_column="who", clean_column="true"))
    assert list(found["classes"]) == ["1", "a", "b", "z"]
    assert found["flipped"] == 3
    assert found["classes"]["z"] == {"of": 0, "flipped": 0, "realised": 0.0, "received": 1}


def test_captions_are_judged_by_their_image(tmp_path):
    rows = ["1.jpg,b,a", "1.jpg,a,b", "2.jpg,a,c", "3.jpg,d,d"]
    (tmp_path / "t.csv").write_text("\n".join(["image,text,clean_text", *rows]))
    found = audit(str(tmp_path / "t.csv"), AuditOptions())
    assert (found["flipped"], found["of"]) == (1, 4)
    assert in_table(found)[1] == [["4", "1"]]


@pytest.mark.data
@pytest.mark.parametrize(
    ("column", "rate"),
    [
        ("aggre", 0.0901),
        ("random1", 0.1723),
        ("random2", 0.1812),
        ("random3", 0.1764),
        ("worse", 0.4021),
    ],
)
def test_people_s_labels_of_cifar_10(shared_data, tmp_path, column, rate):
    table = tmp_path / "cifar-10n.tsv"
    with (
        gzip.open(shared_data / "cifar10" / "cifar-10n-full.tsv.gz") as packed,
        table.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file)

    found = audit(str(table), AuditOptions(label_column=column, clean_column="clean"))
    options = CorruptOptions(label_column="clean", from_column=column)
    record = corrupt(str(table), str(tmp_path / "o.csv"), options)

    assert found["of"] == 50_000
    assert abs(found["realised"] - rate) < 0.0001
    assert record.noise["flipped"] == found["flipped"]
    if column == "worse":
        rates = [row["realised"] for row in found["classes"].values()]
        assert (round(min(rates), 3), round(max(rates), 3)) == (0.278, 0.513)


@pytest.mark.parametrize("classes", [12, 4])
def test_the_command_answers_people_and_programs(tmp_path, capsys, classes):
    rows = "".join(f"{i},class {i % classes}\n" for i in range(600))
    (tmp_path / "t.csv").write_text("id,label\n" + rows)
    source, out = str(tmp_path / "t.csv"), str(tmp_path / "o.csv")
    assert run(["corrupt", source, "--ratio", "0.3", "--stratify", "-o", out, "-q"]) == 0

    assert run(["info", out, "--noise"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flipped"] == 180
    assert run(["info", out, "--noise", "--table"]) == 0
    shown = capsys.readouterr().out
    assert "180 of 600 differ (30.00 %)" in shown
    assert max(map(len, shown.splitlines())) <= 80
    if classes == 4:
        assert shown.count("70.0") == 4  # of each class 105 of 150 stay
        for suffix in ("png", "svg", "pdf"):
            plot = tmp_path / f"p.{suffix}"
            assert run(["info", out, "--noise", "--plot", str(plot)]) == 0
            first = plot.read_bytes()
            assert run(["info", out, "--noise", "--plot", str(plot)]) == 0
            assert plot.read_bytes() == first
            assert len(first) > 5000
        capsys.readouterr()
    assert run(["info", out, source, "--noise"]) == 1
    assert "has no column clean_label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["o.csv", "--plot", "p.png"], "are for --noise: add --noise"),
        (["o.csv", "--noise", "--plot", "p.gif"], "no picture has that suffix"),
        (["o.csv", "o.csv", "--noise", "--plot", "p.png"], "--plot draws one file"),
        (["o.csv", "--noise", "--label-column", "y"], "has no column y"),
        (["o.csv", "--noise", "--clean-column", "y"], "has no column y.*--clean-column"),
        (["o.csv", "--noise", "--clean-column", "label"], "label is compared with itself"),
    ],
)
def test_what_is_refused(noisy, monkeypatch, capsys, arguments, message):
    import re

    monkeypatch.chdir(noisy.parent)
    assert run(["info", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_labels_that_are_known_clean_and_those_that_are_not(tmp_path):
    import safetensors.numpy

    (tmp_path / "t.csv").write_text("id,label\n1,a\n2,b\n")
    corrupt(str(tmp_path / "t.csv"), str(tmp_path / "clean.csv"), CorruptOptions(ratio="0"))
    assert audit(str(tmp_path / "clean.csv"), AuditOptions())["flipped"] == 0
    import numpy as np

    safetensors.numpy.save_file({"labels": np.arange(3)}, tmp_path / "t.safetensors")
    with pytest.raises(InvalidInput, match="no clean labels: its noise is not known"):
        audit(str(tmp_path / "t.safetensors"), AuditOptions())
    with pytest.raises(NmlError):
        audit(str(tmp_path / "none.csv"), AuditOptions())


def test_an_audit_needs_neither_ids_nor_two_classes(tmp_path):
    (tmp_path / "t.csv").write_text("id,label,clean_label\n1,x,x\n1,x,x\n")
    assert audit(str(tmp_path / "t.csv"), AuditOptions())["flipped"] == 0


def test_columns_of_captions_are_named_by_their_own_option(tmp_path):
    (tmp_path / "c.tsv").write_text("caption\tclean_text\na\tb\nb\ta\n")
    source = str(tmp_path / "c.tsv")
    with pytest.raises(InvalidInput, match=r"no column text.*--text-column"):
        audit(source, AuditOptions())
    for clean in (None, "clean_text"):
        found = audit(source, AuditOptions(text_column="caption", clean_column=clean))
        assert found["flipped"] == 2
    with pytest.raises(NmlError, match="--label-column has no effect here"):
        audit(source, AuditOptions(label_column="caption"))


def test_many_classes_take_no_matrix(tmp_path):
    rows = "".join(f"class {i},class {i ^ 1}\n" for i in range(30_000))
    (tmp_path / "t.csv").write_text("label,clean_label\n" + rows)
    found = audit(str(tmp_path / "t.csv"), AuditOptions())
    assert in_table(found)[1][0][3] == "100.0 %"
    with pytest.raises(NmlError, match="more than 2,000 classes to draw"):
        audit(str(tmp_path / "t.csv"), AuditOptions(plot=str(tmp_path / "p.png")))
