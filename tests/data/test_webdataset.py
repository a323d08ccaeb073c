import csv
import json
import os
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmlcli.data.samples import Samples
from nmlcli.data.sources import open_samples
from nmlcli.data.tars import read_members
from nmlcli.data.webdataset import read_companions
from nmlcli.errors import InvalidInput


def slowly(path: str) -> list[tuple[str, bytes, str | None, str | None]]:
    """(key, image, label, text) of each image: by tarfile and names, one sample after another."""
    rows = []
    with tarfile.open(path) as tar:
        names = [name.removeprefix("./") for name in tar.getnames()]
        inside = dict(zip(names, tar.getmembers(), strict=True))
        for name in names:
            if not name.endswith(".png"):
                continue
            key = re.match(r"(?:.*/)?[^./]+(?=\.)", name).group()
            own = [inside.get(f"{key}.{suffix}") for suffix in ("txt", "cls", "json")]
            txt, cls, fields = (one and tar.extractfile(one).read().decode() for one in own)
            fields = json.loads(fields or "{}")
            label = cls if cls is not None else fields.get("label", fields.get("cls"))
            text = txt if txt is not None else fields.get("caption", fields.get("text"))
            if text is not None and txt is not None and text.endswith("\n"):
                text = text[:-1]
            image = tar.extractfile(inside[name]).read()
            rows.append((key, image, None if label is None else str(label).strip(), text))
    return rows


def agrees(samples: Samples, make: SimpleNamespace, path: str) -> None:
    expected = slowly(path)
    keys, images, labels, texts = map(list, zip(*expected, strict=True))
    assert list(samples.ids) == keys
    assert samples.texts == (None if set(texts) == {None} else [text or "" for text in texts])
    if set(labels) == {None}:
        assert (samples.labels, samples.classes) == (None, None)
    else:
        assert [samples.classes[number] for number in samples.labels] == labels
        assert set(samples.classes) == set(labels)
    assert [Path(p).relative_to(path).as_posix().rpartition(".")[0] for p in samples.paths] == keys
    assert samples.sizes.tolist() == [len(image) for image in images]
    for row, image in enumerate(images):
        assert make.encode(samples.read(row)) == image  # made by the same encoder, without loss


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAME = st.sampled_from(["0", "7", "10", "cat", "größe", " dog\n"])
SAMPLE = st.fixed_dictionaries(
    {"folder": st.sampled_from(["", "a/", "a.b/", "./c/d/"]), "label": NAME},
    optional={"txt": TEXT, "caption": TEXT, "text": TEXT, "other": st.just(True)},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.lists(SAMPLE, min_size=1, max_size=6), st.sampled_from(["", "cls", "label", "mix"]), st.data()
)
def test_members_of_one_key_are_one_sample(tmp_path: Path, make, rows, labelled: str, data) -> None:
    members = {"./0.png": make.encode(make.pixels(99)), "./0.txt": b"first\n\n"}
    if labelled:
        members["0.cls"] = b" 3 \n"
    for row, sample in enumerate(rows, start=1):
        key = f"{sample['folder']}k{row}"
        members[f"{key}.png"] = make.encode(make.pixels(row))
        fields = {name: sample[name] for name in ("caption", "text") if name in sample}
        if labelled == "cls" or (labelled == "mix" and row % 2):
            members[f"{key}.cls"] = sample["label"].encode()
            fields["label"] = "not this one"
        elif labelled:
            fields["cls" if row % 3 else "label"] = sample["label"]
        if "txt" in sample:
            members[f"{key}.txt"] = sample["txt"].encode()
        if fields or "other" in sample:
            members[f"{key}.json"] = json.dumps({"width": 8, **fields}).encode()
        if "other" in sample:
            members[f"{key}.npy"] = members[f"{key}.meta.json"] = b"no text \xff"
    order = data.draw(st.permutations(list(members)))
    path = make.tar(
        tmp_path / "w.tar", {name: members[name] for name in order}, form=tarfile.PAX_FORMAT
    )
    agrees(open_samples(path), make, path)


