"""How fast `nml pretrain` is, beside the bare steps and beside timm's own dataset and loader.

    python bench/pretrain.py [RUNS] [--case 32] [--images N]

resnet10t, batches of 128, sgd, from JPEG files of 64 pixels (builtin:shapes) in class folders; and
CLIP by the recipe clip-tiny. All variants take turns, epoch by epoch, in one process, with torch's own
number of threads and two for the input; the first turn warms up. A line each with the median of images
a second, and medians of the ratios within a turn, `of_bare` (with `lowest` and `highest`) and
`of_timm`. `input` is how many images a second come with no network behind.

- bare: the network alone: as many steps on one batch of random floats, channels last.
- timm: the same steps on what timm's dataset, random crops (transforms as ours has them) and loader
  (two workers) give; it decodes in every epoch, and has nothing like shift.
- shift: ours by default at these sizes; pixels of the final size stay in memory.
- crop: ours with random crops, made anew in every epoch of decoded images that stay in memory.
- crop unkept: the same for a set too large for memory: decoded in every epoch, as by timm.
- clip: ours by its recipe, images and tokens kept; its bare steps take the loss of open_clip.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmlcli import keyed  # before torch, so that threads wait as they do in nml

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor, nn

from nmlcli.data.generated.menu import GENERATORS
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.models.clip import build_clip
from nmlcli.models.networks import build
from nmlcli.models.preprocessing import of_timm
from nmlcli.progress import silent
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.stages.pretrain_options import PretrainOptions, settled
from nmlcli.stages.training import Training
from nmlcli.training.distributed import Ranks
from nmlcli.training.optim import timm_optimiser
from nmlcli.training.recipes import RECIPES, architecture_file

NETWORK, BATCH, WORKERS = "resnet10t", 128, 2
CASES = {"32": 4_000, "64": 2_000, "clip": 4_000}  # images of an epoch
Step = Callable[[Any], None]


@dataclass(frozen=True)
class Variant:
    """epoch: trains for one and returns images a second. batches: what an epoch learns from, where it
    is read from anywhere."""

    epoch: Callable[[], float]
    batches: Callable[[], Iterable[Any]] | None = None


def write_images(folder: Path, count: int) -> None:
    """Generated images of 64 pixels as JPEG files in class folders."""
    shapes = GENERATORS["shapes"]
    labels = shapes.labels("train", np.arange(count))
    for index, label in enumerate(labels.tolist()):
        path = folder / shapes.classes[label] / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shapes.render("train", None, index, 64)).save(path, quality=90)


def ours(source: str, architecture: str, options: PretrainOptions, kept: bool = True) -> Variant:
    """What is behind the command, and the speed that its log tells. kept: what fits is in memory."""
    samples = open_samples(source, options.source)
    lesson: Any = OBJECTIVES[options.objective].open(samples, None, architecture, options, Ranks())
    if not kept:
        lesson.feed.images.memory = 0

    def epoch() -> float:
        Training(lesson, options, Ranks()).run("bench", None, silent)
        return float(json.loads(Path(str(options.log)).read_text())["images_per_second"])

    return Variant(epoch, lambda: lesson.batches(0, 0))


def loop(step: Step, batches: Callable[[], Iterable[Any]], input_too: bool = False) -> Variant:
    """Steps alone."""

    def epoch() -> float:
        count, started = 0, time.perf_counter()
        for batch in batches():
            step(batch)
            count += len(batch[0])
        return count / (time.perf_counter() - started)

    return Variant(epoch, batches if input_too else None)


def images_of(count: int, size: int) -> Tensor:
    """Random floats [count, 3, size, size], channels last in memory."""
    return torch.rand(count, 3, size, size).to(memory_format=torch.channels_last)


def classifier(size: int, classes: int) -> tuple[nn.Module, Step]:
    """A network as ours is, and a step of it as one would write it."""
    module = build(NETWORK, classes, size, 0).to(memory_format=torch.channels_last).train()
    optimiser = timm_optimiser(module, "sgd", 0.1, 5e-4, 0.9)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        images = batch[0].to(memory_format=torch.channels_last)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(module(images), batch[1]).backward()
        optimiser.step()

    return module, step


def of_timms_loader(folder: str, module: nn.Module, size: int) -> Callable[[], Iterable[Any]]:
    """The batches that timm gives, with the transforms of our crops."""
    seen = of_timm(module, size)
    loader = create_loader(
        create_dataset("", folder), (3, size, size), BATCH, is_training=True, use_prefetcher=False,
        scale=(0.08, 1.0), hflip=0.5, color_jitter=0.0, interpolation=seen.interpolation,
        mean=seen.mean, std=seen.std, num_workers=WORKERS,
    )  # fmt: skip
    return lambda: loader


def classifiers(size: int, count: int, folder: Path) -> dict[str, Variant]:
    """The variants at one size."""
    write_images(folder / "images", count)
    source, log = str(folder / "images"), str(folder / "log.jsonl")
    classes, steps = len(GENERATORS["shapes"].classes), count // BATCH
    random = (images_of(BATCH, size), torch.randint(classes, (BATCH,)))

    def options(augment: str) -> PretrainOptions:
        return PretrainOptions(
            epochs=1, batch_size=BATCH, size=size, augment=augment, workers=WORKERS, log=log
        )

    module, step = classifier(size, classes)
    return {
        "bare": loop(classifier(size, classes)[1], lambda: [random] * steps),
        "timm": loop(step, of_timms_loader(source, module, size), input_too=True),
        "shift": ours(source, NETWORK, options("shift")),
        "crop": ours(source, NETWORK, options("crop")),
        "crop unkept": ours(source, NETWORK, options("crop"), kept=False),
    }


def clips(count: int, folder: Path) -> dict[str, Variant]:
    """The recipe clip-tiny, and its bare steps."""
    recipe = dict(RECIPES["clip-tiny"].options)
    architecture = str(architecture_file(recipe.pop("arch")))
    more = {"epochs": 1, "warmup_epochs": 0, "workers": WORKERS, "log": str(folder / "log.jsonl")}
    options = settled({**recipe, **more, "source": SourceOptions(limit=count)})
    network = build_clip(architecture, options.size, 0)
    module, loss = network.module.train(), ClipLoss()
    optimiser = timm_optimiser(
        module, options.opt, options.rate, options.weight_decay, 0.9,
        betas=options.betas, eps=options.eps,
    )  # fmt: skip
    samples = open_samples("builtin:shapes:train", SourceOptions(limit=options.batch_size))
    images = images_of(options.batch_size, options.size or 32)
    tokens = network.tokenizer.batch(network.tokenizer(samples.texts, None))["tokens"]

    def step(batch: tuple[Tensor, Tensor]) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(*module(*batch)[:3]).backward()
        optimiser.step()

    steps = count // options.batch_size
    return {
        "bare": loop(step, lambda: [(images, tokens)] * steps),
        "clip": ours("builtin:shapes:train", architecture, options),
    }


def read(batches: Callable[[], Iterable[Any]]) -> float:
    """Images a second with nothing behind."""
    started = time.perf_counter()
    count = sum(len(batch[0]) for batch in batches())
    return count / (time.perf_counter() - started)


def bench(case: str, variants: dict[str, Variant], runs: int) -> Iterator[dict[str, Any]]:
    """All variants of one case, by turns."""
    turns: list[dict[str, float]] = []
    inputs: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(runs + 1):
        turns.append({name: variant.epoch() for name, variant in variants.items()})
        for name, variant in variants.items():
            if variant.batches is not None:
                inputs[name].append(read(variant.batches))
    for name in variants:
        speeds = [turn[name] for turn in turns[1:]]
        line: dict[str, Any] = {
            "case": name,
            "of": case,
            "images_per_second": statistics.median(speeds),
        }
        if inputs[name]:
            line["input"] = statistics.median(inputs[name][1:])
        for other in ("bare", "timm"):
            if other in variants and name not in ("bare", other):
                ratios = [turn[name] / turn[other] for turn in turns[1:]]
                line[f"of_{other}"] = statistics.median(ratios)
                if other == "bare":
                    line |= {"lowest": min(ratios), "highest": max(ratios)}
        yield {key: round(v, 3) if isinstance(v, float) else v for key, v in line.items()} | {
            "runs": runs
        }


def main() -> None:
    """Bench all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="?", type=int, default=5)
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--images", type=int, help="of an epoch")
    asked = parser.parse_args()
    machine = {
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"case": "machine", **machine}), flush=True)
    for case, usual in CASES.items():
        if asked.case not in (None, case):
            continue
        count = max(BATCH, asked.images or usual)
        torch.manual_seed(keyed.scalar(0, "bench"))
        with tempfile.TemporaryDirectory() as folder:
            if case == "clip":
                variants = clips(count, Path(folder))
            else:
                variants = classifiers(int(case), count, Path(folder))
            for line in bench(case, variants, asked.runs):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
