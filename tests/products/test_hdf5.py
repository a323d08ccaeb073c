"""HDF5 files of features and heads: plain, whole, and suspicious of what is neither."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.products import hdf5
from nmlcli.products.container import Rows
from nmlcli.products.features import Features
from nmlcli.products.formats import FORMATS, read_features, read_record, write_features
from nmlcli.products.hdf5 import Hdf5File, _interrupts_later
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
        assert not any(file[name].id.get_create_plist().get_obj_track_times() for name in file)
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


@pytest.mark.process
def test_nor_can_one_of_another_program(tmp_path):
    """Its ids are row numbers, one of each row that is said to be there; a limit stands for memory."""
    script = """
import resource, sys
from nmlcli.errors import InvalidInput
from nmlcli.products.formats import read_features
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
try:
    read_features(sys.argv[1])
except InvalidInput as error:
    print(error)
except MemoryError:
    print("it took all the memory")
"""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("features", (2**36, 2), "f4", chunks=(2**20, 2), compression="gzip")
    command = [sys.executable, "-c", script, str(tmp_path / "x.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    wanted = f"{tmp_path}/x.h5: features is not wholly there: it was cut short when written\n"
    assert done.stdout == wanted


@pytest.mark.parametrize("chunk", [None, 700, 64])
def test_large_chunks_are_not_read_at_once(tmp_path, monkeypatch, chunk):
    """One of more than a limit is read in parts: it may be as large as the set."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        chunks = None if chunk is None else (chunk, D)
        file.create_dataset("features", data=VALUES, chunks=chunks)
    held, sizes, read = Hdf5File(str(tmp_path / "x.h5")), [], h5py.Dataset.__getitem__

    def seen(dataset, place):
        sizes.append(len(range(*place.indices(N))))
        return read(dataset, place)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", seen)

    def steps(rows, large):
        monkeypatch.setattr(hdf5, "_LARGE", large)
        sizes.clear()
        assert np.array_equal(np.concatenate(list(held.blocks("features", rows))), VALUES)
        return sizes[0]

    whole = 700 * D * 4  # bytes of the largest chunk
    assert steps(100, whole) == {None: 100, 700: 700, 64: 64}[chunk]
    assert steps(100, whole - 1) == {None: 100, 700: 100, 64: 64}[chunk]
    assert steps(10, 64 * D * 4) == {None: 10, 700: 10, 64: 64}[chunk]
    assert steps(10, 64 * D * 4 - 1) == 10


def test_a_chunk_cannot_be_far_larger_than_what_is_in_it(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        features = file.create_dataset("features", (5, 3), "f4", chunks=(2**28, 3), maxshape=(None, 3),
                                       compression="gzip")  # fmt: skip
        features.id.write_direct_chunk((0, 0), bytes(999))
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


MUTATIONS = """
import sys
from pathlib import Path
import numpy as np
from nmlcli.errors import NmlError
from nmlcli.products.formats import read_features

def seen(path):
    features = read_features(str(path))
    values = [*(b.tobytes() for b in features.blocks(2)), *(b.tobytes() for b in features.views(2))]
    beside = (features.ids, features.labels.tolist(), features.clean_labels.tolist())
    return (values, *beside, features.record.to_json())

seed, count, target, sources = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
originals = [(Path(source).read_bytes(), seen(source)) for source in sources]
rng = np.random.default_rng(seed)
for number in range(count):
    data, known = originals[number % len(originals)]
    data = bytearray(data)
    start = int(rng.integers(len(data)))
    kind = rng.integers(8)
    if kind == 0:
        data[start : start + int(rng.integers(1, 64))] = b""
    elif kind == 1:
        data[start:start] = rng.bytes(int(rng.integers(1, 64)))
    elif kind == 2:
        length, other = int(rng.integers(1, 64)), int(rng.integers(len(data)))
        data[start : start + length] = data[other : other + length]
    else:
        for position in rng.integers(len(data), size=int(rng.integers(1, 5))):
            data[position] = rng.integers(256)
    target.write_bytes(data)
    print(number, flush=True)
    try:
        found = seen(target)
    except NmlError as error:
        assert len(str(error).splitlines()) == 1, error
    else:
        assert found == known, "read wrongly"
"""


@pytest.mark.process
def test_mutations_are_refused_or_read_rightly(tmp_path):
    """In a process of its own, since a crash of the HDF5 library would be the end of this one."""
    small = replace(
        make(VALUES[:5, :3]), views=lambda rows: iter([VALUES[:10, :3].reshape(5, 2, 3)]), num_views=2,
        clean_labels=np.array([0, 1, 0, 0, 1]),
    )  # fmt: skip
    sources = [str(tmp_path / name) for name in ("plain.h5", "compressed.h5")]
    for source in sources:
        write_features(source, replace(small, compress=source.endswith("compressed.h5")))
    count = os.environ.get("NML_MUTATIONS", "1000")  # 10000 for the full test
    command = [sys.executable, "-c", MUTATIONS, "0", count, str(tmp_path / "y.h5"), *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1:], done.stderr)
    assert len(done.stdout.splitlines()) == int(count)


