"""Networks by name: what they are, what decides their weights, what is refused."""

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models import networks
from nmlcli.models.schemes import Wanted, identify_network, open_network

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
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
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
    monkeypatch.setattr(networks, "_hub_answers", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NmlError, match="bring their file and name it: timm:test_resnet@FILE"):
        open_network(f"timm:{ARCHITECTURE}", Wanted())


def test_a_network_with_position_embeddings_is_built_for_its_size():
    network = open_network("timm:test_vit", Wanted(32, True))
    with torch.inference_mode():
        assert network.module(torch.zeros(1, 3, 32, 32)).shape == (1, 64)


def test_a_name_of_the_hub_means_the_same_with_its_default_tag():
    names = (f"timm:{ARCHITECTURE}", f"timm:{ARCHITECTURE}.r160_in1k")
    assert len({identify_network(name, Wanted())[0] for name in names}) == 1
