"""How fast the generated sets are drawn on one core, beside Pillow drawing a comparable picture.

    python bench/generated.py [--size 32] [--count 1000] [--runs 5]

One JSON line a set: images a second (median, lowest and highest of the runs) in batches, one image at
a time, and by Pillow: the same kind of figure drawn three times as large and shrunk, on a ground of
enlarged noise, with grain.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image, ImageDraw

from nmlcli.data.generated.menu import GENERATORS

STAR = [
    (0.5, 0.1),
    (0.6, 0.4),
    (0.9, 0.4),
    (0.65, 0.6),
    (0.75, 0.9),
    (0.5, 0.7),
    (0.25, 0.9),
    (0.35, 0.6),
]


def pillow_figure(name: str, pen: ImageDraw.ImageDraw, width: int, ink: tuple[int, ...]) -> None:
    """A polygon with scraps, stripes, or strokes, on a canvas of this width."""
    corners = [(x * width, y * width) for x, y in STAR]
    if name == "shapes":
        pen.polygon(corners, fill=ink)
        for x, y in corners[:4]:
            pen.line([(x, y), (x + width / 5, y + width / 9)], fill=ink[::-1], width=width // 16)
    elif name == "textures":
        for start in range(-width, width, width // 5):
            pen.line([(start, 0), (start + width, width)], fill=ink, width=width // 10)
    else:
        pen.line(corners[:5], fill=ink, width=width // 16, joint="curve")


def pillow(name: str, index: int, size: int) -> np.ndarray:
    """A picture of the same parts as a generated one."""
    generator = np.random.default_rng(index)
    ground = np.zeros((size, size, 3), np.float32)
    for cells in (3, 7, 13):
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        ground += np.asarray(noise.resize((size, size), Image.Resampling.BILINEAR)) / np.float32(3)
    canvas = Image.new("RGBA", (3 * size, 3 * size))
    ink = tuple(generator.integers(0, 256, 3).tolist())
    pillow_figure(name, ImageDraw.Draw(canvas), 3 * size, ink)
    figure = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32)
    cover = figure[..., 3:] / 255
    grain = generator.normal(0, 8, (size, size, 1)).astype(np.float32)
    return np.clip(ground * (1 - cover) + figure[..., :3] * cover + grain, 0, 255).astype(np.uint8)


def rates(work: Callable[[], object], count: int, runs: int) -> dict[str, int]:
    """Images a second of processor time: median, lowest and highest; the first run is a warm-up."""
    measured = []
    for _ in range(runs + 1):
        start = time.process_time()
        work()
        measured.append(round(count / (time.process_time() - start)))
    kept = measured[1:]
    return {"median": round(statistics.median(kept)), "low": min(kept), "high": max(kept)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    size, count, runs = options.size, options.count, options.runs
    few = max(1, count // 5)
    for name, generator in GENERATORS.items():
        other = rates(lambda name=name: [pillow(name, i, size) for i in range(few)], few, runs)
        for domain in generator.domains or (None,):

            def batch(generator=generator, domain=domain):
                return generator.render_many("train", domain, np.arange(count), size)

            def alone(generator=generator, domain=domain):
                return [generator.render("train", domain, i, size) for i in range(few)]

            line = {
                "bench": "generated",
                "set": f"{name}/{domain}" if domain else name,
                "size": size,
                "unit": "images/s on one core",
                "batch": rates(batch, count, runs),
                "alone": rates(alone, few, runs),
                "alternative": "Pillow, drawn 3x and shrunk",
                "alternative_alone": other,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
