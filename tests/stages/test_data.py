import io
import json
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nmlcli.cli.main import run
from nmlcli.data.generated.menu import GENERATORS
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.stages.corrupt import CorruptOptions, corrupt
from nmlcli.stages.data import draw_parts, make, parse_parts, split

SMALL = "builtin:glyphs:val"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Forty glyphs as class folders."""
    make(SMALL, str(tmp_path / "glyphs"), SourceOptions(limit=40))
    return str(tmp_path / "glyphs")


def test_list_gives_a_line_a_generated_set(capsys) -> None:
    assert run(["data", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["data"] for row in rows] == [f"builtin:{name}" for name in GENERATORS]
    assert rows[0]["splits"]["train"] == GENERATORS["shapes"].splits["train"]
    assert run(["data", "list", "--table"]) == 0
    assert "builtin:textures" in capsys.readouterr().out


def test_show_draws_a_picture_to_a_file_or_stdout(tmp_path: Path, monkeypatch, capsys) -> None:
    out = str(tmp_path / "sheet.png")
    assert (
        run(["data", "show", SMALL, "--limit", "40", "--columns", "2", "--size", "32", "-o", out]) == 0
    )
    assert Image.open(out).height == 18 * 36
    assert run(["data", "show", SMALL, "-o", str(tmp_path / "sheet.jpg")]) == 2
    assert capsys.readouterr().err == (
        f"nml data show: {tmp_path}/sheet.jpg is no name of a picture: end it with .png\n"
    )
    piped = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", piped)
    assert run(["data", "show", SMALL, "--limit", "40", "--columns", "2", "--size", "32"]) == 0
    assert piped.buffer.getvalue() == Path(out).read_bytes()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert run(["data", "show", SMALL]) == 2
    assert "give -o FILE or pipe it" in capsys.readouterr().err


def test_make_writes_the_same_set_as_a_folder(folder: str) -> None:
    made, source = open_samples(folder), open_samples(SMALL, SourceOptions(limit=40))
    rows = [source.ids.index(name) for name in made.ids]
    assert sorted(rows) == list(range(40))
    assert [made.classes[n] for n in made.labels] == [source.classes[n] for n in source.labels[rows]]
    for row in (0, 39):
        assert (np.asarray(made.read(row)) == np.asarray(source.read(rows[row]))).all()


def test_make_touches_no_folder_that_holds_something(tmp_path: Path, capsys) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        assert run(["data", "make", SMALL, "-o", str(tmp_path / name)]) == 1
        assert "is there already: remove it, or give another name" in capsys.readouterr().err
    assert run(["data", "make", SMALL, "-o", str(tmp_path / "no" / "where")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    (tmp_path / "empty").mkdir()
    assert run(["data", "make", SMALL, "--limit", "3", "-o", str(tmp_path / "empty")]) == 0
    assert len(open_samples(str(tmp_path / "empty"))) == 3


def test_make_leaves_nothing_behind_when_it_fails(tmp_path: Path, folder: str, monkeypatch) -> None:
    broken = next(Path(folder).rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidInput, match="cannot be read"):
        make(folder, str(tmp_path / "out"), SourceOptions())

    def interrupted(done: int, total: int | None, **values: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(SMALL, str(tmp_path / "out"), SourceOptions(), interrupted)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/../../b", "a//b"])
def test_make_writes_nowhere_else(tmp_path: Path, folder: str, name: str) -> None:
    image = next(Path(folder).rglob("*.png"))
    (tmp_path / "t.csv").write_text(f"image,id\n{image},{name}\n")
    with pytest.raises(InvalidInput, match="cannot be the name of a file"):
        make(str(tmp_path / "t.csv"), str(tmp_path / "out"), SourceOptions())


def test_split_parts_are_sets_that_make_up_the_whole(tmp_path: Path, folder: str) -> None:
    whole = open_samples(folder)
    assert run(["data", "split", folder, "--parts", "train=.8,val=.2", "-o", str(tmp_path / "s")]) == 0
    parts = [open_samples(str(tmp_path / "s" / f"{name}.csv")) for name in ("train", "val")]
    assert [str(part.name) for part in parts] == ["s:train", "s:val"]
    assert [len(part) for part in parts] == [32, 8]
    assert sorted([*parts[0].ids, *parts[1].ids]) == sorted(whole.ids)
    for part in parts:
        assert part.classes == whole.classes
        rows = [whole.ids.index(name) for name in part.ids]
        assert rows == sorted(rows)
        assert part.labels.tolist() == whole.labels[rows].tolist()
        assert (np.asarray(part.read(0)) == np.asarray(whole.read(rows[0]))).all()
    first = (tmp_path / "s" / "val.csv").read_bytes()
    assert first.splitlines()[1].startswith(b"../glyphs/sign")  # products hold no absolute path
    split(folder, parse_parts("train=.8,val=.2"), str(tmp_path / "s"), SourceOptions())
    assert (tmp_path / "s" / "val.csv").read_bytes() == first
    split(folder, parse_parts("train=.8,val=.2"), str(tmp_path / "s"), SourceOptions(), seed=1)
    assert (tmp_path / "s" / "val.csv").read_bytes() != first


@pytest.mark.parametrize("text", ["a=.8,b=.2", "a=1/3,b=1/3,c=1/3", "val=.1", "a=0.29,b=0.57"])
def test_every_class_is_split_alike(text: str) -> None:
    samples, parts = open_samples("builtin:glyphs:train"), parse_parts(text)
    drawn = draw_parts(samples, parts, seed=0)
    rows = np.concatenate(list(drawn.values()))
    assert len(np.unique(rows)) == len(rows)
    for name, share in parts.items():
        assert abs(len(drawn[name]) - share * len(samples)) <= len(parts)
        for label in range(len(samples.classes)):
            count = int((samples.labels == label).sum())
            assert abs(int((samples.labels[drawn[name]] == label).sum()) - share * count) <= len(parts)
    assert len(rows) == len(samples) or sum(parts.values()) < 1


def test_a_split_of_a_tar_points_into_it(tmp_path: Path, shared_data: Path) -> None:
    source = str(shared_data / "pacs" / "photo-test.tar")
    split(source, parse_parts("a=1/2,b=1/2"), str(tmp_path / "s"), SourceOptions())
    part, whole = open_samples(str(tmp_path / "s" / "a.csv")), open_samples(source)
    assert len(part) == len(whole) // 2
    row = whole.ids.index(part.ids[5])
    assert (np.asarray(part.read(5)) == np.asarray(whole.read(row))).all()


def test_a_split_keeps_the_noise(tmp_path: Path, folder: str) -> None:
    whole = open_samples(folder)
    names = [whole.classes[label] for label in whole.labels]
    rows = "".join(f"{i},{names[0]},{name}\n" for i, name in zip(whole.ids, names, strict=True))
    (tmp_path / "l.csv").write_text("id,label,clean_label\n" + rows)
    options = SourceOptions(labels=str(tmp_path / "l.csv"))
    split(folder, parse_parts("a=1/2"), str(tmp_path / "s"), options)
    part = open_samples(str(tmp_path / "s" / "a.csv"))
    assert part.noise["flipped"] == sum(part.labels != part.clean_labels) > 0
    assert part.noise["of"] == 20


def test_a_split_keeps_captions_and_their_noise(tmp_path: Path) -> None:
    rows = [f"{i}.png,text {i}\n" for i in range(40)]
    for i in range(40):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("image,text\n" + "".join(rows))
    noisy = str(tmp_path / "noisy.csv")
    made = corrupt(str(tmp_path / "t.csv"), noisy, CorruptOptions(ratio="0.5", kind="swap", seed=4))
    options = SourceOptions(captions=noisy)
    record = split(str(tmp_path / "t.csv"), parse_parts("a=1/2"), str(tmp_path / "s"), options)[0]
    whole, part = open_samples(noisy), open_samples(str(tmp_path / "s" / "a.csv"))
    rows = [whole.ids.index(name) for name in part.ids]
    assert part.texts == [whole.texts[row] for row in rows]
    assert part.clean_texts == [f"text {row}" for row in rows]
    assert (part.text_noise["kind"], part.text_noise["seed"], part.text_noise["of"]) == ("swap", 4, 20)
    assert part.text_noise == record.noise
    assert made.identity in [parent["identity"] for parent in record.parents]


def test_a_split_keeps_captions_beside_labels(tmp_path: Path, folder: str) -> None:
    names = open_samples(folder).ids
    (tmp_path / "c.csv").write_text("id,text\n" + "".join(f'{n},"of ""{n}""\n"\n' for n in names))
    options = SourceOptions(captions=str(tmp_path / "c.csv"))
    record = split(folder, parse_parts("a=1/2"), str(tmp_path / "s"), options)[0]
    part = open_samples(str(tmp_path / "s" / "a.csv"))
    assert "text_column" not in record.options  # it speaks of the labels
    assert part.parents == (record,)
    assert part.texts == [f'of "{name}"\n' for name in part.ids]
    assert (part.clean_texts, part.text_noise) == (None, None)
    assert part.labels is not None


def test_a_generated_set_must_be_written_before_it_is_split(tmp_path: Path, capsys) -> None:
    assert run(["data", "split", SMALL, "--parts", "a=.5", "-o", str(tmp_path / "s")]) == 2
    assert "nml data make" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "a", "a=", "a=0", "a=1.5", "a=.5,a=.5", "a=.6,b=.6", "a=x", "../a=.5", "a=1/0", "a=.5,"],
)
def test_parts_that_are_none_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="parts"):
        parse_parts(text)


def test_parts_are_read_exactly() -> None:
    assert parse_parts("train=.8, val=0.1,x-1=1/10") == {
        "train": Fraction(4, 5),
        "val": Fraction(1, 10),
        "x-1": Fraction(1, 10),
    }
