"""Batches for training: the same whatever the workers and the memory, made in the workers' threads."""

import threading

import numpy as np
import pytest
import torch

from nmlcli import keyed
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.models.preprocessing import Pixels, Preprocessing
from nmlcli.stages.images import Images
from nmlcli.training.augmentation import AUGMENTATIONS, Augmentation, Draws, Strength

COUNT = 300  # so that they are held in two blocks
SEEN = Preprocessing(24, (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0)
ROWS = np.random.default_rng(0).permutation(COUNT)[:25]


@pytest.fixture(scope="module")
def samples():
    return open_samples("builtin:shapes:train", SourceOptions(limit=COUNT))


def images_of(samples, workers, held=False):
    images = Images(samples, SEEN, workers)
    if held:
        images.hold(lambda *numbers, **values: None)
    return images


def one_by_one(samples, name):
    """The batches as the menu's functions make them, image by image."""
    row, draws = AUGMENTATIONS[name], Draws(keyed.hash_ids(samples.ids), 5, 2)
    if row.image is not None:
        change = row.image(images_of(samples, 0).geometry, draws, Strength())
        return [change(samples.read(number), number) for number in ROWS.tolist()]
    plain = [Pixels(SEEN)(samples.read(number), number) for number in ROWS.tolist()]
    if row.batch is None:
        return plain
    return [
        row.batch(image.permute(1, 2, 0)[None], ROWS[place : place + 1], draws, Strength())[0]
        for place, image in enumerate(plain)
    ]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_are_the_same_whatever_the_workers_and_the_memory(samples, name, workers, held):
    images = images_of(samples, workers, held)
    found = list(images.batches(ROWS, 10, AUGMENTATIONS[name], None, 5, 2))
    assert [rows.tolist() for rows, _ in found] == [part.tolist() for part in np.split(ROWS, (10, 20))]
    assert torch.equal(
        torch.cat([pixels for _, pixels in found]), torch.stack(one_by_one(samples, name))
    )
    assert all(pixels.is_contiguous(memory_format=torch.channels_last) for _, pixels in found)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_whole_batches_are_changed_by_the_threads_that_read_ahead(samples, workers, held):
    threads = []

    def change(pixels, rows, draws, strength):
        threads.append(threading.current_thread().name.partition("_")[0])
        return pixels.permute(0, 3, 1, 2)

    batches = images_of(samples, workers, held).batches(ROWS, 5, Augmentation("", batch=change))
    next(batches)
    batches.close()
    assert set(threads) == {"loader" if workers else threading.main_thread().name}
    assert len(threads) <= 4 if workers else len(threads) == 1


def test_a_set_that_does_not_fit_is_not_held(samples):
    images = Images(samples, SEEN, 0, holders=2**31 // (COUNT * 24 * 24 * 3) + 1)
    told = []
    images.hold(lambda done, total, **values: told.append((done, total, values)))
    assert told == []
    images_of(samples, 0).hold(lambda done, total, **values: told.append((done, total, values)))
    assert [each[:2] for each in told] == [(256, COUNT), (COUNT, COUNT)]
    assert told[0][2] == {"reading": str(samples.name)}
