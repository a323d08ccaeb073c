import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nmlcli.data.loader import cached, load_batches
from nmlcli.data.sources import open_samples
from nmlcli.errors import InvalidInput


def pixels(image, index: int) -> torch.Tensor:
    return torch.from_numpy(np.array(image)) + index


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_come_in_order_whatever_the_workers(workers: int, size: int) -> None:
    samples = open_samples("builtin:glyphs:val")
    wanted = np.random.default_rng(0).permutation(len(samples))[:50]
    found = list(load_batches(samples, wanted, pixels, size, workers=workers))
    assert np.concatenate([rows for rows, _ in found]).tolist() == wanted.tolist()
    images = torch.cat([batch for _, batch in found])
    expected = torch.stack([pixels(samples.read(int(row)), int(row)) for row in wanted])
    assert torch.equal(images, expected)
    assert [len(rows) for rows, _ in found][:-1] == [size] * ((50 - 1) // size)


def test_no_rows_give_no_batches(tar: str) -> None:
    assert list(load_batches(open_samples(tar), np.arange(0), pixels, 4, workers=2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_at_its_place_and_names_the_sample(folder: str, workers: int) -> None:
    samples = open_samples(folder)
    (Path(folder) / "cat" / "b.png").write_bytes(b"")
    batches = load_batches(samples, np.arange(4), pixels, 1, workers=workers)
    assert [int(next(batches)[0][0]), int(next(batches)[0][0])] == [0, 1]
    with pytest.raises(InvalidInput, match="sample cat/b of"):
        next(batches)


def test_only_a_few_batches_are_prepared_ahead_and_none_after_the_end(tar: str) -> None:
    samples, read = open_samples("builtin:glyphs:val"), []
    counting = replace(samples, images=lambda rows: (read.extend(rows), samples.images(rows))[1])
    batches = load_batches(counting, np.arange(1000), pixels, 10, workers=2)
    next(batches)
    time.sleep(0.2)
    assert len(read) <= 50
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]
    before = len(read)
    time.sleep(0.05)
    assert len(read) == before


def test_a_cache_reads_once_and_keeps_to_its_budget(tar: str, make) -> None:
    samples, read = open_samples(tar), []
    counting = replace(samples, images=lambda rows: (read.extend(rows), samples.images(rows))[1])
    kept = cached(counting, 3 * 8 * 8 * 3)  # bytes of three images
    for _ in range(3):
        for row in range(4):
            assert (np.asarray(kept.read(row)) == make.pixels(row)).all()
    assert sorted(read) == [0, 1, 2, 3, 3, 3]
    both = [np.asarray(image) for image in kept.images(np.array([3, 1]))]
    assert (both[0] == make.pixels(3)).all() and (both[1] == make.pixels(1)).all()
    assert kept.identity == samples.identity


def damaged(form: str, folder: str, make, write) -> str:
    """The small set in one of three forms, by path, its third and fourth images damaged."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*.png"))}
    files["cat/b.png"] = files["cat/b.png"][:60]
    files["dog/x/1.png"] = b"no image"
    base = Path(folder).parent
    if form == "tar":
        return make.tar(base / "d.tar", files)
    where = make.folder(base / "d", files)
    if form == "folder":
        return where
    rows = "".join(f"d/{name},{name[:3]},{name[:-4]}\n" for name in files)
    return write("pets/d.csv", "image,label,id\n" + rows)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("form", ["folder", "tar", "table"])
def test_bad_samples_are_left_out_and_listed_in_order(folder, make, write, form, size, workers) -> None:
    samples = open_samples(damaged(form, folder, make, write))
    assert list(samples.ids) == ["ant/9", "cat/a", "cat/b", "dog/x/1"]
    wanted, bad, seen = np.array([3, 0, 2, 1, 3]), [], []
    for rows, batch in load_batches(samples, wanted, pixels, size, workers=workers, bad=bad):
        for row, image in zip(rows.tolist(), batch, strict=True):
            assert torch.equal(image, pixels(samples.read(row), row))
        seen.append((rows.tolist(), [row for row, _ in bad]))
    expected = {
        1: [([0], [3]), ([1], [3, 2])],
        2: [([0], [3]), ([1], [3, 2])],
        4: [([0, 1], [3, 2])],
    }[size]
    assert seen == expected
    assert [row for row, _ in bad] == [3, 2, 3]
    assert bad[0][1].startswith("sample dog/x/1 of ") and "it is no image" in bad[0][1]
    assert bad[0] == bad[2] and bad[1][1].startswith("sample cat/b of ")


def test_good_samples_are_read_once_and_other_errors_pass(folder: str) -> None:
    samples, read, bad = open_samples(folder), [], []
    counting = replace(samples, images=lambda rows: (read.extend(rows), samples.images(rows))[1])
    assert len(list(load_batches(counting, np.arange(4), pixels, 2, bad=bad))) == 2
    assert (read, bad) == ([0, 1, 2, 3], [])

    def wrong(image, index: int) -> torch.Tensor:
        raise InvalidInput("the transform is at fault")

    with pytest.raises(InvalidInput, match="the transform is at fault"):
        list(load_batches(samples, np.arange(4), wrong, 2, bad=bad))
    assert bad == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_finished_where_it_was_read(workers: int) -> None:
    samples, threads = open_samples("builtin:glyphs:val"), set()

    def finish(rows, images: torch.Tensor) -> torch.Tensor:
        threads.add(threading.current_thread().name.partition("_")[0])
        return images.flatten(1).sum(1) - torch.from_numpy(rows)

    found = list(load_batches(samples, np.arange(9), pixels, 4, workers=workers, finish=finish))
    expected = [pixels(samples.read(row), row).sum() - row for row in range(9)]
    assert torch.cat([batch for _, batch in found]).tolist() == expected
    assert threads == {"loader" if workers else threading.main_thread().name}


def test_images_keep_their_order_in_memory() -> None:
    samples = open_samples("builtin:glyphs:val")

    def planes(image, index: int) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def apart(image, index: int) -> torch.Tensor:
        return planes(image, index).contiguous()

    last, first = (next(load_batches(samples, np.arange(3), f, 3))[1] for f in (planes, apart))
    assert torch.equal(last, first)
    assert last.is_contiguous(memory_format=torch.channels_last) and first.is_contiguous()
