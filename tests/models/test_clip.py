"""Networks of open_clip: the features and pixels that open_clip itself makes, and what is refused."""

import json
import logging

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models import clip, hub
from nmlcli.models.extraction import ImageExtractor, TextExtractor
from nmlcli.models.preprocessing import Normalise, Pixels
from nmlcli.models.schemes import Wanted, identify_network, open_network, takes

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8}
TIMM = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 32}
TOWERS = {
    "vit": VIT,
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    "timm": {**TIMM, "timm_pool": "", "timm_proj": "linear"},
    "classifier": {**TIMM, "timm_pool": "token", "timm_proj": None},
}
WIDTHS = {"vit": 24, "resnet": 256, "timm": 64, "classifier": 64}
TEXTS = ["a dog on the grass", "two cats", "a photo of nothing at all " * 30]


def config_of(folder, tower, **more):
    vision = TOWERS.get(tower, tower) if isinstance(tower, str) else tower
    path = folder / f"{tower if isinstance(tower, str) else 'other'}.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": TEXT, **more}))
    return path


def reference(folder, tower, seed=5, **more):
    """open_clip's own network, its evaluation transform and its weights in a file."""
    config = config_of(folder, tower, **more)
    named = folder / f"reference-{config.stem}.json"
    named.write_text(config.read_text())
    open_clip.add_model_config(named)
    torch.manual_seed(seed)
    model, _, transform = open_clip.create_model_and_transforms(named.stem, pretrained_hf=False)
    for module in model.modules():  # so that no residual branch is zero
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.1)
    save_file(model.state_dict(), folder / f"{config.stem}.safetensors")
    return model.eval(), transform, f"open_clip:{config}@{folder / config.stem}.safetensors"


