"""Noise on captions: texts exchanged between images, exactly as many rows as asked for.

A row is noisy if its new text is none of the true texts of its image, judged by the bytes. So two rows
can exchange their texts if they are of different images and neither text is a true one of the other's
image; where several rows hold one text, pairs that cannot are mended. Rows without text are left out.
"""

from fractions import Fraction

import numpy as np

from nmlcli import keyed
from nmlcli.errors import InvalidInput
from nmlcli.noise.draws import Mask, Numbers, half_up
from nmlcli.noise.terms import Changed, Request, Rows

_BLOCK = 1024  # rows that are looked at at once
_ROUNDS = 32  # of mending by distance, before the pairs that are left are mended one by one


def swap(rows: Rows, request: Request) -> Changed:
    """Pairs of rows exchange their texts, as in the paper; an even number of rows changes.

    All rows are paired, once, by their keys, and the first pairs are used: a larger ratio only adds.
    """
    size = len(rows.values)
    count = min(2 * half_up((request.ratio or Fraction(0)) * size / 2), size // 2 * 2)
    if not request.ratio:
        return Changed(np.arange(size), size, _facts(rows, 0))
    truths, pairs, _ = _paired(rows, request.seed)
    one, two = _first(pairs.reshape(-1), count, rows).reshape(-1, 2).T
    takes = np.arange(size)
    takes[one], takes[two] = two, one
    return Changed(takes, size, _facts(rows, truths.mended))


def cycle(rows: Rows, request: Request) -> Changed:
    """The chosen rows stand in a circle and each takes the next one's text; any number but one."""
    count = half_up((request.ratio or Fraction(0)) * len(rows.values))
    if not request.ratio:
        return Changed(np.arange(len(rows.values)), len(rows.values), _facts(rows, 0))
    truths, pairs, odd = _paired(rows, request.seed)
    if count == 1:
        raise InvalidInput("one caption alone cannot be exchanged", "take a larger --ratio, or 0")
    circle = _first(np.concatenate([pairs.reshape(-1), odd]), count, rows)
    takes = np.arange(len(rows.values))
    takes[circle] = np.roll(circle, -1)
    _mend_circle(takes, circle, truths)
    return Changed(takes, len(takes), _facts(rows, truths.mended))


def is_noisy(values: Numbers, groups: Numbers, true_values: Numbers) -> Mask:
    """Which rows hold a text, numbers int64 [N], that is no true one of their image, bool [N]."""
    width = int(max(values.max(initial=0), true_values.max(initial=0))) + 1
    return ~_Truths(true_values, groups, width).hold(groups, values)


class _Truths:
    """Which texts are true for which images: S(image) of all rows."""

    def __init__(self, values: Numbers, groups: Numbers, width: int) -> None:
        self.values, self.groups = values, groups
        self.mended = 0
        self._width = width  # more than any number of a text
        self._known = np.unique(groups * self._width + values)
        self._alone = np.bincount(values, minlength=self._width) == 1  # texts that one row has

    def hold(self, groups: Numbers, values: Numbers) -> Mask:
        """Whether each of some texts is a true one of an image, bool [M]."""
        wanted = groups * self._width + values
        places = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
        return np.asarray(self._known[places] == wanted)

    def fit(self, one: Numbers, two: Numbers) -> Mask:
        """Whether texts of rows can be exchanged, bool [M]: neither is true for the other's image."""
        fits = self.groups[one] != self.groups[two]
        (shared,) = np.nonzero(fits & ~(self._alone[self.values[one]] & self._alone[self.values[two]]))
        if len(shared):
            one, two = one[shared], two[shared]
            fits[shared] = ~self.hold(self.groups[one], self.values[two])
            fits[shared] &= ~self.hold(self.groups[two], self.values[one])
        return np.asarray(fits)


def _paired(rows: Rows, seed: int) -> tuple[_Truths, Numbers, Numbers]:
    """The rows with a text in pairs that can exchange theirs, by key, int64 [P, 2], and the one that is
    left of an odd number, int64 [0 or 1].

    Raises InvalidInput where there are fewer than two, or all are equal.
    """
    if rows.groups is None or rows.empty is None:
        raise ValueError("captions need groups")
    (filled,) = np.nonzero(~rows.empty)
    if len(filled) < 2:
        raise InvalidInput(f"{rows.source} has {len(filled)} captions", "an exchange needs two")
    if len(np.unique(rows.values[filled])) == 1:
        raise InvalidInput(f"{rows.source}: all captions are equal", "none can become wrong")
    truths = _Truths(rows.values, rows.groups, int(rows.values.max()) + 1)
    order = filled[np.argsort(keyed.keys(rows.hashes[filled], seed, "select"))]
    even = len(order) // 2 * 2
    pairs = order[:even].reshape(-1, 2).copy()
    _mend_by_distance(pairs, truths)
    _mend_one_by_one(pairs, truths)
    _mend_by_odd(pairs, order[even:], truths)
    return truths, pairs[truths.fit(pairs[:, 0], pairs[:, 1])], order[even:]


def _first(order: Numbers, count: int, rows: Rows) -> Numbers:
    """That many of the rows that can become wrong. Raises InvalidInput, naming the largest ratio."""
    if count > len(order):
        largest = int(len(order) / len(rows.values) * 10**6) / 10**6
        raise InvalidInput(
            f"{rows.source}: of {len(rows.values):,} captions {len(order):,} can become wrong, "
            "since too many are alike or empty",
            f"--ratio {largest:.6g} is the largest",
        )
    return order[:count]


def _facts(rows: Rows, mended: int) -> dict[str, int]:
    return {"empty": 0 if rows.empty is None else int(rows.empty.sum()), "mended": mended}


def _mend_by_distance(pairs: Numbers, truths: _Truths) -> None:
    """Exchange second members of pairs that do not fit with those of the pair d = 1, 2, … places on."""
    bad = np.flatnonzero(~truths.fit(pairs[:, 0], pairs[:, 1]))
    for distance in range(1, min(_ROUNDS, len(pairs) - 1) + 1):
        if not len(bad):
            return
        other = (bad + distance) % len(pairs)
        both = truths.fit(pairs[bad, 0], pairs[other, 1]) & truths.fit(pairs[other, 0], pairs[bad, 1])
        taken = np.zeros(len(pairs), dtype=np.bool_)
        taken[bad[both]] = True
        both &= ~taken[other]  # a pair takes part in one exchange a round
        one, two = bad[both], other[both]
        pairs[one, 1], pairs[two, 1] = pairs[two, 1], pairs[one, 1]
        truths.mended += len(one)
        bad = bad[~truths.fit(pairs[bad, 0], pairs[bad, 1])]


def _mend_one_by_one(pairs: Numbers, truths: _Truths) -> None:
    """Look for each pair that is left through the others, each search from where the last one ended.

    Pairs that cannot be helped are taken to fail alike if they are of one image, or of the same two
    texts: else the search would be quadratic. With several captions an image a few may be missed.
    """
    hopeless: set[tuple[bool | int, ...]] = set()
    place = 0
    for pair in np.flatnonzero(~truths.fit(pairs[:, 0], pairs[:, 1])).tolist():
        one, two = pairs[pair]
        of_one_image = truths.groups[one] == truths.groups[two]
        alike = (truths.groups if of_one_image else truths.values)[[one, two]]
        reason = (bool(of_one_image), *alike.tolist())
        if reason in hopeless or truths.fit(pairs[[pair], 0], pairs[[pair], 1])[0]:
            continue
        for offset in range(0, len(pairs), _BLOCK):
            others = (place + np.arange(offset, min(offset + _BLOCK, len(pairs)))) % len(pairs)
            firsts, seconds = pairs[others].T
            works = truths.fit(np.full(len(others), one), seconds)
            works &= truths.fit(firsts, np.full(len(others), two))
            if works.any():
                place = int(others[works.argmax()])
                pairs[pair, 1], pairs[place, 1] = pairs[place, 1], pairs[pair, 1]
                truths.mended += 1
                break
        else:
            hopeless.add(reason)


def _mend_by_odd(pairs: Numbers, odd: Numbers, truths: _Truths) -> None:
    """Let the row that is left of an odd number take the place of one in a pair that does not fit."""
    (bad,) = np.nonzero(~truths.fit(pairs[:, 0], pairs[:, 1]))
    if len(odd) and len(bad):
        pair = int(bad[0])
        for kept, other in ((0, 1), (1, 0)):
            if truths.fit(pairs[[pair], kept], odd)[0]:
                pairs[pair, other], odd[0] = odd[0], pairs[pair, other]
                truths.mended += 1
                return


def _mend_circle(takes: Numbers, circle: Numbers, truths: _Truths) -> None:
    """Move rows to other places of a circle until each can take the next one's text.

    takes: the next row of each row, int64 [N], which is changed. Raises InvalidInput where some cannot.
    """
    held = truths.hold(truths.groups[circle], truths.values[takes[circle]])
    place = 0
    for row in circle[held].tolist():
        for _ in range(len(circle)):
            moved = takes[row]
            if not truths.hold(truths.groups[[row]], truths.values[[moved]])[0]:
                break
            place = _place_for(moved, takes, circle, truths, place)
            before = circle[place]
            takes[row], takes[moved], takes[before] = takes[moved], takes[before], moved
            truths.mended += 1
        else:
            raise _no_circle()


def _place_for(moved: int, takes: Numbers, circle: Numbers, truths: _Truths, start: int) -> int:
    """The first place from a start on behind which another row can stand, so that neither of the two
    gets a true text. The search goes on where the last one ended: what lies before is mostly used up.
    """
    for offset in range(0, len(circle), _BLOCK):
        places = (start + np.arange(offset, min(offset + _BLOCK, len(circle)))) % len(circle)
        rows = circle[places]
        one, two = np.full(len(rows), moved), takes[rows]
        bad = truths.hold(truths.groups[rows], truths.values[one])
        bad |= truths.hold(truths.groups[one], truths.values[two]) | (two == moved) | (rows == moved)
        if not bad.all():
            return int(places[bad.argmin()])
    raise _no_circle()


def _no_circle() -> InvalidInput:
    words = "the captions that were chosen cannot stand in a circle, since too many are alike"
    return InvalidInput(words, "take --kind swap, or another --ratio")
