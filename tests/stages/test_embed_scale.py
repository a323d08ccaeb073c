"""Features of many samples: killed runs go on, bad samples stay out, memory decides; and views."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nmlcli.models.extraction as extraction
from nmlcli import keyed
from nmlcli.cli.main import run
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models.schemes import Wanted, open_network
from nmlcli.products.formats import read_features
from nmlcli.stages.embed import EmbedOptions, embed
from nmlcli.stages.images import geometry_of
from nmlcli.stages.inputs import check_network
from nmlcli.stages.rows import VIEWS
from nmlcli.training.augmentation import Draws
from nmlcli.training.pixels import RandomCrops

MODEL, DATA = "timm:test_resnet", "builtin:shapes:val"
OPTIONS = EmbedOptions(
    source=SourceOptions(limit=40), random_init=True, size=32, batch_size=8, workers=0
)
RESUMED = replace(OPTIONS, resume=True)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def made(path, options=OPTIONS, data=DATA, model=MODEL):
    embed([data], model, str(path), options)
    return read_features(str(path))


def stopping(monkeypatch, after):
    """Let the network fail as by Ctrl-C at a batch; how many samples it was given."""
    through, given = extraction.ImageExtractor._encode, []

    def encode(self, batch):
        given.append(len(batch))
        if sum(given) > after + 1:  # 1 by which the width is found
            raise KeyboardInterrupt
        return through(self, batch)

    monkeypatch.setattr(extraction.ImageExtractor, "_encode", encode)
    return given


@pytest.mark.parametrize("suffix", ["h5", "safetensors"])
@pytest.mark.parametrize("views", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, suffix, views):
    options = replace(RESUMED, views=views)
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    made(whole, replace(options, resume=False))
    for after in (0, 16, 16):
        stopping(monkeypatch, after)
        with pytest.raises(KeyboardInterrupt):
            made(out, options)
        monkeypatch.undo()
        assert (tmp_path / f"out.{suffix}.partial").exists() and not out.exists()
    given = stopping(monkeypatch, 1000)
    made(out, options)
    assert sum(given) == 1 + 40 - 32 + 40 * views
    assert max(given) <= 8
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, whole.name]


def test_progress_goes_once_over_all_that_is_computed(tmp_path):
    told = []
    options = replace(OPTIONS, views=2)
    out = f"{tmp_path}/"
    embed(
        [DATA, f"{DATA}:sketch"],
        MODEL,
        out,
        options,
        lambda done, total, **values: told.append((done, total)),
    )
    assert {total for _, total in told} == {160}
    one = [*range(8, 41, 8), *range(44, 81, 4)]  # batches of 8, and of 4 with two views each
    assert [done for done, _ in told] == [*one, *(80 + done for done in one)]


def test_views_that_were_interrupted_go_on_too(tmp_path, monkeypatch):
    options = replace(RESUMED, views=2)
    made(tmp_path / "whole.h5", options)
    stopping(monkeypatch, 40 + 32)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "out.h5", options)
    monkeypatch.undo()
    given = stopping(monkeypatch, 1000)
    made(tmp_path / "out.h5", options)
    assert sum(given) == 1 + 80 - 32
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


KILLED = """
from nmlcli.__main__ import main
import sys, time
import nmlcli.models.extraction as extraction
through = extraction.ImageExtractor._encode
def slow(self, batch):
    time.sleep(0.05)
    return through(self, batch)
