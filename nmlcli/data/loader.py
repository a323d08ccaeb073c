"""Batches of samples: read and transformed ahead in threads, given out strictly in order.

Pillow decodes and resizes without holding the interpreter's lock, so threads suffice; nothing needs to
be pickled, and an interrupt leaves no process behind.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmlcli.data.samples import Samples
from nmlcli.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image

Transform = Callable[["Image", int], Tensor]
Batch = tuple[NDArray[np.int64], Tensor]
Finish = Callable[[NDArray[np.int64], Tensor], Tensor]
Part = TypeVar("Part")
Done = TypeVar("Done")


def load_batches(
    samples: Samples,
    indices: NDArray[np.int64],
    transform: Transform,
    batch_size: int,
    *,
    workers: int = 0,
    bad: list[tuple[int, str]] | None = None,
    finish: Finish = lambda rows, images: images,
) -> Iterator[Batch]:
    """Iterate over batches: indices [≤ batch_size] and their images, transformed and stacked [B, …].

    indices: the samples wanted, int64 [M], in the order wanted. transform(image, index) must give
    tensors of one shape, whatever thread it runs in. With workers, at most two batches a worker are
    prepared ahead; what goes wrong in one is raised here, at its place in the order. finish(rows,
    images) is what becomes of a batch, in the thread that read it.

    bad: where it is given, samples that cannot be read are no error but left out, so that batches may
    be smaller or missing; each is added as (index, what is wrong), in the order wanted, before the
    batch that lacks it is given out.
    """

    def prepare(part: NDArray[np.int64]) -> tuple[Batch | None, list[tuple[int, str]]]:
        failed: list[tuple[int, str]] = []
        try:
            images = samples.images(part)
        except InvalidInput:
            if bad is None:
                raise
            part, images, failed = _readable(samples, part)
        done = [transform(image, int(row)) for image, row in zip(images, part, strict=True)]
        return (part, finish(part, _stacked(done))) if done else None, failed

    for batch, failed in in_order(prepare, cut(indices, batch_size), workers):
        if bad is not None:
            bad += failed
        if batch is not None:
            yield batch


def cut(indices: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Indices [M] in parts of batch_size; the last one may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def _stacked(images: list[Tensor]) -> Tensor:
    """Tensors of one shape as a batch. Images [3, H, W] with channels last in memory stay so: networks
    want them like that, and they are copied faster."""
    if images[0].ndim == 3 and images[0].permute(1, 2, 0).is_contiguous():
        return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return torch.stack(images)


def _readable(
    samples: Samples, rows: NDArray[np.int64]
) -> "tuple[NDArray[np.int64], list[Image], list[tuple[int, str]]]":
    """The rows that can be read, one by one, their images, and what is wrong with which others."""
    kept, images, failed = [], [], []
    for row in rows.tolist():
        try:
            images.append(samples.read(row))
            kept.append(row)
        except InvalidInput as error:
            failed.append((row, error.wrong))
    return np.array(kept, dtype=np.int64), images, failed


def in_order(function: Callable[[Part], Done], parts: Iterable[Part], workers: int) -> Iterator[Done]:
    """What a function makes of each part, in their order, by threads that run a little ahead: at most
    two parts each. Without workers it is made here, when it is asked for."""
    if workers < 1:
        yield from map(function, parts)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    ahead: deque[Future[Done]] = deque()
    try:
        for part in parts:
            ahead.append(pool.submit(function, part))
            if len(ahead) >= 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cached(samples: Samples, budget: int) -> Samples:
    """The same samples, whose images stay in memory once they were read, up to budget bytes.

    Threads may read an image twice at the start, which changes nothing.
    """
    kept: dict[int, Image] = {}
    left = budget

    def images(rows: NDArray[np.int64]) -> "list[Image]":
        nonlocal left
        wanted = rows.tolist()
        missing = [row for row in wanted if row not in kept]
        found = samples.images(np.array(missing, dtype=np.int64))
        fresh = dict(zip(missing, found, strict=True))
        for row, image in fresh.items():
            size = 3 * image.width * image.height
            if size <= left:
                left -= size
                kept[row] = image
        return [fresh[row] if row in fresh else kept[row] for row in wanted]

    return replace(samples, images=images)
