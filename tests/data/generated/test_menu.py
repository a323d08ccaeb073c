"""Laws that every generated set keeps, and the bytes of its images."""

import ast
import hashlib
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nmlcli.data.generated import draw, glyphs, menu, shapes, textures, words
from nmlcli.data.generated.menu import GENERATORS

RENDERED = [(name, domain) for name, row in GENERATORS.items() for domain in row.domains or (None,)]

# sha256 of images 0-35 of test at 32 px, then 0-3 at 45 px; a change of bytes raises `revision`.
BYTES = {
    ("shapes", "photo"): "2833adf8caf8e62e03ac65a237c848f8320b0215fba7001629e16557b254c856",
    ("shapes", "sketch"): "e4ad8fe073fbb4655b05a6d8f382e69013a8c0c93069fc8d6609a42213bad0e6",
    ("shapes", "cartoon"): "8473ed95efb4cc6bc06b65d62a025d39517cbb1bd3795f053978adda7aaa284e",
    ("shapes", "noise"): "e85223187f5410388aee2573312ab2ef520ee25642fb6140c86c1033234f59f3",
    ("textures", None): "0c61e2135deda1ac40e842d483184ca11e307efaa31561adaf05df04a31e8581",
    ("glyphs", None): "b96d1e2f850cea27d36471162521922cfd23ef2e7bb5b322643abd33da2ed033",
}  # fmt: skip


@pytest.mark.parametrize(("name", "domain"), RENDERED)
def test_bytes_are_the_stored_ones(name, domain):
    generator = GENERATORS[name]
    images = generator.render_many("test", domain, np.arange(36), 32)
    larger = generator.render_many("test", domain, np.arange(4), 45)
    digest = hashlib.sha256(images.tobytes() + larger.tobytes()).hexdigest()
    assert digest == BYTES[name, domain]


@pytest.mark.parametrize(("name", "domain"), RENDERED)
def test_an_image_is_the_same_alone_and_in_any_batch(name, domain):
    generator = GENERATORS[name]
    indices = np.arange(100)
    whole = generator.render_many("val", domain, indices, 24)
    order = np.random.default_rng(0).permutation(indices)
    assert (generator.render_many("val", domain, order, 24) == whole[order]).all()
    for index in (0, 17, 99):
        alone = generator.render("val", domain, index, 24)
        assert alone.dtype == np.uint8
        assert alone.shape == (24, 24, 3)
        assert (alone == whole[index]).all()


@pytest.mark.parametrize(("name", "domain"), RENDERED)
def test_no_image_is_twice_in_or_across_splits(name, domain):
    generator = GENERATORS[name]
    seen = set()
    for split in generator.splits:
        seen |= {image.tobytes() for image in generator.render_many(split, domain, np.arange(300))}
    assert len(seen) == 300 * len(generator.splits)


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize(("name", "domain"), RENDERED)
def test_any_size_shows_the_same_picture(name, domain, size):
    """Averaged over an eighth of the width, a picture is much the same at any size."""
    generator = GENERATORS[name]
    small = generator.render("test", domain, 5, 128).astype(float)
    other = generator.render("test", domain, 5, size).astype(float)

    def coarse(image):
        edges = np.linspace(0, len(image), 5).astype(int)
        parts = list(itertools.pairwise(edges))
        return np.array([[image[a:b, c:d].mean(axis=(0, 1)) for c, d in parts] for a, b in parts])

    assert np.abs(coarse(small) - coarse(other)).mean() < 12


def test_largest_block_is_one_image():
    assert GENERATORS["shapes"].render("val", None, 3, 300).shape == (300, 300, 3)


@pytest.mark.parametrize("name", GENERATORS)
def test_row(name):
    generator = GENERATORS[name]
    assert generator.name == name
    assert list(generator.classes) == sorted(set(generator.classes))
    assert set(generator.splits) == {"train", "val", "test"}
    assert pickle.loads(pickle.dumps(generator)) == generator


