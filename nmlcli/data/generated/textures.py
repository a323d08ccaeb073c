"""The textures set: ten surfaces at any angle, scale, phase and colour."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.generated import draw as d
from nmlcli.data.generated.draw import Draws, Plane
from nmlcli.data.generated.menu import Request


def _bricks(x: Plane, y: Plane, bend: Plane) -> Plane:
    row = np.floor(y * 2)
    across, down = d.fraction(x + 0.5 * row), d.fraction(2 * y)
    joint = np.minimum(np.minimum(across, 1 - across), np.minimum(down, 1 - down) / 2)
    return d.clip((joint - 0.06) * 12)


def _checks(x: Plane, y: Plane, bend: Plane) -> Plane:
    return d.clip(0.5 + 6 * d.wave(x) * d.wave(y))


def _cracks(x: Plane, y: Plane, bend: Plane) -> Plane:
    return d.clip(np.abs(d.wave(x / 2 + bend) + d.wave(y / 2 - bend)) * 3)


def _dots(x: Plane, y: Plane, bend: Plane) -> Plane:
    across, down = d.fraction(x) - 0.5, d.fraction(y) - 0.5
    return d.clip((0.33 - d.length(across, down)) * 8)


def _grid(x: Plane, y: Plane, bend: Plane) -> Plane:
    across, down = np.abs(d.fraction(x) - 0.5), np.abs(d.fraction(y) - 0.5)
    return d.clip((np.minimum(across, down) - 0.1) * 8)


def _rings(x: Plane, y: Plane, bend: Plane) -> Plane:
    return d.clip(0.5 + d.wave(d.length(x, y)))


def _stripes(x: Plane, y: Plane, bend: Plane) -> Plane:
    return d.clip(0.5 + 2 * d.wave(x))


def _twill(x: Plane, y: Plane, bend: Plane) -> Plane:
    over = d.wave(x / 2 + 0.25) * d.wave(y / 2 + 0.25) > 0
    return 0.5 + 0.5 * np.where(over, d.wave(x), d.wave(y))


def _waves(x: Plane, y: Plane, bend: Plane) -> Plane:
    return d.clip(0.5 + 2 * d.wave(x + 0.3 * d.wave(y / 2)))


def _wood(x: Plane, y: Plane, bend: Plane) -> Plane:
    return 0.5 + 0.5 * d.wave(x + 2 * bend)


# The lightness of a point in [0, 1]; x and y in periods, bend a slow noise in [-0.5, 0.5].
SURFACES: dict[str, Callable[[Plane, Plane, Plane], Plane]] = {
    "bricks": _bricks, "checks": _checks, "cracks": _cracks, "dots": _dots, "grid": _grid,
    "rings": _rings, "stripes": _stripes, "twill": _twill, "waves": _waves, "wood": _wood,
}  # fmt: skip
CLASSES = tuple(sorted(SURFACES))


def draw(request: Request) -> NDArray[np.uint8]:
    """Render images: uint8 [N,size,size,3]."""
    draws, size = Draws(request.purpose, request.indices, 192), request.size
    slow = d.value_noise(draws, 3, size) - 0.5
    fine = d.value_noise(draws, 11, size) - 0.5
    x, y = d.grid(size)
    scale = draws.uniform(2.5, 6.0)
    direction = draws.direction()
    x, y = d.turned(x - draws.uniform(), y - draws.uniform(), direction)
    x, y = scale * x, scale * y
    x = x * draws.uniform(0.8, 1.25) + draws.uniform(-0.3, 0.3) * y
    x, y = x + 0.5 * slow, y - 0.5 * slow
    lightness = d.by_class(request.labels, [SURFACES[name] for name in CLASSES], x, y, slow)
    one = draws.colour()
    other = d.apart(draws.colour(), one, 0.2)
    picture = d.blend(one, other, lightness + 0.3 * fine)
    shade = 1 + draws.uniform(-0.8, 0.8) * slow
    picture = picture * shade[..., None]
    return d.to_bytes(picture + 0.1 * d.grain(request.purpose, request.indices, size)[..., None])


def describe(request: Request) -> list[str]:
    """Say what images show: `a texture of bricks`."""
    return [f"a texture of {CLASSES[label]}" for label in request.labels]
