"""What pools make of many positions, where only some of them count."""

import pytest
import torch

from nmlcli.models.pooling import POOLINGS

STATES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))  # [B, T, D]
KEPT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)
DIRECT = {
    "mean": lambda rows: rows.sum(0) / len(rows),
    "max": lambda rows: rows.max(0).values,
    "cls": None,
    "last": lambda rows: rows[-1],
}


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pool_is_what_it_says_of_the_positions_that_count(name):
    found = POOLINGS[name].pool(STATES, KEPT)
    for states, kept, row in zip(STATES, KEPT, found, strict=True):
        expected = states[0] if name == "cls" else DIRECT[name](states[kept])
        assert torch.allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_positions_that_do_not_count_change_nothing(name):
    others = STATES.masked_fill(~KEPT.unsqueeze(2), 1e6)
    kept = KEPT.clone()
    kept[:, 0], others[:, 0] = True, STATES[:, 0]  # the first token, which `cls` takes
    assert torch.allclose(POOLINGS[name].pool(others, kept), POOLINGS[name].pool(STATES, kept))


@pytest.mark.parametrize("name", POOLINGS)
def test_the_number_format_stays(name):
    assert POOLINGS[name].pool(STATES.bfloat16(), KEPT).dtype == torch.bfloat16


def test_only_sequences_have_an_order():
    assert {name for name, pool in POOLINGS.items() if pool.of_order} == {"cls", "last"}
