"""Drawing against slow transcriptions that share no code."""

import math

import numpy as np
import pytest

from nmlcli.data.generated import draw as d

STAR = [(0.0, -1.0), (0.25, -0.34), (0.95, -0.3), (0.4, 0.13), (0.6, 0.8), (-0.6, 0.8), (-0.9, -0.3)]


def plane(values):
    return np.asarray(values, np.float32)


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return plane(rng.uniform(-1.5, 1.5, (2, 1, 400)))


def nearest_on(px, py, start, end):
    steps = np.linspace(0, 1, 4001)
    return np.hypot(
        start[0] + steps * (end[0] - start[0]) - px, start[1] + steps * (end[1] - start[1]) - py
    ).min()


def winding(px, py, corners):
    angles = [math.atan2(cy - py, cx - px) for cx, cy in corners]
    turns = (
        math.remainder(b - a, 2 * math.pi) for a, b in zip(angles, angles[1:] + angles[:1], strict=True)
    )
    return round(sum(turns) / (2 * math.pi))


def test_segment(points):
    x, y = points
    squared = d.segment(x, y, (-0.7, 0.2), (0.9, -0.6))
    slow = [nearest_on(px, py, (-0.7, 0.2), (0.9, -0.6)) for px, py in zip(x[0], y[0], strict=True)]
    assert np.sqrt(squared[0]) == pytest.approx(slow, abs=1e-3)
    assert squared.dtype == np.float32


def test_polygon(points):
    x, y = points
    distance = d.polygon(x, y, STAR)
    sides = list(zip(STAR, STAR[1:] + STAR[:1], strict=True))
    for px, py, got in zip(x[0], y[0], distance[0], strict=True):
        away = min(nearest_on(px, py, start, end) for start, end in sides)
        assert abs(got) == pytest.approx(away, abs=1e-3)
        assert (got < 0) == (winding(px, py, STAR) != 0)


def test_value_noise():
    draws = d.Draws("noise", np.arange(2), 16)
    got = d.value_noise(draws, 3, 10)
    lattice = d.Draws("noise", np.arange(2), 16).many(16).reshape(2, 4, 4)
    for row in range(10):
        for column in range(10):
            down, across = (row + 0.5) * 0.3, (column + 0.5) * 0.3
            i, j = int(down), int(across)
            s, t = down - i, across - j
            s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
            corners = lattice[:, i : i + 2, j : j + 2]
            want = (
                corners[:, 0, 0] * (1 - s) * (1 - t)
                + corners[:, 0, 1] * (1 - s) * t
                + corners[:, 1, 0] * s * (1 - t)
                + corners[:, 1, 1] * s * t
            )
            assert got[:, row, column] == pytest.approx(want, abs=1e-5)


def test_wave_is_near_a_sine():
    x = plane(np.linspace(-3, 3, 601))
    assert np.abs(d.wave(x) - np.sin(2 * np.pi * x)).max() < 0.06


@pytest.mark.parametrize("most", [None, 0.2])
def test_directions_are_unit_vectors(most):
    cosine, sine = d.Draws("direction", np.arange(2000), 2).direction(most)
    assert (cosine**2 + sine**2).ravel() == pytest.approx(1, abs=1e-6)
    quadrants = {(c > 0, s > 0) for c, s in zip(cosine.ravel(), sine.ravel(), strict=True)}
    assert len(quadrants) == (4 if most is None else 2)
    if most is not None:
        assert np.abs(np.arctan2(sine, cosine)).max() <= 2 * math.atan(most) + 1e-6


def test_box_blur():
    picture = plane(np.random.default_rng(1).uniform(size=(2, 6, 6, 3)))
    got = d.box_blur(picture, 1)
    for row in range(6):
        for column in range(6):
            rows = np.clip([row - 1, row, row + 1], 0, 5)
            columns = np.clip([column - 1, column, column + 1], 0, 5)
            want = picture[:, rows][:, :, columns].mean(axis=(1, 2))
            assert got[:, row, column] == pytest.approx(want, abs=1e-6)


def test_grain_is_centred_and_independent_of_the_batch():
    grain = d.grain("some", np.arange(50), 20)
    assert np.abs(grain).max() <= 1
    assert grain.mean() == pytest.approx(0, abs=0.02)
    assert grain.std() == pytest.approx(math.sqrt(1 / 6), abs=0.01)
    assert (d.grain("some", np.array([7]), 20) == grain[7]).all()


def test_draws_are_uniform_and_run_out():
    draws = d.Draws("some", np.arange(4000), 3)
    numbers = draws.many(2)
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(800, abs=130)
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.06
    assert draws.uniform(2, 5).shape == (4000, 1, 1)
    with pytest.raises(ValueError, match="only 3 numbers"):
        draws.uniform()


def test_cover_is_half_on_the_border():
    assert d.cover(plane([-1, 0, 1]), 32).tolist() == [1, 0.5, 0]


def test_apart_keeps_colours_apart_in_lightness():
    rng = np.random.default_rng(2)
    colour, other = plane(rng.uniform(size=(2, 500, 1, 1, 3)))
    moved = d.apart(colour, other, 0.2)
    weights = [0.3, 0.6, 0.1]
    difference = np.abs((moved - other) @ weights)
    assert (difference >= 0.2).mean() > 0.97
    kept = np.abs((colour - other) @ weights) > 0.21
    assert (moved[kept] == colour[kept]).all()


def test_bytes_are_rounded_and_held():
    assert d.to_bytes(plane([-1, 0, 0.5, 1, 2])).tolist() == [0, 0, 128, 255, 255]