def tar_of(tmp_path: Path, make, name: str = "w.tar", **changes: bytes | None) -> str:
    """A tar of two samples, `a` with label and caption, `x/b` with JSON; changes by suffix and key."""
    png = make.encode(make.pixels(0))
    members = {"a.png": png, "a.cls": b"2", "a.txt": b"one\n", "x/b.png": png}
    members |= {"x/b.json": b'{"caption": "two", "label": 10}'}
    members |= {key.replace("__", "/").replace("_", "."): data for key, data in changes.items()}
    return make.tar(tmp_path / name, {key: data for key, data in members.items() if data is not None})


def test_labels_captions_and_keys(tmp_path: Path, make) -> None:
    samples = open_samples(tar_of(tmp_path, make))
    assert (list(samples.ids), samples.classes) == (["a", "x/b"], ("2", "10"))
    assert (samples.labels.tolist(), samples.texts, samples.noise) == ([0, 1], ["one", "two"], None)
    assert list(samples.paths) == [f"{tmp_path}/w.tar/a.png", f"{tmp_path}/w.tar/x/b.png"]
    other = open_samples(tar_of(tmp_path, make, a_txt=b"One\n"))
    assert other.identity != samples.identity
    upper = open_samples(tar_of(tmp_path, make, "u.tar", a_txt=None, a_TXT=b"ONE\r\n \n", a_cls=b"cat"))
    assert (upper.texts, upper.classes) == (["ONE\r\n ", "two"], ("10", "cat"))


def test_a_missing_caption_is_empty_and_null_is_missing(tmp_path: Path, make) -> None:
    fields = b'{"caption": null, "text": "t\\n", "label": null, "cls": "c"}'
    samples = open_samples(tar_of(tmp_path, make, a_txt=None, x__b_json=fields))
    assert (samples.texts, samples.classes) == (["", "t\n"], ("2", "c"))
    bare = open_samples(tar_of(tmp_path, make, a_txt=None, x__b_json=b'{"cls": 3, "width": 64}'))
    assert (bare.texts, bare.labels.tolist()) == (None, [0, 1])
    unlabelled = open_samples(tar_of(tmp_path, make, a_cls=None, x__b_json=b'{"caption": ""}'))
    assert (unlabelled.labels, unlabelled.classes, unlabelled.texts) == (None, None, ["one", ""])
    empty = open_samples(tar_of(tmp_path, make, a_txt=b"\n", x__b_json=b'{"cls": 1, "label": "l"}'))
    assert (empty.texts, empty.classes) == (["", ""], ("2", "l"))


