from pathlib import Path

import numpy as np
import pytest

from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.tables import write_sidecar
from nmlcli.provenance import Record

NOISY = "id,label,clean_label\nant/9,ant,ant\ncat/b,dog,cat\ncat/a,cat,cat\ndog/x/1,ant,dog\n"


def test_labels_are_joined_by_id_and_matched_by_name(tar: str, write) -> None:
    samples = open_samples(tar, SourceOptions(labels=write("l.csv", NOISY)))
    assert samples.classes == ("ant", "cat", "dog")
    assert list(samples.ids) == ["cat/b", "cat/a", "dog/x/1", "ant/9"]
    assert samples.labels.tolist() == [2, 1, 0, 0]
    assert samples.clean_labels.tolist() == [1, 1, 2, 0]
    assert (samples.noise["flipped"], samples.noise["of"], samples.noise["kind"]) == (2, 4, None)
    assert samples.identity != open_samples(tar).identity


def test_a_table_without_clean_labels_is_counted_against_the_sets_own(tar: str, write) -> None:
    text = "".join(",".join(line.split(",")[:2]) + "\n" for line in NOISY.splitlines())
    samples = open_samples(tar, SourceOptions(labels=write("l.csv", text)))
    assert samples.clean_labels.tolist() == [1, 1, 2, 0]
    assert samples.noise["realised"] == 0.5


def test_an_unlabelled_set_takes_the_classes_of_the_table(tmp_path: Path, make, members, write) -> None:
    flat = make.tar(tmp_path / "f.tar", {"a.png": members["cat/a.png"], "b.png": members["cat/b.png"]})
    table = write("l.csv", "id,label\nb,2\na,10\n")
    samples = open_samples(flat, SourceOptions(labels=table))
    assert (samples.classes, samples.labels.tolist()) == (("2", "10"), [1, 0])
    assert (samples.clean_labels, samples.noise) == (None, None)
    few = open_samples(flat, SourceOptions(labels=table, classes=("2",), limit=1))
    assert (list(few.ids), few.classes) == (["b"], ("2",))
    both = open_samples(flat, SourceOptions(labels=table, classes=("2", "10"), limit=1))
    assert (list(both.ids), both.classes) == (["a"], ("2", "10"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (NOISY.replace("ant/9,ant,ant\n", ""), "no label for samples of .*ant/9"),
        (NOISY + "cow/1,cat,cat\n", "labels samples that .* lacks: cow/1"),
        (NOISY.replace("dog,cat", "cow,cat"), "classes that are not among the 3: cow"),
    ],
)
def test_a_miss_is_named(tar: str, write, text: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        open_samples(tar, SourceOptions(labels=write("l.csv", text)))


def test_the_record_says_what_the_noise_is_and_the_selection_how_much(tar: str, write) -> None:
    name = write("l.csv", NOISY)
    noise = {"kind": "symmetric", "requested": 0.5, "realised": 0.5, "flipped": 2, "of": 4, "seed": 7,
             "draw": "exact"}  # fmt: skip
    write_sidecar(
        name, Record("labels", "i" * 32, "corrupt", classes=("ant", "cat", "dog"), noise=noise)
    )
    samples = open_samples(tar, SourceOptions(labels=name))
    assert samples.noise == noise
    assert samples.parents[0].identity == "i" * 32
    assert Path(name) in map(Path, samples.files)
    few = open_samples(tar, SourceOptions(labels=name, limit=2))
    assert few.noise == {**noise, "realised": 0.5, "flipped": 1, "of": 2}


def test_labels_of_the_selection_and_of_the_whole_fit_a_selection(write) -> None:
    options = SourceOptions(limit=50)
    few = open_samples("builtin:glyphs:val", options)
    assert len(few) == few.noise["of"] == 50
    whole = open_samples("builtin:glyphs:val")

    def table(samples) -> str:
        rows = [f"{i},{samples.classes[n]}\n" for i, n in zip(samples.ids, samples.labels, strict=True)]
        return write(f"l{len(samples)}.csv", "id,label\n" + "".join(reversed(rows)))

    for labels in (table(few), table(whole)):
        found = open_samples("builtin:glyphs:val", SourceOptions(limit=50, labels=labels))
        assert (found.labels == few.labels).all()
        assert found.noise["realised"] == 0.0
    with pytest.raises(InvalidInput, match="no label for samples"):
        open_samples("builtin:glyphs:val", SourceOptions(limit=51, labels=table(few)))
    with pytest.raises(InvalidInput, match=r"labels samples that .* lacks"):
        other = table(open_samples("builtin:glyphs:test", options))
        open_samples("builtin:glyphs:val", SourceOptions(limit=50, labels=other))


def test_a_limit_takes_the_first(tar: str, make) -> None:
    samples = open_samples(tar, SourceOptions(limit=2))
    assert list(samples.ids) == ["cat/b", "cat/a"]
    assert samples.classes == ("ant", "cat", "dog")
    assert (np.asarray(samples.read(1)) == make.pixels(1)).all()
    assert open_samples(tar, SourceOptions(limit=4)).identity == open_samples(tar).identity
    assert samples.identity != open_samples(tar).identity


def test_classes_are_numbered_anew_in_their_order(tar: str, make) -> None:
    samples = open_samples(tar, SourceOptions(classes=("dog", "cat")))
    assert (samples.classes, samples.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert (np.asarray(samples.read(2)) == make.pixels(2)).all()
    limited = open_samples(tar, SourceOptions(classes=("dog",), limit=1))
    assert list(limited.ids) == ["dog/x/1"]
    with pytest.raises(UsageError, match="no class cow: choose ant, cat, dog"):
        open_samples(tar, SourceOptions(classes=("dog", "cow")))


def test_a_domain_is_a_column(folder: str, write) -> None:
    name = write(
        "t.csv", "image,domain\n" + "".join(f"pets/train/cat/{i}.png,{d}\n" for i, d in ("ax", "by"))
    )
    assert list(open_samples(name, SourceOptions(domain="y")).ids) == ["1"]
    with pytest.raises(UsageError, match="no domain z: choose x, y"):
        open_samples(name, SourceOptions(domain="z"))
    with pytest.raises(UsageError, match="has no domains"):
        open_samples(folder, SourceOptions(domain="z"))


def test_column_names_of_the_labels_may_be_foreign_to_the_set(folder: str, write) -> None:
    name = write("t.csv", "image,label,id\npets/train/cat/a.png,tom,1\npets/train/cat/b.png,rex,2\n")
    labels = write("l.csv", "key,worse\n2,tom\n1,tom\n")
    options = SourceOptions(labels=labels, label_column="worse", id_column="key")
    assert open_samples(name, options).labels.tolist() == [1, 1]


@pytest.mark.data
def test_human_labels_over_real_images(shared_data: Path) -> None:
    cifar = shared_data / "cifar10"
    options = SourceOptions(labels=str(cifar / "cifar-10n.tsv"), label_column="worse")
    samples = open_samples(str(cifar / "train.tar"), options)
    assert round(100 * samples.noise["realised"], 2) == 41.78
