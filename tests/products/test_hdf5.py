"""HDF5 files of features and heads: plain, whole, and suspicious of what is neither."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, NmlError
from nmlcli.products.features import Features
from nmlcli.products.formats import read_features, read_record, write_features
from nmlcli.provenance import Record

N, D = 700, 1000
VALUES = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)


def make(values=VALUES, block=None):
    def blocks(rows):
        rows = block or rows
        return (values[i : i + rows] for i in range(0, len(values), rows))

    record = Record("features", "0" * 32, "embed", classes=("ant", "bee"), rows=len(values),
                    columns=values.shape[1])  # fmt: skip
    ids = [f"ünit/{i}" for i in range(len(values))]
    return Features(record, ids, np.arange(len(values)) % 2, None, values.dtype, blocks, "made")


@pytest.fixture
def path(tmp_path):
    write_features(str(tmp_path / "x.h5"), make())
    return tmp_path / "x.h5"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "x.h5"
    write_features(str(path), make(VALUES[:5, :3]))
    return path


def refused(path, *words):
    with pytest.raises(InvalidInput) as caught:
        read_features(str(path)).matrix()
    for word in (path.name, *words):
        assert word in str(caught.value)


def test_what_h5py_finds_there(path):
    with h5py.File(path) as file:
        assert sorted(file) == ["features", "ids_bytes", "ids_offsets", "labels", "nml"]
        assert (file["features"][()] == VALUES).all()
        assert file["features"].chunks == (262, 1000)  # 1 MiB
        assert file["nml"].dtype.kind == "S" and file["nml"].shape == ()
        assert file["labels"].dtype == np.int64
        bounds, text = file["ids_offsets"][()], bytes(file["ids_bytes"][()])
        assert text[bounds[3] : bounds[4]].decode() == "ünit/3"
        assert not len(text) % 8


def test_file_gives_back_what_it_got(path):
    features = read_features(str(path))
    assert features.record == make().record == read_record(str(path))
    assert features.ids == make().ids and (features.labels == make().labels).all()
    assert (features.matrix() == VALUES).all() and (features.matrix() == VALUES).all()
    assert [len(block) for block in features.blocks(300)] == [300, 300, 100]


@pytest.mark.parametrize("values", [VALUES[:3].astype(np.float16), VALUES[:, ::2], VALUES[:1, :1]])
def test_types_and_memory_layouts_survive(tmp_path, values):
    write_features(str(tmp_path / "y.hdf5"), make(values))
    with h5py.File(tmp_path / "y.hdf5") as file:
        assert file["features"].dtype == values.dtype and (file["features"][()] == values).all()
    assert (read_features(str(tmp_path / "y.hdf5")).matrix() == values).all()


def test_same_bytes_whatever_the_blocks(path, tmp_path):
    for block in (1, 100, 262, 700):
        write_features(str(tmp_path / "y.h5"), make(block=block))
        assert (tmp_path / "y.h5").read_bytes() == path.read_bytes()


def test_every_prefix_is_refused(small, tmp_path):
    data = small.read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "y.h5").write_bytes(data[:length])
        refused(tmp_path / "y.h5")


@pytest.mark.parametrize("name", ["features", "ids_bytes", "ids_offsets", "nml"])
def test_missing_datasets_are_named(path, name):
    with h5py.File(path, "a") as file:
        del file[name]
    if name == "nml":  # then it is a foreign file, whose ids and labels still hold
        assert read_features(str(path)).record.model is None
    else:
        refused(path, name)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("labels", np.zeros(N - 1, np.int64), "labels"),
        ("labels", np.zeros(N, np.float32), "labels"),
        ("labels", np.full(N, 2), "row 0"),
        ("labels", np.zeros((N, 1), np.int64), "labels"),
        ("ids_offsets", np.zeros(N, np.int64), "ids_offsets"),
        ("ids_offsets", np.zeros(N + 1, np.int64), "ids"),
        ("ids_bytes", np.zeros(8, np.int64), "ids_bytes"),
        ("features", np.zeros((N, D), np.float64), "float64"),
        ("features", np.zeros((N, D + 1), np.float32), f"{N} × {D}"),
        ("features", np.zeros((0, D), np.float32), "no features"),
        ("features", np.zeros((N, D, 1), np.float32), "features"),
        ("features", 5.0, "features"),
        ("nml", np.bytes_(b"{}"), "kind"),
        ("nml", np.zeros(3), "not text"),
        ("other", np.zeros(3), "other"),
    ],
)
def test_wrong_datasets_are_named(path, name, value, word):
    with h5py.File(path, "a") as file:
        file.pop(name, None)
        file[name] = value
    refused(path, word)


def test_a_file_points_nowhere_else(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 16000)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = VALUES
    layout = h5py.VirtualLayout(shape=(N, D), dtype="f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "features", shape=(N, D))

    def external(file):
        file["features"] = h5py.ExternalLink("other.h5", "features")

    def soft(file):
        file["elsewhere"] = VALUES
        file["features"] = h5py.SoftLink("/elsewhere")

    def raw(file):
        file.create_dataset("features", (N, D), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])

    def virtual(file):
        file.create_virtual_dataset("features", layout)

    def text(file):
        file.create_dataset("features", (N,), h5py.string_dtype())

    for change, word in ((external, "link"), (soft, "link"), (raw, "another file"),
                         (virtual, "another file"), (text, "features")):  # fmt: skip
        copy = tmp_path / f"{change.__name__}.h5"
        copy.write_bytes(path.read_bytes())
        with h5py.File(copy, "a") as file:
            del file["features"]
            change(file)
        refused(copy, word)


def test_rows_that_were_never_written_are_not_read_as_zeros(path):
    with h5py.File(path, "a") as file:
        del file["features"]
        file.create_dataset("features", (N, D), "f4", chunks=(100, D))[:300] = 1
    refused(path, "not wholly there")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    record = make().record
    with h5py.File(tmp_path / "x.h5", "w") as file:
        rows = 2**36
        file["nml"] = np.bytes_(
            Record(**{**record.__dict__, "rows": rows, "columns": 2}).to_json().encode()
        )
        file.create_dataset("features", (rows, 2), "f4", chunks=(2**20, 2), compression="gzip")
        file.create_dataset("ids_offsets", (rows + 1,), "i8", chunks=(2**20,))
        file.create_dataset("ids_bytes", (8,), "u1")
    refused(tmp_path / "x.h5", "not wholly there")


def test_what_is_compressed_beyond_belief_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        twice = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        twice.set_deflate(9)
        twice.set_deflate(9)
        shape = (2**16, 2)
        file.create_dataset("features", shape, np.float32, chunks=shape, dcpl=twice)[:] = 0
    refused(tmp_path / "x.h5", "not wholly there")


def test_compressed_foreign_features_are_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("embeddings", data=VALUES, chunks=(64, D), compression="gzip", shuffle=True)
        file.create_group("more")
        file["labels"] = np.arange(N, dtype=np.uint8)[::-1] // 4
    features = read_features(str(tmp_path / "x.h5"))
    assert (features.matrix() == VALUES).all() and features.ids[-1] == "699"
    assert features.labels[0] == 0 or features.labels.dtype == np.int64


@pytest.mark.parametrize("data", [b"", b"x", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(999)])
def test_what_is_not_hdf5_is_refused(tmp_path, data):
    (tmp_path / "x.h5").write_bytes(data)
    refused(tmp_path / "x.h5", "damaged, or not HDF5")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_are_refused_or_read_rightly(small, tmp_path, data):
    changed = bytearray(small.read_bytes())
    start = changed.index(VALUES[:5, :3].tobytes())
    count = data.draw(st.integers(1, 3))
    for _ in range(count):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "y.h5").write_bytes(changed)
    stored = np.frombuffer(changed[start : start + 60], np.float32).reshape(5, 3)
    try:
        values = read_features(str(tmp_path / "y.h5")).matrix()
    except NmlError:
        return
    assert values.tobytes() == stored.tobytes()


@pytest.mark.process
def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path):
    """The limit on a file's size stands for a full disk: writing fails in the same way."""
    script = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_hdf5 import make
from nmlcli.products.formats import write_features
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    write_features(sys.argv[1], make())
except Exception as error:
    print(type(error).__name__, error)
"""
    for name in ("x.h5", "x.safetensors"):
        (tmp_path / name).write_text("older")
        command = [sys.executable, "-c", script, str(tmp_path / name), str(__file__.rpartition("/")[0])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.splitlines()[-1:] == [
            f"NmlError cannot write {tmp_path / name}: File too large"
        ]
        assert not done.returncode and not done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.h5", "x.safetensors"]
    assert (tmp_path / "x.h5").read_text() == "older"
