import numpy as np
import pytest
from PIL import Image

from nmlcli.data.images import decode, is_image, to_rgb
from nmlcli.errors import InvalidInput


def test_only_files_with_an_image_suffix_that_are_not_hidden_are_images() -> None:
    assert all(map(is_image, ("a.JPEG", "x/y.webp", "b.c.tif")))
    assert not any(map(is_image, ("x/._y.jpg", ".a.png", "a.txt", "png", "a.tar")))


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "1", "CMYK", "YCbCr", "LA", "RGBA"])
def test_every_mode_becomes_rgb_of_about_the_same_colour(mode: str) -> None:
    grey = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    found = np.asarray(to_rgb(grey))
    assert found.shape == (4, 4, 3)
    assert (found >= 250).all()


def test_colours_survive_palette_and_cmyk(make) -> None:
    blocks = np.zeros((4, 4, 3), np.uint8)
    blocks[:2] = (200, 30, 10)
    blocks[2:] = (0, 90, 250)
    palette = Image.fromarray(blocks).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.abs(np.asarray(to_rgb(palette)).astype(int) - blocks).max() <= 4
    assert (
        np.abs(np.asarray(to_rgb(Image.fromarray(blocks).convert("CMYK"))).astype(int) - blocks).max()
        <= 4
    )


def test_what_is_transparent_becomes_white(make) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (10, 20, 30, 255)
    pixels[1] = (10, 20, 30, 0)
    found = np.asarray(decode(make.encode(Image.fromarray(pixels, "RGBA")), "a", "f"))
    assert (found[0] == (10, 20, 30)).all()
    assert (found[1] == 255).all()


def test_a_palette_with_a_transparent_colour_becomes_white_there(make) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    found = np.asarray(decode(make.encode(image, transparency=1), "a", "f"))
    assert found.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_sixteen_bits_keep_the_upper_eight(make) -> None:
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    found = np.asarray(decode(make.encode(Image.fromarray(deep)), "a", "f"))
    assert found[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (found[..., 0] == found[..., 2]).all()


def test_floating_point_pixels_are_refused(make) -> None:
    image = Image.fromarray(np.zeros((2, 2), np.float32))
    with pytest.raises(InvalidInput, match=r"sample a of f.*floating-point"):
        decode(make.encode(image, "TIFF"), "a", "f")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_camera_is_applied(make, orientation: int) -> None:
    shown = np.zeros((6, 4, 3), np.uint8)
    shown[0, 0] = 255  # the corner says which way up it is
    undo = {2: "fliplr", 3: "rot180", 4: "flipud", 5: "T", 6: "rot90", 7: "anti", 8: "rot270"}
    stored = {
        "fliplr": np.fliplr, "flipud": np.flipud, "rot180": lambda a: np.rot90(a, 2),
        "rot90": lambda a: np.rot90(a, 1), "rot270": lambda a: np.rot90(a, 3),
        "T": lambda a: a.transpose(1, 0, 2), "anti": lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    }.get(undo.get(orientation, ""), lambda a: a)(shown)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = make.encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert (np.asarray(decode(data, "a", "f")) == shown).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_cut_image_is_an_error_that_names_it(make, form: str) -> None:
    data = make.encode(make.pixels(0, 64), form)
    for kept in (0, 10, len(data) // 2, len(data) - 40):
        with pytest.raises(InvalidInput, match=r"sample cat/7 of pets.tar cannot be read"):
            decode(data[:kept], "cat/7", "pets.tar")


def test_a_giant_image_is_an_error(make, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InvalidInput, match="sample a of f cannot be read"):
        decode(make.encode(make.pixels(0, 64)), "a", "f")
