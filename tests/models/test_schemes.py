"""Networks by name: what they are, what decides their weights, what is refused."""

import gc
import json
from functools import partial

import huggingface_hub.constants
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models import hub
from nmlcli.models.extraction import ImageExtractor
from nmlcli.models.schemes import Wanted, identify_network, open_network, takes

ARCHITECTURE = "test_resnet"


def weights(network):
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_random_network_is_decided_by_its_seed():
    name = f"timm:{ARCHITECTURE}"
    torch.manual_seed(99)
    first = open_network(name, Wanted(None, True, 1))
    torch.rand(5)
    assert same(weights(first), weights(open_network(name, Wanted(None, True, 1))))
    other = open_network(name, Wanted(None, True, 2))
    assert not same(weights(first), weights(other))
    assert first.facts["identity"] != other.facts["identity"]
    assert first.facts["seed"] == 1
    assert not first.module.training


@pytest.mark.parametrize("num_classes", [0, 7, 1000])
@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "bin"])
def test_weights_of_a_file_are_loaded_whatever_their_classifier(tmp_path, num_classes, suffix):
    torch.manual_seed(3)
    module = timm.create_model(ARCHITECTURE, num_classes=num_classes)
    path = tmp_path / f"weights.{suffix}"
    state = module.state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    network = open_network(f"timm:{ARCHITECTURE}@{path}", Wanted(32))
    assert same(weights(network), state)
    assert network.preprocessing.size == 32
    assert network.preprocessing.crop_pct == 1.0
    assert network.facts["architecture"] == ARCHITECTURE
    assert network.facts["objective"] is None
    assert identify_network(f"timm:{ARCHITECTURE}@{path}", Wanted())[0] == network.facts["identity"]


STATED = {
    "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 48, 48],
    "interpolation": "bilinear", "crop_pct": 0.8, "classifier": "fc", "num_classes": 7,
}  # fmt: skip


