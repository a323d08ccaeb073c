"""Laws that each kind of noise on the menu keeps, and known answers."""

import hashlib
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import UsageError
from nmlcli.keyed import hash_ids
from nmlcli.noise.kinds import DRAWS, NOISES, parse_ratio

KINDS = sorted(NOISES)
EXACT = [kind for kind in KINDS if NOISES[kind].exact]
RATIOS = ["0", "0.01", "0.05", "0.1", "0.29", "0.57", "0.58", "0.999", "1"]
FROZEN = {
    "pairflip": "72d8435766971eeb",
    "symmetric": "c4cf801fa1a57d98",
    "uniform": "eae1942d47146a5d",
}


def table(rows, num_classes):
    hashes = hash_ids(f"id {i}" for i in range(rows))
    labels = np.random.default_rng(rows).integers(0, num_classes, rows)
    return hashes, labels


def noisy_of(kind, hashes, labels, num_classes, ratio, seed=0, draw="exact"):
    chosen = DRAWS[draw].choose(hashes, Fraction(ratio), seed)
    return NOISES[kind].relabel(chosen, labels, hashes, num_classes, seed)


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 2000), num_classes=st.integers(2, 1100), ratio=st.sampled_from(RATIOS))
def test_exactly_as_many_labels_change_as_asked_for(kind, rows, num_classes, ratio):
    hashes, labels = table(rows, num_classes)

    noisy = noisy_of(kind, hashes, labels, num_classes, ratio)

    wanted = int((Decimal(ratio) * rows).quantize(Decimal(1), ROUND_HALF_UP))
    assert np.count_nonzero(noisy != labels) == wanted
    assert noisy.min() >= 0
    assert noisy.max() < num_classes


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("draw", ["exact", "bernoulli"])
def test_uniform_keeps_the_label_once_in_c(num_classes, draw):
    rows = 50_000
    hashes, labels = table(rows, num_classes)

    flipped = np.count_nonzero(
        noisy_of("uniform", hashes, labels, num_classes, "0.2", 0, draw) != labels
    )

    mean = 0.2 * rows * (num_classes - 1) / num_classes
    assert abs(flipped - mean) < 5 * mean**0.5


@pytest.mark.parametrize("kind", KINDS)
def test_bernoulli_meets_the_ratio_in_expectation(kind):
    rows, ratio = 50_000, 0.2
    chosen = DRAWS["bernoulli"].choose(table(rows, 2)[0], Fraction("0.2"), 0)

    assert abs(chosen.mean() - ratio) < 5 * (ratio * (1 - ratio) / rows) ** 0.5
    assert DRAWS["bernoulli"].choose(table(rows, 2)[0], Fraction(1), 0).all()


def test_pairflip_goes_to_the_next_class():
    hashes, labels = table(1000, 7)

    noisy = noisy_of("pairflip", hashes, labels, 7, "0.4")

    changed = noisy != labels
    assert (noisy[changed] == (labels[changed] + 1) % 7).all()


def test_symmetric_reaches_each_other_class_alike():
    rows, num_classes = 100_000, 10
    hashes, labels = table(rows, num_classes)

    noisy = noisy_of("symmetric", hashes, labels, num_classes, "1")

    counts = np.bincount((noisy - labels) % num_classes, minlength=num_classes)
    expected = rows / (num_classes - 1)
    assert counts[0] == 0
    chi_squared = ((counts[1:] - expected) ** 2 / expected).sum()
    assert chi_squared < 50  # 8 degrees of freedom: p < 1e-7


@pytest.mark.parametrize("draw", sorted(DRAWS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_ratio_only_adds(kind, draw):
    hashes, labels = table(3000, 10)
    smaller, larger = (noisy_of(kind, hashes, labels, 10, r, 0, draw) for r in ("0.1", "0.3"))

    changed = smaller != labels
    assert (larger[changed] == smaller[changed]).all()


@pytest.mark.parametrize("draw", sorted(DRAWS))
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_does_not_matter(kind, draw):
    hashes, labels = table(3000, 10)
    order = np.random.default_rng(1).permutation(3000)

    in_order = noisy_of(kind, hashes, labels, 10, "0.2", 0, draw)
    shuffled = noisy_of(kind, hashes[order], labels[order], 10, "0.2", 0, draw)

    assert (shuffled == in_order[order]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_removing_a_row_changes_at_most_one_other(kind):
    hashes, labels = table(1000, 10)
    whole = noisy_of(kind, hashes, labels, 10, "0.2")

    for removed in range(0, 1000, 97):
        kept = np.arange(1000) != removed
        rest = noisy_of(kind, hashes[kept], labels[kept], 10, "0.2")
        assert np.count_nonzero(rest != whole[kept]) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_choose_independently(kind):
    rows = 20_000
    hashes, labels = table(rows, 10)
    first, second = (noisy_of(kind, hashes, labels, 10, "0.2", seed) != labels for seed in (0, 1))

    share = first.mean() * second.mean()
    assert abs((first & second).sum() - share * rows) < 5 * (share * rows) ** 0.5


def test_the_choice_does_not_depend_on_label_or_position():
    rows = 100_000
    hashes, labels = table(rows, 10)
    chosen = DRAWS["exact"].choose(hashes, Fraction("0.2"), 0)

    by_class = np.bincount(labels[chosen], minlength=10) / np.bincount(labels, minlength=10)
    by_position = chosen.reshape(100, -1).mean(axis=1)
    assert np.abs(by_class - 0.2).max() < 5 * (0.16 / (rows / 10)) ** 0.5
    assert np.abs(by_position - 0.2).max() < 5 * (0.16 / (rows / 100)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_known_answer(kind):
    hashes, labels = hash_ids(map(str, range(1000))), np.arange(1000) % 10

    noisy = noisy_of(kind, hashes, labels, 10, "0.3")

    assert hashlib.sha256(noisy.astype("<i8").tobytes()).hexdigest()[:16] == FROZEN[kind]


@pytest.mark.parametrize("text", ["0", "1", ".5", "0.29", "1e-3", "0.20", "1."])
def test_a_ratio_is_read_exactly(text):
    assert parse_ratio(text) == Fraction(Decimal(text))


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "1/5", "20%", "1.0001", "-0.1", "1e99", "2", "٠.١"]
)
def test_no_ratio(text):
    with pytest.raises(UsageError, match="20 % is"):
        parse_ratio(text)


@pytest.mark.parametrize("seed", [0, 5])
def test_symmetric_is_what_the_definition_says(seed):
    """A slow transcription: sort all keys, move the rows of the smallest ones."""
    rows, num_classes = 500, 7
    ids = [f"id {i}" for i in range(rows)]
    labels = [i % num_classes for i in range(rows)]

    def key(name, purpose):
        hashed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        digest = hashlib.sha256(f"nml keys 1\nseed {seed}\npurpose {purpose}\n".encode()).digest()
        state = hashed * 0x9E3779B97F4A7C15 + int.from_bytes(digest[:8], "little")
        for constant in (int.from_bytes(digest[8:16], "little"), 0):
            state &= 2**64 - 1
            state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
            state = (state ^ (state >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
            state = (state ^ (state >> 31)) ^ constant
        return state

    wanted = list(labels)
    for row in sorted(range(rows), key=lambda row: key(ids[row], "select"))[:100]:
        step = ((key(ids[row], "target") >> 32) * (num_classes - 1)) >> 32
        wanted[row] = (labels[row] + 1 + step) % num_classes

    noisy = noisy_of("symmetric", hash_ids(ids), np.array(labels), num_classes, "0.2", seed)
    assert noisy.tolist() == wanted
