"""Keys are a promise: the numbers below must never change, on any platform."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmlcli import keyed

IDS = ["0", "1", "img/a", "ünï", "7"]
FROZEN = {
    (0, "select"): [
        2324418956805232839, 16014538197056107796, 9212858899672491547, 13381831602871054091,
        4930951938307744741,
    ],
    (0, "target"): [
        379613465077954384, 5140123789091697776, 2581908483877891147, 7768883673923933091,
        11301407056907014018,
    ],
    (1, "select"): [
        12264646800113779087, 7903878603178303104, 12840568065380497337, 6776553746890328617,
        17006103753965035434,
    ],
    (1, "target"): [
        16193798555734138523, 15298167122636969175, 14252857361229925406, 16235232468436473667,
        2628623416945213327,
    ],
}  # fmt: skip
MASK = 2**64 - 1


def splitmix_slowly(state: int) -> int:
    """The finaliser of SplitMix64 in Python's integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@pytest.mark.parametrize(("state", "output"), [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)])
def test_mix_gives_the_published_outputs_of_splitmix64(state, output):
    step = np.array([(state + 0x9E3779B97F4A7C15) & MASK], dtype=np.uint64)

    assert int(keyed.mix(step)[0]) == output


@pytest.mark.parametrize(("seed", "purpose"), list(FROZEN))
def test_keys_of_seed_and_id_are_frozen(seed, purpose):
    assert keyed.keys(keyed.hash_ids(IDS), seed, purpose).tolist() == FROZEN[seed, purpose]


@given(st.text(max_size=20), st.integers(0, 2**63), st.text(max_size=10))
def test_keys_follow_their_definition(name, seed, purpose):
    name, purpose = (
        name.encode("utf-8", "replace").decode(),
        purpose.encode("utf-8", "replace").decode(),
    )
    hashed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    digest = hashlib.sha256(f"nml keys 1\nseed {seed}\npurpose {purpose}\n".encode()).digest()
    a, b = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    wanted = splitmix_slowly(splitmix_slowly((hashed * 0x9E3779B97F4A7C15 + a) & MASK) ^ b)

    assert int(keyed.keys(keyed.hash_ids([name]), seed, purpose)[0]) == wanted


def test_keys_of_ids_seeds_and_purposes_are_not_correlated():
    rows = 100_000
    hashes = keyed.hash_ids(map(str, range(rows)))
    series = [
        np.arange(rows),
        keyed.keys(hashes, 0, "select"),
        keyed.keys(hashes, 1, "select"),
        keyed.keys(hashes, 0, "target"),
        keyed.keys(keyed.hash_rows(0, rows), 0, "select"),
    ]
    correlations = np.corrcoef([s.astype(np.float64) for s in series])

    assert np.abs(correlations - np.eye(len(series))).max() < 5 / rows**0.5


@pytest.mark.parametrize("bound", [1, 2, 9, 999, 2**31])
def test_below_is_in_range_and_even(bound):
    drawn = keyed.below(keyed.keys(keyed.hash_rows(0, 50_000), 0, "target"), bound)
    cells = min(bound, 10)
    counts = np.bincount(drawn * cells // bound, minlength=cells)
    sizes = np.diff(np.ceil(np.arange(cells + 1) * bound / cells)) / bound * 50_000

    assert drawn.min() >= 0
    assert drawn.max() < bound
    assert (np.abs(counts - sizes) < 5 * np.sqrt(sizes) + 1).all()


def test_uniforms_lie_in_the_half_open_interval():
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)

    assert keyed.uniforms(ends).tolist() == [0.0, 1 - 2.0**-53]


def test_permutation_holds_each_number_once_and_depends_on_the_seed():
    drawn = keyed.permutation(1000, 0, "order")

    assert sorted(drawn.tolist()) == list(range(1000))
    assert (drawn != keyed.permutation(1000, 1, "order")).any()