def folder_of(path, architecture=ARCHITECTURE, nested=True, file="model.safetensors", **stated):
    """A folder as the hub holds a network of timm; returns its weights."""
    torch.manual_seed(3)
    state = timm.create_model(architecture, num_classes=7).state_dict()
    path.mkdir()
    save_file(state, path / file) if file.endswith("s") else torch.save(state, path / file)
    stated = {**STATED, **stated}
    config = {"architecture": architecture, **({"pretrained_cfg": stated} if nested else stated)}
    (path / "config.json").write_text(json.dumps(config))
    return state


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_as_the_hub_holds_it(tmp_path, nested, file):
    state = folder_of(tmp_path / "hub", nested=nested, file=file)
    name = f"timm:{ARCHITECTURE}@{tmp_path / 'hub'}"
    network = open_network(name, Wanted())
    assert same(weights(network), state)
    own = network.preprocessing
    assert (own.size, own.mean, own.std) == (48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (own.interpolation, own.crop_pct) == ("bilinear", 0.8)
    identity, files = identify_network(name, Wanted())
    assert files == (tmp_path / "hub" / file, tmp_path / "hub" / "config.json")
    assert identity == network.facts["identity"]
    (tmp_path / "hub" / "config.json").write_text(json.dumps({**STATED, "crop_pct": 0.9}))
    assert identify_network(name, Wanted())[0] != identity
    assert open_network(name, Wanted(32)).preprocessing.size == 32


def test_a_folder_of_a_network_with_position_embeddings(tmp_path):
    folder_of(tmp_path / "hub", "test_vit", classifier="head", input_size=[3, 160, 160])
    assert open_network(f"timm:test_vit@{tmp_path / 'hub'}", Wanted()).preprocessing.size == 160
    assert open_network(f"timm:test_vit@{tmp_path / 'hub'}", Wanted(64)).preprocessing.size == 64


def test_folders_that_are_none(tmp_path):
    folder = tmp_path / "hub"
    folder_of(folder)
    for name, words in (
        (f"test_vit@{folder}", f"holds test_resnet, not test_vit: name it timm:test_resnet@{folder}"),
        (f"{ARCHITECTURE}@{tmp_path}", "holds no weights: bring config.json and model.safetensors or"),
    ):
        with pytest.raises(InvalidInput) as caught:
            open_network(f"timm:{name}", Wanted())
        assert words in str(caught.value)
    for text in ("{", "[1]", "{'a'"):
        (folder / "config.json").write_text(text)
        with pytest.raises(InvalidInput, match=r"config\.json is no configuration of timm"):
            open_network(f"timm:{ARCHITECTURE}@{folder}", Wanted())
    (folder / "config.json").unlink()
    with pytest.raises(InvalidInput, match=r"holds no config\.json"):
        open_network(f"timm:{ARCHITECTURE}@{folder}", Wanted())


class Evil:
    """What runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("EVIL",))


@pytest.mark.parametrize("file", ["weights.pth", "weights.pt", "pytorch_model.bin"])
def test_no_code_of_a_file_is_run(tmp_path, capsys, file):
    torch.save({"state_dict": {"fc.weight": Evil()}}, tmp_path / file)
    (tmp_path / "config.json").write_text("{}")
    place = tmp_path if file.startswith("pytorch") else tmp_path / file
    with pytest.raises(InvalidInput, match="holds no weights that can be read safely"):
        open_network(f"timm:{ARCHITECTURE}@{place}", Wanted())
    assert "EVIL" not in capsys.readouterr().out


def test_weights_that_do_not_fit_are_refused(tmp_path):
    state = timm.create_model(ARCHITECTURE, num_classes=4).state_dict()
    unlike = tmp_path / "renamed.safetensors"
    save_file({f"other.{name}": value for name, value in state.items()}, unlike)
    with pytest.raises(InvalidInput, match="does not fit test_resnet"):
        open_network(f"timm:{ARCHITECTURE}@{unlike}", Wanted())
    for content in (b"", b"not weights at all"):
        broken = tmp_path / "broken.pth"
        broken.write_bytes(content)
        with pytest.raises(InvalidInput, match=r"broken\.pth holds no weights"):
            open_network(f"timm:{ARCHITECTURE}@{broken}", Wanted())


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("timm:resnet1O", UsageError, "did you mean resnet1"),
        ("timm:test_resnet.none", UsageError, "it has test_resnet.r160_in1k"),
        ("tim:resnet18", UsageError, "did you mean timm:resnet18"),
        ("timm:test_resnet@missing.pth", InvalidInput, "no file of weights 'missing.pth'"),
        ("timm:test_resnet@", InvalidInput, "no file of weights ''"),
        ("missing.safetensors", InvalidInput, "no checkpoint missing.safetensors"),
    ],
)
def test_names_that_lead_nowhere(name, error, words):
    with pytest.raises(error) as caught:
        open_network(name, Wanted())
    assert words in str(caught.value)


def test_a_file_without_a_record_says_how_to_name_it(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(timm.create_model(ARCHITECTURE, num_classes=4).state_dict(), path)
    with pytest.raises(InvalidInput, match=f"timm:NAME@{path}"):
        open_network(str(path), Wanted())


def test_the_hub_out_of_reach_is_one_line_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NmlError, match="bring their file and name it: timm:test_resnet@FILE"):
        open_network(f"timm:{ARCHITECTURE}", Wanted())
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_network_with_position_embeddings_is_built_for_its_size():
    network = open_network("timm:test_vit", Wanted(32, True))
    with torch.inference_mode():
        assert network.module(torch.zeros(1, 3, 32, 32)).shape == (1, 64)


def test_a_name_of_the_hub_means_the_same_with_its_default_tag():
    names = (f"timm:{ARCHITECTURE}", f"timm:{ARCHITECTURE}.r160_in1k")
    assert len({identify_network(name, Wanted())[0] for name in names}) == 1


def test_what_networks_take():
    assert takes("timm:resnet18") == ("images",)
    assert takes("open_clip:RN50/yfcc15m") == ("images", "texts")


# The networks of the paper's practical part: name, images' size and mean, interpolation, width.
IMAGENET, CLIP, HALF = (0.485, 0.456, 0.406), (0.48145466, 0.4578275, 0.40821073), (0.5, 0.5, 0.5)
PRACTICAL = [
    ("timm:tf_efficientnet_b3.ns_jft_in1k", 300, IMAGENET, "bicubic", 1536),
    ("timm:resnetv2_152x2_bit.goog_in21k", 224, HALF, "bilinear", 4096),
    ("timm:swin_large_patch4_window7_224.ms_in22k", 224, IMAGENET, "bicubic", 1536),
    ("timm:convnext_large_mlp.clip_laion2b_augreg", 256, CLIP, "bicubic", 1536),
    ("timm:vit_large_patch14_clip_224.laion2b", 224, HALF, "bicubic", 1024),
    ("open_clip:ViT-L-14/laion2b_s32b_b82k", 224, HALF, "bicubic", 768),
    ("open_clip:convnext_large_d/laion2b_s26b_b102k_augreg", 256, CLIP, "bicubic", 768),
    ("open_clip:RN50/yfcc15m", 224, CLIP, "bicubic", 1024),
]


@pytest.mark.parametrize(("name", "size", "mean", "interpolation", "width"), PRACTICAL)
def test_the_networks_of_the_paper_are_there(name, size, mean, interpolation, width, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", partial(open_clip.create_model, device="meta"))
    with torch.device("meta"):
        network = open_network(name, Wanted(random_init=True))
    own = network.preprocessing
    assert (own.size, own.interpolation) == (size, interpolation)
    assert own.mean == pytest.approx(mean)
    identify_network(name, Wanted())
    if name.startswith("open_clip:"):
        assert tuple(name.removeprefix("open_clip:").split("/")) in open_clip.list_pretrained()
    else:
        assert name.removeprefix("timm:") in timm.list_pretrained()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "mean", "interpolation", "width"), PRACTICAL)
def test_the_networks_of_the_paper_embed_an_image(name, size, mean, interpolation, width):
    extractor = ImageExtractor(open_network(name, Wanted(random_init=True)), "fp32", "float32")
    image = torch.randint(256, (1, 3, size, size), dtype=torch.uint8)
    found = extractor(image)
    assert found.shape == (1, width) == (1, extractor.columns)
    assert bool(torch.isfinite(torch.from_numpy(found)).all())
    del extractor
    gc.collect()