def test_hidden_and_other_members_are_ignored(tmp_path: Path, make) -> None:
    others = {
        "_txt": b"\xff",
        "x/_json": b"[",
        "x/_b_cls": b"",
        "x/_b_png": b"",
        "a_npy": b"",
        "LICENSE": b"",
    }
    assert open_samples(tar_of(tmp_path, make, **others)).texts == ["one", "two"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"a_txt": b"caf\xe9"}, "w.tar: a.txt is not UTF-8"),
        ({"a_cls": b"\xff\xfe1"}, "w.tar: a.cls is not UTF-8"),
        ({"x__b_json": b'{"caption": "\xe9"}'}, "w.tar: x/b.json is not UTF-8"),
        ({"x__b_json": b'{"caption": '}, "w.tar: x/b.json is not JSON"),
        ({"x__b_json": b""}, "w.tar: x/b.json is not JSON"),
        ({"x__b_json": b"[" * 200_000}, "w.tar: x/b.json is not JSON"),
        ({"x__b_json": b'["two", 10]'}, "w.tar: x/b.json is JSON, but not an object"),
        ({"x__b_json": b'{"caption": ["two"], "cls": 1}'}, "x/b.json has a caption that is neither"),
        ({"x__b_json": b'{"text": 0.5, "cls": 1}'}, "x/b.json has a text that is neither"),
        ({"x__b_json": b'{"label": true}'}, "x/b.json has a label that is neither"),
        ({"x__b_json": b'{"cls": 1.0}'}, "x/b.json has a cls that is neither"),
        ({"x__b_json": b'{"cls": 1, "caption": "\\ud83d"}'}, "x/b.json has a caption that is not"),
        ({"x__b_json": b'{"caption": "two"}'}, "w.tar: some samples have labels, but not x/b$"),
        ({"a_cls": b""}, "w.tar: a.cls holds an empty label"),
        ({"a_json": b"{}", "a_cls": b" \n"}, "w.tar: a.cls holds an empty label"),
        ({"x__b_json": b'{"label": ""}'}, "w.tar: x/b.json holds an empty label"),
        ({"a_jpg": b"x"}, r"two files of one kind \(a\)"),
        ({"a_seg_png": b"x"}, r"two files of one kind \(a\)"),
        ({"a_TXT": b"x"}, r"two files of one kind \(a\)"),
        ({"x__b_png": None}, r"w.tar has labels or captions without an image \(x/b\)"),
        (
            {f"{key}_{form}": b"1" for key in ("p", "q", "r", "s") for form in ("txt", "cls")},
            r"w.tar has labels or captions without an image \(p, q, r and 1 more\)",
        ),
        ({"a_txt": b"x" * ((16 << 20) + 1)}, "w.tar: a.txt has 16,777,217 bytes"),
    ],
)  # fmt: skip
def test_damaged_and_ambiguous_samples_are_refused(tmp_path: Path, make, changes, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        open_samples(tar_of(tmp_path, make, **changes))


def test_a_caption_may_be_as_long_as_the_limit(tmp_path: Path, make) -> None:
    assert len(open_samples(tar_of(tmp_path, make, a_txt=b"x" * (16 << 20))).texts[0]) == 16 << 20


def test_samples_without_a_label_are_named(tmp_path: Path, make) -> None:
    more = {f"k{row}_png": make.encode(make.pixels(0)) for row in range(4)}
    with pytest.raises(InvalidInput, match=r"but not k0, k1, k2 and 1 more"):
        open_samples(tar_of(tmp_path, make, **more))


def test_class_folders_stay_class_folders(tmp_path: Path, make, members) -> None:
    plain = open_samples(make.tar(tmp_path / "p.tar", members))
    stray = {
        "README.txt": b"\xff",
        "cat.json": b"[",
        "dog/x.cls": b"",
        "dog/x/.txt": b"",
        "ant/._9.txt": b"",
    }
    stray |= {"ant/9": b"", "ant/9.txtx": b"", "ant/9.a.txt": b""}
    mixed = open_samples(make.tar(tmp_path / "m.tar", {**stray, **members, "a.txt": b"", "b.txt": b""}))
    for samples in (plain, mixed):
        assert samples.classes == ("ant", "cat", "dog")
        assert (list(samples.ids), samples.labels.tolist()) == (list(plain.ids), [1, 1, 2, 0])
        assert samples.texts is None
    with pytest.raises(InvalidInput, match=r"n.tar holds no images"):
        open_samples(make.tar(tmp_path / "n.tar", {"a.txt": b"x", "b.json": b"{}"}))


def test_parts_are_joined_and_keys_that_repeat_get_their_name(tmp_path: Path, make) -> None:
    tar_of(tmp_path, make, "part-0.tar")
    rest = {"a_png": None, "a_cls": None, "a_txt": None}
    new = {"c_png": make.encode(make.pixels(1)), "c_cls": b"9"}
    tar_of(tmp_path, make, "part-1.tar", **rest, **new)
    samples = open_samples(f"{tmp_path}/part-{{0..1}}.tar")
    assert list(samples.ids) == ["a", "part-0/x/b", "part-1/x/b", "c"]
    assert (samples.classes, samples.labels.tolist()) == (("2", "9", "10"), [0, 2, 2, 1])
    assert samples.texts == ["one", "two", "two", ""]
    assert (np.asarray(samples.read(3)) == make.pixels(1)).all()
    (tmp_path / "o").mkdir()
    tar_of(tmp_path / "o", make, "part-0.tar")
    with pytest.raises(InvalidInput, match=r"ids repeat: part-0/a"):
        open_samples(f"{tmp_path}/{{.,o}}/part-0.tar")


@pytest.mark.parametrize("order", ["01", "10"])
def test_parts_of_two_layouts_are_refused(tmp_path: Path, make, members, order: str) -> None:
    tar_of(tmp_path, make, f"part-{order[0]}.tar")
    make.tar(tmp_path / f"part-{order[1]}.tar", members)
    match = rf"parts without labels or captions .*part-{order[1]}.tar\)"
    with pytest.raises(InvalidInput, match=match):
        open_samples(f"{tmp_path}/part-*.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_place_of_captions_are_refused(tmp_path: Path, make, members, kind: bytes) -> None:
    for name, refused in (("cat/a.txt", True), ("cat/c.txt", False), ("README.txt", False)):
        path = make.tar(tmp_path / "l.tar", members)
        with tarfile.open(path, "a") as tar:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "cat/b.png"
            tar.addfile(link)
        if refused:
            with pytest.raises(InvalidInput, match=rf"l.tar holds links .*\({name}\)"):
                open_samples(path)
        else:
            assert len(open_samples(path)) == 4


def test_every_cut_is_noticed(tmp_path: Path, make) -> None:
    path = tar_of(tmp_path, make)
    whole = Path(path).read_bytes()
    end = max(member.offset + member.size for member in read_members(path))
    end += -end % 512
    cut = tmp_path / "cut.tar"
    for kept in [*range(0, end, 100), *range(0, end + 1, 512), end + 511]:
        cut.write_bytes(whole[:kept])
        with pytest.raises(InvalidInput, match=r"cut.tar"):
            open_samples(str(cut))
    cut.write_bytes(whole[: end + 512])
    assert open_samples(str(cut)).texts == ["one", "two"]


def test_a_tar_that_shrinks_in_use_is_noticed(tmp_path: Path, make) -> None:
    path = tar_of(tmp_path, make)
    members = read_members(path)
    text = next(member for member in members if member.name == "a.txt")
    os.truncate(path, text.offset + 2)
    with pytest.raises(InvalidInput, match=r"a.txt cannot be read .*shorter"):
        read_companions(path, members, [])
    Path(path).unlink()
    with pytest.raises(InvalidInput, match=r"w.tar cannot be read \(No such file"):
        read_companions(path, members, [])


def test_a_tar_is_opened_once_for_all_its_companions(tmp_path: Path, make, monkeypatch) -> None:
    png = make.encode(make.pixels(0))
    members = {
        f"{row}.{form}": png if form == "png" else b"1"
        for row in range(50)
        for form in ("png", "cls", "txt")
    }
    path = make.tar(tmp_path / "w.tar", members)
    listed = read_members(path)
    opened, really = [], Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: opened.append(self) or really(self, *a, **k)
    )
    assert read_companions(path, listed, []).labels == ["1"] * 50
    assert opened == [Path(path)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), min_size=1, max_size=8))
