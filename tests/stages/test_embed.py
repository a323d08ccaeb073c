"""Features: those of timm itself, the same however they are made, and what they say of themselves."""

import io
import os
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load
from timm.data.transforms_factory import create_transform

from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models.schemes import Wanted, open_network
from nmlcli.products.checkpoint import Checkpoint
from nmlcli.products.formats import read_checkpoint, read_features, write_checkpoint
from nmlcli.stages.embed import EmbedOptions, embed
from nmlcli.stages.inputs import check_parts
from nmlcli.stages.pretrain import pretrain
from nmlcli.stages.pretrain_options import PretrainOptions

DATA = "builtin:shapes:val"
OPTIONS = EmbedOptions(source=SourceOptions(limit=40), workers=0)
RANDOM = replace(OPTIONS, random_init=True, size=32)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("checkpoint") / "network.safetensors"
    options = PretrainOptions(
        source=SourceOptions(limit=64), epochs=2, batch_size=16, size=24, workers=0, seed=5
    )
    pretrain("builtin:shapes:train", "test_resnet", str(out), options)
    return str(out)


def run(tmp_path, model, options=OPTIONS, name="a.h5", data=DATA):
    out = tmp_path / name
    embed([data], model, str(out), options)
    return read_features(str(out))


def test_features_are_those_that_timm_computes(tmp_path, checkpoint):
    features = run(tmp_path, checkpoint)
    overlay = {"file": checkpoint, "num_classes": 16}
    module = timm.create_model(
        "test_resnet", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    )
    config = module.default_cfg
    transform = create_transform(
        input_size=(3, 24, 24), mean=config["mean"], std=config["std"],
        interpolation=config["interpolation"], crop_pct=1.0,
    )  # fmt: skip
    samples = open_samples(DATA, SourceOptions(limit=40))
    with torch.inference_mode():
        images = torch.stack([transform(samples.read(row)) for row in range(40)])
        expected = module.eval()(images).numpy()
    np.testing.assert_allclose(features.matrix(), expected, atol=1e-5)
    assert list(features.ids) == list(samples.ids)
    np.testing.assert_array_equal(features.labels, samples.labels)


def test_batches_and_workers_do_not_move_rows(tmp_path, checkpoint):
    whole = run(tmp_path, checkpoint)
    parts = run(tmp_path, checkpoint, replace(OPTIONS, batch_size=7, workers=3), name="b.h5")
    np.testing.assert_allclose(whole.matrix(), parts.matrix(), atol=1e-5)
    assert whole.record == parts.record
    assert list(whole.ids) == list(parts.ids)