def test_rows_agree_with_the_workshops():
    assert GENERATORS["shapes"].classes == shapes.CLASSES
    assert GENERATORS["shapes"].domains == tuple(shapes.DOMAINS)
    assert GENERATORS["textures"].classes == textures.CLASSES
    assert len(GENERATORS["glyphs"].classes) == len(glyphs.SIGNS) == len(set(glyphs.SIGNS))


@pytest.mark.parametrize("name", GENERATORS)
def test_labels_are_balanced_in_any_prefix_and_in_no_fixed_order(name):
    generator = GENERATORS[name]
    count = len(generator.classes)
    labels = generator.labels("train", np.arange(50 * count))
    blocks = labels.reshape(50, count)
    assert (np.sort(blocks, axis=1) == np.arange(count)).all()
    assert len({tuple(block) for block in blocks}) == 50
    assert (labels != generator.labels("val", np.arange(50 * count))).any()
    assert [generator.label("train", i) for i in range(9)] == labels[:9].tolist()


@pytest.mark.parametrize("name", GENERATORS)
def test_what_is_not_there_is_refused(name):
    generator = GENERATORS[name]
    zero = np.array([0])
    for split, domain, indices, size in [
        ("tset", None, zero, 32),
        ("test", "oil", zero, 32),
        ("test", None, zero - 1, 32),
        ("test", None, zero + generator.splits["test"], 32),
        ("test", None, zero, 15),
        ("test", None, zero, 5000),
    ]:
        with pytest.raises(ValueError, match=r"is none of|is outside"):
            generator.render_many(split, domain, indices, size)
    assert generator.render_many("test", None, zero[:0]).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(("name", "domain"), RENDERED)
def test_pictures_are_float32_until_they_are_bytes(name, domain, monkeypatch):
    seen = []
    monkeypatch.setattr(draw, "to_bytes", lambda picture: seen.append(picture.dtype))
    request = menu.Request(name, domain, np.arange(20), np.arange(20) % 10, 32)
    GENERATORS[name].draw(request)
    assert seen == [np.float32]


ALLOWED = {
    *("abs", "add", "floor", "maximum", "minimum", "multiply", "sqrt", "where"),
    *("arange", "argsort", "array", "broadcast_shapes", "empty", "full", "pad", "unique", "zeros"),
    *("float32", "inf", "int64", "uint8", "uint64", "zeros_like"),
}


@pytest.mark.parametrize("module", [draw, shapes, textures, glyphs, words])
def test_only_exact_arithmetic(module):
    """No libm, no BLAS, no sum in an order of numpy's choice: of numpy only what is listed."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="np"), attr=name):
                assert name in ALLOWED
            case ast.Attribute(attr=name):
                assert name not in {"sum", "mean", "std", "var", "dot", "prod", "cumsum", "power"}
            case ast.BinOp(op=ast.MatMult()):
                raise AssertionError("@ goes to BLAS")
            case ast.BinOp(left=left, op=ast.Pow()):
                assert ast.unparse(left) in {"2.0", "size", "cells + 1"}
            case ast.Import(names=names):
                assert {name.name for name in names} <= {"numpy"}
            case ast.ImportFrom(module=origin):
                plain = {"collections.abc", "dataclasses", "itertools", "numpy.typing", "typing"}
                assert origin.startswith("nmlcli") or origin in plain


def test_the_menu_is_light():
    code = "import nmlcli.data.generated.menu, sys; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", GENERATORS)
def test_pixels_alone_do_not_give_the_label_away(name):
    """A ridge classifier on raw pixels stays below half."""
    generator = GENERATORS[name]

    def sample(split, count):
        images = generator.render_many(split, None, np.arange(count), 16)
        return images.reshape(count, -1) / 255 - 0.5, generator.labels(split, np.arange(count))

    pixels, labels = sample("train", 1500)
    targets = np.eye(len(generator.classes))[labels]
    weights = np.linalg.solve(pixels.T @ pixels + 50 * np.eye(pixels.shape[1]), pixels.T @ targets)
    unseen, truth = sample("test", 500)
    assert ((unseen @ weights).argmax(axis=1) == truth).mean() < 0.5
