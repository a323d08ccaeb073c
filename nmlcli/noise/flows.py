"""Noise that depends on the class alone: rows chosen by key, targets by a row of Q (see terms.Flow).

Without strata the total is exact, counts of classes are hypergeometric and cells multinomial. With them
counts of classes and cells are exact too (strata.py), and a row's target depends on its place in its
class.
"""

import logging
from fractions import Fraction

import numpy as np

from nmlcli import keyed
from nmlcli.keyed import Keys
from nmlcli.noise.draws import Mask, Numbers, below, by_class, half_up, share, smallest, sources
from nmlcli.noise.strata import seats, sequence
from nmlcli.noise.terms import Changed, Flow, Request, Rows

log = logging.getLogger(__name__)


def relabel(rows: Rows, request: Request, flow: Flow) -> Changed:
    """Labels after a noise that flows from class to class."""
    num_classes = len(rows.classes)
    flowing = np.array([len(flow.targets(c)[0]) > 0 for c in range(num_classes)], dtype=np.bool_)
    chosen = sources(rows, request, flowing)
    sizes = np.bincount(rows.values, minlength=num_classes)
    eligible = int(sizes[chosen].sum())
    rate = share(request, eligible, len(rows.values))
    rates = [
        (flow.rates[c] if flow.rates else rate) if chosen[c] else Fraction(0)
        for c in range(num_classes)
    ]
    _warn(flow, rates, chosen)
    keys = keyed.keys(rows.hashes, request.seed, "select")
    if request.draw == "bernoulli":
        values = _hashed(rows, request, flow, _each(rows, keys, rates, chosen))
    elif request.stratify or flow.cells:
        values = _stratified(rows, request, flow, keys, _quotas(rows, request, rates, sizes))
    else:
        among = None if chosen.all() else chosen[rows.values]
        values = _hashed(rows, request, flow, smallest(keys, half_up(rate * eligible), among))
    return Changed(values, eligible)


def _warn(flow: Flow, rates: list[Fraction], chosen: Mask) -> None:
    """Say where so many labels of a class change that it is no longer the likeliest one for them."""
    lost = 0
    for c in np.flatnonzero(chosen).tolist():
        if rates[c] * 2 > 1:  # below, no other class can be the likelier
            targets, weights = flow.targets(c)
            weights = np.ones(len(targets)) if weights is None else weights
            shares = float(rates[c]) * weights / weights.sum()
            stay = 1 - float(rates[c]) + shares[targets == c].sum()
            lost += bool(shares[targets != c].max(initial=0) > stay + 1e-12)
    if lost:
        words = "so much noise that of %d of %d classes the clean one is no longer the likeliest"
        log.warning(words, lost, len(rates))


def _each(rows: Rows, keys: Keys, rates: list[Fraction], chosen: Mask) -> Mask:
    """Each row on its own, by the rate of its class."""
    among = chosen[rows.values]
    if len({rates[c] for c in np.flatnonzero(chosen)}) <= 1:
        return below(keys, max(rates, default=Fraction(0))) & among
    hit = np.zeros(len(keys), dtype=np.bool_)
    for c, members in by_class(rows.values, np.flatnonzero(among), len(rates)):
        hit[members] = below(keys[members], rates[c])
    return hit


def _quotas(rows: Rows, request: Request, rates: list[Fraction], sizes: Numbers) -> Numbers:
    """How many rows of each class change, int64 [C], exactly r N in all."""
    expected = [rate * int(size) for rate, size in zip(rates, sizes, strict=True)]
    highest = max(rates, default=Fraction(0)) or Fraction(1)
    # Weights that do not depend on the ratio, so that a larger one only adds.
    weights = np.array([float(share / highest) for share in expected])
    ties = keyed.keys(keyed.hash_ids(rows.classes), request.seed, "class")
    start = keyed.constants(request.seed, "class offsets")[0]
    return seats(weights, sizes, half_up(sum(expected, Fraction(0))), ties, start)


def _stratified(rows: Rows, request: Request, flow: Flow, keys: Keys, quotas: Numbers) -> Numbers:
    """In each class the rows of the smallest keys, which take its targets in their order."""
    values, hashes = rows.values.copy(), keyed.hash_ids(rows.classes)
    candidates = _candidates(rows.values, keys, quotas)
    ordered = candidates[np.argsort(keys[candidates])]
    for c, members in by_class(rows.values, ordered, len(quotas)):
        if quotas[c]:
            targets, weights = flow.targets(c)
            weights = np.ones(len(targets)) if weights is None else weights
            purpose = f"cells {rows.classes[c]}"
            ties = keyed.keys(hashes[targets], request.seed, purpose)
            start = keyed.constants(request.seed, purpose)[1]
            order = sequence(weights, int(quotas[c]), ties, start)
            values[members[: quotas[c]]] = targets[order]
    return values


def _candidates(values: Numbers, keys: Keys, quotas: Numbers) -> Numbers:
    """Rows that hold those of the smallest keys of each class, without a sort of all."""
    wanted = min(len(keys), int(1.1 * quotas.sum()) + 1000)
    near = smallest(keys, wanted)
    short = np.bincount(values[near], minlength=len(quotas)) < quotas
    if short.any():
        near |= short[values]
    return np.flatnonzero(near)


def _hashed(rows: Rows, request: Request, flow: Flow, changes: Mask) -> Numbers:
    """Each of the rows that change takes a target by its own key, whatever the others do."""
    values = rows.values.copy()
    chosen = np.flatnonzero(changes)
    for c, members in by_class(rows.values, chosen, len(rows.classes)):
        targets, weights = flow.targets(c)
        keys = keyed.keys(rows.hashes[members], request.seed, "target")
        if weights is None:
            places = keyed.below(keys, len(targets))
        else:
            edges = np.cumsum(weights)
            places = np.searchsorted(edges[:-1] / edges[-1], keyed.uniforms(keys), side="right")
        values[members] = targets[places]
    return values
