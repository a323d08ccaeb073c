"""Small made sets: class folders, tars and packed files of known pixels."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

PATHS = ("cat/b.png", "cat/a.png", "dog/x/1.png", "ant/9.png")


def _pixels(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _encode(image: np.ndarray | Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, form, **options)
    return out.getvalue()


def _tar(
    path: Path, members: dict[str, bytes], mode: str = "w", form: int = tarfile.USTAR_FORMAT
) -> str:
    with tarfile.open(path, mode, format=form) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def _folder(path: Path, members: dict[str, bytes]) -> str:
    for name, data in members.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return str(path)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Functions that make pixels, image files, tars and folders."""
    return SimpleNamespace(pixels=_pixels, encode=_encode, tar=_tar, folder=_folder)


@pytest.fixture(scope="session")
def members() -> dict[str, bytes]:
    """Files of a small set: path → PNG; the pixels of number i are those of seed i."""
    return {path: _encode(_pixels(seed)) for seed, path in enumerate(PATHS)}


@pytest.fixture
def folder(tmp_path: Path, members: dict[str, bytes]) -> str:
    """The small set as class folders."""
    return _folder(tmp_path / "pets" / "train", members)


@pytest.fixture
def tar(tmp_path: Path, members: dict[str, bytes]) -> str:
    """The small set as a tar, in the order of PATHS."""
    return _tar(tmp_path / "pets.tar", members)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a text file below the temporary folder; gives its name."""

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write
