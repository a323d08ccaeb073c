"""The sets of torchvision as small files in their real layouts, beside torchvision's own objects."""

import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from nmlcli.data.samples import Samples
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.data.torchvision_sets import TORCHVISION
from nmlcli.errors import InvalidInput, NmlError, UsageError

Patch = pytest.MonkeyPatch


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def write_images(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels(seed, 8 + seed % 3))
        (picture.convert("L") if seed == 1 else picture).save(path)


def write_text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cifar(base: Path, patch: Patch, name: str, folder: str, parts: list[str], key: str) -> None:
    """Real batches, pickled as the published ones; torchvision is told their checksums instead."""
    own, top = getattr(datasets, name), base / folder
    top.mkdir(parents=True)
    for number, part in enumerate(parts):
        data = np.stack([pixels(10 * number + row).transpose(2, 0, 1).reshape(-1) for row in range(4)])
        batch = {"data": data, key: [(number + row) % 3 for row in range(4)]}
        (top / part).write_bytes(pickle.dumps(batch))
    meta = top / own.meta["filename"]
    meta.write_bytes(pickle.dumps({own.meta["key"]: ["zebra", "ape", "cow"]}))
    patch.setattr(own, "train_list", [[part, md5(top / part)] for part in parts[:-1]])
    patch.setattr(own, "test_list", [[parts[-1], md5(top / parts[-1])]])
    patch.setattr(own, "meta", {**own.meta, "md5": md5(meta)})


def cifar10(base: Path, patch: Patch) -> None:
    parts = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    cifar(base, patch, "CIFAR10", "cifar-10-batches-py", parts, "labels")


def cifar100(base: Path, patch: Patch) -> None:
    cifar(base, patch, "CIFAR100", "cifar-100-python", ["train", "test"], "fine_labels")


