"""Networks of open_clip to be trained, and what is opened of their checkpoints."""

import json
import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.models.clip import build_clip
from nmlcli.models.extraction import ImageExtractor, TextExtractor
from nmlcli.models.schemes import Wanted, identify_network, open_network, takes
from nmlcli.products.checkpoint import Checkpoint
from nmlcli.products.formats import write_checkpoint
from nmlcli.provenance import Record

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
VIT = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TIMM = {
    "timm_model_name": "test_vit", "timm_model_pretrained": True, "image_size": 32, "timm_pool": "",
    "timm_proj": "linear",
}  # fmt: skip
CONFIGS = {
    "vit": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "custom": {"embed_dim": 16, "vision_cfg": TIMM, "text_cfg": TEXT, "custom_text": True},
}
TEXTS = ["a dog on the grass", "two cats", "a photo of nothing at all " * 30]


def config_of(folder, name, **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**CONFIGS.get(name, CONFIGS["vit"]), **changes}))
    return path


def model_of(built, **changes):
    """The model of a record, as pre-training writes it."""
    return {
        "name": built.label, "architecture": built.label, "config": built.config,
        "preprocessing": built.preprocessing.facts(), "objective": "clip", "seed": 3,
        "identity": "c" * 32, "data": {"name": "pairs"}, "noise": {"kind": "swap"}, "layer": None,
        **changes,
    }  # fmt: skip


def written(path, built, **changes):
    """A checkpoint in a file; returns its name."""
    record = Record("checkpoint", "c" * 32, "pretrain", model=model_of(built, **changes))
    write_checkpoint(str(path), Checkpoint(record, dict(built.module.state_dict()), str(path)))
    return str(path)


def pictures(size):
    draws = np.random.default_rng(0)
    return torch.from_numpy(draws.integers(0, 256, (3, 3, size, size), dtype=np.uint8))


def test_a_network_is_decided_by_its_seed(tmp_path):
    config = str(config_of(tmp_path, "vit"))
    torch.manual_seed(99)
    first = build_clip(config, None, 1)
    torch.rand(5)
    again, other = (build_clip(config, None, seed).module.state_dict() for seed in (1, 2))
    state = first.module.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not torch.equal(state["visual.proj"], other["visual.proj"])
    assert first.module.training
    assert first.module.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert first.label == "vit"
    assert first.config == CONFIGS["vit"]
    assert (first.preprocessing.size, first.preprocessing.crop_pct) == (16, 1.0)
    assert first.tokenizer.batch(first.tokenizer(TEXTS, None))["tokens"].shape == (3, 16)
    assert any(isinstance(each, open_clip.transformer.QuickGELU) for each in first.module.modules())


def test_a_file_as_the_hub_has_it_and_another_size(tmp_path):
    stated = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "squash"}
    path = config_of(tmp_path, "vit")
    path.write_text(json.dumps({"model_cfg": CONFIGS["vit"], "preprocess_cfg": stated}))
    built = build_clip(str(path), 24, 0)
    own = built.preprocessing
    checkpoint = written(tmp_path / "clip.safetensors", built)
    assert open_network(checkpoint, Wanted()).preprocessing == own
    assert open_network(checkpoint, Wanted(40)).preprocessing == replace(own, size=40)
    assert (own.size, own.mean, own.crop_mode) == (24, (0.1, 0.2, 0.3), "squash")
    assert built.config == {**CONFIGS["vit"], "vision_cfg": {**VIT, "image_size": 24}}
    assert built.module.visual.positional_embedding.shape[0] == 1 + (24 // 8) ** 2


def test_a_name_of_open_clip(monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "RN50", CONFIGS["vit"])
    built = build_clip("RN50", None, 0)
    assert (built.label, built.config) == ("RN50", CONFIGS["vit"])
    assert open_clip.get_model_config("RN50") == CONFIGS["vit"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"multimodal_cfg": {}, "custom_text": True}, r"learns to write captions too \(CoCa\)"),
        ({"init_logit_bias": -10}, r"is for a loss of another kind \(SigLIP\)"),
        ({"text_cfg": {**TEXT, "hf_model_name": "roberta-base"}}, "reads texts by transformers"),
        ({"text_cfg": {**TEXT, "hf_tokenizer_name": "roberta"}}, "reads texts by transformers"),
    ],
)
def test_networks_that_are_not_trained_so(tmp_path, changes, words):
    with pytest.raises(UsageError, match=f"other {words}: take a plain CLIP"):
        build_clip(str(config_of(tmp_path, "other", **changes)), None, 0)


