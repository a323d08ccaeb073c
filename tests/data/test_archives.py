import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nmlcli.data.sources import open_samples
from nmlcli.data.tars import read_members
from nmlcli.errors import InvalidInput


def test_a_tar_keeps_its_order_and_is_read_by_offset(tar: str, make) -> None:
    samples = open_samples(tar)
    assert list(samples.ids) == ["cat/b", "cat/a", "dog/x/1", "ant/9"]
    assert samples.classes == ("ant", "cat", "dog")
    assert samples.labels.tolist() == [1, 1, 2, 0]
    for row in (3, 0, 2, 1):
        assert (np.asarray(samples.read(row)) == make.pixels(row)).all()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(tmp_path: Path, make, form: int) -> None:
    names = ["a/" + "x" * 90 + "/" + "y" * 120 + ".png", "b/größe.png", "./c/1.png"]
    if form == tarfile.USTAR_FORMAT:
        names[0] = "a/" + "x" * 90 + "/" + "y" * 80 + ".png"
    data = {name: make.encode(make.pixels(seed)) for seed, name in enumerate(names)}
    samples = open_samples(make.tar(tmp_path / "d.tar", data, form=form))
    assert list(samples.ids) == [name.removeprefix("./").removesuffix(".png") for name in names]
    assert samples.classes == ("a", "b", "c")
    assert all((np.asarray(samples.read(row)) == make.pixels(row)).all() for row in range(3))


def test_an_outer_folder_is_no_class(tmp_path: Path, make, members) -> None:
    outer = {f"pets/train/{name}": data for name, data in members.items()}
    samples = open_samples(make.tar(tmp_path / "d.tar", outer))
    assert samples.classes == ("ant", "cat", "dog")
    assert samples.ids[0] == "pets/train/cat/b"
    one = open_samples(make.tar(tmp_path / "e.tar", {"cat/a.png": members["cat/a.png"]}))
    assert one.classes == ("cat",)


def test_parts_are_read_as_one(tmp_path: Path, make, members) -> None:
    names = list(members)
    for part in range(12):
        make.tar(tmp_path / f"part-{part:03d}.tar", {names[part % 4]: members[names[part % 4]]})
    braces = open_samples(f"{tmp_path}/part-{{000..011}}.tar")
    assert len(braces) == 12
    assert braces.ids[0] == "part-000/cat/b.png"  # one id occurs in several parts
    assert len(set(braces.ids)) == 12
    assert open_samples(f"{tmp_path}/part-*.tar").identity == braces.identity
    few = open_samples(f"{tmp_path}/part-{{000,003}}.tar")
    assert (list(few.ids), few.classes) == (["cat/b", "ant/9"], ("ant", "cat"))
    with pytest.raises(InvalidInput, match=r"part-012.tar does not exist \(of .*part-\{010"):
        open_samples(f"{tmp_path}/part-{{010..012}}.tar")
    with pytest.raises(InvalidInput, match=r"shard-\*.tar does not exist"):
        open_samples(f"{tmp_path}/shard-*.tar")


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar"])
def test_a_compressed_tar_is_refused(tmp_path: Path, tar: str, suffix: str) -> None:
    packed = tmp_path / f"packed.{suffix}"
    packed.write_bytes(gzip.compress(Path(tar).read_bytes()))
    with pytest.raises(InvalidInput, match=r"compressed tar|gzip"):
        open_samples(str(packed))


def test_every_cut_of_a_tar_is_noticed(tmp_path: Path, tar: str) -> None:
    whole = Path(tar).read_bytes()
    end = max(m.offset + m.size for m in read_members(tar))
    end += -end % 512
    cut = tmp_path / "cut.tar"
    for kept in [*range(0, end, 100), *range(0, end + 1, 512), end + 511]:
        cut.write_bytes(whole[:kept])
        with pytest.raises(InvalidInput, match=r"cut.tar"):
            open_samples(str(cut))
    cut.write_bytes(whole[: end + 512])
    assert len(open_samples(str(cut))) == 4


def test_a_tar_that_shrinks_in_use_is_noticed(tar: str) -> None:
    samples = open_samples(tar)
    Path(tar).write_bytes(Path(tar).read_bytes()[:700])
    with pytest.raises(InvalidInput, match=r"sample ant/9 .*shorter"):
        samples.read(3)


def test_garbage_no_images_links_and_a_missing_file_are_errors(tmp_path: Path, make) -> None:
    (tmp_path / "g.tar").write_bytes(b"not a tar" * 200)
    make.tar(tmp_path / "n.tar", {"a/readme.txt": b"x"})
    with tarfile.open(tmp_path / "l.tar", "w") as file:
        link = tarfile.TarInfo("a/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    for name, match in (
        ("g", "not a readable tar"),
        ("n", "holds no images"),
        ("l", "holds links where"),
        ("m", "m.tar does not exist"),
    ):
        with pytest.raises(InvalidInput, match=match):
            open_samples(str(tmp_path / f"{name}.tar"))


def test_the_identity_covers_the_contents(tmp_path: Path, tar: str) -> None:
    before = open_samples(tar).identity
    data = bytearray(Path(tar).read_bytes())
    data[600] ^= 1  # inside the first image
    other = tmp_path / "other.tar"
    other.write_bytes(data)
    assert open_samples(str(other)).identity != before
    other.write_bytes(Path(tar).read_bytes())
    assert open_samples(str(other)).identity == before


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "classes", "called"),
    [
        ("cifar10/test.tar", 1017, 10, "cifar10:test"),
        ("pacs/sketch.tar", 3929, 7, "pacs/sketch"),
        ("pacs/photo-train.tar", 1343, 7, "pacs/photo:train"),
        ("tiny-imagenet-100/val.tar", 5000, 100, "tiny-imagenet-100:val"),
        ("cifar10/{test,val}.tar", 2017, 10, "cifar10"),
    ],
)
def test_real_tars(shared_data: Path, name: str, rows: int, classes: int, called: str) -> None:
    samples = open_samples(str(shared_data / name))
    assert (len(samples), len(samples.classes), str(samples.name)) == (rows, classes, called)
    if "{" not in name:
        with tarfile.open(shared_data / name) as tar:
            names = tar.getnames()
            assert list(samples.ids) == [n.rpartition(".")[0] for n in names]
            assert [samples.classes[i] for i in samples.labels] == [n.split("/")[0] for n in names]
            for row in (0, 500, len(names) - 1):
                peer = Image.open(io.BytesIO(tar.extractfile(names[row]).read())).convert("RGB")
                assert (np.asarray(samples.read(row)) == np.asarray(peer)).all()
