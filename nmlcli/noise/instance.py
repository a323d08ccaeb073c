"""Noise that depends on the sample: who changes by how near another class is, where to by its features.

After Xia et al. 2020 (part-dependent label noise), put right in what measuring showed: features are
standardised and divided by the root of their width, so that no target takes most of a class; who
changes depends on the features, not on the target alone; and the rate is exactly the one asked for.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed
from nmlcli.errors import InvalidInput
from nmlcli.noise.draws import Mask, Numbers, by_class, half_up, share, sources
from nmlcli.noise.terms import Changed, Request, Rows
from nmlcli.products.features import Features

_BLOCK = 4096  # rows
_GRID = (
    2.0**16
)  # scores are rounded to its inverse, so that last bits of a product of matrices don't tell

Floats = NDArray[np.float64]


def relabel(rows: Rows, request: Request) -> Changed:
    """Labels after noise by features.

    A row's propensity is w = exp(z), where z is its margin max_{k≠y} s_k - s_y in units of its standard
    deviation over the rows, and s_k = x·m_k - ‖m_k‖²/2 the score of class k, whose mean is m_k: the
    nearest mean has the highest. The rows of the smallest u / w change, u keyed and uniform: each with
    a probability about proportional to w (order sampling, Rosén 1997). Its new class k is drawn from
    softmax over k≠y of x·W_y, W_y [D, C] standard normal for each class y (Xia et al., algorithm 2).
    """
    features, num_classes = _of(rows), len(rows.classes)
    means, scale, centroids = _moments(features, rows)
    chosen = sources(rows, request)[rows.values]
    eligible = int(chosen.sum())
    rate = share(request, eligible, len(rows.values))
    margins = np.empty(len(rows.values))
    for places, block in _standardised(features, rows, means, scale):
        scores = block @ centroids.T - (centroids**2).sum(axis=1) / 2
        own = rows.values[places]
        mine = scores[np.arange(len(own)), own].copy()
        scores[np.arange(len(own)), own] = -np.inf
        margins[places] = scores.max(axis=1) - mine
    spread = margins.std()
    margins = np.rint((margins - margins.mean()) / (spread or 1) * _GRID) / _GRID
    uniform = keyed.uniforms(keyed.keys(rows.hashes, request.seed, "propensity"))
    changes = _drawn(uniform, np.exp(margins), rows.hashes, chosen, rate, request.draw)
    inputs = np.empty((int(changes.sum()), features.columns), dtype=np.float32)
    slots = np.cumsum(changes) - 1
    for places, block in _standardised(features, rows, means, scale):
        inputs[slots[places[changes[places]]]] = block[changes[places]]
    values = rows.values.copy()
    for c, members in by_class(rows.values, np.flatnonzero(changes), num_classes):
        values[members] = _targets(inputs[slots[members]], c, rows, members, request.seed)
    return Changed(values, eligible)


def _of(rows: Rows) -> Features:
    if rows.features is None or rows.places is None:
        raise ValueError("instance noise needs the rows' features")
    return rows.features


def _moments(features: Features, rows: Rows) -> tuple[Floats, Floats, Floats]:
    """Means and scale of the columns [D], and the classes' means of standardised features [C, D]."""
    num_classes = len(rows.classes)
    sums = np.zeros((num_classes, features.columns))
    squares = np.zeros(features.columns)
    shift: Floats | None = None
    for places, block in _blocks(features, rows):
        shift = (
            block[0].copy() if shift is None else shift
        )  # so that no difference of large sums remains
        block = block - shift
        squares += (block**2).sum(axis=0)
        own = rows.values[places]
        order = np.argsort(own, kind="stable")
        starts = np.flatnonzero(np.diff(own[order], prepend=-1))
        sums[own[order][starts]] += np.add.reduceat(block[order], starts, axis=0)
    count = len(rows.values)
    mean = sums.sum(axis=0) / count
    variance = squares / count - mean**2
    scale = np.sqrt(np.where(variance > 1e-12 * (squares / count + 1e-300), variance, np.inf))
    scale *= features.columns**0.5
    sizes = np.bincount(rows.values, minlength=num_classes)[:, np.newaxis]
    centroids = np.where(sizes > 0, (sums / np.maximum(1, sizes) - mean) / scale, 0)
    return mean + (0 if shift is None else shift), scale, centroids


def _blocks(features: Features, rows: Rows) -> Iterator[tuple[Numbers, Floats]]:
    """Blocks of features as float64 [B, D], and which rows they are, [B]; others are left out."""
    row_of = np.full(features.rows, -1, dtype=np.int64)
    row_of[rows.places] = np.arange(len(rows.values))
    start = 0
    for block in features.blocks(_BLOCK):
        wanted = row_of[start : start + len(block)]
        start += len(block)
        if not np.isfinite(block).all():
            raise InvalidInput(f"{features.source} holds features that are not finite", "embed it anew")
        if (wanted >= 0).any():
            yield wanted[wanted >= 0], np.asarray(block[wanted >= 0], dtype=np.float64)


def _standardised(
    features: Features, rows: Rows, means: Floats, scale: Floats
) -> Iterator[tuple[Numbers, Floats]]:
    for places, block in _blocks(features, rows):
        yield places, (block - means) / scale


def _drawn(
    uniform: Floats, propensity: Floats, hashes: keyed.Keys, chosen: Mask, rate: Fraction, draw: str
) -> Mask:
    """The rows that change, bool [N]: exactly a share of the chosen ones, or each on its own."""
    ranks = np.where(chosen, uniform / propensity, np.inf)
    eligible = int(chosen.sum())
    changes: Mask = np.zeros(len(ranks), dtype=np.bool_)
    if draw == "exact":
        changes[np.lexsort((hashes, ranks))[: half_up(rate * eligible)]] = True
        return changes
    low, high = 0.0, 1.0 / propensity.min()
    for _ in range(100):  # the factor at which the probabilities min(1, s w) sum to r N
        middle = (low + high) / 2
        expected = np.minimum(1, middle * propensity[chosen]).sum()
        low, high = (middle, high) if expected <= float(rate) * eligible else (low, middle)
    return np.logical_and(chosen, ranks < low) if rate < 1 else chosen


def _targets(inputs: NDArray[np.float32], own: int, rows: Rows, members: Numbers, seed: int) -> Numbers:
    """New classes of some rows of one class, int64 [M], from their standardised features [M, D]."""
    num_classes = len(rows.classes)
    weights = _normal((inputs.shape[1], num_classes), seed, f"instance {rows.classes[own]}")
    scores = np.rint((inputs.astype(np.float64) @ weights) * _GRID) / _GRID
    scores[:, own] = -np.inf
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    edges = np.cumsum(likelihood, axis=1)
    keys = keyed.keys(rows.hashes[members], seed, "target")
    drawn = keyed.uniforms(keys)[:, None] * edges[:, -1:]
    places: Numbers = (edges <= drawn).sum(axis=1)
    return np.minimum(places, num_classes - 1 - (own == num_classes - 1))


def _normal(shape: tuple[int, int], seed: int, purpose: str) -> Floats:
    """Standard normal numbers by Box and Muller."""
    count = shape[0] * shape[1]
    one, two = (keyed.uniforms(keyed.keys(keyed.hash_rows(0, count), seed, f"{purpose} {part}"))
                for part in ("radius", "angle"))  # fmt: skip
    radius = np.sqrt(-2 * np.log1p(-one))
    normal: Floats = radius * np.cos(2 * np.pi * two)
    return normal.reshape(shape)