def test_networks_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="did you mean ViT-B-32"):
        build_clip("ViT-B-33", None, 0)
    with pytest.raises(InvalidInput, match=r"there is no configuration 'missing\.json'"):
        build_clip("missing.json", None, 0)
    for changes in ({"text_cfg": 3}, {"vision_cfg": [1]}):
        with pytest.raises(InvalidInput, match="is no configuration of open_clip"):
            build_clip(str(config_of(tmp_path, "vit", **changes)), None, 0)
    with pytest.raises(UsageError, match=r"open_clip cannot build vit: .*widht"):
        build_clip(str(config_of(tmp_path, "vit", vision_cfg={**VIT, "widht": 3})), None, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_both_towers_of_a_checkpoint(tmp_path, name):
    built = build_clip(str(config_of(tmp_path, name)), None, 3)
    path = written(tmp_path / "clip.safetensors", built)
    module = built.module.eval()
    assert takes(path) == ("images", "texts")
    images = ImageExtractor(open_network(path, Wanted()), "fp32", "float32")
    texts = TextExtractor(open_network(path, Wanted(texts=True)), "fp32", "float32")
    batch = pictures(built.preprocessing.size)
    with torch.inference_mode():
        found = torch.from_numpy(images(batch))
        expected = module.encode_image(images.normalise(batch), normalize=False)
        assert torch.allclose(found, expected, atol=1e-6)
        found = torch.from_numpy(texts(texts.tokenizer(TEXTS, None)))
        tokens = open_clip.tokenize(TEXTS, context_length=16)
        assert torch.allclose(found, module.encode_text(tokens), atol=1e-6)
    for extractor, tower in ((images, "images"), (texts, "texts")):
        facts = extractor.network.facts
        told = {key: value for key, value in model_of(built).items() if key != "config"}
        preprocessing = extractor.network.preprocessing.facts()
        towers = {"input": tower, "layer": "projection", "preprocessing": preprocessing}
        assert facts == {**told, **towers}
        assert extractor.network.record.identity == "c" * 32
        assert not extractor.module.training
    assert images.preprocessing == built.preprocessing


def test_open_clip_reads_a_checkpoint_unchanged(tmp_path):
    built = build_clip(str(config_of(tmp_path, "vit")), None, 3)
    path = written(tmp_path / "clip.safetensors", built)
    config = tmp_path / "written-by-us.json"
    config.write_text(json.dumps(built.config))
    open_clip.add_model_config(config)
    model, _, transform = open_clip.create_model_and_transforms(config.stem, pretrained=path)
    extractor = ImageExtractor(open_network(path, Wanted()), "fp32", "float32")
    draws = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(draws)
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(picture)[None]).numpy()
    np.testing.assert_array_equal(extractor(extractor.pixels(picture, 0)[None]), expected)


def test_other_layers_and_sizes_and_the_untrained_twin(tmp_path):
    built = build_clip(str(config_of(tmp_path, "vit")), None, 3)
    path = written(tmp_path / "clip.safetensors", built)
    module, batch = built.module.eval(), torch.randn(2, 3, 16, 16)
    before = open_network(path, Wanted(layer="pre_projection"))
    with torch.inference_mode():
        assert torch.allclose(before.encode(batch) @ module.visual.proj, module.encode_image(batch))
    assert before.facts["layer"] == "pre_projection"
    larger = ImageExtractor(open_network(path, Wanted(32)), "fp32", "float32")
    assert (larger.preprocessing.size, larger.columns) == (32, 16)
    assert larger.preprocessing.crop_pct == 1.0
    twin = open_network(path, Wanted(random_init=True, seed=3))
    assert torch.equal(
        twin.module.proj, build_clip(str(tmp_path / "vit.json"), None, 3).module.visual.proj
    )
    assert (twin.facts["seed"], twin.facts["objective"], twin.facts["data"]) == (3, None, None)
    assert twin.record is None
    with pytest.raises(UsageError, match="a tower for texts takes no images"):
        open_network(path, Wanted(32, texts=True))


def test_untrained_twins_of_other_configurations_are_told_apart(tmp_path):
    built = build_clip(str(config_of(tmp_path, "vit")), None, 3)
    names = [
        written(tmp_path / f"{layers}.safetensors", built, config={**built.config, "embed_dim": layers})
        for layers in (1, 2)
    ]
    first, second = (identify_network(name, Wanted(random_init=True))[0] for name in names)
    assert first != second
    assert identify_network(names[0], Wanted())[0] == "c" * 32


def test_checkpoints_that_cannot_be_opened(tmp_path):
    built = build_clip(str(config_of(tmp_path, "vit")), None, 3)
    path = tmp_path / "clip.safetensors"
    for changes, words in (
        ({"config": {"embed_dim": 3}}, "clip.safetensors lacks embed_dim, vision_cfg or text_cfg"),
        ({"config": None}, "clip.safetensors lacks embed_dim, vision_cfg or text_cfg"),
        ({"preprocessing": {}}, "its record does not say how to build the network"),
        ({"config": {**built.config, "embed_dim": 8}}, "clip.safetensors does not fit vit"),
    ):
        with pytest.raises(InvalidInput) as caught:
            open_network(written(path, built, **changes), Wanted())
        assert words in str(caught.value)
    module = open_clip.model.CLIP(**build_clip(str(config_of(tmp_path, "vit")), None, 0).config)
    with pytest.raises(InvalidInput, match="there is no checkpoint gone"):
        takes("gone.safetensors")
    del module.visual.proj
    with pytest.raises(InvalidInput, match="does not fit vit"):
        open_network(written(path, replace(built, module=module)), Wanted())
    written(path, built, architecture="../../outside")
    assert open_network(str(path), Wanted()).facts["architecture"] == "../../outside"
