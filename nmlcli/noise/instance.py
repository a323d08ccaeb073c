"""Noise that depends on the sample: who changes by how near another class is, where to by its features.

After Xia et al. 2020 (part-dependent label noise), put right in what measuring showed: features are
standardised and divided by the root of their width, so that no target takes most of a class; who
changes depends on the features, not on the target alone; and the rate is exactly the one asked for.
"""

import hashlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed
from nmlcli.errors import InvalidInput
from nmlcli.noise.draws import Numbers, by_class, half_up, share, sources
from nmlcli.noise.terms import Changed, Request, Rows
from nmlcli.products.features import Features

_BLOCK = 4096  # rows
# Scores are rounded to its inverse, so that the last bits of a product of matrices do not tell.
_GRID = 2.0**16

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
    margins = _margins(features, rows, means, scale, centroids)
    uniform = keyed.uniforms(keyed.keys(rows.hashes, request.seed, "propensity"))
    with np.errstate(divide="ignore"):  # log 0 is -inf, and comes first
        ranks = np.where(chosen, np.log(uniform) - margins, np.inf)
    if request.draw == "exact":
        changes = np.zeros(len(ranks), dtype=np.bool_)
        changes[np.lexsort((rows.hashes, ranks))[: half_up(rate * eligible)]] = True
    else:
        changes = ranks < _threshold(margins[chosen], rate) if rate < 1 else chosen
    inputs = np.empty((int(changes.sum()), features.columns), dtype=np.float32)
    slots = np.cumsum(changes) - 1
    for places, block in _standardised(features, rows, means, scale):
        inputs[slots[places[changes[places]]]] = block[changes[places]]
    values = rows.values.copy()
    keys = keyed.keys(rows.hashes, request.seed, "target")
    for c, members in by_class(rows.values, np.flatnonzero(changes), num_classes):
        purpose = f"instance {rows.classes[c]}"
        weights = _normal((features.columns, num_classes), request.seed, purpose)
        for start in range(0, len(members), _BLOCK):
            some = members[start : start + _BLOCK]
            values[some] = _targets(inputs[slots[some]], weights, c, keys[some])
    digest = hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()[:16]
    return Changed(values, eligible, {"digest": digest})


def _margins(features: Features, rows: Rows, means: Floats, scale: Floats, centroids: Floats) -> Floats:
    """max_{k≠y} s_k - s_y of each row, standardised over the rows, [N]; k are classes with rows."""
    filled = np.bincount(rows.values, minlength=len(rows.classes)) > 0
    margins = np.zeros(len(rows.values))
    if filled.sum() < 2:
        return margins
    for places, block in _standardised(features, rows, means, scale):
        scores = block @ centroids.T - (centroids**2).sum(axis=1) / 2
        scores[:, ~filled] = -np.inf
        own = rows.values[places]
        mine = scores[np.arange(len(own)), own].copy()
        scores[np.arange(len(own)), own] = -np.inf
        margins[places] = scores.max(axis=1) - mine
    spread = margins.std()
    return np.asarray(np.rint((margins - margins.mean()) / (spread or 1) * _GRID) / _GRID)


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
        # Taken off at once, so that no difference of large sums remains.
        shift = block[0].copy() if shift is None else shift
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


def _threshold(margins: Floats, rate: Fraction) -> float:
    """log s at which the probabilities min(1, s exp(z)) of some rows sum to their share r."""
    low, high = -float(margins.max(initial=0)) - 800, -float(margins.min(initial=0)) + 1
    for _ in range(100):
        middle = (low + high) / 2
        expected = np.exp(np.minimum(0, middle + margins)).sum()
        low, high = (middle, high) if expected <= float(rate) * len(margins) else (low, middle)
    return low


def _targets(inputs: NDArray[np.float32], weights: Floats, own: int, keys: keyed.Keys) -> Numbers:
    """New classes of some rows of one class, int64 [M], from their standardised features [M, D] and the
    class's weights [D, C].
    """
    scores = np.rint((inputs.astype(np.float64) @ weights) * _GRID) / _GRID
    scores[:, own] = -np.inf
    edges = np.cumsum(np.exp(scores - scores.max(axis=1, keepdims=True)), axis=1)
    drawn = keyed.uniforms(keys)[:, None] * edges[:, -1:]
    places: Numbers = (edges <= drawn).sum(axis=1)
    last = weights.shape[1] - 1
    nearest: Numbers = np.minimum(places, last - (own == last))
    return nearest


def _normal(shape: tuple[int, int], seed: int, purpose: str) -> Floats:
    """Standard normal numbers by Box and Muller."""
    count = shape[0] * shape[1]
    one, two = (keyed.uniforms(keyed.keys(keyed.hash_rows(0, count), seed, f"{purpose} {part}"))
                for part in ("radius", "angle"))  # fmt: skip
    radius = np.sqrt(-2 * np.log1p(-one))
    normal: Floats = radius * np.cos(2 * np.pi * two)
    return normal.reshape(shape)
