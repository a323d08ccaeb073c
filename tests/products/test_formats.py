"""The door for products: every format gives back what it got, and errors say what to do."""

import io
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load as library_load
from safetensors.torch import load_file

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products import formats
from nmlcli.products.checkpoint import Checkpoint
from nmlcli.products.features import Features
from nmlcli.products.formats import (
    FORMATS,
    open_container,
    read_checkpoint,
    read_features,
    read_head,
    read_record,
    write_checkpoint,
    write_features,
    write_head,
    write_spectrum_state,
)
from nmlcli.products.head import Head
from nmlcli.products.spectrum import SpectrumState
from nmlcli.provenance import Record

VALUES = np.arange(60, dtype=np.float32).reshape(20, 3)


def make_features(dtype=np.float32, labels=True):
    values = VALUES.astype(dtype)
    facts = {"model": {"name": "resnet18"}, "noise": {"kind": "symmetric", "realised": 0.2}}
    record = Record("features", "f" * 32, "embed", classes=("a", "b"), rows=20, columns=3, **facts)
    numbers = np.arange(20) % 2 if labels else None
    blocks = lambda rows: (values[i : i + rows] for i in range(0, 20, rows))  # noqa: E731
    return Features(record, [f"x/{i}" for i in range(20)], numbers, None, values.dtype, blocks, "made")


def make_head():
    record = Record("head", "h" * 32, "tune", classes=("a", "b"))
    return Head(record, ((VALUES[:2], VALUES[0, :2]),), None, None, "made")


