from pathlib import Path

import h5py
import numpy as np
import pytest

from nmlcli.data.sources import open_samples
from nmlcli.errors import InvalidInput
from nmlcli.products.ids import pack_ids

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)


def pack(path: Path, **arrays: object) -> str:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return str(path)


def test_rows_are_samples(tmp_path: Path) -> None:
    samples = open_samples(pack(tmp_path / "p.h5", images=IMAGES, labels=np.array([10, 9, 2, 10, 2])))
    assert list(samples.ids) == ["0", "1", "2", "3", "4"]
    assert samples.classes == ("2", "9", "10")
    assert samples.labels.tolist() == [2, 1, 0, 2, 0]
    for row in (4, 0, 2):
        assert (np.asarray(samples.read(row)) == IMAGES[row]).all()


def test_names_and_ids(tmp_path: Path) -> None:
    names = np.array([b"a", b"b", "é".encode(), b"d", b"e"])
    samples = open_samples(pack(
        tmp_path / "p.h5", images=IMAGES, labels=[1, 0, 1, 1, 0],
        classes=np.array([b"tom", b"rex", b"ant"]),
        ids=names,
    ))  # fmt: skip
    assert list(samples.ids) == ["a", "b", "é", "d", "e"]
    assert samples.classes == ("tom", "rex", "ant")
    assert samples.labels.tolist() == [1, 0, 1, 1, 0]
    named = {"labels": np.array([b"rex"] * 5), "classes": np.array([b"tom", b"rex"])}
    assert open_samples(pack(tmp_path / "n.h5", images=IMAGES, **named)).labels.tolist() == [1] * 5
    by_name = open_samples(pack(tmp_path / "q.h5", images=IMAGES, labels=names))
    assert by_name.classes == ("a", "b", "d", "e", "é")
    offsets, packed = pack_ids(list("vwxyz"))
    product = pack(tmp_path / "r.h5", images=IMAGES, ids_offsets=offsets, ids_bytes=packed)
    assert list(open_samples(product).ids) == list("vwxyz")
    assert open_samples(product).labels is None


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"features": np.zeros((3, 4), np.float32)}, "has no images"),
        ({"images": IMAGES.astype(np.float32)}, "images is float32"),
        ({"images": IMAGES[..., 0]}, r"images is uint8 \[5, 6, 7\]"),
        ({"images": IMAGES, "labels": np.arange(4)}, r"labels are \[4\], images 5"),
        (
            {"images": IMAGES, "labels": np.full(5, 2), "classes": np.array([b"a", b"b"])},
            "outside the 2 classes: 2",
        ),
        ({"images": IMAGES, "labels": np.zeros(5)}, "not texts or whole numbers"),
        ({"images": IMAGES, "ids": np.array([b"a", b"b", b"a", b"c", b"d"])}, "ids repeat: a"),
        ({"images": IMAGES[:0]}, "holds no samples"),
        (
            {"images": IMAGES, "labels": [0] * 5, "classes": np.array([b"a", b"a"])},
            "a class is named twice",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, arrays, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        open_samples(pack(tmp_path / "p.h5", **arrays))


def test_a_cut_file_and_images_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    whole = Path(pack(tmp_path / "p.h5", images=IMAGES)).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:-100])
    with pytest.raises(InvalidInput, match="damaged"):
        open_samples(str(tmp_path / "cut.h5"))
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("images", (1, 2, 2, 3), "u1", external=[("/etc/hostname", 0, 12)])
    with pytest.raises(InvalidInput, match="another file"):
        open_samples(str(tmp_path / "e.h5"))


def test_the_identity_covers_the_contents(tmp_path: Path) -> None:
    other = IMAGES.copy()
    other[3, 2, 1, 0] ^= 1
    one = open_samples(pack(tmp_path / "p.h5", images=IMAGES)).identity
    assert open_samples(pack(tmp_path / "q.h5", images=other)).identity != one
    assert open_samples(pack(tmp_path / "r.h5", images=IMAGES)).identity == one
