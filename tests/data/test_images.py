import resource
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from nmlcli.data.images import decode, is_image, to_rgb
from nmlcli.data.sources import open_samples
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


def png(width: int, height: int, bits: int, colour: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG written by hand; colour: 0 grey, 2 RGB, 4 grey and alpha. rows: pixels, big-endian."""
    head, row = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0), len(rows) // height
    lines = b"".join(b"\0" + rows[start : start + row] for start in range(0, len(rows), row))
    parts = {"IHDR": head, **chunks, "IDAT": zlib.compress(lines), "IEND": b""}
    found = b"\x89PNG\r\n\x1a\n"
    for name, data in parts.items():
        whole = name.encode() + data
        found += struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))
    return found


def read(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, "a", "f")).astype(int)


def test_sixteen_bit_colour_and_alpha_keep_the_upper_eight() -> None:
    deep = np.array([[0, 255, 256], [32768, 65535, 511]], ">u2")
    assert read(png(2, 1, 16, 2, deep.tobytes()))[0].tolist() == [[0, 0, 1], [128, 255, 1]]
    grey = np.array([[32768, 65535], [32768, 0]], ">u2")  # opaque, transparent
    assert read(png(2, 1, 16, 4, grey.tobytes()))[0].tolist() == [[128] * 3, [255] * 3]


def test_grey_of_one_bit_and_with_a_transparent_shade(make) -> None:
    dots = Image.fromarray(np.array([[0, 255, 255], [255, 0, 0]], np.uint8)).convert("1")
    for form in ("PNG", "TIFF", "BMP", "GIF"):
        assert read(make.encode(dots, form))[..., 1].tolist() == [[0, 255, 255], [255, 0, 0]]
    shade = struct.pack(">H", 40)
    assert read(png(3, 1, 8, 0, bytes([40, 41, 0]), tRNS=shade))[0, :, 0].tolist() == [255, 41, 0]


def test_grey_and_half_transparent_grey(make) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (read(make.encode(grey)) == grey[..., None]).all()
    assert np.abs(read(make.encode(grey, "JPEG", quality=100)) - grey[..., None]).max() <= 3
    veiled = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 51)])
    assert (read(make.encode(veiled)) == 255 - (255 - 100) // 5).all()  # a fifth of it over white


def test_cmyk_of_a_jpeg_is_inverted_with_and_without_adobes_mark(make) -> None:
    red = make.encode(Image.new("RGB", (16, 16), (200, 30, 10)).convert("CMYK"), "JPEG", quality=100)
    start = red.index(b"Adobe") - 4  # marker and length
    bare = red[:start] + red[start + 2 + int.from_bytes(red[start + 2 : start + 4], "big") :]
    assert b"Adobe" not in bare
    for data in (red, bare):
        assert np.abs(read(data) - (200, 30, 10)).max() <= 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_camera_is_applied(make, orientation: int, form: str) -> None:
    shown = np.zeros((48, 32, 3), np.uint8)
    shown[:16, :16] = 255  # the corner says which way up it is
    shown[:16, 16:] = 120
    undo = {2: "fliplr", 3: "rot180", 4: "flipud", 5: "T", 6: "rot90", 7: "anti", 8: "rot270"}
    stored = {
        "fliplr": np.fliplr, "flipud": np.flipud, "rot180": lambda a: np.rot90(a, 2),
        "rot90": lambda a: np.rot90(a, 1), "rot270": lambda a: np.rot90(a, 3),
        "T": lambda a: a.transpose(1, 0, 2), "anti": lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    }.get(undo.get(orientation, ""), lambda a: a)(shown)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = make.encode(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif)
    found = read(data)
    assert found.shape == shown.shape
    assert np.abs(found - shown).max() <= (40 if form in ("JPEG", "WEBP") else 0)


@pytest.mark.parametrize(
    "notes", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff1"]
)
def test_damaged_notes_of_a_camera_are_passed_over(make, notes: bytes) -> None:
    plain = make.pixels(3, 16)
    for form in ("PNG", "JPEG"):
        with warnings.catch_warnings(action="ignore"):
            found = read(make.encode(plain, form, exif=notes))
        assert (found == read(make.encode(plain, form))).all()


def test_an_orientation_beside_a_damaged_note_is_applied(make) -> None:
    turned, title = struct.pack("<HHII", 0x0112, 3, 1, 3), struct.pack("<HHII", 0x010E, 5, 1, 38)
    ratio = struct.pack("<II", 3, 2)  # where a text belongs
    notes = b"Exif\0\0II*\0\x08\0\0\0\2\0" + title + turned + bytes(4) + ratio
    plain = make.pixels(3, 16)
    # ImageOps.exif_transpose writes all notes anew and fails on this one (Pillow 13).
    assert (read(make.encode(plain, exif=notes)) == plain[::-1, ::-1]).all()


def test_a_broken_colour_profile_is_passed_over(make) -> None:
    plain = make.pixels(4, 16)
    assert (
        read(make.encode(plain, "JPEG", icc_profile=b"no profile")) == read(make.encode(plain, "JPEG"))
    ).all()
    profile = b"name\0\0" + b"not compressed"
    assert (read(png(16, 16, 8, 2, plain.tobytes(), iCCP=profile)) == plain).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_pictures_the_first_is_taken(make, form: str) -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = make.encode(pictures[0], form, save_all=True, append_images=pictures[1:])
    assert np.abs(read(data) - (255, 0, 0)).max() <= 8


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_cut_image_is_an_error_that_names_it(make, form: str) -> None:
    data = make.encode(make.pixels(0, 64), form)
    for kept in (0, 10, len(data) // 2, len(data) - 40):
        with pytest.raises(InvalidInput, match=r"sample cat/7 of pets.tar cannot be read"):
            decode(data[:kept], "cat/7", "pets.tar")


def test_a_giant_image_is_an_error_before_its_pixels_are_decoded(make, monkeypatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    small = bytearray(make.encode(make.pixels(0), "GIF"))
    small[6:10] = b"\xff" * 4
    giants = (
        png(60_000, 60_000, 8, 2, bytes(60_000)),
        bytes(small),
        b"P6 60000 60000 255 " + bytes(99),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for giant in giants:
        with pytest.raises(InvalidInput, match=r"sample a of f cannot be read \(.*exceeds limit"):
            decode(giant, "a", "f")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"<html>404 Not Found</html>\n", "it is no image"),
        (b"\xff\xd8\xff", "."),
        (EPS, "it is no image"),
    ],
)
def test_what_is_no_image_is_said_of_the_sample(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=rf"sample cat/1 of pets cannot be read \(.*{why}"):
        decode(data, "cat/1", "pets")


def test_pillow_alone_would_hand_postscript_to_an_interpreter() -> None:
    assert Image.open(BytesIO(EPS)).format == "EPS"


def test_an_image_counts_whatever_its_suffix_says(make, tmp_path) -> None:
    make.folder(tmp_path / "d", {"a/1.jpg": make.encode(make.pixels(1)), "a/2.gif": b"no"})
    samples = open_samples(str(tmp_path / "d"))
    assert (np.asarray(samples.read(0)) == make.pixels(1)).all()
    with pytest.raises(InvalidInput, match=r"sample a/2 of .*2\.gif cannot be read \(it is no image"):
        samples.read(1)