def make_checkpoint():
    weights = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5)).state_dict()
    weights["half"] = torch.arange(3, dtype=torch.bfloat16)
    weights["across"] = torch.arange(6.0).reshape(2, 3).T
    weights["tied"] = weights["0.weight"]
    return Checkpoint(Record("checkpoint", "c" * 32, "pretrain", classes=("a", "b")), weights, "made")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_back_features(tmp_path, suffix, dtype, labels):
    path, features = str(tmp_path / f"x{suffix.upper()}"), make_features(dtype, labels)
    write_features(path, features)
    back = read_features(path)
    assert back.record == features.record == read_record(path) and back.ids == features.ids
    assert back.dtype == dtype and (back.matrix() == VALUES).all()
    assert (back.labels == features.labels).all() if labels else back.labels is None
    assert list(tmp_path.iterdir()) == [tmp_path / f"x{suffix.upper()}"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_refuses_every_tenth_truncation(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_features(str(path), make_features())
    data = path.read_bytes()
    for length in range(0, len(data), 10):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidInput, match=path.name):
            read_features(str(path)).matrix()


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_sums_of_a_spectrum(tmp_path, suffix):
    path, gram = str(tmp_path / f"x{suffix}"), np.cov(VALUES.T.astype(float), ddof=0) * 20
    record = Record("spectrum", "s" * 32, "spectrum", rows=20, columns=3)
    write_spectrum_state(path, SpectrumState(record, np.ones(3), gram, VALUES.sum(axis=0), 20))
    held = open_container(path).arrays(("centred_gram", "count", "column_sums", "singular_values"))
    assert (held["centred_gram"] == gram).all() and held["centred_gram"].dtype == held[
        "column_sums"
    ].dtype == np.float64
    assert held["count"] == 20 and held["count"].shape == () and read_record(path) == record


def test_checkpoints_come_back_and_the_library_reads_them(tmp_path):
    path, checkpoint = str(tmp_path / "x.safetensors"), make_checkpoint()
    write_checkpoint(path, checkpoint)
    for weights in (read_checkpoint(path).weights, load_file(path)):
        assert weights.keys() == checkpoint.weights.keys()
        for name, weight in checkpoint.weights.items():
            assert weights[name].dtype == weight.dtype and torch.equal(weights[name], weight)
    assert read_checkpoint(path).record == checkpoint.record == read_record(path)
    first = (tmp_path / "x.safetensors").read_bytes()
    write_checkpoint(path, read_checkpoint(path))
    assert (tmp_path / "x.safetensors").read_bytes() == first
    with pytest.raises(UsageError, match=r"use \.safetensors"):
        write_checkpoint(str(tmp_path / "x.h5"), checkpoint)


def test_a_product_of_another_kind_is_named(tmp_path):
    names = {kind: str(tmp_path / f"{kind}.safetensors") for kind in ("features", "head", "checkpoint")}
    write_features(names["features"], make_features())
    write_head(names["head"], make_head())
    write_checkpoint(names["checkpoint"], make_checkpoint())
    for reader, wanted in (
        (read_features, "features"),
        (read_head, "a head"),
        (read_checkpoint, "a checkpoint"),
    ):
        for kind, name in names.items():
            if kind != wanted.removeprefix("a "):
                with pytest.raises(InvalidInput) as caught:
                    reader(name)
                assert str(caught.value).startswith(f"{name} holds ")
                assert kind in str(caught.value) and f"not {wanted}" in str(caught.value)


def test_errors_of_names(tmp_path):
    def message(name, reader=read_features):
        with pytest.raises(NmlError) as caught:
            reader(str(tmp_path / name))
        return str(caught.value).replace(f"{tmp_path}/", "")

    (tmp_path / "x.csv").write_text("id,label\n1,2\n")
    (tmp_path / "x.pt").write_bytes(b"x")
    (tmp_path / "x.safetensors.state").write_bytes(b"x")
    (tmp_path / "x.safetensors").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "foreign.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    assert message("y.h5") == "y.h5: no such file"
    (tmp_path / "x.tsv").write_text("id\tlabel\n1\t2\n")
    assert message("x.csv") == "x.csv is no product: `nml convert` makes features of it"
    assert message("x.tsv") == "x.tsv holds a table, not features"
    assert message("x.csv", read_head) == "x.csv holds a table, not a head"
    assert message("x.pt") == "x.pt is no product: those end in .safetensors, .h5, .hdf5"
    hint = "it may be what `nml pretrain --resume` goes on from"
    assert message("x.safetensors.state") == f"x.safetensors.state is no product: {hint}"
    assert message("x.safetensors").startswith("x.safetensors is HDF5, not safetensors")
    assert message("foreign.safetensors") == "foreign.safetensors has no features: it holds nothing"
    assert message("foreign.safetensors", read_head).startswith("foreign.safetensors has no nml record")
    assert message(".").endswith("is a folder, not a file")
    assert message("a" * 300 + ".h5").startswith("cannot read")
    with pytest.raises(UsageError, match=r"no format has the suffix \(none\): use \.safetensors"):
        write_features(str(tmp_path / "x"), make_features())
    with pytest.raises(NmlError, match="does not exist"):
        write_features(str(tmp_path / "missing/x.h5"), make_features())


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def test_stdout_and_stdin(monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, isatty=lambda: False))
    write_features(None, make_features())
    data = out.getvalue()
    assert (library_load(data)["features"] == VALUES).all()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))
    features = read_features("-")
    assert features.source == "stdin" and (features.matrix() == VALUES).all()
    out.seek(0)
    out.truncate()
    write_head("-", make_head())
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(out.getvalue()), isatty=lambda: False)
    )
    assert (read_head("-").layers[0][0] == VALUES[:2]).all()


def test_a_terminal_neither_gives_nor_takes_a_product(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    with pytest.raises(UsageError, match="the product is binary: give -o FILE or pipe it"):
        write_features(None, make_features())
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    with pytest.raises(UsageError, match="stdin is a terminal"):
        read_features("-")


def test_named_pipes_are_streams(tmp_path):
    pipe = str(tmp_path / "pipe.h5")  # whatever its suffix says
    os.mkfifo(pipe)
    thread = threading.Thread(target=write_features, args=(pipe, make_features()))
    thread.start()
    assert (read_features(pipe).matrix() == VALUES).all()
    thread.join()
    assert (tmp_path / "pipe.h5").is_fifo()
    write_features("/dev/null", make_features())
    write_checkpoint("/dev/null", make_checkpoint())


def test_a_damaged_source_leaves_the_older_output(tmp_path):
    path = str(tmp_path / "x.h5")
    write_features(path, make_features())
    before = (tmp_path / "x.h5").read_bytes()

    def broken(rows):
        yield VALUES[:3]
        raise InvalidInput("the source broke")

    features = make_features()
    with pytest.raises(InvalidInput, match="the source broke"):
        write_features(path, Features(**{**features.__dict__, "blocks": broken}))
    assert (tmp_path / "x.h5").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.process
def test_the_menu_is_light():
    script = "import sys, nmlcli.products.formats; print({'numpy', 'torch', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert all(row.help for row in formats.FORMATS.values())
