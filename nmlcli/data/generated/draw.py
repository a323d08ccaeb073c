"""What the generated sets are drawn with: keyed numbers, value noise, distances, colours.

Planes are float32 [N,size,size], one number an image broadcasts as [N,1,1]. Only + - x / sqrt,
comparisons and fixed orders of them: each is rounded alike on every platform, so the bytes agree.
Lengths are in picture widths: a picture spans [0, 1) in x (right) and y (down).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli import keyed

# float32, always: numpy keeps it against plain numbers (numpy's own types do not say so)
Plane = NDArray[Any]
Points = Sequence[tuple[float, float]]


def balanced(indices: NDArray[np.int64], num_classes: int, purpose: str) -> NDArray[np.int64]:
    """Class numbers, int64 [N]: each run of num_classes images has every class once."""
    numbers = _numbers(indices // num_classes, num_classes, num_classes)
    order = np.argsort(keyed.keys(numbers, 0, purpose), axis=1, kind="stable")
    labels: NDArray[np.int64] = order[np.arange(len(indices)), indices % num_classes].astype(np.int64)
    return labels


def _numbers(indices: NDArray[np.int64], stride: int, count: int) -> keyed.Keys:
    """The numbers of an image's draws, uint64 [N,count]; apart where count ≤ stride."""
    numbers: keyed.Keys = np.multiply(
        indices.astype(np.uint64)[:, None], np.uint64(stride), dtype=np.uint64
    )
    return np.add(numbers, np.arange(count, dtype=np.uint64), dtype=np.uint64)


class Draws:
    """A row of keyed numbers an image, handed out in the order of the calls; start: the first one."""

    def __init__(self, purpose: str, indices: NDArray[np.int64], count: int, start: int = 0) -> None:
        key = keyed.keys(_numbers(indices, 1 << 20, count) + np.uint64(start), 0, purpose)
        self._row: Plane = keyed.uniforms(key).astype(np.float32)
        self._next = 0

    def many(self, count: int) -> NDArray[np.float32]:
        """Uniform numbers in [0, 1]: float32 [N,count]."""
        start, self._next = self._next, self._next + count
        if self._next > self._row.shape[1]:
            raise ValueError(f"only {self._row.shape[1]} numbers an image were drawn")
        return self._row[:, start : self._next]

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Plane:
        """One number an image in [low, high]: float32 [N,1,1]."""
        return low + (high - low) * self.many(1)[:, :, None]

    def direction(self, most: float | None = None) -> tuple[Plane, Plane]:
        """A unit vector (c, s), float32 [N,1,1] each: any, or up to an angle about (1, 0).

        From the tangent t of half the angle, at most `most`: ((1 - t²) / (1 + t²), 2t / (1 + t²)).
        """
        reach = 1.0 if most is None else most
        t = self.uniform(-reach, reach)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        if most is None:
            sign = np.where(self.uniform() < 0.5, np.float32(-1), np.float32(1))
            return sign * cosine, sign * sine
        return cosine, sine

    def colour(self) -> Plane:
        """A colour in [0, 1]^3: float32 [N,1,1,3]."""
        return self.many(3)[:, None, None, :]


def grid(size: int) -> tuple[Plane, Plane]:
    """The centres of the pixels: x [1,1,size], y [1,size,1]."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def turned(x: Plane, y: Plane, direction: tuple[Plane, Plane]) -> tuple[Plane, Plane]:
    """Coordinates along a direction (c, s) and across it."""
    cosine, sine = direction
    return cosine * x + sine * y, cosine * y - sine * x


def by_class(
    labels: NDArray[np.int64], functions: Sequence[Callable[..., Plane]], *planes: Plane
) -> Plane:
    """What the function of each image's class makes of its planes: float32 [N,size,size]."""
    out = np.empty(np.broadcast_shapes(*(plane.shape for plane in planes)), np.float32)
    for label in np.unique(labels):
        rows = labels == label
        out[rows] = functions[label](*(plane[rows] for plane in planes))
    return out


def value_noise(draws: Draws, cells: int, size: int) -> Plane:
    """Smooth noise in [0, 1] with cells² cells: float32 [N,size,size]."""
    lattice = draws.many((cells + 1) ** 2).reshape(-1, cells + 1, cells + 1)
    position = ((np.arange(size) + 0.5) * cells / size).astype(np.float32)
    cell = position.astype(np.int64)
    t = position - cell.astype(np.float32)
    t = t * t * (3 - 2 * t)
    rows = lattice[:, cell] + (lattice[:, cell + 1] - lattice[:, cell]) * t[:, None]
    left, right = rows[:, :, cell], rows[:, :, cell + 1]
    return left + (right - left) * t


