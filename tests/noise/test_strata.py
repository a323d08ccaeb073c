"""Exact shares: fair to small parties, exact in total, and growing with the total alone."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.keyed import hash_ids
from nmlcli.noise.strata import seats, sequence

GOLDEN = 0x9E3779B97F4A7C15


def ties(count):
    return hash_ids(f"class {i}" for i in range(count))


def given_to(sizes, total, start=12345):
    sizes = np.asarray(sizes)
    return seats(sizes.astype(float), sizes, total, ties(len(sizes)), start)


TABLES = {
    "balanced": np.full(100, 500),
    "zipf": np.maximum(1, (20_000 / np.arange(1, 1001)).astype(int)),
    "singletons": np.array([1000] + [1] * 1000),
    "pareto": np.maximum(1, (np.random.default_rng(0).pareto(1.1, 8000) * 3).astype(int)),
    "imagenet-like": np.array([1300] * 895 + [1121] * 105),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("ratio", ["0.01", "0.05", "0.2", "0.7"])
def test_no_share_is_off_by_two_and_the_small_are_not_starved(name, ratio):
    sizes = TABLES[name]
    total = int(Fraction(ratio) * int(sizes.sum()) + Fraction(1, 2))

    found = given_to(sizes, total)

    assert found.sum() == total
    assert np.abs(found - float(Fraction(ratio)) * sizes).max() < 2
    smaller = sizes <= np.median(sizes)
    held, share = sizes[smaller].sum(), float(Fraction(ratio))
    assert abs(found[smaller].sum() / held - share) < max(0.05 * share, 2 / held)


@settings(max_examples=150, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=12), start=st.integers(0, 2**64 - 1))
def test_every_total_is_met_and_a_larger_one_only_adds(sizes, start):
    before = np.zeros(len(sizes), dtype=np.int64)
    for total in range(sum(sizes) + 1):
        found = given_to(sizes, total, start)
        assert found.sum() == total
        assert (found >= before).all()
        assert (found <= sizes).all()
        before = found


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), start=st.integers(0, 2**64 - 1))
def test_seats_are_those_of_the_smallest_priorities(sizes, start):
    """A slow transcription: list all seats, sort, take the first."""
    keys = ties(len(sizes)).tolist()
    order = sorted(range(len(sizes)), key=lambda party: (sizes[party], keys[party]))
    offset = {
        party: (((start + place * GOLDEN) % 2**64) >> 11) / 2**53 for place, party in enumerate(order)
    }
    every = sorted(
        ((seat - offset[party]) / size, keys[party], party)
        for party, size in enumerate(sizes)
        for seat in range(1, size + 1)
    )
    for total in range(sum(sizes) + 1):
        wanted = np.bincount([party for _, _, party in every[:total]], minlength=len(sizes))
        assert (given_to(sizes, total, start) == wanted).all()


@pytest.mark.parametrize("total", [0, 1, 7, 65, 999, 5000])
def test_equal_weights_take_turns(total):
    found = np.bincount(sequence(np.ones(999), total, ties(999), 7), minlength=999)

    assert found.sum() == total
    assert found.max() - found.min() <= 1


def test_one_large_among_many_small_gets_its_half_and_no_more():
    weights = np.array([0.5] + [0.5 / 998] * 998)

    found = np.bincount(sequence(weights, 65, ties(999), 3), minlength=999)

    assert found[0] in (32, 33)


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20),
    total=st.integers(0, 300),
    start=st.integers(0, 2**64 - 1),
)
def test_a_longer_sequence_begins_with_the_shorter(weights, total, start):
    weights = np.array(weights)
    longer = sequence(weights, 2 * total, ties(len(weights)), start)

    assert (sequence(weights, total, ties(len(weights)), start) == longer[:total]).all()
    shares = np.bincount(longer, minlength=len(weights)) - 2 * total * weights / weights.sum()
    assert np.abs(shares).max() < 2 + len(weights) ** 0.5


def test_weights_of_any_size_are_borne():
    found = seats(np.array([1000, 1000, 1e-15]), np.array([1000, 1000, 1000]), 1500, ties(3), 5)
    assert found.sum() == 1500
    assert found[2] <= 1
    assert (seats(np.array([1.0, 2.0]), np.array([1, 1]), 2, ties(2), 5) == 1).all()


def test_a_sequence_is_long_enough_whatever_the_offsets():
    for start in range(0, 2**64, 2**58 + 12345):
        for count in (2, 3, 50):
            weights = np.ones(count)
            weights[0] = 1e6
            assert len(sequence(weights, 7, ties(count), start)) == 7
