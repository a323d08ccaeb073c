"""VECTORS: every form gives back what it got, and what is cut short is refused."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nmlcli.errors import InvalidInput
from nmlcli.products.formats import open_container, read_record
from nmlcli.products.tables import sidecar
from nmlcli.products.vectors import VECTORS, write_vectors
from tests.products.vectors import IDS, made, matrix, read, same

KEEPING = [suffix for suffix in VECTORS if suffix != ".npy"]
VALUES = np.array([[0.1, -0.0], [1e-45, 3.4e38], [7, -1], [2**-126, 1 / 3], [5, 6]], np.float32)

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda t: t[-1:] != "\0")


@st.composite
def features(draw):
    dtype = np.dtype(draw(st.sampled_from(["float16", "float32"])))
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 5)))
    finite = {"allow_nan": False, "allow_infinity": False, "width": 8 * dtype.itemsize}
    values = draw(arrays.arrays(dtype, shape, elements=st.floats(**finite)))
    names = draw(st.lists(ids, min_size=shape[0], max_size=shape[0], unique=True))
    classes = draw(st.sampled_from([("ant", "bée, or"), ('"', "1"), None]))
    labelled = draw(st.sampled_from(["none", "labels", "both"]))
    changes = {"labels": {"labels": np.arange(shape[0]) % 2, "clean_labels": None}, "both": {}}
    return made(values, names, classes, **changes.get(labelled, {"labels": None, "clean_labels": None}))


@pytest.mark.parametrize("suffix", KEEPING)
@settings(deadline=None, max_examples=60)
@given(given_=features())
def test_every_form_gives_back_features_bit_by_bit(suffix, given_):
    with TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        write_vectors(str(path), given_)
        assert same(read(path), given_)
        assert read_record(str(path)).identity == given_.record.identity
        beside = VECTORS[suffix].beside
        assert {each.name for each in path.parent.iterdir()} == {path.name} | (
            {f"{path.name}.nml.json"} if beside else set()
        )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_npy_gives_back_the_matrix_and_its_record(tmp_path, dtype):
    path = tmp_path / "x.npy"
    given_ = made(np.arange(10).reshape(5, 2).astype(dtype), IDS)
    write_vectors(str(path), given_)
    back = read(path)
    assert back.record == given_.record and back.ids == list("01234") and back.labels is None
    assert matrix(back).dtype == dtype and (matrix(back) == matrix(given_)).all()


@pytest.mark.parametrize("suffix", VECTORS)
def test_the_same_bytes_twice_whatever_the_blocks(tmp_path, suffix):
    for name in "ab":
        write_vectors(str(tmp_path / f"{name}{suffix}"), made(VALUES, IDS))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", VECTORS)
def test_every_prefix_is_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_vectors(str(path), made(VALUES, IDS))
    data = path.read_bytes()
    # Whole lines are a table of their own; its record, which told of more, is left aside.
    ends = {i for i, byte in enumerate(data) if VECTORS[suffix].beside and suffix != ".npy"
            and byte in (10, 13)}  # fmt: skip
    ends |= {i + 1 for i in ends}
    short = 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            values = matrix(read(path))
        except InvalidInput as error:
            assert path.name in str(error)
            short += 1
        else:
            # A number may end early, and a table after a row.
            assert suffix in (".csv", ".jsonl") and len(values) < 6
    assert short == len(data) or suffix in (".csv", ".jsonl")
    if suffix == ".jsonl":
        assert short > 0.95 * len(data)


@pytest.mark.parametrize(("suffix", "step"), [(".npy", 1), (".npz", 7), (".parquet", 7)])
def test_whatever_byte_changes_it_is_refused_or_read(tmp_path, suffix, step):
    path = tmp_path / f"x{suffix}"
    write_vectors(str(path), made(VALUES, IDS))
    data = path.read_bytes()
    sidecar(path).unlink(missing_ok=True)
    for place in range(0, len(data), step):
        for byte in {0, 32, data[place] ^ 1, data[place] ^ 16, data[place] ^ 128}:
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            try:
                features = read(path)
                assert matrix(features).shape == (features.rows, features.columns)
            except InvalidInput as error:
                assert path.name in str(error)


@pytest.mark.process
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_large_table_takes_little_memory(tmp_path, suffix):
    """Of some 60 MB; the peak of a process of its own, beyond that of a small one."""
    rng = np.random.default_rng(0)
    for name, rows in (("few", 10), ("many", 5_000 if suffix != ".parquet" else 15_000)):
        values = rng.normal(size=(rows, 1000)).astype(np.float32)
        write_vectors(str(tmp_path / f"{name}{suffix}"), made(values))
        if suffix == ".parquet":  # as another program writes it, so that it is hashed too
            table = pq.read_table(tmp_path / f"{name}{suffix}")
            pq.write_table(table.replace_schema_metadata(None), tmp_path / f"{name}{suffix}")
        sidecar(tmp_path / f"{name}{suffix}").unlink(missing_ok=True)
    assert (tmp_path / f"many{suffix}").stat().st_size > 5e7
    script = """
import sys
from nmlcli.products.vectors import VECTORS, Asked
def peak():  # of this process since it began; ru_maxrss knows of its parent's too
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
for path in sys.argv[2:]:
    features = VECTORS[sys.argv[1]].read(path, path, Asked())
    rows = sum(len(block) for block in features.blocks(256))
    print(rows, peak())
"""
    command = [sys.executable, "-c", script, suffix]
    paths = [str(tmp_path / f"{name}{suffix}") for name in ("few", "many")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=True)
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert few == 10 and many >= 5_000 and after - before < 30  # MiB


def test_a_table_that_changed_leaves_its_record_aside(tmp_path, caplog):
    for suffix in (".csv", ".jsonl"):
        path = tmp_path / f"x{suffix}"
        write_vectors(str(path), made(VALUES, "abcde"))
        path.write_bytes(path.read_bytes().rsplit(b"\n", 2)[0] + b"\n")
        back = read(path)
        assert back.record.command == "" and back.rows == 4 and "has changed" in caplog.text


def test_products_of_another_kind_and_size_are_refused(tmp_path):
    given_ = made(VALUES)
    record = given_.record.__dict__
    for changes, message in (({"kind": "head"}, "holds a head"), ({"rows": 7}, "says 7 × 2")):
        other = made(VALUES)
        object.__setattr__(other, "record", type(given_.record)(**{**record, **changes}))
        for suffix in VECTORS:
            write_vectors(str(tmp_path / f"x{suffix}"), other)
            with pytest.raises(InvalidInput, match=message):
                read(tmp_path / f"x{suffix}")


def test_who_wants_a_product_is_told_of_convert(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    with pytest.raises(InvalidInput, match="nml convert"):
        open_container(str(tmp_path / "x.npy"))


@pytest.mark.process
def test_the_menu_is_light():
    heavy = "{'numpy', 'torch', 'h5py', 'pyarrow'}"
    script = f"import sys, nmlcli.products.vectors; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert all(row.help for row in VECTORS.values())