def flowers102(base: Path, patch: Patch) -> None:
    top = base / "flowers-102"
    write_images(top / "jpg", [f"image_{number:05d}.jpg" for number in range(1, 9)])
    labels, parts = np.array([77, 1, 1, 9, 10, 102, 3, 9]), {"trnid": [6, 2], "valid": [5, 1, 8]}
    scipy.io.savemat(top / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(top / "setid.mat", {**parts, "tstid": [3, 4, 7]})
    known = datasets.Flowers102._file_dict
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    told = {key: (name, md5(top / name)) for key, name in files.items()}
    patch.setattr(datasets.Flowers102, "_file_dict", {**known, **told})


def food101(base: Path, patch: Patch) -> None:
    for split, number in (("train", 2), ("test", 1)):
        listed = {c: [f"{c}/{split}{n}" for n in range(number)] for c in ("waffles", "apple_pie")}
        write_text(base / "food-101/meta" / f"{split}.json", [json.dumps(listed)])
        names = [f"{name}.jpg" for each in listed.values() for name in each]
        write_images(base / "food-101/images", names)


def oxfordiiitpet(base: Path, patch: Patch) -> None:
    for split, shift in (("trainval", 0), ("test", 10)):
        ids = [
            (f"{breed}_{shift + n}", n) for n, breed in enumerate(("Abyssinian", "english_setter"), 1)
        ]
        lines = [f"{name} {label} {label} 1" for name, label in reversed(ids)]
        write_text(base / "oxford-iiit-pet/annotations" / f"{split}.txt", lines)
        write_images(base / "oxford-iiit-pet/images", [f"{name}.jpg" for name, _ in ids])


def stanfordcars(base: Path, patch: Patch) -> None:
    top = base / "stanford_cars"
    (top / "devkit").mkdir(parents=True)
    form = [("class", object), ("fname", object)]
    for split, table in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        names = [f"{number:05d}.jpg" for number in range(1, 4)]
        write_images(top / f"cars_{split}", names)
        rows = np.array([(3, names[0]), (1, names[1]), (2, names[2])], dtype=form)
        scipy.io.savemat(top / table, {"annotations": rows})
    classes = np.array(["AM General Hummer", "Volvo 240", "Acura TL"], dtype=object)
    scipy.io.savemat(top / "devkit/cars_meta.mat", {"class_names": classes})


def fgvcaircraft(base: Path, patch: Patch) -> None:
    data, variants = base / "fgvc-aircraft-2013b/data", ["707-320", "A300B4", "727-200"]
    write_text(data / "variants.txt", variants)
    for start, split in enumerate(("train", "val", "trainval", "test")):
        names = [f"{100 * start + n}" for n in range(3)]
        lines = [f"{name} {variant}" for name, variant in zip(names, reversed(variants), strict=True)]
        write_text(data / f"images_variant_{split}.txt", lines)
        write_images(data / "images", [f"{name}.jpg" for name in names])


def svhn(base: Path, patch: Patch) -> None:
    told = dict(datasets.SVHN.split_list)
    base.mkdir()
    for split in ("train", "test"):
        path = base / f"{split}_32x32.mat"
        data = np.stack([pixels(row) for row in range(12)], axis=-1)
        digits = np.array([*range(1, 11), 10, 1])[:, None]  # ten stands for zero
        scipy.io.savemat(path, {"X": data, "y": digits})
        told[split] = [told[split][0], path.name, md5(path)]
    patch.setattr(datasets.SVHN, "split_list", told)


def dtd(base: Path, patch: Patch) -> None:
    for split in ("train", "val", "test"):
        names = [f"{kind}/{kind}_{split}.jpg" for kind in ("zigzagged", "banded", "dotted")]
        write_text(base / "dtd/dtd/labels" / f"{split}1.txt", names)
        write_images(base / "dtd/dtd/images", names)


def caltech101(base: Path, patch: Patch) -> None:
    top = base / "caltech101/101_ObjectCategories"
    counts = {"accordion": 33, "Faces": 31, "BACKGROUND_Google": 2}
    for kind, count in counts.items():
        write_images(top / kind, [f"image_{number:04d}.jpg" for number in range(1, count + 1)])


def eurosat(base: Path, patch: Patch) -> None:
    for kind, count in (("River", 10), ("AnnualCrop", 5)):
        write_images(base / "eurosat/2750" / kind, [f"{kind}_{n}.jpg" for n in range(1, count + 1)])


def pcam(base: Path, patch: Patch) -> None:
    (base / "pcam").mkdir(parents=True)
    for split in ("train", "valid", "test"):
        stem = base / "pcam" / f"camelyonpatch_level_2_split_{split}"
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = np.stack([pixels(row, 96) for row in range(3)])
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = np.array([1, 0, 1], dtype=np.uint8).reshape(3, 1, 1, 1)


def renderedsst2(base: Path, patch: Patch) -> None:
    for split in ("train", "valid", "test"):
        names = [f"{kind}/{number}.png" for kind in ("positive", "negative") for number in (10, 9)]
        write_images(base / "rendered-sst2" / split, names)


LAYOUTS: dict[str, Callable[[Path, Patch], None]] = {
    layout.__name__: layout
    for layout in (
        cifar10, cifar100, flowers102, food101, oxfordiiitpet, stanfordcars, fgvcaircraft, svhn, dtd,
        caltech101, eurosat, pcam, renderedsst2,
    )
}  # fmt: skip
OWN = {"caltech101": {"Faces": 30, "accordion": 30}, "eurosat": {"AnnualCrop": 4, "River": 8}}
SPLITS = [(name, split) for name, row in TORCHVISION.items() for split in row.splits if name not in OWN]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: Patch) -> Callable[[str], SourceOptions]:
    """Write a small set in its real layout; the menu then expects as few samples as it has."""

    def lay(name: str) -> SourceOptions:
        LAYOUTS[name](tmp_path / "data", monkeypatch)
        return SourceOptions(data_dir=str(tmp_path / "data"))

    return lay


@pytest.fixture
def expect(monkeypatch: Patch) -> Callable[[str, str, int], None]:
    """Make the menu expect so many samples of a split."""

    def expect(name: str, split: str, count: int) -> None:
        row = TORCHVISION[name]
        monkeypatch.setitem(TORCHVISION, name, replace(row, splits={**row.splits, split: count}))

    return expect