extraction.ImageExtractor._encode = slow
sys.argv = ["nml", *sys.argv[1:]]
main()
"""


@pytest.mark.process
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path, kill):
    made(tmp_path / "whole.h5", replace(OPTIONS, batch_size=4))
    out, partial = tmp_path / "out.h5", tmp_path / "out.h5.partial"
    words = ["embed", DATA, "-m", MODEL, "--random-init", "--size", "32", "--limit", "40"]
    words += ["--batch-size", "4", "--workers", "1", "--resume", "-q", "-o", str(out)]
    command = [sys.executable, "-c", KILLED, *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    begun = time.monotonic()
    while not partial.exists() or partial.stat().st_size < 6 * 4 * 96 * 4:  # six batches
        assert process.poll() is None and time.monotonic() - begun < 60
        time.sleep(0.005)
    process.send_signal(kill)
    process.wait()
    assert not out.exists() and partial.stat().st_size > 6 * 4 * 96 * 4
    done = subprocess.run(command, env=env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not partial.exists()


def test_what_another_command_left_is_not_gone_on_with(tmp_path, monkeypatch):
    stopping(monkeypatch, 16)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "out.h5", RESUMED)
    monkeypatch.undo()
    before = (tmp_path / "out.h5.partial").read_bytes()
    for options in (replace(RESUMED, seed=1), replace(RESUMED, batch_size=4)):
        with pytest.raises(InvalidInput, match=r"out\.h5\.partial"):
            made(tmp_path / "out.h5", options)
    assert (tmp_path / "out.h5.partial").read_bytes() == before


def test_what_cannot_be_resumed_is_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match="--batch-size auto does not go with --resume"):
        made(tmp_path / "a.h5", replace(RESUMED, auto=True))
    with pytest.raises(UsageError, match="a stream cannot be resumed"):
        embed([DATA], MODEL, None, RESUMED)
    assert not list(tmp_path.iterdir())


def test_an_input_that_is_newer_than_the_rows_kept_is_told(tmp_path, folder, monkeypatch):
    root, _ = folder
    options, data = replace(RESUMED, source=SourceOptions()), str(root)
    stopping(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "out.h5", options, data)
    monkeypatch.undo()
    name = min(root.rglob("*.png"))
    os.utime(name, ns=(2**62, 2**62))
    with pytest.raises(InvalidInput, match=rf"{name.name} is newer than the rows kept in .*\.partial"):
        made(tmp_path / "out.h5", options, data)
    (tmp_path / "out.h5.partial").unlink()
    assert made(tmp_path / "out.h5", options, data).rows == 18


def test_of_several_sets_those_that_are_whole_are_not_made_again(tmp_path, monkeypatch):
    sets, out = [DATA, f"{DATA}:sketch"], f"{tmp_path}/features/"
    stopping(monkeypatch, 40 + 16)
    with pytest.raises(KeyboardInterrupt):
        embed(sets, MODEL, out, RESUMED)
    monkeypatch.undo()
    given = stopping(monkeypatch, 1000)
    embed(sets, MODEL, out, RESUMED)
    assert sum(given) == 1 + 40 - 16  # and the network was built once
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_several_sets_share_one_network(tmp_path, monkeypatch):
    given = stopping(monkeypatch, 1000)
    embed([DATA, f"{DATA}:sketch"], MODEL, f"{tmp_path}/", OPTIONS)
    assert given.count(1) == 1 and sum(given) == 1 + 80


@pytest.fixture
def folder(tmp_path):
    """Eighteen images of two classes; returns the folder and a function that damages some of them."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    for row in range(18):
        path = root / "ab"[row % 2] / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))

    def damage(*rows):
        for row in rows:
            (root / names[row]).write_bytes((root / names[row]).read_bytes()[:60])
        return [names[row].removesuffix(".png") for row in rows]

    return root, damage


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("bad", [(3,), (0, 1, 2, 3), (4, 5, 6, 7, 9, 17), (16, 17)])
def test_samples_that_cannot_be_read_are_left_out_and_named(tmp_path, folder, caplog, bad, resume):
    caplog.set_level(logging.INFO)
    root, damage = folder
    options = replace(OPTIONS, batch_size=4, skip_bad=True, resume=resume, views=1, workers=2)
    options = replace(options, source=SourceOptions())
    whole = made(tmp_path / "whole.h5", options, str(root))
    assert "left out" not in caplog.text and whole.record.extra == {"left_out": 0}
    names = damage(*bad)
    found = made(tmp_path / "some.h5", options, str(root))
    assert f"{len(bad)} of 18 samples are left out: {', '.join(names)}" in caplog.text
    assert all(caplog.text.count(f"sample {name} of") == 1 for name in names)
    kept = np.delete(np.arange(18), bad)
    assert list(found.ids) == [whole.ids[row] for row in kept]
    np.testing.assert_array_equal(found.labels, whole.labels[kept])
    np.testing.assert_allclose(found.matrix(), whole.matrix()[kept], atol=1e-5)
    views = [np.concatenate(list(each.views(5))) for each in (found, whole)]
    np.testing.assert_allclose(views[0], views[1][kept], atol=1e-5)
    assert (found.record.rows, found.record.extra) == (len(kept), {"left_out": len(bad)})
    assert len(list(tmp_path.iterdir())) == 3


