"""Saved states: what they give back and what they refuse."""

import pickle

import pytest
import torch

from nmlcli.errors import InvalidInput
from nmlcli.training.state import load_state, save_state


def parts(seed):
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {"network": network, "optimiser": optimiser}


def test_a_state_gives_back_what_was_saved(tmp_path):
    path = tmp_path / "network.safetensors.state"
    saved, other = parts(0), parts(1)
    save_state(path, "abc", 3, saved)
    assert load_state(path, "abc", other) == 3
    assert torch.equal(saved["network"].weight, other["network"].weight)
    momenta = [p["optimiser"].state_dict()["state"][0]["momentum_buffer"] for p in (saved, other)]
    assert torch.equal(*momenta)


def test_a_state_of_another_training_is_refused(tmp_path):
    save_state(tmp_path / "s", "abc", 3, parts(0))
    with pytest.raises(InvalidInput, match="other data or options"):
        load_state(tmp_path / "s", "abd", parts(0))


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "s"
    save_state(path, "abc", 3, parts(0))
    whole = path.read_bytes()
    for damaged in (b"", b"PK", whole[: len(whole) // 2], whole[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInput, match="damaged"):
            load_state(path, "abc", parts(0))


class Touches:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_state_runs_no_code(tmp_path):
    path, witness = tmp_path / "s", tmp_path / "witness"
    for write in (torch.save, lambda value, where: where.write_bytes(pickle.dumps(value))):
        write({"identity": "abc", "epoch": Touches(witness), "parts": {}}, path)
        with pytest.raises(InvalidInput, match="damaged"):
            load_state(path, "abc", {})
    assert not witness.exists()
