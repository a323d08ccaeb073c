"""How fast `nml embed` is, beside the bare network and beside timm's usual loop.

    python bench/embed.py [RUNS] [--case resnet50]

JPEG files of random blots, in class folders and in a tar, to HDF5; networks without training. Images a
second from the end of the first batch to the end of the file, so that no start counts; medians over
runs that take turns, each in a process of its own, two threads. One JSON line each:

- bare: the network alone on float batches that lie in memory, in the same precision and memory order.
- timm: timm's dataset, transform and loader (two workers), float32, NCHW, features kept in memory.
- folder, tar: ours; `of_bare` and `of_timm` are ratios of the medians. `decoding` is how fast images
  are read and transformed with nothing behind, by two threads.
- bf16: ours and the bare network, in bfloat16 by autocast.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# name: (images, of pixels, network, size, batch)
CASES = {
    "resnet50": (160, (500, 375), "resnet50", 224, 32),
    "resnet10t": (4096, (72, 64), "resnet10t", 64, 128),
}
START = """
import sys, time
import nmlcli
import numpy as np, torch
data, network, size, batch, precision, out = sys.argv[1:]
size, batch = int(size), int(batch)
marks = []
def mark(done):
    marks.append((done, time.perf_counter()))
"""
OURS = """
from nmlcli.stages.embed import EmbedOptions, embed
asked = EmbedOptions(random_init=True, size=size, batch_size=batch, workers=2, precision=precision)
embed([data], f"timm:{network}", out, asked, lambda done, total, **values: mark(done))
mark(marks[-1][0])
"""
BARE = """
import timm
from nmlcli.models.precision import autocast
module = timm.create_model(network, num_classes=0).eval().to(memory_format=torch.channels_last)
count = 6 * batch
images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
with torch.inference_mode(), autocast(precision, torch.device("cpu")):
    for done in range(batch, count + 1, batch):
        module(images).float().numpy()
        mark(done)
"""
TIMM = """
import timm
from timm.data import create_dataset, create_loader, resolve_data_config
module = timm.create_model(network, num_classes=0).eval()
config = resolve_data_config({"input_size": (3, size, size)}, model=module)
loader = create_loader(
    create_dataset("", data), config["input_size"], batch, use_prefetcher=False, num_workers=2,
    interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
    crop_pct=config["crop_pct"] if size > 64 else 1.0, persistent_workers=False,
)
found = []
with torch.inference_mode():
    for images, labels in loader:
        found.append(module(images).numpy())
        mark(sum(map(len, found)))
np.concatenate(found)
mark(marks[-1][0])
"""
DECODING = """
import timm
from nmlcli.data.loader import load_batches
from nmlcli.data.sources import open_samples
from nmlcli.models.preprocessing import Pixels, of_timm
samples = open_samples(data)
pixels = Pixels(of_timm(timm.create_model(network), size))
for rows, images in load_batches(samples, np.arange(len(samples)), pixels, batch, workers=2):
    mark(int(rows[-1]) + 1)
"""
END = "\n(first, began), (last, ended) = marks[0], marks[-1]\nprint((last - first) / (ended - began))"


def write_images(folder: Path, count: int, pixels: tuple[int, int]) -> None:
    """Images of random blots, of ten classes, as JPEG files in folders and in a tar."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        few = rng.integers(0, 256, (pixels[1] // 12, pixels[0] // 12, 3), dtype=np.uint8)
        grain = rng.normal(0, 12, (pixels[1], pixels[0], 3))
        large = np.asarray(Image.fromarray(few).resize(pixels, Image.Resampling.BICUBIC))
        image = Image.fromarray((large + grain).clip(0, 255).astype(np.uint8))
        path = folder / "images" / str(number % 10) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=85)
    subprocess.run(["tar", "-cf", "images.tar", "-C", "images", "."], cwd=folder, check=True)


def rate(program: str, data: str, case: str, precision: str, folder: Path) -> float:
    """Images a second that a program says."""
    _, _, network, size, batch = CASES[case]
    words = [data, network, str(size), str(batch), precision, str(folder / "out.h5")]
    done = subprocess.run(
        [sys.executable, "-c", START + program + END, *words], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def bench(case: str, runs: int, folder: Path) -> None:
    """All variants of one network."""
    write_images(folder, *CASES[case][:2])
    images, tar = str(folder / "images"), str(folder / "images.tar")
    variants = {
        "bare": (BARE, images, "fp32"), "timm": (TIMM, images, "fp32"),
        "decoding": (DECODING, images, "fp32"), "folder": (OURS, images, "fp32"),
        "tar": (OURS, tar, "fp32"), "bare bf16": (BARE, images, "bf16"),
        "folder bf16": (OURS, images, "bf16"),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(runs):
        for name, (program, data, precision) in variants.items():
            found[name].append(rate(program, data, case, precision, folder))
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    for name, rates in found.items():
        line: dict[str, Any] = {"case": name, "network": case, "images_per_second": middle[name]}
        line |= {"lowest": min(rates), "highest": max(rates), "runs": runs}
        if name in ("folder", "tar"):
            line |= {f"of_{other}": middle[name] / middle[other] for other in ("bare", "timm")}
        if name == "folder bf16":
            line |= {f"of_{other}": middle[name] / middle[other] for other in ("bare bf16", "folder")}
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}))
        sys.stdout.flush()


def main() -> None:
    """Bench all networks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--case", choices=CASES, help="only this network")
    asked = parser.parse_args()
    print(json.dumps({"case": "machine", "processors": os.cpu_count()}), flush=True)
    for case in CASES:
        if asked.case in (None, case):
            with tempfile.TemporaryDirectory() as folder:
                bench(case, asked.runs, Path(folder))


if __name__ == "__main__":
    main()