@pytest.mark.parametrize("name", ["features", "labels", "ids_offsets", "ids_bytes", "nml"])
def test_a_changed_byte_is_noticed_wherever_it_is(small, tmp_path, name):
    data = bytearray(small.read_bytes())
    with h5py.File(small) as file:
        stored = file[name][()].tobytes()[:8]
    data[data.index(stored) + 3] ^= 1
    (tmp_path / "y.h5").write_bytes(data)
    refused(
        tmp_path / "y.h5",
        *(["rows 0 to 4 of features", "checksum is wrong"] if name == "features" else ()),
    )


def test_any_program_notices_changed_values(path):
    data = bytearray(path.read_bytes())
    data[data.index(VALUES[300].tobytes())] ^= 64
    path.write_bytes(data)
    with h5py.File(path) as file:
        assert (file["features"][:262] == VALUES[:262]).all()
        with pytest.raises(OSError, match="read data"):
            file["features"][300]


def test_bytes_after_the_end_are_refused(path, tmp_path):
    data = path.read_bytes()
    path.write_bytes(data + b"xyz")
    refused(path, "goes on for 3 bytes after its end")
    path.write_bytes(bytes(512) + data)
    refused(path)
    with h5py.File(tmp_path / "y.h5", "w") as file:  # what others wrote is as HDF5 takes it
        file["features"] = VALUES
    (tmp_path / "y.h5").write_bytes((tmp_path / "y.h5").read_bytes() + b"xyz")
    assert (read_features(str(tmp_path / "y.h5")).matrix() == VALUES).all()


def test_whether_a_file_is_compressed(path, tmp_path):
    write_features(str(tmp_path / "y.hdf5"), replace(make(), compress=True))
    assert FORMATS[".h5"].is_compressed(str(path)) is False
    assert FORMATS[".hdf5"].is_compressed(str(tmp_path / "y.hdf5")) is True
    assert FORMATS[".safetensors"].is_compressed("none") is False
    with h5py.File(tmp_path / "z.h5", "w") as file:  # of whatever name, beside what is no dataset
        file.create_group("a")
        file.create_dataset("b", data=VALUES, compression="lzf")
    assert FORMATS[".h5"].is_compressed(str(tmp_path / "z.h5")) is True
    for size in (0, 100):
        path.write_bytes(path.read_bytes()[:size] if size else b"x")
        assert FORMATS[".h5"].is_compressed(str(path)) is None


def test_compressed_features(path, tmp_path):
    values = np.repeat(VALUES[:7], 100, axis=0)
    write_features(str(tmp_path / "plain.h5"), make(values))
    for block in (1, 100, 262, None):
        write_features(str(tmp_path / f"y{block}.h5"), replace(make(values, block), compress=True))
    packed = (tmp_path / "yNone.h5").read_bytes()
    assert len(packed) < (tmp_path / "plain.h5").stat().st_size / 5
    assert all((tmp_path / f"y{block}.h5").read_bytes() == packed for block in (1, 100, 262))
    assert (read_features(str(tmp_path / "yNone.h5")).matrix() == values).all()
    with h5py.File(tmp_path / "yNone.h5") as file:
        features = file["features"]
        assert (features.compression, features.compression_opts) == ("gzip", 1)
        assert features.shuffle and features.fletcher32 and (features[()] == values).all()
    assert len(list(tmp_path.iterdir())) == 6


def test_values_that_do_not_shrink_are_stored(tmp_path):
    noise = np.frombuffer(np.random.default_rng(0).bytes(N * D * 2), np.float16).reshape(N, D)
    write_features(str(tmp_path / "y.h5"), replace(make(noise), compress=True))
    held = [block.tobytes() for block in read_features(str(tmp_path / "y.h5")).blocks(N)]
    assert held == [noise.tobytes()]


@pytest.mark.parametrize("compress", [False, True])
def test_an_index_of_many_chunks(tmp_path, monkeypatch, compress):
    monkeypatch.setattr(Rows, "per_mebibyte", lambda self: 1)
    values = np.arange(9000, dtype=np.float32).reshape(3000, 3)
    views = np.arange(12000, dtype=np.float32).reshape(3000, 2, 2)[:, :, :1].repeat(3, 2)
    features = replace(
        make(values), compress=compress, num_views=2,
        views=lambda rows: (views[i : i + rows] for i in range(0, 3000, rows)),
    )  # fmt: skip
    write_features(str(tmp_path / "y.h5"), features)
    with h5py.File(tmp_path / "y.h5") as file:
        assert file["features"].chunks == (1, 3) and (file["features"][()] == values).all()
        assert (file["views"][()] == views).all() and file["labels"].fletcher32