def theirs(name: str, split: str, base: str) -> list[tuple[np.ndarray, str]]:
    """The pixels and class names of a split, item by item of torchvision's object."""
    build = getattr(datasets, TORCHVISION[name].builds)
    if name in OWN:
        objects = [build(base)]
    elif name.startswith("cifar"):
        objects = [build(base, train=split == "train")]
    elif (name, split) == ("flowers102", "trainval"):
        objects = [build(base, split="train"), build(base, split="val")]
    else:
        objects = [build(base, split=split)]
    found = []
    for each in objects:
        names = getattr(each, "classes", None) or getattr(each, "categories", None)
        for image, label in (each[row] for row in range(len(each))):
            found.append((np.asarray(image.convert("RGB")), names[label] if names else str(label)))
    return found


def check_alike(samples: Samples, wanted: list[tuple[np.ndarray, str]]) -> None:
    assert [samples.classes[label] for label in samples.labels] == [label for _, label in wanted]
    for image, (found, _) in zip(samples.images(np.arange(len(samples))), wanted, strict=True):
        assert np.array_equal(np.asarray(image), found)
    assert list(samples.classes) == sorted(samples.classes)


def test_every_set_of_the_menu_is_tried() -> None:
    assert LAYOUTS.keys() == TORCHVISION.keys()
    assert all(name == row.builds.lower() for name, row in TORCHVISION.items())
    assert all(hasattr(datasets, row.builds) for row in TORCHVISION.values())


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_samples_are_those_of_torchvision_item_by_item(lay, expect, name: str, split: str) -> None:
    options = lay(name)
    wanted = theirs(name, split, options.data_dir)
    expect(name, split, len(wanted))
    samples = open_samples(f"torchvision:{name}:{split}", options)
    assert str(samples.name) == f"{name}:{split}"
    check_alike(samples, wanted)