def test_a_bad_sample_is_named_where_none_may_be_left_out(tmp_path, folder):
    root, damage = folder
    name, options = damage(7)[0], replace(OPTIONS, source=SourceOptions())
    with pytest.raises(InvalidInput, match=f"sample {name} of"):
        made(tmp_path / "out.h5", options, str(root))
    damage(*range(18))
    with pytest.raises(InvalidInput, match="none of the samples can be read"):
        made(tmp_path / "out.h5", replace(options, skip_bad=True), str(root))
    assert not (tmp_path / "out.h5").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


TABLE = "id,text\na,one\nb,two\n"


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (MODEL, {}, "words has no images, which the network takes: name their column"),
        (MODEL, {"skip_bad": True}, "words has no images"),
        (MODEL, {"texts": True}, "takes no texts: leave out --texts"),
        (MODEL, {"layer": ""}, "--layer is empty"),
        ("open_clip:ViT-B-32", {"texts": True}, "glyphs:val has no texts, which the network"),
        ("open_clip:ViT-B-32", {}, "words has no images"),
        ("hf:bert-base-uncased", {}, "glyphs:val has no texts"),
        ("hf:bert-base-uncased", {"views": 2}, "only images have views: leave out --views"),
    ],
)
def test_sets_of_another_kind_are_found_before_any_network_is_opened(
    tmp_path, monkeypatch, model, options, words
):
    import nmlcli.stages.embed as stage

    monkeypatch.setattr(stage, "open_network", None)
    table = tmp_path / "words.csv"
    table.write_text(TABLE)
    asked = replace(OPTIONS, source=SourceOptions(), **options)
    with pytest.raises((InvalidInput, UsageError), match=words):
        embed(["builtin:glyphs:val", f"words={table}"], model, f"{tmp_path}/features/", asked)


def short_of_memory(monkeypatch, most, error):
    through = extraction.ImageExtractor._encode

    def encode(self, batch):
        if len(batch) > most:
            raise error
        return through(self, batch)

    monkeypatch.setattr(extraction.ImageExtractor, "_encode", encode)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_auto_takes_fewer_samples_where_memory_runs_out(tmp_path, monkeypatch, caplog, error):
    whole = made(tmp_path / "whole.h5", replace(OPTIONS, views=2))
    short_of_memory(monkeypatch, 5, error)
    caplog.set_level(logging.INFO)
    found = made(tmp_path / "out.h5", replace(OPTIONS, auto=True, views=2))
    np.testing.assert_allclose(found.matrix(), whole.matrix(), atol=1e-5)
    assert found.record == whole.record
    said = [line.split(";")[1] for line in caplog.messages if "memory is too small" in line]
    assert said == [" it goes on with 4 samples at once"]  # then with 2 of two views each
    with pytest.raises(NmlError, match="too small for 8 samples at once: give a smaller --batch-size"):
        made(tmp_path / "fixed.h5")


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 5, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        made(tmp_path / "out.h5", replace(OPTIONS, auto=True))


