import os
from pathlib import Path

import numpy as np
import pytest

from nmlcli.data.sources import open_samples
from nmlcli.errors import InvalidInput


def test_the_order_is_by_class_then_path_as_in_torchvision(folder: str) -> None:
    from torchvision.datasets import ImageFolder

    samples, peer = open_samples(folder), ImageFolder(folder)
    assert list(samples.ids) == ["ant/9", "cat/a", "cat/b", "dog/x/1"]
    assert samples.classes == tuple(peer.classes) == ("ant", "cat", "dog")
    assert samples.labels.tolist() == peer.targets == [0, 1, 1, 2]
    assert [str(Path(path)) for path, _ in peer.samples] == list(samples.paths)
    for row in range(4):
        assert (np.asarray(samples.read(row)) == np.asarray(peer[row][0])).all()
    assert str(samples.name) == "pets:train"
    assert samples.noise is None


def test_class_names_sort_plainly_even_where_a_path_would_not(tmp_path: Path, make, members) -> None:
    image = members["cat/a.png"]
    source = make.folder(tmp_path / "d", {f"{c}/1.png": image for c in ("a", "a-b", "B", "10", "9")})
    samples = open_samples(source)
    assert samples.classes == ("10", "9", "B", "a", "a-b")
    assert samples.labels.tolist() == [0, 1, 2, 3, 4]


def test_a_flat_folder_is_unlabelled(tmp_path: Path, make, members) -> None:
    samples = open_samples(make.folder(tmp_path / "d", {"b.png": members["cat/b.png"], "a.png": b""}))
    assert (list(samples.ids), samples.labels, samples.classes) == (["a", "b"], None, None)


def test_colliding_ids_keep_their_suffix(tmp_path: Path, make, members) -> None:
    image = members["cat/a.png"]
    source = make.folder(tmp_path / "d", {"c/1.png": image, "c/1.jpg": image, "c/2.png": image})
    assert list(open_samples(source).ids) == ["c/1.jpg", "c/1.png", "c/2"]


def test_what_is_no_image_or_hidden_is_left_out(tmp_path: Path, make, members) -> None:
    more = {"cat/notes.txt": b"x", "cat/._a.png": b"x", ".cache/z.png": b"x", "empty/readme": b""}
    samples = open_samples(make.folder(tmp_path / "d", {**members, **more}))
    assert len(samples) == 4
    assert samples.classes == ("ant", "cat", "dog")


def test_links_are_followed_but_not_in_circles(tmp_path: Path, folder: str) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "kitten").symlink_to(Path(folder) / "cat")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "linked")
    assert list(open_samples(str(tmp_path / "linked")).ids) == ["kitten/a", "kitten/b"]


def test_a_mixed_or_empty_folder_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInput, match="none holds no images"):
        open_samples(str(tmp_path / "none"))
    (Path(folder) / "stray.png").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"outside the class folders \(stray.png\)"):
        open_samples(folder)


def test_an_unreadable_sample_stops_with_its_id_and_file(folder: str) -> None:
    samples = open_samples(folder)
    (Path(folder) / "cat" / "a.png").write_bytes(b"\x89PNG\r\n" + b"z" * 500)
    with pytest.raises(InvalidInput, match=r"sample cat/a of .*cat/a.png cannot be read"):
        samples.read(1)
    (Path(folder) / "cat" / "a.png").unlink()
    with pytest.raises(InvalidInput, match=r"sample cat/a of .*No such file"):
        samples.read(1)


def test_a_broken_link_is_an_error(folder: str) -> None:
    (Path(folder) / "cat" / "gone.png").symlink_to("nowhere")
    with pytest.raises(InvalidInput, match=r"gone.png cannot be read"):
        open_samples(folder)


def test_names_that_are_not_utf8_are_an_error(folder: str, members) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/cat/\xff.png")).write_bytes(members["cat/a.png"])
    with pytest.raises(InvalidInput, match="not UTF-8"):
        open_samples(folder)


def test_the_identity_follows_names_labels_and_sizes(tmp_path: Path, make, members) -> None:
    def identity(name: str, files: dict[str, bytes]) -> str:
        return open_samples(make.folder(tmp_path / name, files)).identity

    whole = identity("a", members)
    assert identity("b", members) == whole
    assert identity("c", {**members, "cat/a.png": members["cat/a.png"] + b"\0"}) != whole
    assert identity("d", {**members, "cat/c.png": members["cat/a.png"]}) != whole
    assert identity("e", {k.replace("dog", "cow"): v for k, v in members.items()}) != whole
