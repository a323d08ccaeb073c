"""Laws that each kind of label noise on the menu keeps, and known answers."""

import hashlib
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.noise.kinds import DRAWS, NOISES, parse_ratio
from nmlcli.noise.terms import Request
from nmlcli.products.features import Features
from nmlcli.provenance import Record
from tests.noise.cases import digest, labelled, picked, rows_of

KINDS = [kind for kind, noise in NOISES.items() if not noise.captions]
EXACT = [kind for kind in KINDS if NOISES[kind].exact]
RATIOS = ["0", "0.01", "0.05", "0.1", "0.29", "0.57", "0.58", "0.999", "1"]
FROZEN = {
    "pairflip": "72d8435766971eeb",
    "symmetric": "c4cf801fa1a57d98",
    "uniform": "eae1942d47146a5d",
    "asymmetric": "72d8435766971eeb",
    "matrix": "5bbaa8bc5a25dae0",
    "instance": "f0f565bea4ba922b",
}
STRATIFIED = {
    "symmetric": "7e9b0431faa27f7d",
    "uniform": "871b1527b0a11f45",
    "pairflip": "1d7666eee0724a30",
    "asymmetric": "1d7666eee0724a30",
}
# Modes that a kind can be drawn in: how, and with strata or not.
MODES = [("exact", False), ("bernoulli", False), ("exact", True)]
CASES = [
    (kind, draw, stratify)
    for kind in KINDS
    for draw, stratify in MODES
    if not stratify or "stratify" in NOISES[kind].takes
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("noise")


def features_of(ids, labels, columns=6):
    """Features by id: near the mean of their class, or half way to the next one's."""
    means = np.random.default_rng(0).normal(size=(1 + max(labels, default=0), columns))
    matrix = np.empty((len(ids), columns), dtype=np.float32)
    for row, (name, label) in enumerate(zip(ids, labels, strict=True)):
        own = np.random.default_rng(
            int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        )
        matrix[row] = means[label] + own.normal(size=columns)

    def blocks(size):
        return (matrix[start : start + size] for start in range(0, len(matrix), size))

    record = Record("features", "none", "embed", rows=len(ids), columns=columns)
    return Features(record, ids, None, None, matrix.dtype, blocks, "features")


def with_inputs(kind, rows, folder):
    """The rows, and the fields of the request that a kind needs."""
    num_classes = len(rows.classes)
    if kind == "asymmetric":
        path = folder / f"map-{num_classes}.csv"
        if not path.exists():
            arrows = [f"{a},{rows.classes[(i + 1) % num_classes]}" for i, a in enumerate(rows.classes)]
            path.write_text("\n".join(["from,to", *arrows]))
        return rows, {"map": str(path)}
    if kind == "matrix":
        path = folder / f"matrix-{num_classes}.csv"
        if not path.exists():
            path.write_text(matrix_text(rows.classes))
        return rows, {"matrix": str(path)}
    if kind == "instance":
        ids = [f"id {i}" for i in range(len(rows.values))]
        labels = rows.values.tolist()
        return replace(rows, features=features_of(ids, labels), places=np.arange(len(ids))), {}
    return rows, {}


@cache
def matrix_text(classes):
    """A class keeps 6 of 8 and gives 1 to the next and the one after it; of two, 2 to the other."""
    lines = [",".join(["true", *classes])]
    for place, name in enumerate(classes):
        shares = ["0"] * len(classes)
        shares[place] = "0.75"
        for step in (1, 2):
            other = (place + step) % len(classes)
            shares[other if other != place else (place + 1) % len(classes)] = (
                "0.25" if len(classes) == 2 else "0.125"
            )
        lines.append(",".join([name, *shares]))
    return "\n".join(lines)


def change(kind, rows, folder, ratio, seed=0, draw="exact", stratify=False, **more):
    rows, inputs = with_inputs(kind, rows, folder)
    ratio = None if ratio is None else Fraction(ratio)
    return NOISES[kind].change(rows, Request(ratio, seed, draw, stratify, **inputs, **more))


def noisy(*arguments, **options):
    return change(*arguments, **options).values


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 2000), num_classes=st.integers(2, 60), ratio=st.sampled_from(RATIOS))
def test_exactly_as_many_labels_change_as_asked_for(kind, folder, stratify, count, num_classes, ratio):
    rows = labelled(count, num_classes)

    values = noisy(kind, rows, folder, ratio, stratify=stratify and kind != "instance")

    wanted = int((Decimal(ratio) * count).quantize(Decimal(1), ROUND_HALF_UP))
    assert np.count_nonzero(values != rows.values) == wanted
    assert values.min() >= 0
    assert values.max() < num_classes


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize(("draw", "stratify"), MODES)
def test_uniform_keeps_the_label_once_in_c(folder, num_classes, draw, stratify):
    rows = labelled(50_000, num_classes)

    flipped = np.count_nonzero(noisy("uniform", rows, folder, "0.2", 0, draw, stratify) != rows.values)

    mean = 0.2 * 50_000 * (num_classes - 1) / num_classes
    assert abs(flipped - mean) < 5 * mean**0.5