def clip(plane: Plane, low: float = 0.0, high: float = 1.0) -> Plane:
    """The plane held within [low, high]."""
    return np.minimum(np.maximum(plane, np.float32(low)), np.float32(high))


def fraction(plane: Plane) -> Plane:
    """What is left above the next lower integer, in [0, 1)."""
    rest: Plane = plane - np.floor(plane)
    return rest


def wave(plane: Plane) -> Plane:
    """A wave of period 1 and height ±1 from two parabolas: close to a sine, without one."""
    t = 2 * fraction(plane) - 1
    height: Plane = 4 * t * (np.abs(t) - 1)
    return height


def length(x: Plane, y: Plane) -> Plane:
    """The distance from the origin."""
    distance: Plane = np.sqrt(x * x + y * y)
    return distance


def cover(distance: Plane, size: int) -> Plane:
    """How much of a pixel lies inside, from the distance of its centre: 0 to 1."""
    return clip(0.5 - distance * np.float32(size))


def segment(x: Plane, y: Plane, start: tuple[float, float], end: tuple[float, float]) -> Plane:
    """The squared distance from a line segment."""
    ex, ey = end[0] - start[0], end[1] - start[1]
    dx: Plane = x - np.float32(start[0])
    dy: Plane = y - np.float32(start[1])
    along = clip(dx * np.float32(ex / (ex * ex + ey * ey)) + dy * np.float32(ey / (ex * ex + ey * ey)))
    dx, dy = dx - along * np.float32(ex), dy - along * np.float32(ey)
    squared: Plane = dx * dx + dy * dy
    return squared


def polygon(x: Plane, y: Plane, corners: Points) -> Plane:
    """The distance from a polygon's border, negative inside (crossings of a ray, the even-odd rule)."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    nearest, inside = np.full(shape, np.float32(np.inf)), np.zeros(shape, bool)
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        nearest = np.minimum(nearest, segment(x, y, start, end))
        if start[1] == end[1]:
            continue
        slope = np.float32((end[0] - start[0]) / (end[1] - start[1]))
        between = (y >= np.float32(min(start[1], end[1]))) & (y < np.float32(max(start[1], end[1])))
        inside ^= between & (x < np.float32(start[0]) + (y - np.float32(start[1])) * slope)
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def box_blur(picture: Plane, radius: int) -> Plane:
    """The mean over (2 radius + 1)² pixels of [N,size,size,3], the border repeated."""
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        padded = np.pad(picture, pad, mode="edge")
        size = picture.shape[axis]
        total = np.zeros_like(picture)
        for shift in range(2 * radius + 1):
            total += padded[(slice(None),) * axis + (slice(shift, shift + size),)]
        picture = total / np.float32(2 * radius + 1)
    return picture


def grain(purpose: str, indices: NDArray[np.int64], size: int) -> Plane:
    """Independent noise in [-1, 1] a pixel, thinning towards the ends: float32 [N,size,size]."""
    key = keyed.keys(_numbers(indices, 1 << 24, size * size), 0, f"{purpose} grain")
    low, high = key & np.uint64(0xFFFF), (key >> np.uint64(16)) & np.uint64(0xFFFF)
    total: Plane = (low + high).astype(np.float32) * np.float32(2.0**-16) - 1
    return total.reshape(-1, size, size)


def blend(under: Plane, over: Plane, amount: Plane) -> Plane:
    """Lay colours [...,3] over colours by an amount [N,size,size]."""
    mixed: Plane = under + (over - under) * amount[..., None]
    return mixed


def _lightness(colour: Plane) -> Plane:
    """A rough luma of colours [...,3]: [...,1]."""
    red, green, blue = (colour[..., channel : channel + 1] for channel in range(3))
    return 0.3 * red + 0.6 * green + 0.1 * blue


def apart(colour: Plane, other: Plane, least: float) -> Plane:
    """The colour, made lighter or darker where its lightness is nearer than `least` to another's."""
    light = _lightness(other)
    change = light - _lightness(colour)
    step = np.where(light < 0.5, np.float32(least + 0.1), np.float32(-least - 0.1))
    return np.where(np.abs(change) < least, clip(colour + change + step), colour)


def to_bytes(picture: Plane) -> NDArray[np.uint8]:
    """Colours in [0, 1] as bytes, rounded."""
    return (clip(picture) * 255 + np.float32(0.5)).astype(np.uint8)