def keyed(ids: list[str], purpose: str) -> list[int]:
    """The keys of ids, transcribed with whole numbers of Python."""
    digest = hashlib.sha256(f"nml keys 1\nseed 0\npurpose {purpose}\n".encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
    cut = 2**64 - 1

    def mix(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & cut
        value = (value ^ value >> 27) * 0x94D049BB133111EB & cut
        return value ^ value >> 31

    hashes = (int.from_bytes(hashlib.sha256(i.encode()).digest()[:8], "little") for i in ids)
    return [mix(mix(each * 0x9E3779B97F4A7C15 + first & cut) ^ second) for each in hashes]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", OWN)
def test_a_split_of_our_own_is_drawn_by_keys_class_by_class(lay, expect, name, split) -> None:
    options = lay(name)
    everything = theirs(name, "", options.data_dir)
    folder = Path(options.data_dir, TORCHVISION[name].folder)
    ids = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.jpg"))
    ids = [each for each in ids if not each.startswith("BACKGROUND")]  # torchvision's order
    keys = keyed(ids, f"split of torchvision:{name}")
    of_class = {kind: [row for row, i in enumerate(ids) if i.startswith(kind)] for kind in OWN[name]}
    training = {
        row
        for kind, rows in of_class.items()
        for row in sorted(rows, key=keys.__getitem__)[: OWN[name][kind]]
    }
    rows = [row for row in range(len(ids)) if (row in training) == (split == "train")]
    expect(name, split, len(rows))
    samples = open_samples(f"torchvision:{name}:{split}", options)
    assert list(samples.ids) == [ids[row] for row in rows]
    check_alike(samples, [everything[row] for row in rows])


IDS = {
    "cifar10:test": "test/000003", "cifar100:train": "train/000003",
    "flowers102:trainval": "image_00008",
    "food101:test": "apple_pie/test0", "oxfordiiitpet:test": "Abyssinian_11",
    "stanfordcars:train": "cars_train/00003", "fgvcaircraft:val": "102", "svhn:train": "train/000011",
    "dtd:val": "dotted/dotted_val", "pcam:val": "val/000002", "renderedsst2:val": "valid/positive/9",
}  # fmt: skip


@pytest.mark.parametrize("spec", IDS)
def test_ids_are_paths_or_numbers_of_the_split(lay, expect, spec: str) -> None:
    name, _, split = spec.partition(":")
    options = lay(name)
    expect(name, split, len(theirs(name, split, options.data_dir)))
    assert open_samples(f"torchvision:{spec}", options).ids[-1] == IDS[spec]


def test_the_sizes_are_those_of_the_paper() -> None:
    # Table 4 (train, test); but PCAM, which has SVHN's row there, and Caltech101 without background.
    paper = {
        "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "flowers102": (2040, 6149),
        "food101": (75_750, 25_250), "oxfordiiitpet": (3680, 3669), "stanfordcars": (8144, 8041),
        "fgvcaircraft": (6667, 3333), "svhn": (73_257, 26_032), "dtd": (1880, 1880),
        "caltech101": (101 * 30, 9144 - 467 - 101 * 30), "eurosat": (21_600, 5400),
        "pcam": (262_144, 32_768), "renderedsst2": (6920, 1821),
    }  # fmt: skip
    found = {
        name: (row.splits.get("trainval", row.splits.get("train")), row.splits["test"])
        for name, row in TORCHVISION.items()
    }
    assert found == paper


@pytest.mark.parametrize("name", TORCHVISION)
def test_missing_files_are_named_and_nothing_is_fetched_unasked(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **more: pytest.fail("it went online"))
    row, split = TORCHVISION[name], next(iter(TORCHVISION[name].splits))
    with pytest.raises(InvalidInput) as caught:
        open_samples(f"torchvision:{name}:{split}", SourceOptions(data_dir=str(tmp_path / "d")))
    message = str(caught.value)
    assert row.files[0].format(split=split) in message and f"missing in {tmp_path / 'd'}" in message
    assert ("--download" in message) == (name != "stanfordcars") and row.home in message
    assert "\n" not in message and not (tmp_path / "d").exists()


def test_only_the_files_that_are_missing_are_named(lay) -> None:
    options = lay("dtd")
    Path(options.data_dir, "dtd/dtd/labels/test1.txt").unlink()
    with pytest.raises(InvalidInput, match=r":test: dtd/dtd/labels/test1.txt is missing in"):
        open_samples("torchvision:dtd:test", options)


def test_download_fetches_what_is_missing_and_shows_nothing_unwatched(
    tmp_path, expect, monkeypatch, capsys
) -> None:
    def fetch(self: datasets.EuroSAT) -> None:
        sys.stdout.write("Downloading")
        sys.stderr.write("100%")
        eurosat(tmp_path, monkeypatch)

    monkeypatch.setattr(datasets.EuroSAT, "download", fetch)
    expect("eurosat", "test", 3)
    options = SourceOptions(data_dir=str(tmp_path), download=True)
    assert len(open_samples("torchvision:eurosat:test", options)) == 3
    assert capsys.readouterr() == ("", "")


def test_a_download_that_fails_says_how_to_bring_the_files(tmp_path, monkeypatch) -> None:
    def offline(*given: object, **more: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    options = SourceOptions(data_dir=str(tmp_path), download=True)
    with pytest.raises(
        NmlError, match=r"no route to host.*bring the files from https://www.cs"
    ) as caught:
        open_samples("torchvision:cifar10:test", options)
    assert str(tmp_path) in caught.value.remedy
    with pytest.raises(InvalidInput, match="its own address is gone"):
        open_samples("torchvision:stanfordcars:test", options)


def test_a_download_that_changes_nothing_names_what_is_missing(lay) -> None:
    options = replace(lay("dtd"), download=True)  # torchvision looks for the folder alone
    Path(options.data_dir, "dtd/dtd/labels/test1.txt").unlink()
    with pytest.raises(NmlError, match=r"torchvision:dtd:test.*test1.txt"):
        open_samples("torchvision:dtd:test", options)


@pytest.mark.parametrize("name", ["flowers102", "svhn", "stanfordcars"])
def test_without_scipy_an_error_says_what_needs_it(lay, monkeypatch, name: str) -> None:
    options = lay(name)
    for module in ("scipy.io", "scipy.io.matlab"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NmlError, match=f"torchvision:{name}:test needs scipy.*pip install scipy"):
        open_samples(f"torchvision:{name}:test", options)


DAMAGE = {
    "cifar10": ("cifar-10-batches-py/data_batch_2", "not found or corrupted): remove"),
    "svhn": ("test_32x32.mat", "not found or corrupted): remove"),
    "pcam": ("pcam/camelyonpatch_level_2_split_test_y.h5", "cannot be read"),
    "food101": ("food-101/meta/test.json", "cannot be read"),
    "stanfordcars": ("stanford_cars/cars_test_annos_withlabels.mat", "cannot be read"),
    "oxfordiiitpet": ("oxford-iiit-pet/annotations/test.txt", "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_damaged_files_are_an_error_of_one_line(lay, name: str, share: float) -> None:
    options = lay(name)
    path = Path(options.data_dir, DAMAGE[name][0])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidInput, match=rf"torchvision:{name}:test") as caught:
        open_samples(f"torchvision:{name}:test", options)
    assert "download=True" not in str(caught.value) and "\n" not in str(caught.value)
    if share:
        assert DAMAGE[name][1] in str(caught.value)


def test_a_set_that_is_not_all_there_is_an_error(lay, expect) -> None:
    options = lay("renderedsst2")
    expect("renderedsst2", "test", 5)
    with pytest.raises(InvalidInput, match=r"torchvision:renderedsst2:test has 4 samples .* 5 belong"):
        open_samples("torchvision:renderedsst2:test", options)
    options = lay("dtd")
    Path(options.data_dir, "dtd/dtd/images/banded/banded_test.jpg").unlink()
    with pytest.raises(InvalidInput, match=r"image .*banded_test.jpg cannot be read"):
        open_samples("torchvision:dtd:test", options)


def test_labels_and_images_are_as_many(lay) -> None:
    options = lay("pcam")
    with h5py.File(Path(options.data_dir, "pcam/camelyonpatch_level_2_split_test_y.h5"), "w") as file:
        file["y"] = np.zeros((2, 1, 1, 1), dtype=np.uint8)
    with pytest.raises(InvalidInput, match=r"torchvision:pcam:test in .*3 images, 2 labels"):
        open_samples("torchvision:pcam:test", options)


def test_images_are_read_when_they_are_wanted(lay, expect) -> None:
    options = lay("dtd")
    expect("dtd", "test", 3)
    samples = open_samples("torchvision:dtd:test", options)
    Path(options.data_dir, "dtd/dtd/images/banded/banded_test.jpg").write_bytes(b"")
    assert samples.read(0).size == (8, 8)
    with pytest.raises(InvalidInput, match="sample banded/banded_test of"):
        samples.read(1)


def test_the_identity_is_of_packed_bytes_or_of_sizes(lay, expect) -> None:
    options = lay("pcam")
    expect("pcam", "test", 3)
    before = open_samples("torchvision:pcam:test", options).identity
    assert open_samples("torchvision:pcam:test", options).identity == before
    stem = Path(options.data_dir, "pcam/camelyonpatch_level_2_split_test_x.h5")
    with h5py.File(stem, "r+") as file:
        file["x"][0, 0, 0, 0] ^= 1
    assert open_samples("torchvision:pcam:test", options).identity != before
    options = lay("dtd")
    expect("dtd", "test", 3)
    before = open_samples("torchvision:dtd:test", options).identity
    with Path(options.data_dir, "dtd/dtd/images/banded/banded_test.jpg").open("ab") as file:
        file.write(b"0")
    assert open_samples("torchvision:dtd:test", options).identity != before


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("torchvision:cifar11:test", "no set 'cifar11'.*did you mean cifar10"),
        ("torchvision:", "no set ''.*choose from cifar10, cifar100"),
        ("torchvision:pcam", "names no split: choose train, val, test"),
        ("torchvision:dtd:trainval", "no split trainval: choose train, val, test"),
        ("torchvision:dtd:test:x", "no split test:x"),
    ],
)
def test_a_wrong_name_names_the_choices(spec: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        open_samples(spec)
