"""Features as a product: their views, in files and streams, and what does not belong there."""

import io
from dataclasses import replace

import h5py
import numpy as np
import pytest
from safetensors.numpy import load as library_load
from safetensors.numpy import load_file, save_file

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products.features import Features, pack_features, unpack_features
from nmlcli.products.formats import FORMATS, read_features, write_features
from nmlcli.products.stream import SafetensorsFile, write_safetensors
from nmlcli.provenance import Record
from nmlcli.stages.info import describe, worded

N, K, D = 7, 3, 5  # odd, so that views do not start at a multiple of 8
RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((N, D), dtype=np.float32)
VIEWS = RNG.standard_normal((N, K, D), dtype=np.float32)


def sliced(values):
    return lambda rows: (values[i : i + rows] for i in range(0, len(values), rows))


def make(values=VALUES, views=VIEWS):
    record = Record("features", "0" * 32, "embed", classes=("ant", "bee"), rows=N, columns=D)
    beside = ([f"{i}" for i in range(N)], np.arange(N) % 2, None)
    return Features(record, *beside, values.dtype, sliced(values), "made", sliced(views), K)


def streamed(features):
    out = io.BytesIO()
    write_safetensors(out, features.record, *pack_features(features))
    return out.getvalue()


def joined(blocks):
    return np.concatenate(list(blocks))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("suffix", FORMATS)
def test_views_come_back(tmp_path, suffix, dtype):
    path, values, views = str(tmp_path / f"x{suffix}"), VALUES.astype(dtype), VIEWS.astype(dtype)
    write_features(path, make(values, views))
    back = read_features(path)
    assert back.num_views == K and back.dtype == dtype
    for rows in (1, 2, N, 100):
        blocks = list(back.views(rows))
        assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)
        assert (joined(blocks) == views).all() and joined(blocks).dtype == dtype
        assert (joined(back.blocks(rows)) == values).all()
    write_features(path, back)  # what was read can be written
    assert (joined(read_features(path).views(2)) == views).all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_views_there_are_none(tmp_path, suffix):
    write_features(str(tmp_path / f"x{suffix}"), replace(make(), views=None, num_views=0))
    back = read_features(str(tmp_path / f"x{suffix}"))
    assert back.views is None and back.num_views == 0


def test_other_programs_find_them(tmp_path):
    for name in ("x.h5", "x.safetensors"):
        write_features(str(tmp_path / name), make())
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file["views"][()] == VIEWS).all() and file["views"].fletcher32
        assert (file["features"][()] == VALUES).all()
    held = load_file(tmp_path / "x.safetensors")
    assert (held["views"] == VIEWS).all() and (held["features"] == VALUES).all()
    assert (library_load(streamed(make()))["views"] == VIEWS).all()


def test_in_a_stream_views_follow_the_features():
    features = unpack_features(SafetensorsFile(io.BytesIO(streamed(make())), "stdin"))
    assert (joined(features.blocks(2)) == VALUES).all()
    assert (joined(features.views(3)) == VIEWS).all()
    features = unpack_features(SafetensorsFile(io.BytesIO(streamed(make())), "stdin"))
    assert (joined(features.views(3)) == VIEWS).all()
    with pytest.raises(NmlError, match="only once and in order"):
        next(features.blocks(1))


def test_a_stream_that_is_cut_short_or_goes_on_says_so():
    stream = streamed(make())
    for data, words in (
        (stream[:-1], "bytes are there"),
        (stream[: -VIEWS.nbytes - 1], "6 of 7 rows"),
        (stream + b"x", "goes on"),
    ):
        features = unpack_features(SafetensorsFile(io.BytesIO(data), "stdin"))
        with pytest.raises(InvalidInput, match=words):
            [*features.blocks(2), *features.views(2)]


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (VIEWS[:-1], r"views is float32 \[6, 3, 5\], not float32 \[7, any, 5\]"),
        (VIEWS[:, :, :-1], "views is float32"),
        (VIEWS[:, 0], "views is float32"),
        (VIEWS[:, :0], "holds no views"),
        (VIEWS.astype(np.float16), "views is float16"),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_views_that_do_not_fit_are_refused(tmp_path, suffix, views, words):
    arrays, _ = pack_features(make())
    path = tmp_path / f"x{suffix}"
    FORMATS[suffix].write(path, make().record, {**arrays, "features": VALUES, "views": views}, None)
    with pytest.raises(InvalidInput, match=words):
        read_features(str(path))


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_arrays_of_other_names_are_still_refused(tmp_path, suffix):
    arrays, rows = pack_features(make())
    path = tmp_path / f"x{suffix}"
    FORMATS[suffix].write(path, make().record, {**arrays, "view": np.zeros(8, np.uint8)}, rows)
    with pytest.raises(InvalidInput, match="do not belong there: view"):
        read_features(str(path))


def test_views_of_foreign_files_are_not_known(tmp_path):
    save_file({"features": VALUES, "views": VIEWS}, tmp_path / "x.safetensors")
    assert read_features(str(tmp_path / "x.safetensors")).views is None


def test_info_shows_them(tmp_path):
    write_features(str(tmp_path / "x.h5"), make())
    assert "views float32 [7, 3, 5]" in worded(describe(str(tmp_path / "x.h5")))["holds"]
