"""The glyphs set: eighteen signs written by an unsteady hand, on paper of any colour."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.generated import draw as d
from nmlcli.data.generated.draw import Draws, Plane
from nmlcli.data.generated.menu import Request

# Strokes as digits column-row on a 3 by 3 grid: "00 22" runs from the upper left to the lower right.
SIGNS = (
    "00 02 22", "00 20 22", "00 02, 01 21, 20 22", "00 20, 10 12", "00 22, 20 02", "02 10 22",
    "00 12 20", "00 20 02 22", "00 02 20 22", "10 12, 01 21", "20 00 01 21 22 02", "20 00 02 22",
    "00 20 21 01, 00 02", "02 00 22 20", "00 11 20, 11 12", "10 01 12 21 10",
    "00 20 22 02 00, 01 21", "20 01 22",
)  # fmt: skip


def _point(digits: str) -> tuple[float, float]:
    return 0.8 * (int(digits[0]) - 1), float(int(digits[1]) - 1)


def _sign(strokes: str) -> Callable[[Plane, Plane], Plane]:
    """The distance from the strokes of a sign."""
    lines = [[_point(digits) for digits in stroke.split()] for stroke in strokes.split(",")]

    def distance(x: Plane, y: Plane) -> Plane:
        nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.float32(np.inf))
        for start, end in (ends for points in lines for ends in pairwise(points)):
            nearest = np.minimum(nearest, d.segment(x, y, start, end))
        return np.sqrt(nearest)

    return distance


def draw(request: Request) -> NDArray[np.uint8]:
    """Render images: uint8 [N,size,size,3]."""
    draws, size = Draws(request.purpose, request.indices, 192), request.size
    across, down = (d.value_noise(draws, 4, size) - 0.5 for _ in range(2))
    cloud = d.value_noise(draws, 6, size)
    x, y = d.grid(size)
    radius = draws.uniform(0.24, 0.4)
    reach = 0.48 - radius
    x = x - 0.5 - reach * draws.uniform(-1, 1)
    y = y - 0.5 - reach * draws.uniform(-1, 1)
    x, y = d.turned(x, y, draws.direction(0.2))
    x, y = x / radius, y / radius
    x = x * draws.uniform(0.8, 1.3) + draws.uniform(-0.35, 0.35) * y
    x, y = x + 0.5 * across, y + 0.5 * down
    distance = d.by_class(request.labels, [_sign(strokes) for strokes in SIGNS], x, y)
    distance = distance * radius - draws.uniform(0.02, 0.05)
    paper = draws.colour()
    ink = d.apart(draws.colour(), paper, 0.25)
    picture = paper + 0.3 * (cloud - 0.5)[..., None]
    picture = d.blend(picture, ink, d.cover(distance, size))
    return d.to_bytes(picture + 0.1 * d.grain(request.purpose, request.indices, size)[..., None])