def test_a_damaged_tar_is_read_or_refused(tmp_path: Path, make, damage) -> None:
    path = tar_of(tmp_path, make)
    data = bytearray(Path(path).read_bytes())
    end = max(member.offset + member.size for member in read_members(path))
    for place, mask in damage:
        data[int(place * end)] ^= mask
    Path(path).write_bytes(data)
    try:
        samples = open_samples(path)
        assert samples.texts is None or len(samples.texts) == len(samples)
    except InvalidInput as error:
        assert "w.tar" in str(error)


@pytest.mark.data
def test_real_captions(shared_data: Path) -> None:
    captions = shared_data / "captions"
    samples = open_samples(str(captions / "flickr8k-1500.tar"))
    with (captions / "captions.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(samples) == 1500
    assert dict(zip(samples.ids, samples.texts, strict=True)) == {
        row["id"]: row["caption"] for row in rows
    }
    assert (samples.labels, str(samples.name)) == (None, "captions/flickr8k-1500")
    with tarfile.open(captions / "flickr8k-1500.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")]
        assert list(samples.ids) == [name.removesuffix(".jpg") for name in names]
        for row in (0, 700, 1499):
            assert samples.paths[row] == f"{captions}/flickr8k-1500.tar/{names[row]}"
            assert samples.sizes[row] == tar.getmember(names[row]).size
            assert samples.read(row).size == (64, 64)
