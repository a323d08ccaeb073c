"""The shapes set: one of sixteen shapes in clutter, at any place, size, angle and colour.

The shape, its pose and the clutter are the same in every domain; what covers them is not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.generated import draw as d
from nmlcli.data.generated.draw import Draws, Plane
from nmlcli.data.generated.menu import Request
from nmlcli.data.generated.words import name_colours, with_article

Field = Callable[[Plane, Plane], Plane]


def _polygon(*corners: tuple[float, float]) -> Field:
    return lambda x, y: d.polygon(x, y, corners)


def _circle(x: Plane, y: Plane) -> Plane:
    return d.length(x, y) - 0.9


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(d.length(x, y) - 0.7) - 0.25


def _crescent(x: Plane, y: Plane) -> Plane:
    bite = 0.75 - d.length(x - 0.45, y)
    return np.maximum(d.length(x, y) - 0.95, bite)


def _semicircle(x: Plane, y: Plane) -> Plane:
    return np.maximum(d.length(x, y - 0.4) - 1.0, y - 0.4)


def _heart(x: Plane, y: Plane) -> Plane:
    lobes = d.length(np.abs(x) - 0.42, y + 0.3) - 0.5
    point = d.polygon(x, y, [(-0.85, -0.05), (0.0, -0.35), (0.85, -0.05), (0.0, 0.95)])
    return np.minimum(lobes, point)


# Distances in local units, negative inside; each shape fills about the unit disc.
FIELDS: dict[str, Field] = {
    "arrow": _polygon(
        (-0.95, -0.25), (0.1, -0.25), (0.1, -0.75), (1.0, 0.0), (0.1, 0.75), (0.1, 0.25), (-0.95, 0.25)
    ),
    "bolt": _polygon((0.3, -1.0), (-0.65, 0.15), (-0.1, 0.15), (-0.3, 1.0), (0.65, -0.2), (0.1, -0.2)),
    "chevron": _polygon((-0.9, 0.35), (0.0, -0.7), (0.9, 0.35), (0.9, 0.9), (0.0, -0.1), (-0.9, 0.9)),
    "circle": _circle,
    "corner": _polygon(
        *[(-0.8, -0.9), (-0.25, -0.9), (-0.25, 0.35), (0.8, 0.35), (0.8, 0.9), (-0.8, 0.9)]
    ),
    "crescent": _crescent,
    "cross": _polygon(
        *[(-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3)],
        *[(0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3)],
    ),
    "heart": _heart,
    "hexagon": _polygon(
        *[(1.0, 0.0), (0.5, 0.8660254), (-0.5, 0.8660254)],
        *[(-1.0, 0.0), (-0.5, -0.8660254), (0.5, -0.8660254)],
    ),
    "pentagon": _polygon(
        (0.0, -1.0), (0.95105652, -0.30901699), (0.58778525, 0.80901699), (-0.58778525, 0.80901699),
        (-0.95105652, -0.30901699),
    ),
    "ring": _ring,
    "semicircle": _semicircle,
    "square": _polygon((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "star": _polygon(
        *[(0.0, -1.0), (0.25, -0.34), (0.951, -0.309), (0.4, 0.13), (0.588, 0.809)],
        *[(0.0, 0.42), (-0.588, 0.809), (-0.4, 0.13), (-0.951, -0.309), (-0.25, -0.34)],
    ),
    "tee": _polygon(
        *[(-0.9, -0.9), (0.9, -0.9), (0.9, -0.35), (0.28, -0.35)],
        *[(0.28, 0.9), (-0.28, 0.9), (-0.28, -0.35), (-0.9, -0.35)],
    ),
    "triangle": _polygon((0.0, -1.0), (0.866, 0.7), (-0.866, 0.7)),
}  # fmt: skip
CLASSES = tuple(sorted(FIELDS))
SCRAPS = 4
TILT = 0.3  # the tangent of half the largest angle
LEAST = 0.3  # difference in lightness of a shape from its ground


@dataclass(frozen=True)
class Scene:
    """What every domain renders: distances from the shape and the scraps, and draws for colours."""

    shape: Plane
    scraps: tuple[Plane, ...]
    draws: Draws
    request: Request


def draw(request: Request) -> NDArray[np.uint8]:
    """Render images of a domain: uint8 [N,size,size,3]."""
    draws = Draws(request.purpose, request.indices, 336)
    shape = _shape(draws, request)
    scene = Scene(shape, tuple(_scrap(draws, request.size) for _ in range(SCRAPS)), draws, request)
    return d.to_bytes(DOMAINS[request.domain or "photo"](scene))


def _shape(draws: Draws, request: Request) -> Plane:
    x, y = d.grid(request.size)
    radius = draws.uniform(0.27, 0.42)
    reach = 0.5 - radius
    x = x - 0.5 - reach * draws.uniform(-1, 1)
    y = y - 0.5 - reach * draws.uniform(-1, 1)
    x, y = d.turned(x, y, draws.direction(TILT))
    x, y = x / radius, y / radius
    squeeze = draws.uniform(0.85, 1.18)
    x, y = x * squeeze + draws.uniform(-0.2, 0.2) * y, y / squeeze
    return d.by_class(request.labels, [FIELDS[name] for name in CLASSES], x, y) * radius


def _scrap(draws: Draws, size: int) -> Plane:
    """A small bar at any place and angle."""
    x, y = d.grid(size)
    x, y = d.turned(x - draws.uniform(), y - draws.uniform(), draws.direction())
    long, wide = draws.uniform(0.04, 0.2), draws.uniform(0.015, 0.05)
    distance: Plane = np.maximum(np.abs(x) - long, np.abs(y) - wide)
    return distance


def _photo_colours(draws: Draws) -> tuple[Plane, Plane, list[Plane], Plane]:
    """Those of the ground, of what lies over it, of three scraps and of the shape."""
    ground, other = draws.colour(), draws.colour()
    scraps = [draws.colour() for _ in range(3)]
    return ground, other, scraps, d.apart(draws.colour(), (ground + other) / 2, LEAST)


def _cartoon_colours(draws: Draws) -> tuple[Plane, Plane]:
    """Those of the ground and of the shape."""
    ground, ink = draws.colour(), draws.colour()
    return ground, d.apart(ink, ground, LEAST)


def _photo(scene: Scene) -> Plane:
    draws, size = scene.draws, scene.request.size
    coarse, middle, fine = (d.value_noise(draws, cells, size) for cells in (3, 7, 13))
    ground, other, scraps, ink = _photo_colours(draws)
    cloud = d.clip((coarse + 0.6 * middle + 0.4 * fine) * 0.9 - 0.4)
    picture = d.blend(ground, other, cloud)
    for scrap, colour in zip(scene.scraps[:3], scraps, strict=True):
        picture = d.blend(picture, colour, d.cover(scrap, size))
    x, y = d.grid(size)
    cosine, sine = draws.direction()
    light = 1 + draws.uniform(0.0, 0.5) * (cosine * (x - 0.5) + sine * (y - 0.5))
    surface = light * (0.75 + 0.5 * middle)
    picture = d.blend(picture, ink * surface[..., None], d.cover(scene.shape, size))
    picture = d.blend(picture, draws.colour(), d.cover(scene.scraps[3], size))
    grain = d.grain(scene.request.purpose, scene.request.indices, size)
    return d.clip(picture + 0.06 * grain[..., None])


def _sketch(scene: Scene) -> Plane:
    draws, size = scene.draws, scene.request.size
    rough = d.value_noise(draws, 7, size) - 0.5
    paper = 1 - 0.15 * draws.colour()
    lead = 0.35 * draws.colour()
    width = draws.uniform(0.015, 0.035)
    hatch = d.cover(scene.shape, size) * draws.uniform(0.1, 0.5)
    picture = d.blend(paper + 0.1 * rough[..., None], lead, hatch)
    outline = np.abs(scene.shape + 0.03 * rough) - width
    picture = d.blend(picture, lead, d.cover(outline, size))
    for scrap in scene.scraps[:2]:
        picture = d.blend(picture, lead, 0.6 * d.cover(np.abs(scrap) - 0.008, size))
    return picture


def _cartoon(scene: Scene) -> Plane:
    draws, size = scene.draws, scene.request.size
    ground, ink = _cartoon_colours(draws)
    picture = ground + np.zeros((*scene.shape.shape, 1), np.float32)
    for scrap in scene.scraps[:2]:
        picture = d.blend(picture, draws.colour(), d.cover(scrap, size))
    picture = d.blend(picture, ink, d.cover(scene.shape, size))
    line = d.cover(np.abs(scene.shape) - draws.uniform(0.01, 0.025), size)
    return d.blend(picture, np.zeros(3, np.float32), line)


def _noise(scene: Scene) -> Plane:
    size = scene.request.size
    picture = d.box_blur(d.box_blur(_photo(scene), max(1, size // 32)), max(1, size // 32))
    grain = d.grain(f"{scene.request.purpose} noise", scene.request.indices, size)
    return picture + 0.35 * grain[..., None]


DOMAINS: dict[str, Callable[[Scene], Plane]] = {
    "photo": _photo, "sketch": _sketch, "cartoon": _cartoon, "noise": _noise,
}  # fmt: skip

# How many numbers an image are drawn before the colours: for the shape, four scraps, three noises.
_BEFORE_CARTOON = 6 + 6 * SCRAPS
_BEFORE_PHOTO = _BEFORE_CARTOON + 4 * 4 + 8 * 8 + 14 * 14
_KINDS = {"photo": "a photo", "sketch": "a sketch", "cartoon": "a cartoon", "noise": "a noisy photo"}


def describe(request: Request) -> list[str]:
    """Say what images show: `a photo of a red star on blue`, `a sketch of a star`.

    The colours are those that the shape and its ground are drawn in, before light, clutter and grain
    fall on them; a photo's ground is named by the middle between its two. Pencil has no colour.
    """
    domain = request.domain or "photo"
    shapes = [CLASSES[label] for label in request.labels]
    if domain == "sketch":
        return [f"a sketch of {with_article(shape)}" for shape in shapes]
    if domain == "cartoon":
        ground, ink = _cartoon_colours(Draws(request.purpose, request.indices, 6, _BEFORE_CARTOON))
    else:
        draws = Draws(request.purpose, request.indices, 18, _BEFORE_PHOTO)
        one, other, _, ink = _photo_colours(draws)
        ground = (one + other) / 2
    inks, grounds = (name_colours(d.to_bytes(each[:, 0, 0])) for each in (ink, ground))
    return [
        f"{_KINDS[domain]} of {with_article(f'{of_shape} {shape}')} on {of_ground}"
        for of_shape, shape, of_ground in zip(inks, shapes, grounds, strict=True)
    ]
