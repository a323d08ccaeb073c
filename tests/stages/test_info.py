"""`nml info`: what a product is, in words and as JSON, from its header alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from nmlcli.cli import main
from nmlcli.errors import InvalidInput
from nmlcli.products.checkpoint import Checkpoint
from nmlcli.products.formats import read_record, write_checkpoint, write_head
from nmlcli.products.head import Head
from nmlcli.products.labels import clean_facts, noise_facts
from nmlcli.products.tables import write_sidecar
from nmlcli.provenance import Record, chain
from nmlcli.stages.convert import ConvertOptions, convert
from nmlcli.stages.info import describe, differences, noise_in_words, worded

NOISE = {"kind": "symmetric", "requested": 0.2, "realised": 0.2, "flipped": 10_000, "of": 50_000,
         "seed": 0, "draw": "exact"}  # fmt: skip


ASKED = "symmetric 20 % asked, 10,000 of 50,000 flipped (20.00 %)"
RECOUNTED = noise_facts(None, None, np.array([0, 1, 1]), np.array([0, 0, 1]), None)


@pytest.mark.parametrize(
    ("noise", "sentence"),
    [
        (NOISE, f"{ASKED}, seed 0"),
        ({**NOISE, "draw": "bernoulli", "seed": 7}, f"{ASKED}, bernoulli draw, seed 7"),
        (None, "not known"),
        (clean_facts(5), "known clean"),
        (
            {**NOISE, "requested": 0.001, "realised": 0.0, "flipped": 0},
            "symmetric 0.1 % asked, 0 of 50,000 flipped (0.00 %), seed 0",
        ),
        (RECOUNTED, "kind not known, 1 of 3 flipped (33.33 %)"),
        ({"kind": 5, "requested": "x", "realised": [], "flipped": "a"}, "5"),
        ({}, "kind not known"),
    ],
)
def test_noise_in_words(noise, sentence):
    assert noise_in_words(noise) == sentence


@pytest.fixture
def head(tmp_path, make_features):
    source = read_record(make_features("train.h5", noise=NOISE))
    record = Record(
        "head", "d" * 32, "tune", options={"method": "nmtune", "lambda": 0.01, "val": None},
        classes=source.classes, rows=90, columns=8, data=source.data, model=source.model,
        noise=source.noise, parents=chain(source),
    )  # fmt: skip
    path = str(tmp_path / "head.safetensors")
    layers = ((np.zeros((3, 8), np.float32), np.zeros(3, np.float32)),)
    write_head(path, Head(record, layers, None, None, path))
    return path


def test_features_in_words(make_features):
    path = make_features("train.h5", noise=NOISE)
    words = worded(describe(path))
    assert words == {
        "file": path,
        "is": "features, 90 rows × 8 columns",
        "made by": "nml embed 0.1.0",
        "identity": read_record(path).identity,
        "classes": "3: ant, bee, cat",
        "data": f"toy/photo:train ({read_record(path).data['identity'][:8]})",
        "noise of the labels": "symmetric 20 % asked, 10,000 of 50,000 flipped (20.00 %), seed 0",
        "network": "resnet10t (mmmmmmmm)",
        "its layer": "pre_logits",
        "its pre-training": "supervised, shapes:train, seed 0",
        "its labels' noise": "symmetric 30 % asked (31.00 %), seed 4",
        "holds": "features float32 [90, 8], ids_bytes uint8 [360], ids_offsets int64 [91], "
        "labels int64 [90]",
        "bytes": words["bytes"],
    }


def test_what_features_are_of_and_how_samples_were_prepared(make_features):
    prepared = {"size": 224, "mean": [0.5, 0.25, 0.123456], "interpolation": "bicubic", "cut": None}
    model = {"name": "ViT-L-14", "input": "images", "layer": "blocks.3", "pool": "cls"}
    words = worded(describe(make_features(model={**model, "preprocessing": prepared})))
    assert words["its layer"] == "images blocks.3 cls"
    told = set(words["pre-processing"].split(", "))
    assert told == {"size 224", "mean 0.5/0.25/0.1235", "interpolation bicubic"}
    assert "pre-processing" not in worded(describe(make_features(model={**model, "preprocessing": 3})))


def test_a_head_knows_its_chain(head):
    words = worded(describe(head))
    assert words["is"] == "a head, trained on 90 rows × 8 columns"
    assert words["made by"] == "nml tune 0.1.0: lambda=0.01 method=nmtune"
    assert words["came from"].startswith("features ") and words["came from"].endswith(" (embed)")


def test_features_of_an_unknown_network(make_features):
    words = worded(describe(make_features(model=None, noise=None, classes=None, labelled=False)))
    assert not {"network", "its pre-training", "its labels' noise", "classes"} & words.keys()


def test_a_checkpoint_needs_no_torch(tmp_path):
    path = str(tmp_path / "x.safetensors")
    weights = {f"layer.{i}": torch.zeros(2, 3, dtype=torch.bfloat16) for i in range(20)}
    facts = {"classes": ("ant", "bee"), "rows": 90, "model": {"name": "resnet10t"}, "noise": NOISE}
    write_checkpoint(
        path, Checkpoint(Record("checkpoint", "c" * 32, "pretrain", **facts), weights, path)
    )
    words = worded(describe(path))
    assert words["is"] == "a checkpoint, trained on 90 rows"
    assert words["holds"].startswith("layer.0 bfloat16 [2, 3], ") and words["holds"].endswith(
        "and 14 more"
    )
    script = (
        "import sys; from nmlcli.stages.info import describe;"
        "describe(sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_label_tables(tmp_path):
    path = tmp_path / "noisy.csv"
    path.write_text("id,label,clean_label\n1,ant,ant\n2,bee,ant\n3,bee,bee\n4,bee,bee\n")
    facts = describe(str(path))
    assert (facts["kind"], facts["rows"], facts["noise"]["realised"]) == (None, 4, 0.25)
    words = worded(facts)
    assert words["noise of the labels"] == "kind not known, 1 of 4 flipped (25.00 %)"
    assert words["is"] == "a file without nml record, 4 rows" and words["classes"] == "2: ant, bee"
    record = Record("labels", "e" * 32, "corrupt", classes=("ant", "bee"), rows=4, noise=NOISE)
    write_sidecar(path, record)
    assert worded(describe(str(path)))["noise of the labels"] == noise_in_words(NOISE)
    path.write_text("name,age\na,5\n")
    assert worded(describe(str(path)))["holds"] == "name, age"


def test_files_from_elsewhere(tmp_path):
    path = str(tmp_path / "x.safetensors")
    save_file({"embeddings": np.zeros((5, 3), np.float32)}, path)
    assert worded(describe(path)) == {
        "file": path, "is": "a file without nml record", "holds": "embeddings float32 [5, 3]",
        "bytes": f"{(tmp_path / 'x.safetensors').stat().st_size:,}",
    }  # fmt: skip
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"x\.tar is no product: those end in \.safetensors"):
        describe(str(tmp_path / "x.tar"))


def test_numpy_files_are_told_by_their_headers(tmp_path, make_features):
    """Vectors of others are described, not read: a matrix of 3 GB is told at once."""
    (tmp_path / "x.npy").write_bytes(b"")
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (10**6, 768)).flush()
    facts = describe(str(tmp_path / "x.npy"))
    assert (facts["kind"], facts["rows"], facts["columns"]) == (None, 10**6, 768)
    assert worded(facts)["is"] == "a file without nml record, 1,000,000 rows × 768 columns"
    assert worded(facts)["holds"] == "array float32 [1000000, 768]"
    np.savez(tmp_path / "x.npz", embedding=np.zeros((5, 3), np.float16), labels=np.arange(5))
    facts = describe(str(tmp_path / "x.npz"))
    assert (facts["rows"], facts["columns"]) == (5, 3)
    assert facts["holds"] == {"embedding": "float16 [5, 3]", "labels": "int64 [5]"}
    np.save(tmp_path / "line.npy", np.arange(3))
    assert describe(str(tmp_path / "line.npy"))["rows"] is None
    own = make_features("own.h5")
    for name in ("own.npy", "own.npz"):
        convert(own, str(tmp_path / name), ConvertOptions())
        facts = describe(str(tmp_path / name))
        assert (facts["kind"], facts["identity"]) == ("features", read_record(own).identity)
        assert worded(facts)["is"] == "features, 90 rows × 8 columns" and "nml" not in facts["holds"]
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-9])
    with pytest.raises(InvalidInput, match=r"x\.npz is not numpy's \.npz, or damaged"):
        describe(str(tmp_path / "x.npz"))


def test_what_two_products_differ_in(make_features):
    one = describe(make_features("one.h5", noise=NOISE))
    two = describe(make_features("two.h5", noise={**NOISE, "seed": 3}, classes=("ant", "bee"), rows=80))
    fields = {field: (left, right) for field, left, right in differences(one, two)}
    assert fields["noise.seed"] == ("0", "3") and fields["rows"] == ("90", "80")
    assert fields["classes"] == ("3: ant, bee, cat", "2: ant, bee")
    assert "noise.kind" not in fields and "source" not in fields and "model.name" not in fields
    assert differences(one, one) == []
    assert ("model.seed", "0", "–") in differences(one, {**one, "model": None})


def test_the_command_gives_json_lines_to_programs(capsys, make_features, head):
    assert main.run(["info", make_features("train.h5"), head]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["features", "head"]
    assert lines[1]["parents"][0]["identity"] == lines[0]["identity"]
    assert lines[0]["holds"]["features"] == "float32 [90, 8]"


def test_the_command_gives_tables_to_people(capsys, make_features, head, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main.run(["info", "--table", head]) == 0
    out = capsys.readouterr().out
    assert "a head, trained on 90 rows" in out and "(embed)" in out
    assert max(map(len, out.splitlines())) <= 80
    one, two = make_features("one.h5"), make_features("two.h5", seed=1)
    assert main.run(["info", "--table", one, two]) == 0
    out = capsys.readouterr().out
    assert "data.identity" in out and "noise.seed" not in out
    assert main.run(["info", "--table", one, one]) == 0
    assert "no difference" in capsys.readouterr().out


def test_names_of_arrays_do_not_steer_the_terminal(capsys, tmp_path):
    path, name = str(tmp_path / "x.safetensors"), "a\nb\x1b[2J"
    save_file({name: np.zeros((5, 3), np.float32)}, path)
    assert main.run(["info", "--table", path]) == 0
    assert r"a\nb\x1b[2J float32 [5, 3]" in capsys.readouterr().out
    assert main.run(["info", path]) == 0
    out = capsys.readouterr().out
    assert r"a\nb\u001b[2J" in out and json.loads(out)["holds"] == {name: "float32 [5, 3]"}
    assert main.run(["convert", path, str(tmp_path / "y.h5")]) == 1
    assert r"it holds a b\x1b[2J float32 [5, 3]" in capsys.readouterr().err


def test_the_command_tells_what_is_whole_and_stops_at_what_is_not(capsys, tmp_path, make_features):
    whole = make_features("train.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "train.safetensors").read_bytes()[:-40])
    assert main.run(["info", whole, whole, str(cut)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == f"nml info: {cut} was cut short: 88 of 90 rows are there\n"
    assert main.run(["info", str(tmp_path / "missing.h5")]) == 1
    assert capsys.readouterr().err == f"nml info: {tmp_path}/missing.h5: no such file\n"
    assert main.run(["info", "--json", "--table", whole]) == 2