@pytest.mark.parametrize("kind", EXACT)
def test_bernoulli_meets_the_ratio_in_expectation(kind, folder):
    rows = labelled(50_000, 10)

    realised = (noisy(kind, rows, folder, "0.2", 0, "bernoulli") != rows.values).mean()

    assert abs(realised - 0.2) < 5 * (0.2 * 0.8 / 50_000) ** 0.5
    assert realised != 0.2
    assert (noisy(kind, rows, folder, "1", 0, "bernoulli") != rows.values).all()
    assert not (noisy(kind, rows, folder, "0", 0, "bernoulli") != rows.values).any()


def test_pairflip_goes_to_the_next_class(folder):
    rows = labelled(1000, 7)

    values = noisy("pairflip", rows, folder, "0.4")

    changed = values != rows.values
    assert (values[changed] == (rows.values[changed] + 1) % 7).all()


def test_symmetric_reaches_each_other_class_alike(folder):
    rows, num_classes = labelled(100_000, 10), 10

    values = noisy("symmetric", rows, folder, "1")

    counts = np.bincount((values - rows.values) % num_classes, minlength=num_classes)
    expected = 100_000 / (num_classes - 1)
    assert counts[0] == 0
    chi_squared = ((counts[1:] - expected) ** 2 / expected).sum()
    assert chi_squared < 50  # 8 degrees of freedom: p < 1e-7


@pytest.mark.parametrize("ratio", ["0.05", "0.2"])
def test_strata_are_exact_in_classes_and_cells(folder, ratio):
    rows = rows_of(
        map(str, range(30_000)), np.repeat(np.arange(30), np.arange(1, 31) * 64)[:30_000], 30
    )
    rows = replace(rows, values=rows.values, hashes=rows.hashes[: len(rows.values)])

    values = noisy("symmetric", rows, folder, ratio, stratify=True)

    cells = np.zeros((30, 30))
    np.add.at(cells, (rows.values, values), 1)
    sizes, left = cells.sum(axis=1), cells.sum(axis=1) - np.diag(cells)
    assert left.sum() == int(Decimal(ratio) * len(values) + Decimal("0.5"))
    assert np.abs(left - float(ratio) * sizes).max() < 2
    for c in range(30):
        others = np.delete(cells[c], c)
        assert others.max() - others.min() <= 1


def test_cells_of_a_matrix_are_exact_and_what_it_forbids_never_happens(folder):
    rows = labelled(9000, 9)
    sizes = np.bincount(rows.values, minlength=9)

    values = noisy("matrix", rows, folder, None)

    cells = np.zeros((9, 9))
    np.add.at(cells, (rows.values, values), 1)
    for c in range(9):
        for t in range(9):
            share = {0: 0.75, 1: 0.125, 2: 0.125}.get((t - c) % 9, 0)
            assert abs(cells[c, t] - share * sizes[c]) < 2 if share else cells[c, t] == 0
    assert np.count_nonzero(values != rows.values) == round(0.25 * 9000)