def test_views_are_weak_and_strong_by_turns_and_follow_the_sample_and_the_seed(tmp_path):
    options = replace(OPTIONS, views=3, source=SourceOptions(limit=10))
    found = made(tmp_path / "a.safetensors", options)
    views = np.concatenate(list(found.views(4)))
    assert views.shape == (10, 3, 96) and found.record.options["views"] == 3
    network = open_network(MODEL, Wanted(32, True))
    extractor = extraction.ImageExtractor(network, "fp32", "float32")
    samples = open_samples(DATA, options.source)
    hashes, geometry = keyed.hash_ids(samples.ids), geometry_of(network.preprocessing)
    for view in range(3):
        change = RandomCrops(geometry, Draws(hashes, 0, view), VIEWS[view % 2])
        images = torch.stack([change(samples.read(row), row) for row in range(10)])
        np.testing.assert_allclose(views[:, view], extractor(images), atol=1e-5)
    assert [strength.policy for strength in VIEWS] == [None, "rand-m5-n3"]
    parts = [made(tmp_path / f"{i}.h5", replace(options, shard=f"{i}/2", batch_size=3)) for i in (0, 1)]
    joined = np.concatenate([block for part in parts for block in part.views(3)])
    np.testing.assert_allclose(joined, views, atol=1e-5)
    other = made(tmp_path / "b.h5", replace(options, seed=1, random_init=True))
    assert other.record.identity != found.record.identity
    assert not np.allclose(np.concatenate(list(other.views(10))), views)
    np.testing.assert_array_equal(found.matrix(), made(tmp_path / "c.h5", options).matrix())


def test_features_of_layers_are_known_apart(tmp_path):
    own = made(tmp_path / "own.h5")
    layer = made(tmp_path / "layer.h5", replace(OPTIONS, layer="layer3", pool="max"))
    mean = made(tmp_path / "mean.h5", replace(OPTIONS, layer="layer3"))
    assert (layer.record.model["layer"], layer.record.model["pool"]) == ("layer3", "max")
    assert mean.record.model["pool"] == "mean"
    assert len({each.record.identity for each in (own, layer, mean)}) == 3
    for wanted, other in ((layer, mean), (own, replace(layer, record=replace(
        layer.record, columns=own.columns)))):  # fmt: skip
        with pytest.raises(InvalidInput, match="is of another network"):
            check_network(wanted.record, "head", other)
    check_network(layer.record, "head", layer)


def test_verbose_says_what_the_faster_precision_would_be(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "nmlcli"):
        made(tmp_path / "a.h5")
    assert "computed in fp32; --precision bf16 takes" in caplog.text
    caplog.clear()
    made(tmp_path / "b.h5")
    assert "bf16" not in caplog.text
    assert Path(tmp_path / "a.h5").read_bytes() == Path(tmp_path / "b.h5").read_bytes()


WORDS = ["embed", DATA, "-m", MODEL, "--random-init", "--size", "32", "--limit", "20"]


def test_the_command_takes_numbers_or_auto(tmp_path, capsys):
    outs = {size: str(tmp_path / f"{size}.h5") for size in ("7", "auto")}
    for size, out in outs.items():
        assert run([*WORDS, "--batch-size", size, "--views", "1", "-o", out]) == 0
    first, second = (read_features(out) for out in outs.values())
    np.testing.assert_allclose(first.matrix(), second.matrix(), atol=1e-5)
    assert first.record == second.record and first.num_views == 1
    capsys.readouterr()
    for size in ("0", "-1", "many", "1e3", "", "٣"):
        assert run([*WORDS, "--batch-size", size, "-o", str(tmp_path / "o.h5")]) == 2
        assert "give a whole number of 1 or more, or auto" in capsys.readouterr().err
    assert run([*WORDS, "--views", "0", "-o", str(tmp_path / "o.h5")]) == 2
    assert not (tmp_path / "o.h5").exists()
