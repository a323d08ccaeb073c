"""numpy's files: what numpy writes is read, what we write numpy reads, and nothing is unpickled."""

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nmlcli.errors import InvalidInput
from nmlcli.products.vectors import write_vectors
from nmlcli.provenance import hash_file
from tests.products.vectors import IDS, made, matrix, read, refused

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


class Trap:
    """An object whose unpickling leaves a trace."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@settings(deadline=None, max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5)),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]),
    by_columns=st.booleans(),
    size=st.integers(1, 10),
    form=st.sampled_from(["npy", "npz", "deflated"]),
    data=st.data(),
)
def test_what_numpy_saves_is_read(shape, dtype, by_columns, size, form, data):
    finite = st.floats(-60000, 60000, width=16)
    saved = data.draw(arrays.arrays(np.dtype(dtype), shape, elements=finite))
    saved = np.asfortranarray(saved) if by_columns else saved
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.npy" if form == "npy" else "x.npz")
        if form == "npy":
            np.save(path, saved)
        else:
            (np.savez if form == "npz" else np.savez_compressed)(path, features=saved)
        features = read(path)
        held = matrix(features, size)
        wanted = np.float16 if dtype[1:] == "f2" else np.float32
        assert held.dtype == features.dtype == wanted and held.dtype.isnative
        assert (held == saved.astype(wanted)).all()
        assert features.ids == [str(row) for row in range(shape[0])]
        assert features.record.identity == hash_file(path) and features.record.model is None


def test_numpy_reads_what_was_written(tmp_path):
    write_vectors(str(tmp_path / "x.npz"), made(VALUES, IDS))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        assert held.files == ["nml", "classes", "ids", "labels", "clean_labels", "features"]
        assert held["ids"].tolist() == list(IDS) and held["classes"].tolist() == ["ant", "bée, or"]
        assert held["labels"].tolist() == [0, 1, 0, 1, 0] and held["labels"].dtype == np.int64
        assert held["clean_labels"].tolist() == [0, 0, 1, 1, 0]
        assert held["features"].tobytes() == VALUES.tobytes()
        assert '"embed"' in held["nml"].item()
    assert zipfile.ZipFile(tmp_path / "x.npz").testzip() is None
    write_vectors(str(tmp_path / "x.npy"), made(VALUES))
    assert np.load(tmp_path / "x.npy").tobytes() == VALUES.tobytes()


@pytest.mark.parametrize("labels", [np.array(["b", "a", "b", "c", "a"]), np.array([1, 0, 1, 2, 0])])
def test_labels_and_ids_of_others(tmp_path, labels):
    classes = {} if labels.dtype.kind == "U" else {"classes": np.array(["a", "b", "c"])}
    path = tmp_path / "x.npz"
    np.savez(path, embeddings=VALUES, labels=labels.astype(labels.dtype.newbyteorder(">")),
             ids=np.arange(5) + 7, **classes)  # fmt: skip
    features = read(path)
    assert features.record.classes == ("a", "b", "c") and features.labels.tolist() == [1, 0, 1, 2, 0]
    assert features.ids == ["7", "8", "9", "10", "11"]
    np.savez(path, embeddings=VALUES, kind=labels, **classes)
    assert read(path, label_column="kind").labels.tolist() == [1, 0, 1, 2, 0]
    assert read(path).labels is None
    np.savez(path, embeddings=VALUES, names=np.array([b"e", b"d", b"c", b"b", b"a"]))
    assert read(path, id_column="names").ids == list("edcba")
    assert read(path, id_column="other", lenient=True).ids == list("01234")
    refused(path, "has no column other, but embeddings, names", "--id-column", id_column="other")
    refused(path, "has no column other, but embeddings, names", "--label-column", label_column="other")


def test_objects_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = np.empty((2, 2), dtype=object)
    trap[:] = Trap()
    np.save("x.npy", trap)
    refused(tmp_path / "x.npy", "Python objects, which are never loaded")
    np.savez("x.npz", features=trap)
    refused(tmp_path / "x.npz", "Python objects, which are never loaded")
    np.savez("x.npz", features=VALUES, ids=trap[0])
    refused(tmp_path / "x.npz", "ids", "Python objects")
    np.savez("x.npz", features=VALUES, nml=trap[0])
    refused(tmp_path / "x.npz", "nml", "Python objects")
    Path("x.npy").write_bytes(pickle.dumps(Trap()))
    refused(tmp_path / "x.npy", "is not numpy's .npy")
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(6).reshape(2, 3), "is int64 [2, 3], not float16, float32 or float64 [any, any]"),
        (np.ones(4), "is float64 [4]"),
        (np.ones((2, 3, 4)), "is float64 [2, 3, 4]"),
        (np.ones((2, 2), complex), "complex128"),
        (np.ones((2, 2), np.longdouble), "float1"),
        (np.ones((2, 2), bool), "is bool"),
        (np.ones((2, 2), [("a", "f4")]), "void"),
        (np.ones((0, 3), np.float32), "holds no features: it is 0 × 3"),
        (np.ones((3, 0), np.float32), "it is 3 × 0"),
    ],
)
def test_what_is_no_matrix_of_floats(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    refused(tmp_path / "x.npy", message)
    np.savez(tmp_path / "x.npz", features=array)
    refused(tmp_path / "x.npz", message)


def test_what_does_not_fit_together(tmp_path):
    path = tmp_path / "x.npz"
    for more, message in (
        ({"ids": np.array(["a", "b"])}, "has 2 ids for 5 rows"),
        ({"ids": np.array(list("abcab"))}, "ids repeat: a, b"),
        ({"ids": np.ones((5, 1), int)}, "not a list of texts"),
        ({"ids": np.ones(5)}, "not a list of texts"),
        ({"ids": np.array([b"\xff"] * 5)}, "is damaged"),
        ({"labels": np.arange(4)}, "has 4 labels for 5 rows"),
        ({"labels": np.arange(5), "classes": np.array(["a", "b"])}, "row 2 has the label 2"),
        ({"labels": -np.arange(5)}, "row 1 has the label -1"),
        ({"labels": np.array(list("abcde")), "classes": np.array(["a"])}, "the 1 classes: b, c, d"),
        ({"labels": np.arange(5) % 2, "classes": np.array(["a", "a"])}, "names a class twice: a"),
        ({"nml": np.array("{}")}, "its nml record"),
        ({"nml": np.array([1, 2])}, "its nml record is not text"),
    ):  # fmt: skip
        np.savez(path, features=VALUES, **more)
        refused(path, message)
    np.savez(path, other=VALUES)
    refused(path, "has no features, but other", "--key")
    assert read(path, key="other").rows == 5


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_headers_that_lie(tmp_path):
    path, data = tmp_path / "x.npy", npy(VALUES)
    for old, new in (
        (b"(5, 3)", b"(9, 3)"), (b"(5, 3)", b"(4, 3)"), (b"(5, 3)", b"(-5,3)"), (b"(5, 3)", b"(5, x)"),
        (b"'<f4'", b"'<f8'"), (b"'<f4'", b"'zzz'"), (b"{", b"["), (b"\x01\x00", b"\x09\x00"),
    ):  # fmt: skip
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
        refused(path)
    path.write_bytes(data.replace(b"(5, 3), }" + b" " * 20, b"(%d, %d), }" % (10**12, 10**12), 1))
    refused(path)


def test_archives_that_lie(tmp_path):
    path = tmp_path / "x.npz"
    bomb = npy(np.zeros((1, 1), np.float32)).replace(b"(1, 1), }" + b" " * 8, b"(2000000, 100), }", 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("features.npy", npy(VALUES))
    refused(path, "compressed in a way that numpy does not write")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", bomb)
    refused(path, "was cut short")
    # A directory that claims more than was stored.
    data = path.read_bytes()
    place = data.rfind(b"PK\x01\x02") + 24
    path.write_bytes(data[:place] + (2**31).to_bytes(4, "little") + data[place + 4 :])
    refused(path, "larger than the archive can hold")
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", npy(VALUES))
        archive.writestr("features.npy", npy(VALUES))
    refused(path, "two arrays features")
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    refused(path, "has no features, but nothing")
    path.write_bytes(npy(VALUES))
    refused(path, "is not numpy's .npz")
    np.savez(path, features=VALUES)
    data = path.read_bytes()
    place = data.find(VALUES[2].tobytes())
    path.write_bytes(data[:place] + b"\x01" + data[place + 1 :])
    refused(path, "CRC")


@pytest.mark.parametrize("by_columns", [False, True])
def test_a_large_compressed_archive_takes_little_memory(tmp_path, by_columns):
    values = np.zeros((100_000, 100), np.float32, order="F" if by_columns else "C")
    values[:, 3] = np.arange(len(values))
    np.savez_compressed(tmp_path / "x.npz", features=values)
    features = read(tmp_path / "x.npz")
    tracemalloc.start()
    total = sum(float(block[:, 3].astype(float).sum()) for block in features.blocks(2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == sum(range(100_000)) and peak < 8e6


def test_a_matrix_by_columns_is_read_where_it_lies(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.asfortranarray(VALUES))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: pytest.fail("a copy was made"))
    assert (matrix(read(tmp_path / "x.npy")) == VALUES).all()


def test_an_archive_of_nothing_but_rows_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((1_100_000, 1), np.float16))
    refused(tmp_path / "x.npz", "has 1,100,000 rows in")
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((100_000, 1), np.float16))
    assert read(tmp_path / "x.npz").rows == 100_000


def test_what_npz_cannot_hold_is_said(tmp_path):
    with pytest.raises(InvalidInput, match=r"an \.npz cannot hold 'a\\x00'"):
        write_vectors(str(tmp_path / "x.npz"), made(VALUES, ["a\0", *"bcde"]))
    with pytest.raises(InvalidInput, match="cannot be named ids"):
        write_vectors(str(tmp_path / "x.npz"), made(VALUES), "ids")
    assert list(tmp_path.iterdir()) == []