def test_rates_of_a_matrix_are_those_of_its_classes(folder):
    path = folder / "uneven.csv"
    path.write_text("t,class 0000,class 0001,class 0002\nclass 0002,.1,.4,.5\n"
                    "class 0000,1,0,0\nclass 0001,0.3,0.7,0\n")  # fmt: skip
    rows = rows_of(map(str, range(3000)), np.arange(3000) % 3, 3)

    for draw in DRAWS:
        values = NOISES["matrix"].change(rows, Request(None, 0, draw, matrix=str(path))).values
        cells = np.zeros((3, 3))
        np.add.at(cells, (rows.values, values), 1)
        slack = 2 if draw == "exact" else 100
        assert np.abs(cells - [[1000, 0, 0], [300, 700, 0], [100, 400, 500]]).max() < slack
        assert (cells[[0, 0, 1], [1, 2, 2]] == 0).all()
    asked = NOISES["matrix"].change(rows, Request(Fraction("0.5"), matrix=str(path)))
    assert asked.eligible == 2000
    cells = np.zeros((3, 3))
    np.add.at(cells, (rows.values, asked.values), 1)
    assert np.abs(cells - [[1000, 0, 0], [500, 500, 0], [100, 400, 500]]).max() < 2


@pytest.mark.parametrize(("kind", "draw", "stratify"), CASES)
def test_a_larger_ratio_only_adds(kind, folder, draw, stratify):
    rows = labelled(3000, 10)
    before = rows.values
    for ratio in ("0.1", "0.11", "0.3", "0.85"):
        larger = noisy(kind, rows, folder, ratio, 0, draw, stratify)
        changed = before != rows.values
        assert (larger[changed] == before[changed]).all()
        before = larger


@pytest.mark.parametrize(("kind", "draw", "stratify"), CASES)
def test_the_order_of_rows_does_not_matter(kind, folder, draw, stratify):
    rows, inputs = with_inputs(kind, labelled(3000, 10), folder)
    order = np.random.default_rng(1).permutation(3000)
    request = Request(Fraction("0.2"), 0, draw, stratify, **inputs)

    in_order = NOISES[kind].change(rows, request).values
    shuffled = NOISES[kind].change(picked(rows, order), request).values

    assert (shuffled == in_order[order]).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("instance", "matrix")])
def test_removing_a_row_changes_at_most_one_other(kind, folder):
    rows = labelled(1000, 10)
    whole = noisy(kind, rows, folder, "0.2")
    each = noisy(kind, rows, folder, "0.2", draw="bernoulli")

    for removed in range(0, 1000, 97):
        kept = np.flatnonzero(np.arange(1000) != removed)
        rest = picked(rows, kept)
        assert np.count_nonzero(noisy(kind, rest, folder, "0.2") != whole[kept]) <= 1
        assert (noisy(kind, rest, folder, "0.2", draw="bernoulli") == each[kept]).all()


@pytest.mark.parametrize(("kind", "draw", "stratify"), CASES)
def test_seeds_choose_independently(kind, folder, draw, stratify):
    rows = labelled(20_000, 10)
    first, second = (
        noisy(kind, rows, folder, "0.2", seed, draw, stratify) != rows.values for seed in (0, 1)
    )

    share = first.mean() * second.mean() * len(first)
    # Rows that are near another class change under either seed more often than by chance.
    most = 3 * share if kind == "instance" else share + 5 * share**0.5
    assert share - 5 * share**0.5 < (first & second).sum() < most


def test_the_choice_does_not_depend_on_label_or_position(folder):
    rows = labelled(100_000, 10)
    chosen = noisy("symmetric", rows, folder, "0.2") != rows.values

    by_class = np.bincount(rows.values[chosen], minlength=10) / np.bincount(rows.values, minlength=10)
    by_position = chosen.reshape(100, -1).mean(axis=1)
    assert np.abs(by_class - 0.2).max() < 5 * (0.16 / 10_000) ** 0.5
    assert np.abs(by_position - 0.2).max() < 5 * (0.16 / 1000) ** 0.5


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_known_answer(kind, folder, stratify):
    if stratify and kind not in STRATIFIED:
        pytest.skip("has no strata")
    rows = rows_of(map(str, range(1000)), np.arange(1000) % 10, 10)
    if kind == "instance":
        features = features_of([f"id {i}" for i in range(1000)], rows.values.tolist())
        rows = replace(rows, features=features, places=np.arange(1000))

    values = noisy(kind, rows, folder, "0.3", stratify=stratify)

    assert digest(values) == (STRATIFIED if stratify else FROZEN)[kind]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "classes" in NOISES[kind].takes])