def pictures():
    draws = np.random.default_rng(0)
    shapes = [(70, 90), (32, 32), (40, 31), (200, 65)]
    return [Image.fromarray(draws.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.mark.parametrize("tower", TOWERS)
def test_features_of_images_are_those_of_open_clip(tmp_path, tower):
    model, transform, name = reference(tmp_path, tower)
    network = open_network(name, Wanted())
    batch = torch.stack([transform(picture) for picture in pictures()])
    extractor = ImageExtractor(network, "fp32", "float32")
    pixels = torch.stack([extractor.pixels(picture, 0) for picture in pictures()])
    assert torch.equal(Normalise(network.preprocessing, torch.device("cpu"))(pixels), batch)
    with torch.inference_mode():
        expected = model.encode_image(batch, normalize=False).numpy()
    found = extractor(pixels)
    assert found.shape == (4, 8)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert network.facts["layer"] == "projection"
    assert network.facts["input"] == "images"


@pytest.mark.parametrize("tower", TOWERS)
def test_what_comes_before_the_projection_of_images(tmp_path, tower):
    model, transform, name = reference(tmp_path, tower)
    batch = torch.stack([transform(picture) for picture in pictures()])
    network = open_network(name, Wanted(layer="pre_projection"))
    visual = model.visual
    with torch.inference_mode():
        found, expected = network.encode(batch), model.encode_image(batch)
        projected = {
            "vit": lambda: found @ visual.proj,
            "resnet": lambda: visual.attnpool.c_proj(found),
            "timm": lambda: visual.head(found),
            "classifier": lambda: visual.trunk.head(found),
        }[tower]()
    assert found.shape == (4, WIDTHS[tower])
    assert torch.allclose(projected, expected, atol=1e-5)
    assert network.facts["layer"] == "pre_projection"


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("layer", [None, "pre_projection"])
def test_features_of_texts(tmp_path, custom, layer):
    model, _, name = reference(tmp_path, "vit", custom_text=custom)
    network = open_network(name, Wanted(texts=True, layer=layer))
    extractor = TextExtractor(network, "fp32", "float32")
    tokens = extractor.tokenizer(TEXTS, None)
    assert [each.tolist() for each in tokens] == open_clip.tokenize(TEXTS).tolist()
    assert {(len(each), each.dtype) for each in tokens} == {(77, torch.int64)}
    found = torch.from_numpy(extractor(tokens))
    with torch.inference_mode():
        expected = model.encode_text(open_clip.tokenize(TEXTS), normalize=False)
    if layer:
        assert found.shape == (3, 16)
        found = found @ getattr(model, "text", model).text_projection
    assert torch.allclose(found, expected, atol=1e-5)
    assert network.facts["layer"] == layer or "projection"
    assert network.facts["input"] == "texts"
    assert network.facts["preprocessing"] == {"tokenizer": "SimpleTokenizer", "max_length": 77}
    with pytest.raises(UsageError, match="no pairs of texts"):
        extractor.tokenizer(TEXTS, TEXTS)


def test_a_shorter_context_and_a_linear_text_projection(tmp_path):
    text = {**TEXT, "context_length": 12, "proj_bias": True}
    model, _, name = reference(tmp_path, "vit", text_cfg=text)
    tokens = open_clip.tokenize(TEXTS, context_length=12)
    for layer in (None, "pre_projection"):
        network = open_network(name, Wanted(texts=True, layer=layer))
        batch = network.preprocessing.batch(network.preprocessing(TEXTS, None))
        assert torch.equal(batch["tokens"], tokens)
        with torch.inference_mode():
            found = network.encode(batch)
            found = model.text_projection(found) if layer else found
            assert torch.allclose(found, model.encode_text(tokens), atol=1e-5)


def test_towers_that_give_tokens_besides(tmp_path):
    text = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
    vision = {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    decoder = {key: TEXT[key] for key in ("vocab_size", "width", "heads", "layers")}
    more = {"text_cfg": text, "multimodal_cfg": {**decoder, "context_length": 76}}
    model, transform, name = reference(tmp_path, vision, custom_text=True, **more)
    batch = torch.stack([transform(picture) for picture in pictures()])
    tokens = open_clip.tokenize(TEXTS, context_length=76)
    before = Wanted(layer="pre_projection")
    with torch.inference_mode():
        found, expected = open_network(name, Wanted()).encode(batch), model.encode_image(batch, False)
        assert torch.allclose(found, expected, atol=1e-5)
        found = open_network(name, before).encode(batch) @ model.visual.proj
        assert torch.allclose(found, expected, atol=1e-5)
        network = open_network(name, Wanted(texts=True))
        found = network.encode(network.preprocessing.batch(network.preprocessing(TEXTS, None)))
        assert torch.allclose(found, model.encode_text(tokens, False), atol=1e-5)


@pytest.mark.parametrize("layer", [None, "pre_projection"])
@pytest.mark.parametrize("tower", TOWERS)
def test_half_the_digits(tmp_path, tower, layer):
    _, _, name = reference(tmp_path, tower)
    network = open_network(name, Wanted(layer=layer))
    fine, rough = (ImageExtractor(network, precision, "float32") for precision in ("fp32", "bf16"))
    pixels = torch.stack([fine.pixels(picture, 0) for picture in pictures()])
    expected = fine(pixels)
    assert np.abs(rough(pixels) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clip(tmp_path, mode, interpolation):
    path = config_of(tmp_path, "vit")
    stated = {
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": mode,
        "interpolation": interpolation,
    }  # fmt: skip
    whole = {"model_cfg": json.loads(path.read_text()), "preprocess_cfg": stated}
    path.write_text(json.dumps(whole))
    preprocessing = open_network(f"open_clip:{path}", Wanted(random_init=True)).preprocessing
    transform = image_transform_v2(PreprocessCfg(size=32, **stated), is_train=False)
    pixels, normalise = Pixels(preprocessing), Normalise(preprocessing, torch.device("cpu"))
    for picture in pictures():
        assert torch.equal(normalise(pixels(picture, 0)[None])[0], transform(picture))


def test_a_configuration_without_weights_says_what_to_give(tmp_path):
    with pytest.raises(UsageError, match=r"vit\.json names no weights: give \S+vit\.json@FILE or"):
        open_network(f"open_clip:{config_of(tmp_path, 'vit')}", Wanted())


def test_a_preprocessing_of_another_kind_is_refused(tmp_path):
    path = config_of(tmp_path, "vit")
    whole = {"model_cfg": json.loads(path.read_text()), "preprocess_cfg": {"resize_mode": "longest"}}
    path.write_text(json.dumps(whole))
    with pytest.raises(UsageError, match="vit resizes images by 'longest': only shortest and squash"):
        open_network(f"open_clip:{path}", Wanted(random_init=True))


@pytest.mark.parametrize(
    ("tower", "layer", "direct"),
    [
        ("vit", "transformer.resblocks.0", lambda states: states[:, 1:].mean(1)),
        ("vit", "conv1", lambda states: states.mean((2, 3))),
        ("resnet", "layer2", lambda states: states.mean((2, 3))),
        ("timm", "trunk.blocks.1", lambda states: states[:, 1:].mean(1)),
    ],
)
def test_other_layers_are_those_of_the_image_tower(tmp_path, tower, layer, direct):
    model, transform, name = reference(tmp_path, tower)
    batch = torch.stack([transform(picture) for picture in pictures()])
    said = []
    model.visual.get_submodule(layer).register_forward_hook(lambda *args: said.append(args[2]))
    network = open_network(name, Wanted(layer=layer))
    with torch.inference_mode():
        model.encode_image(batch)
        assert torch.allclose(network.encode(batch), direct(said[0]), atol=1e-5)
    assert (network.facts["layer"], network.facts["pool"]) == (layer, "mean")


@pytest.mark.parametrize("tower", TOWERS)
def test_another_size(tmp_path, tower):
    _, _, name = reference(tmp_path, tower)
    wanted = Wanted(64 if tower != "resnet" else 96, random_init=tower == "resnet")
    extractor = ImageExtractor(open_network(name, wanted), "fp32", "float32")
    assert extractor.preprocessing.size == wanted.size
    assert extractor.columns == 8


@pytest.mark.parametrize("form", ["plain", "module", "state_dict", "half", "custom"])
@pytest.mark.parametrize("suffix", ["pt", "bin"])
def test_checkpoints_as_people_have_them(tmp_path, form, suffix):
    model, _, name = reference(tmp_path, "vit")
    state, path = model.state_dict(), tmp_path / f"weights.{suffix}"
    config = name.removeprefix("open_clip:").partition("@")[0]
    if form == "module":  # of a distributed training run, the rest of its state beside it
        state = {f"module.{key}": value for key, value in state.items()}
        state = {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}
    elif form == "state_dict":
        state = {"state_dict": state}
    elif form == "half":
        state = {key: value.half() for key, value in state.items()}
    elif form == "custom":  # OpenAI's names, for a network whose text tower is by itself
        config = config_of(tmp_path, "vit", custom_text=True)
    torch.save(state, path)
    found = open_network(f"open_clip:{config}@{path}", Wanted()).module.state_dict()
    expected = model.visual.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, atol=1e-3 if form == "half" else 0), key


class Evil:
    """What runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("EVIL",))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_files_that_are_no_weights(tmp_path, capsys):
    config = config_of(tmp_path, "vit")
    for content in (b"", b"not weights at all"):
        (tmp_path / "broken.pt").write_bytes(content)
        with pytest.raises(InvalidInput, match=r"broken\.pt holds no weights that can be read safely"):
            open_network(f"open_clip:{config}@{tmp_path / 'broken.pt'}", Wanted())
    for content in (Evil(), [1, 2], {}):
        torch.save(content, tmp_path / "evil.bin")
        with pytest.raises(InvalidInput, match=r"evil\.bin holds no weights that can be read safely"):
            open_network(f"open_clip:{config}@{tmp_path / 'evil.bin'}", Wanted())
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(InvalidInput, match=r"script\.pt holds no weights that can be read safely"):
        open_network(f"open_clip:{config}@{tmp_path / 'script.pt'}", Wanted())
    assert "EVIL" not in capsys.readouterr().out
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"weights\.npz is no file of weights: bring \.safetensors"):
        open_network(f"open_clip:{config}@{tmp_path / 'weights.npz'}", Wanted())
    with pytest.raises(InvalidInput, match="is a folder"):
        open_network(f"open_clip:{config}@{tmp_path}", Wanted())


def test_weights_that_do_not_fit(tmp_path):
    _, _, name = reference(tmp_path, "vit")
    weights = name.partition("@")[2]
    with pytest.raises(InvalidInput, match=r"vit\.safetensors does not fit resnet: .*state_dict"):
        open_network(f"open_clip:{config_of(tmp_path, 'resnet')}@{weights}", Wanted())
    state = torch.nn.Linear(2, 2).state_dict()
    save_file(state, tmp_path / "linear.safetensors")
    with pytest.raises(InvalidInput, match=r"linear\.safetensors does not fit vit"):
        open_network(f"{name.partition('@')[0]}@{tmp_path / 'linear.safetensors'}", Wanted())


def test_configurations_that_are_none(tmp_path):
    path = tmp_path / "wrong.json"
    for content in ("{", "[1]", '{"vision_cfg": 3}', '{"model_cfg": []}'):
        path.write_text(content)
        with pytest.raises(InvalidInput, match=r"wrong\.json (is no configuration|lacks)"):
            open_network(f"open_clip:{path}", Wanted(random_init=True))
    config_of(tmp_path, {**VIT, "widht": 3}).rename(path)
    with pytest.raises(UsageError, match=r"open_clip cannot build wrong: .*widht"):
        open_network(f"open_clip:{path}", Wanted(random_init=True))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("ViT-B-33", UsageError, "did you mean ViT-B-32"),
        ("ViT-B/32", UsageError, "did you mean ViT-B-32"),
        ("ViT-B-32/laion2b", UsageError, "did you mean laion2b_"),
        ("RN50/nothing-like-it", UsageError, "its tags: openai, yfcc15m, cc12m"),
        ("RN50", UsageError, "names no weights: give RN50/TAG (openai, yfcc15m, cc12m), RN50@FILE or"),
        ("RN50@missing.pt", InvalidInput, "no file of weights 'missing.pt'"),
        ("missing.json", InvalidInput, "no configuration 'missing.json'"),
    ],
)
def test_names_that_lead_nowhere(name, error, words):
    with pytest.raises(error) as caught:
        open_network(f"open_clip:{name}", Wanted())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(random_init=True, pool="mean"), "pooled already"),
        (Wanted(random_init=True, pool="mean", texts=True), "pooled already"),
        (Wanted(32, random_init=True, texts=True), "a tower for texts takes no images"),
        (
            Wanted(random_init=True, layer="ln_final", texts=True),
            "no layer 'ln_final': take projection",
        ),
        (Wanted(random_init=True, layer="layer9"), "no layer 'layer9': it has"),
    ],
)
def test_layers_that_lead_nowhere(tmp_path, wanted, words):
    with pytest.raises(UsageError) as caught:
        open_network(f"open_clip:{config_of(tmp_path, 'vit')}", wanted)
    assert words in str(caught.value)


def test_towers_without_a_projection(tmp_path):
    pooled = {**TIMM, "timm_pool": "avg", "timm_proj": "none"}
    config = config_of(tmp_path, pooled, text_cfg={**TEXT, "proj_type": "none"}, embed_dim=64)
    assert open_network(f"open_clip:{config}", Wanted(random_init=True)).facts["layer"] == "projection"
    for texts in (False, True):
        wanted = Wanted(random_init=True, layer="pre_projection", texts=texts)
        with pytest.raises(UsageError, match="no projection"):
            open_network(f"open_clip:{config}", wanted)


def test_a_network_is_decided_by_its_seed_and_told_apart(tmp_path):
    name = f"open_clip:{config_of(tmp_path, 'vit')}"
    first, again, other = (
        open_network(name, Wanted(random_init=True, seed=seed)) for seed in (1, 1, 2)
    )
    same = [torch.equal(first.module.proj, each.module.proj) for each in (again, other)]
    assert same == [True, False]
    assert first.facts["seed"] == 1
    assert first.facts["identity"] == again.facts["identity"] != other.facts["identity"]
    assert not first.module.training
    assert takes(name) == ("images", "texts")
    before = identify_network(name, Wanted(random_init=True))
    assert before[1] == (tmp_path / "vit.json",)
    config_of(tmp_path, {**VIT, "width": 36}).rename(tmp_path / "vit.json")
    assert identify_network(name, Wanted(random_init=True))[0] != before[0]


def test_a_configuration_takes_no_name_of_open_clip(tmp_path):
    config = config_of(tmp_path, "vit").rename(tmp_path / "RN50.json")
    network = open_network(f"open_clip:{config}", Wanted(random_init=True))
    assert network.facts["architecture"] == "RN50"
    assert open_clip.get_model_config("RN50")["embed_dim"] == 1024


def test_what_a_tag_states_holds_for_weights_in_a_file(tmp_path, monkeypatch):
    _, _, name = reference(tmp_path, "vit")
    weights = name.partition("@")[2]
    config = json.loads(config_of(tmp_path, "vit").read_text())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", config)
    network = open_network(f"open_clip:ViT-B-32/openai@{weights}", Wanted())
    quick = open_clip.transformer.QuickGELU
    assert any(isinstance(each, quick) for each in network.module.modules())  # as it was trained
    assert network.facts["name"] == "ViT-B-32/openai"
    network = open_network(f"open_clip:ViT-B-32/laion2b_s34b_b79k@{weights}", Wanted())
    assert not any(isinstance(each, quick) for each in network.module.modules())
    assert (network.facts["objective"], network.facts["data"]) == ("clip", {"name": "laion2b"})
    drawn = open_network("open_clip:ViT-B-32/laion2b_s34b_b79k", Wanted(random_init=True))
    assert (drawn.facts["objective"], drawn.facts["data"]) == (None, None)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-L-14", config)
    network = open_network(f"open_clip:ViT-L-14/laion2b_s32b_b82k@{weights}", Wanted())
    assert network.preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("laion2b_s32b_b82k", "laion2b"), ("yfcc15m", "yfcc15m"), ("cc12m", "cc12m"),
        ("laion400m_e32", "laion400m"), ("laion_aesthetic_s13b_b82k_augreg", "laion_aesthetic"),
        ("datacomp_xl_s13b_b90k", "datacomp_xl"), ("datacomp1b", "datacomp1b"),
        ("commonpool_m_clip_s128m_b4k", "commonpool_m_clip"), ("commonpool_s_s13m_b4k", "commonpool_s"),
        ("mscoco_finetuned_laion2b_s13b_b90k", "laion2b"), ("webli", "webli"),
        ("metaclip_fullcc", "metaclip_fullcc"), ("datacompdr", None), ("openai", None), ("v1", None),
    ],
)  # fmt: skip
def test_the_set_that_a_tag_names(tag, name):
    found = clip._SETS.search(tag)
    assert (found and found[0]) == name


def test_the_hub_out_of_reach_is_one_line_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    remedy = r"bring their file and name it: open_clip:RN50/yfcc15m@FILE"
    with pytest.raises(NmlError, match=rf"cannot be reached\): {remedy}"):
        open_network("open_clip:RN50/yfcc15m", Wanted())
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_text_tower_of_transformers_needs_them(monkeypatch):
    monkeypatch.setattr(clip, "find_spec", lambda name: None)
    with pytest.raises(NmlError, match=r'roberta-ViT-B-32 needs transformers: pip install "nmlcli\[te'):
        open_network("open_clip:roberta-ViT-B-32", Wanted(random_init=True))


def test_open_clip_is_not_heard_and_the_root_logger_stays_as_it_was(tmp_path, monkeypatch, capfd):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as in a process where nobody set it up
    open_network(f"open_clip:{config_of(tmp_path, 'vit')}", Wanted(random_init=True))
    assert (root.handlers, root.level) == ([], logging.WARNING)
    assert capfd.readouterr().err == ""


def test_a_text_tower_and_a_tokenizer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cats", "two", "on", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = transformers.BertConfig(vocab_size=len(words), intermediate_size=8, **sizes)
    bert.save_pretrained(tmp_path / "bert")
    folder = str(tmp_path / "bert")
    text = {
        "hf_model_name": folder, "hf_tokenizer_name": folder, "hf_proj_type": "linear",
        "context_length": 20,
    }  # fmt: skip
    model, _, name = reference(tmp_path, "vit", text_cfg=text)
    tokens = open_clip.get_tokenizer("reference-vit")(TEXTS)
    for layer in (None, "pre_projection"):
        network = open_network(name, Wanted(texts=True, layer=layer))
        batch = network.preprocessing.batch(network.preprocessing(TEXTS, None))
        assert torch.equal(batch["tokens"], tokens)
        assert tokens.shape == (3, 20)
        with torch.inference_mode():
            found = network.encode(batch)
            found = model.text.proj(found) if layer else found
            assert torch.allclose(found, model.encode_text(tokens), atol=1e-5)


def test_what_transformers_cannot_fetch_is_told(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setattr(hub, "answers", lambda: False)
    wanted = Wanted(random_init=True)
    with pytest.raises(NmlError, match="the text tower of roberta-ViT-B-32 cannot be fetched"):
        open_network("open_clip:roberta-ViT-B-32", wanted)
    config = config_of(tmp_path, "vit", text_cfg={**TEXT, "hf_tokenizer_name": "nobody/nothing"})
    assert open_network(f"open_clip:{config}", wanted).facts["input"] == "images"
    with pytest.raises(NmlError, match="the tokenizer of vit cannot be fetched from the hub"):
        open_network(f"open_clip:{config}", Wanted(random_init=True, texts=True))
