"""Sets that hold images and texts, by a network for both: which are taken, and what is recorded."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from nmlcli.cli.main import run as nml
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput
from nmlcli.products.formats import read_features
from nmlcli.stages.corrupt import CorruptOptions, corrupt
from nmlcli.stages.embed import EmbedOptions, embed

VISION = {"image_size": 32, "layers": 1, "width": 24, "head_width": 12, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
OPTIONS = EmbedOptions(source=SourceOptions(limit=6), workers=0, random_init=True)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("network") / "tiny.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}))
    return f"open_clip:{path}"


def run(source, network, out, options=OPTIONS):
    embed([source], network, str(out), options)
    return read_features(str(out))


def with_captions(table):
    return replace(OPTIONS, source=SourceOptions(limit=6, captions=str(table)))


def test_generated_sets_are_images_unless_their_texts_are_asked_for(tmp_path, network):
    images = run("builtin:shapes:val", network, tmp_path / "i.h5")
    assert images.record.model["input"] == "images"
    texts = run("builtin:shapes:val", network, tmp_path / "t.h5", replace(OPTIONS, texts=True))
    assert texts.record.model["input"] == "texts"
    words = open_samples("builtin:shapes:val", OPTIONS.source).texts
    table = tmp_path / "words.jsonl"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in words))
    alone = run(str(table), network, tmp_path / "w.h5")
    np.testing.assert_allclose(texts.matrix(), alone.matrix(), atol=1e-6)
    with pytest.raises(InvalidInput, match=r"has no texts.*--captions"):
        run("builtin:glyphs:val", network, tmp_path / "g.h5", replace(OPTIONS, texts=True))


def test_captions_laid_over_images_leave_them_images(tmp_path, network):
    with h5py.File(tmp_path / "p.h5", "w") as file:  # which has no paths
        file["images"] = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    (tmp_path / "c.csv").write_text("id,text\n1,one\n0,zero\n2,two\n")
    options = with_captions(tmp_path / "c.csv")
    bare = run(str(tmp_path / "p.h5"), network, tmp_path / "b.h5")
    images = run(str(tmp_path / "p.h5"), network, tmp_path / "i.h5", options)
    assert images.record.model["input"] == "images"
    np.testing.assert_array_equal(images.matrix(), bare.matrix())
    assert images.record.identity != bare.record.identity
    texts = run(str(tmp_path / "p.h5"), network, tmp_path / "t.h5", replace(options, texts=True))
    (tmp_path / "w.csv").write_text("text\nzero\none\ntwo\n")
    alone = run(str(tmp_path / "w.csv"), network, tmp_path / "w.h5")
    np.testing.assert_allclose(texts.matrix(), alone.matrix(), atol=1e-6)


def test_noise_of_captions_is_not_that_of_labels(tmp_path, network):
    noisy = tmp_path / "noisy.csv"
    made = corrupt("builtin:shapes:val", str(noisy), CorruptOptions(ratio="0.5", kind="swap"))
    options = replace(with_captions(noisy), texts=True)
    record = run("builtin:shapes:val", network, tmp_path / "a.h5", options).record
    assert (record.noise["kind"], record.noise["flipped"]) == ("none", 0)
    assert made.identity in [parent["identity"] for parent in record.parents]


def test_the_command_takes_captions(tmp_path, network, capsys):
    (tmp_path / "c.csv").write_text("id,text\nx,one\n")
    words = ["embed", "builtin:shapes:val", "--captions", str(tmp_path / "c.csv"), "-m", network]
    assert nml([*words, "--random-init", "--limit", "2", "-o", str(tmp_path / "a.h5")]) == 1
    assert "captions samples that builtin:shapes:val lacks: x" in capsys.readouterr().err