@pytest.mark.parametrize("draw", DRAWS)
def test_only_chosen_classes_change(kind, folder, draw):
    rows = labelled(4000, 8)
    chosen = np.isin(rows.values, [2, 5])
    names = ("class 0002", "class 0005")

    selected = change(kind, rows, folder, "0.4", draw=draw, classes=names)
    of_all = change(kind, rows, folder, "0.1", draw=draw, classes=names, ratio_of="all")

    assert selected.eligible == of_all.eligible == chosen.sum()
    for changed in (selected.values, of_all.values):
        assert (changed == rows.values)[~chosen].all()
    if draw == "exact" and NOISES[kind].exact:
        flipped = [np.count_nonzero(v != rows.values) for v in (selected.values, of_all.values)]
        assert flipped == [int(0.4 * chosen.sum() + 0.5), 400]


def test_what_the_classes_cannot_hold_is_refused_with_the_largest_ratio(folder):
    rows = rows_of(map(str, range(1000)), np.arange(1000) % 10, 10)
    more = {"classes": ("class 0001", "class 0002"), "ratio_of": "all"}

    with pytest.raises(InvalidInput, match=r"--ratio 0\.2 is the largest"):
        noisy("symmetric", rows, folder, "0.3", **more)
    values = noisy("symmetric", rows, folder, "0.2", **more)
    assert (values != rows.values).sum() == 200
    with pytest.raises(UsageError, match=r"no class class 001: did you mean"):
        noisy("symmetric", rows, folder, "0.3", classes=("class 001",))


@pytest.mark.parametrize(("kind", "draw", "stratify"), CASES)
def test_a_class_without_rows_is_no_obstacle(kind, folder, draw, stratify):
    rows = rows_of([f"id {i}" for i in range(300)], np.arange(300) % 3 + 1, 6)

    values = noisy(kind, rows, folder, "0.5", 0, draw, stratify)

    assert 100 < np.count_nonzero(values != rows.values) < 200
    if kind == "symmetric":
        assert {0, 4, 5} <= set(values.tolist())


@pytest.mark.parametrize("kind", ["symmetric", "pairflip", "matrix"])
def test_labels_without_meaning_are_warned_of(kind, folder, caplog):
    rows = labelled(1000, 4)
    bound = {"symmetric": "0.75", "pairflip": "0.5", "matrix": "0.66"}[kind]

    noisy(kind, rows, folder, bound)
    assert not caplog.records
    noisy(kind, rows, folder, str(Decimal(bound) + Decimal("0.01")))
    assert "of 4 of 4 classes the clean one is no longer the likeliest" in caplog.text


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
def test_symmetric_is_what_the_definition_says(folder, seed):
    """A slow transcription: sort all keys, move the rows of the smallest ones."""
    count, num_classes = 500, 7
    ids = [f"id {i}" for i in range(count)]
    labels = [i % num_classes for i in range(count)]

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
    for row in sorted(range(count), key=lambda row: key(ids[row], "select"))[:100]:
        step = ((key(ids[row], "target") >> 32) * (num_classes - 1)) >> 32
        wanted[row] = (labels[row] + 1 + step) % num_classes

    assert noisy("symmetric", rows_of(ids, labels, num_classes), folder, "0.2", seed).tolist() == wanted


def test_uniform_noise_keeps_the_clean_class_the_likeliest(folder, caplog):
    noisy("uniform", labelled(1000, 4), folder, "0.99")
    assert not caplog.records


def test_a_class_without_an_arrow_stays_whatever_is_chosen(folder):
    (folder / "one.csv").write_text("from,to\nclass 0000,class 0001\n")
    rows = labelled(1000, 3)
    request = Request(Fraction(1), map=str(folder / "one.csv"), classes=("class 0000", "class 0002"))
    changed = NOISES["asymmetric"].change(rows, request)
    assert changed.eligible == (rows.values == 0).sum()
    assert set(changed.values.tolist()) == {1, 2}


def test_more_classes_than_two_bytes_can_count(folder):
    rows = rows_of(map(str, range(140_000)), np.arange(140_000) % 70_000, 70_000)
    values = noisy("pairflip", rows, folder, "0.5")
    changed = values != rows.values
    assert changed.sum() == 70_000
    assert (values[changed] == (rows.values[changed] + 1) % 70_000).all()
