"""Noise by features: who changes depends on them, and where to, as an independent slow version says."""

import hashlib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.noise.kinds import NOISES
from nmlcli.noise.terms import Request
from nmlcli.products.features import Features
from nmlcli.provenance import Record
from tests.noise.cases import rows_of


def features_of(matrix):
    matrix = np.asarray(matrix, dtype=np.float32)
    record = Record("features", "none", "embed", rows=len(matrix), columns=matrix.shape[1])

    def blocks(size):
        return (matrix[start : start + size] for start in range(0, len(matrix), size))

    ids = [f"id {i}" for i in range(len(matrix))]
    return Features(record, ids, None, None, matrix.dtype, blocks, "features")


def make(count=600, num_classes=4, columns=5, seed=0):
    """Rows in clusters whose features have other scales and means in each column."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    means = rng.normal(size=(num_classes, columns))
    matrix = (means[labels] + rng.normal(size=(count, columns))) * 10.0 ** np.arange(
        -2, columns - 2
    ) + 300
    rows = rows_of([f"id {i}" for i in range(count)], labels, num_classes)
    return replace(rows, features=features_of(matrix), places=np.arange(count)), matrix.astype(
        np.float32
    )


def changed(rows, ratio, **more):
    return NOISES["instance"].change(rows, Request(Fraction(ratio), **more)).values


def uniform(seed, purpose, names):
    def constants():
        digest = hashlib.sha256(f"nml keys 1\nseed {seed}\npurpose {purpose}\n".encode()).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")

    first, second = constants()
    for name in names:
        state = name if isinstance(name, int) else int.from_bytes(
            hashlib.sha256(name.encode()).digest()[:8], "little")  # fmt: skip
        state = state * 0x9E3779B97F4A7C15 + first
        for constant in (second, 0):
            state &= 2**64 - 1
            state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
            state = (state ^ (state >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
            state = (state ^ (state >> 31)) ^ constant
        yield (state >> 11) / 2**53


def test_it_is_what_the_definition_says():
    """A slow transcription, row by row, of what the docstring promises."""
    rows, matrix = make(300, 4, 5)
    count, columns, num_classes = 300, 5, 4
    inputs = (
        (matrix - matrix.mean(axis=0, dtype=float)) / matrix.std(axis=0, dtype=float) / columns**0.5
    )
    means = np.array([inputs[rows.values == c].mean(axis=0) for c in range(num_classes)])
    scores = [[x @ m - m @ m / 2 for m in means] for x in inputs]
    margins = np.array([
        max(s for k, s in enumerate(row) if k != y) - row[y]
        for row, y in zip(scores, rows.values, strict=True)
    ])  # fmt: skip
    propensity = np.exp((margins - margins.mean()) / margins.std())
    names = [f"id {i}" for i in range(count)]
    ranks = np.array(list(uniform(3, "propensity", names))) / propensity
    weights = {}
    for c, name in enumerate(rows.classes):
        cells = list(range(columns * num_classes))
        radius = np.array(list(uniform(3, f"instance {name} radius", cells)))
        angle = np.array(list(uniform(3, f"instance {name} angle", cells)))
        normal = np.sqrt(-2 * np.log(1 - radius)) * np.cos(2 * np.pi * angle)
        weights[c] = normal.reshape(columns, num_classes)
    wanted = rows.values.copy()
    drawn = list(uniform(3, "target", names))
    for row in np.argsort(ranks)[:90]:
        own = rows.values[row]
        likelihood = np.exp(inputs[row] @ weights[own])
        likelihood[own] = 0
        wanted[row] = np.searchsorted(
            np.cumsum(likelihood / likelihood.sum()), drawn[row], side="right"
        )

    values = changed(rows, "0.3", seed=3)

    assert (values != wanted).sum() == 0


def test_rows_near_another_class_change_more_often():
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    near = rng.random(20_000) < 0.5  # half way between the two means
    matrix = np.stack(
        [np.where(labels, 1.0, -1.0) * np.where(near, 0.1, 2.0), rng.normal(size=20_000)], 1
    )
    rows = rows_of([f"id {i}" for i in range(20_000)], labels, 2)
    rows = replace(rows, features=features_of(matrix), places=np.arange(20_000))

    flipped = changed(rows, "0.2") != labels

    assert flipped.sum() == 4000
    assert flipped[near].mean() > 3 * flipped[~near].mean()


def test_no_target_takes_most_of_a_class_whatever_the_scale_of_the_features():
    rows, _ = make(20_000, 10, 32)
    values = changed(rows, "0.3")

    cells = np.zeros((10, 10))
    np.add.at(cells, (rows.values, values), 1)
    np.fill_diagonal(cells, 0)
    largest = (cells.max(axis=1) / cells.sum(axis=1)).mean()
    assert 0.13 < largest < 0.4  # 0.11 were no dependence at all, raw pixels give 0.7


def test_the_same_sample_goes_the_same_way_in_another_order_of_the_features():
    rows, matrix = make(2000, 5, 8)
    order = np.random.default_rng(4).permutation(2000)
    places = np.argsort(order)
    other = replace(rows, features=features_of(matrix[order]), places=places)

    assert (changed(rows, "0.3") == changed(other, "0.3")).all()


def test_features_that_no_row_has_are_left_aside():
    rows, matrix = make(500, 5, 8)
    more = np.concatenate([np.full((100, 8), 1e6, dtype=np.float32), matrix])
    other = replace(rows, features=features_of(more), places=np.arange(500) + 100)

    assert (changed(rows, "0.3") == changed(other, "0.3")).all()


def test_a_column_without_variance_does_no_harm():
    rows, matrix = make(500, 5, 8)
    more = np.concatenate([matrix, np.full((500, 1), 7.7, dtype=np.float32)], axis=1)
    values = changed(replace(rows, features=features_of(more)), "0.3")
    assert (values != rows.values).sum() == 150
    flat = changed(replace(rows, features=features_of(np.ones((500, 3)))), "0.3")
    assert (flat != rows.values).sum() == 150


def test_features_must_be_finite():
    rows, matrix = make(100, 3, 4)
    matrix[7, 2] = np.nan
    with pytest.raises(InvalidInput, match="not finite"):
        changed(replace(rows, features=features_of(matrix)), "0.3")


@pytest.mark.parametrize("ratio", ["0.2", "1"])
def test_an_outlier_leaves_a_bernoulli_draw_its_ratio(ratio):
    rows, matrix = make(20_000, 4, 8)
    matrix[7] += 1000 * matrix.std(axis=0)
    rows = replace(rows, features=features_of(matrix))
    flipped = (changed(rows, ratio, draw="bernoulli") != rows.values).mean()
    assert abs(flipped - float(ratio)) < 0.015


def test_a_large_mean_costs_no_digits():
    rows, _ = make(500, 5, 8)
    matrix = np.round(np.random.default_rng(3).normal(size=(500, 8)) * 8) / 8
    far = matrix + 2.0**20  # exact in float32, whose squares leave no digit of the spread
    assert (far.astype(np.float32) == far).all()
    near, moved = (changed(replace(rows, features=features_of(each)), "0.3") for each in (matrix, far))
    assert (near == moved).all()


def test_a_class_without_rows_is_near_to_none():
    rows, _ = make(600, 3, 6)
    more = replace(rows, classes=(*rows.classes, "none of them"))
    one, two = ((changed(each, "0.3") != rows.values) for each in (rows, more))
    assert (one == two).all()
    alone = replace(rows, values=np.zeros(600, dtype=np.int64))
    assert (changed(alone, "0.3") != 0).sum() == 180
