"""TORCHVISION: the sets of the paper that torchvision can read, one row each.

Names are those of torchvision's classes in lower case. A light menu: torchvision is imported when a
set is opened. Of the paper's fourteen tasks RESISC45 is missing, which torchvision does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TorchvisionSet:
    """A set of torchvision, where its files lie and what is read of torchvision's own object.

    builds: its class in torchvision.datasets. splits: names and numbers of samples. files: what has
    to be there below the data folder, `{split}` as in spelled. home: where the files can be had.
    labels: the numbers [N] of the classes. images: paths [N] below folder, from where ids start; where
    folder is None they are pixels uint8 [N, H, W, 3]. argument: how torchvision is told the split
    (None: it knows none). joined: trainval is train, then val, which torchvision has only apart.
    training: of how many samples of a class how many are for training, where the split is our own.
    scipy: whether torchvision needs it to read the set. fetched: whether torchvision can download it.
    """

    builds: str
    splits: Mapping[str, int]
    files: tuple[str, ...]
    home: str
    labels: Callable[[Any], Sequence[int]]
    images: Callable[[Any], Any]
    folder: str | None = None
    argument: str | None = "split"
    spelled: Mapping[str, str] = field(default_factory=dict)
    joined: bool = False
    training: Callable[[int], int] | None = None
    scipy: bool = False
    fetched: bool = True


def _caltech(dataset: Any) -> list[str]:
    places = zip(dataset.y, dataset.index, strict=True)
    top = Path(dataset.root, "101_ObjectCategories")
    return [str(top / dataset.categories[y] / f"image_{number:04d}.jpg") for y, number in places]


def _column(attribute: str, place: int) -> Callable[[Any], list[Any]]:
    """Of a list of (path, label) pairs that torchvision keeps: one of both, [N]."""
    return lambda dataset: [pair[place] for pair in getattr(dataset, attribute)]


def _patches(kind: str, key: str) -> Callable[[Any], Any]:
    """An array of PatchCamelyon, which stays in its file until rows of it are asked for."""

    def read(dataset: Any) -> Any:
        name = dataset._FILES[dataset._split][kind][0]
        array = dataset.h5py.File(dataset._base_folder / name, "r", locking=False)[key]
        return array if key == "x" else array[:, 0, 0, 0]

    return read


_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_PATHS, _LABELS = attrgetter("_image_files"), attrgetter("_labels")

TORCHVISION = {
    "cifar10": TorchvisionSet(
        "CIFAR10", {"train": 50_000, "test": 10_000},
        tuple(f"cifar-10-batches-py/{name}" for name in (
            *(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")),
        _CIFAR, attrgetter("targets"), attrgetter("data"), argument="train",
    ),
    "cifar100": TorchvisionSet(
        "CIFAR100", {"train": 50_000, "test": 10_000},
        tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
        _CIFAR, attrgetter("targets"), attrgetter("data"), argument="train",
    ),
    "flowers102": TorchvisionSet(
        "Flowers102", {"train": 1020, "val": 1020, "trainval": 2040, "test": 6149},
        tuple(f"flowers-102/{name}" for name in ("jpg", "imagelabels.mat", "setid.mat")),
        f"{_VGG}/flowers/102", _LABELS, _PATHS, "flowers-102/jpg", joined=True, scipy=True,
    ),
    "food101": TorchvisionSet(
        "Food101", {"train": 75_750, "test": 25_250}, ("food-101/meta/{split}.json", "food-101/images"),
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101", _LABELS, _PATHS,
        "food-101/images",
    ),
    "oxfordiiitpet": TorchvisionSet(
        "OxfordIIITPet", {"trainval": 3680, "test": 3669},
        ("oxford-iiit-pet/images", "oxford-iiit-pet/annotations/{split}.txt"),
        f"{_VGG}/pets", _LABELS, attrgetter("_images"), "oxford-iiit-pet/images",
    ),
    "stanfordcars": TorchvisionSet(
        "StanfordCars", {"train": 8144, "test": 8041},
        tuple(f"stanford_cars/{name}" for name in (
            "cars_{split}", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat")),
        "a copy: its own address is gone", _column("_samples", 1), _column("_samples", 0),
        "stanford_cars", scipy=True, fetched=False,
    ),
    "fgvcaircraft": TorchvisionSet(
        "FGVCAircraft", {"train": 3334, "val": 3333, "trainval": 6667, "test": 3333},
        tuple(f"fgvc-aircraft-2013b/data/{name}" for name in (
            "images", "variants.txt", "images_variant_{split}.txt")),
        f"{_VGG}/fgvc-aircraft", _LABELS, _PATHS, "fgvc-aircraft-2013b/data/images",
    ),
    "svhn": TorchvisionSet(
        "SVHN", {"train": 73_257, "test": 26_032}, ("{split}_32x32.mat",),
        "http://ufldl.stanford.edu/housenumbers", attrgetter("labels"),
        lambda dataset: dataset.data.transpose(0, 2, 3, 1), scipy=True,
    ),
    "dtd": TorchvisionSet(
        "DTD", {"train": 1880, "val": 1880, "test": 1880},
        ("dtd/dtd/labels/{split}1.txt", "dtd/dtd/images"), f"{_VGG}/dtd", _LABELS, _PATHS,
        "dtd/dtd/images",
    ),
    "caltech101": TorchvisionSet(
        "Caltech101", {"train": 3030, "test": 5647}, ("caltech101/101_ObjectCategories",),
        "https://data.caltech.edu/records/mzrjq-6wc02", attrgetter("y"), _caltech,
        "caltech101/101_ObjectCategories", argument=None, training=lambda count: 30,
    ),
    "eurosat": TorchvisionSet(
        "EuroSAT", {"train": 21_600, "test": 5400}, ("eurosat/2750",),
        "https://github.com/phelber/eurosat", attrgetter("targets"), _column("samples", 0),
        "eurosat/2750", argument=None, training=lambda count: count * 4 // 5,
    ),
    "pcam": TorchvisionSet(
        "PCAM", {"train": 262_144, "val": 32_768, "test": 32_768},
        tuple(f"pcam/camelyonpatch_level_2_split_{{split}}_{key}.h5" for key in "xy"),
        "https://github.com/basveeling/pcam", _patches("targets", "y"), _patches("images", "x"),
        spelled={"val": "valid"},
    ),
    "renderedsst2": TorchvisionSet(
        "RenderedSST2", {"train": 6920, "val": 872, "test": 1821},
        ("rendered-sst2/{split}/negative", "rendered-sst2/{split}/positive"),
        "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md",
        _column("_samples", 1), _column("_samples", 0), "rendered-sst2", spelled={"val": "valid"},
    ),
}  # fmt: skip