def test_a_stream_is_the_file(tmp_path, checkpoint, monkeypatch):
    class Stdout:
        buffer = io.BytesIO()

        def isatty(self):
            return False

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Stdout())
    embed([DATA], checkpoint, None, OPTIONS)
    stream = Stdout.buffer.getvalue()
    monkeypatch.undo()
    run(tmp_path, checkpoint, name="a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == stream
    arrays = load(stream)
    features = run(tmp_path, checkpoint)
    np.testing.assert_array_equal(arrays["features"], features.matrix())
    np.testing.assert_array_equal(arrays["labels"], features.labels)


def test_the_same_command_gives_the_same_bytes(tmp_path, checkpoint):
    for name in ("a.h5", "b.h5"):
        run(tmp_path, checkpoint, name=name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_network_without_weights_follows_its_seed(tmp_path):
    name = "timm:test_resnet"
    first = run(tmp_path, name, RANDOM)
    again = run(tmp_path, name, RANDOM, name="b.h5")
    other = run(tmp_path, name, replace(RANDOM, seed=1), name="c.h5")
    np.testing.assert_array_equal(first.matrix(), again.matrix())
    assert not np.allclose(first.matrix(), other.matrix())
    assert first.record.model["identity"] != other.record.model["identity"]


def test_the_untrained_twin_of_a_checkpoint_is_where_its_training_began(tmp_path, checkpoint):
    options = PretrainOptions(
        source=SourceOptions(limit=64), epochs=1, batch_size=16, lr=0.0, size=24, workers=0, seed=5
    )
    start = str(tmp_path / "start.safetensors")
    pretrain("builtin:shapes:train", "test_resnet", start, options)
    twin = open_network(checkpoint, Wanted(None, True, 5))
    weight = read_checkpoint(start).weights["layer1.0.conv1.weight"]
    assert torch.equal(twin.module.state_dict()["layer1.0.conv1.weight"], weight)
    assert twin.facts["identity"] != read_checkpoint(checkpoint).record.identity
    assert twin.facts["data"] is None


def test_the_record_tells_the_network_and_the_set(tmp_path, checkpoint):
    record = run(tmp_path, checkpoint).record
    trained = read_checkpoint(checkpoint).record
    assert (record.kind, record.rows, record.columns) == ("features", 40, 96)
    assert record.model["identity"] == trained.identity
    assert (record.model["architecture"], record.model["seed"]) == ("test_resnet", 5)
    assert record.model["noise"] == trained.noise
    assert record.model["layer"] == "pre_logits"
    assert record.model["preprocessing"]["size"] == 24
    assert record.data["name"] == "shapes/photo:val"
    assert record.parents[0]["identity"] == trained.identity
    assert record.classes == trained.classes


def test_labels_laid_over_are_counted_against_the_set_s_own(tmp_path, checkpoint):
    samples = open_samples(DATA, SourceOptions(limit=40))
    table = tmp_path / "labels.csv"
    names = (f"{name},{samples.classes[0]}" for name in samples.ids)
    table.write_text("\n".join(["id,label", *names]) + "\n")
    source = SourceOptions(limit=40, labels=str(table))
    features = run(tmp_path, checkpoint, replace(OPTIONS, source=source))
    assert set(features.labels) == {0}
    assert features.record.noise["flipped"] == np.count_nonzero(samples.labels != 0)
    np.testing.assert_array_equal(features.clean_labels, samples.labels)


def test_another_size_and_half_precision(tmp_path, checkpoint):
    features = run(tmp_path, checkpoint, replace(OPTIONS, size=40, dtype="float16"))
    assert features.record.model["preprocessing"]["size"] == 40
    assert features.record.model["preprocessing"]["crop_pct"] == 1.0
    assert next(features.blocks(10)).dtype == np.float16
    own = run(tmp_path, checkpoint, name="b.h5")
    assert own.record.identity != features.record.identity


def test_several_sets_become_a_file_each(tmp_path, checkpoint):
    folder = f"{tmp_path}/features/"
    sources = [DATA, "builtin:shapes:val:sketch", "mine/part:test=builtin:glyphs:val"]
    seen = []
    records = embed(
        sources, checkpoint, folder, OPTIONS, lambda done, total, **values: seen.append((done, total))
    )
    names = ["mine-part-test.h5", "shapes-photo-val.h5", "shapes-sketch-val.h5"]
    assert sorted(path.name for path in Path(folder).iterdir()) == names
    assert [record.rows for record in records] == [40, 40, 40]
    assert seen[-1] == (120, 120)
    (tmp_path / "features" / names[0]).unlink()
    again = embed(sources, checkpoint, folder, replace(OPTIONS, reuse=True))
    assert [record.data["task"] for record in again] == ["mine"]


def test_what_is_up_to_date_opens_no_network(tmp_path, checkpoint, monkeypatch):
    import nmlcli.stages.embed as stage

    run(tmp_path, checkpoint)
    monkeypatch.setattr(stage, "open_network", None)
    assert embed([DATA], checkpoint, str(tmp_path / "a.h5"), replace(OPTIONS, reuse=True)) == []


def test_shards_joined_are_the_whole(tmp_path, checkpoint):
    options = replace(OPTIONS, batch_size=5)
    whole = run(tmp_path, checkpoint, options)
    shards = [
        run(tmp_path, checkpoint, replace(options, shard=f"{i}/4"), name=f"{i}.h5") for i in range(4)
    ]
    assert [name for shard in shards for name in shard.ids] == list(whole.ids)
    np.testing.assert_array_equal(np.concatenate([s.matrix() for s in shards]), whole.matrix())
    np.testing.assert_array_equal(np.concatenate([s.labels for s in shards]), whole.labels)
    assert len({shard.record.identity for shard in (*shards, whole)}) == 5
    assert shards[1].record.options["shard"] == "1/4" and "shard" not in whole.record.options
    assert shards[1].record.noise["of"] == shards[1].record.rows == 10
    check_parts(shards)
    uneven = [
        run(tmp_path, checkpoint, replace(options, shard=f"{i}/3"), name="u.h5").rows for i in range(3)
    ]
    assert uneven == [13, 13, 14]


@pytest.mark.parametrize(
    ("shard", "words"),
    [("4/4", "give I/N"), ("1", "give I/N"), ("-1/4", "give I/N"), ("0/0", "give I/N"),
     ("1/4x", "give I/N"), ("0/50", "has 40 samples, and none in shard 0/50")],
)  # fmt: skip
def test_shards_that_are_none(tmp_path, shard, words):
    with pytest.raises(UsageError, match=words):
        run(tmp_path, "timm:test_resnet", replace(RANDOM, shard=shard))
    assert not list(tmp_path.iterdir())


def test_compressed_files_hold_the_same(tmp_path):
    plain = run(tmp_path, "timm:test_resnet", RANDOM)
    packed = run(tmp_path, "timm:test_resnet", replace(RANDOM, compress=True), name="b.h5")
    assert (tmp_path / "b.h5").stat().st_size < (tmp_path / "a.h5").stat().st_size
    np.testing.assert_array_equal(packed.matrix(), plain.matrix())
    assert packed.record == plain.record


def test_newer_weights_are_not_up_to_date(tmp_path, checkpoint):
    reuse, out = replace(OPTIONS, reuse=True), str(tmp_path / "a.h5")
    assert [len(embed([DATA], checkpoint, out, reuse)) for _ in range(2)] == [1, 0]
    later = Path(out).stat().st_mtime + 10
    os.utime(checkpoint, (later, later))
    assert len(embed([DATA], checkpoint, out, reuse)) == 1
    os.utime(checkpoint, (1, 1))


def test_views_of_another_seed_are_not_up_to_date(tmp_path, checkpoint):
    reuse, out = replace(OPTIONS, reuse=True, views=1), str(tmp_path / "a.h5")
    made = [len(embed([DATA], checkpoint, out, replace(reuse, seed=seed))) for seed in (0, 0, 1)]
    assert made == [1, 0, 1]


def test_another_compression_is_not_up_to_date(tmp_path):
    """It is in no record, since what the file holds is the same."""
    reuse, out, sizes = replace(RANDOM, reuse=True), tmp_path / "a.h5", []
    for compress, made in ((False, 1), (True, 1), (True, 0), (False, 1), (False, 0)):
        options = replace(reuse, compress=compress)
        assert len(embed([DATA], "timm:test_resnet", str(out), options)) == made
        sizes.append(out.stat().st_size)
    assert sizes[0] == sizes[3] == sizes[4] > sizes[1] == sizes[2]
    os.utime(out, (1, 1))
    out.write_bytes(out.read_bytes()[:100])
    assert len(embed([DATA], "timm:test_resnet", str(out), reuse)) == 1  # damaged
    out = tmp_path / "a.safetensors"
    assert [len(embed([DATA], "timm:test_resnet", str(out), reuse)) for _ in range(2)] == [1, 0]


def test_no_input_is_overwritten(tmp_path, checkpoint):
    """Neither the network nor, in a folder, a set whose name is that of its features."""
    mine = tmp_path / "set.h5"
    with h5py.File(mine, "w") as file:
        file["images"], file["labels"] = np.zeros((4, 24, 24, 3), np.uint8), np.arange(4) % 2
    files = {path: Path(path).read_bytes() for path in (str(mine), checkpoint)}
    for sources, out in (
        ([f"set={mine}"], f"{tmp_path}/"),
        (["builtin:glyphs:val", f"set={mine}"], f"{tmp_path}/"),
        ([str(mine)], str(mine)),
        ([DATA], checkpoint),
    ):
        with pytest.raises(UsageError, match="would overwrite an input"):
            embed(sources, checkpoint, out, OPTIONS)
    assert files == {path: Path(path).read_bytes() for path in files}


@pytest.mark.parametrize("out", ["a.safetensors", None])
def test_only_hdf5_is_compressed(tmp_path, out):
    with pytest.raises(UsageError, match=r"only HDF5 can be compressed: give -o FILE\.h5"):
        embed([DATA], "timm:test_resnet", out and str(tmp_path / out), replace(RANDOM, compress=True))


@pytest.mark.parametrize(
    ("sources", "out", "words"),
    [
        ([DATA, DATA], "one/", "two sets are named shapes-photo-val"),
        ([DATA, "builtin:glyphs:val"], "one.h5", "give a folder"),
        ([DATA, "builtin:glyphs:val"], None, "give a folder"),
        ([DATA], "features.csv", "no format has the suffix .csv"),
    ],
)
def test_outputs_that_cannot_be_met(sources, out, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        embed(sources, "timm:test_resnet", out and f"{tmp_path}/{out}", RANDOM)


def test_features_that_are_not_finite_name_the_sample(tmp_path, checkpoint):
    good = read_checkpoint(checkpoint)
    weights = {name: value.clone() for name, value in good.weights.items()}
    weights["layer4.0.conv2.weight"][0] = torch.nan
    broken = str(tmp_path / "broken.safetensors")
    write_checkpoint(broken, Checkpoint(good.record, weights, broken))
    first = open_samples(DATA, SourceOptions(limit=1)).ids[0]
    with pytest.raises(NmlError, match=f"features of {first} are not finite"):
        run(tmp_path, broken)
    assert not (tmp_path / "a.h5").exists()


def test_an_image_that_cannot_be_read_stops_the_run(tmp_path, checkpoint):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(tmp_path / "set" / name / "1.png")
    (tmp_path / "set" / "dog" / "2.png").write_bytes(b"not an image")
    with pytest.raises(InvalidInput, match="dog/2"):
        run(tmp_path, checkpoint, data=str(tmp_path / "set"))
    assert not (tmp_path / "a.h5").exists()


def test_an_unlabelled_folder_gives_features_without_labels(tmp_path, checkpoint):
    (tmp_path / "flat").mkdir()
    for number in range(3):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    features = run(tmp_path, checkpoint, data=str(tmp_path / "flat"))
    assert features.labels is None
    assert list(features.ids) == ["0", "1", "2"]


def test_features_are_no_network(tmp_path, checkpoint):
    run(tmp_path, checkpoint)
    with pytest.raises(InvalidInput, match="holds features, not a checkpoint"):
        run(tmp_path, str(tmp_path / "a.h5"), name="b.h5")


def test_a_truncated_checkpoint_is_refused(tmp_path, checkpoint):
    short = tmp_path / "short.safetensors"
    short.write_bytes(Path(checkpoint).read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"short\.safetensors"):
        run(tmp_path, str(short))