def test_writing_takes_little_memory(tmp_path):
    """Of 200 MB of features and 400 MB of views; the peak of a process of its own."""
    script = """
import sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from test_hdf5 import make
from nmlcli.products.hdf5 import write_hdf5
from nmlcli.products.container import Rows
def peak():  # of this process since it began; ru_maxrss knows of its parent's too
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
def blocks(shape):
    return lambda rows: (np.ones((min(rows, shape[0] - i), *shape[1:]), np.float32)
                         for i in range(0, shape[0], rows))
def written(count):
    views = (count, 2, 1000)
    features = (count, 1000)
    rows = Rows("views", np.dtype(np.float32), views, blocks(views))
    rows = Rows("features", np.dtype(np.float32), features, blocks(features), rows)
    with open(sys.argv[1], "w+b") as file:
        write_hdf5(file, make().record, {}, rows)
    return peak()
few = written(1000)
print(written(50_000) - few)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "y.h5"), str(__file__.rpartition("/")[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16  # MiB


FAILING = """
import errno, io, sys
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
from test_hdf5 import VALUES, make
from nmlcli.products import hdf5
from nmlcli.products.container import Rows
from nmlcli.products.formats import write_features
Rows.per_mebibyte = lambda self: 7  # more writes, and an index of many chunks
features = replace(make(), compress=sys.argv[3] == "True", num_views=2,
                   views=lambda rows: iter([VALUES[:, None, :].repeat(2, 1)]))
calls = 0
class Failing(io.FileIO):
    def write(self, data):
        global calls
        calls += 1
        if 0 < failing <= calls:  # and all that follow, as of a full disk
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)
hdf5._Sink.__bases__ = (Failing,)
failing = 0
write_features(sys.argv[1], features)
whole = calls
with open(sys.argv[1], "rb") as file:
    before = file.read()
for failing in range(1, whole + 1, max(1, whole // 60)):
    calls = 0
    try:
        write_features(sys.argv[1], features)
    except Exception as error:
        assert str(error).endswith(": No space left on device"), error
    else:
        raise SystemExit(f"{failing} of {whole} was not noticed")
    with open(sys.argv[1], "rb") as file:
        assert file.read() == before
print(whole)
"""


@pytest.mark.process
@pytest.mark.parametrize("compress", [False, True])
def test_whichever_write_fails_hdf5_does_not_crash(tmp_path, compress):
    """In a process of its own, as above."""
    folder = str(__file__.rpartition("/")[0])
    command = [sys.executable, "-c", FAILING, str(tmp_path / "y.h5"), folder, str(compress)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 200
    assert [entry.name for entry in tmp_path.iterdir()] == ["y.h5"]


def test_interrupts_wait_while_hdf5_calls_back():
    reached = False
    with pytest.raises(KeyboardInterrupt), _interrupts_later():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.process
@pytest.mark.parametrize("name", ["x.h5", "x.safetensors"])
def test_a_killed_writer_leaves_the_older_file(tmp_path, name):
    script = """
import sys, time
from dataclasses import replace
sys.path.insert(0, sys.argv[2])
from test_hdf5 import VALUES, make
from nmlcli.products.formats import write_features
def blocks(rows):
    yield VALUES[:600]
    print("half", flush=True)
    time.sleep(60)
write_features(sys.argv[1], replace(make(), blocks=blocks))
"""
    write_features(str(tmp_path / name), make())
    before = (tmp_path / name).read_bytes()
    command = [sys.executable, "-c", script, str(tmp_path / name), str(__file__.rpartition("/")[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert (tmp_path / name).read_bytes() == before
    assert (read_features(str(tmp_path / name)).matrix() == VALUES).all()


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


@pytest.mark.parametrize("name", ["features", "embeddings"])
def test_rows_that_were_never_written_cost_no_memory(tmp_path, name):
    with h5py.File(tmp_path / "sparse.h5", "w") as file:
        file.create_dataset(name, (10**9, 100), np.float32, chunks=(1024, 100))
    with pytest.raises(InvalidInput, match="is not wholly there"):
        read_features(str(tmp_path / "sparse.h5"))


def test_of_two_foreign_matrices_features_are_meant(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["embeddings"] = np.ones((5, 4), dtype=np.float32)
        file["features"] = np.ones((5, 8), dtype=np.float32)
    assert read_features(str(tmp_path / "two.h5")).columns == 8


@pytest.mark.parametrize("chunk", [1, 3, 7, 64, 100])
@pytest.mark.parametrize("large", [2**26, 0])
def test_blocks_of_any_chunks_hold_all_rows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, large: int
) -> None:
    monkeypatch.setattr("nmlcli.products.hdf5._LARGE", large)
    values = np.arange(300, dtype=np.float32).reshape(100, 3)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(chunk, 2), compression="gzip")
    for rows in (1, 5, 7, 99, 100, 4096):
        blocks = list(Hdf5File(str(path)).blocks("x", rows))
        assert {len(block) for block in blocks[:-1]} <= {rows}
        assert np.concatenate(blocks).tolist() == values.tolist()
