from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nmlcli.data.contact import contact_sheet
from nmlcli.data.sources import open_samples


def test_a_row_a_class_with_the_images_as_they_are(tar: str, make) -> None:
    sheet = np.asarray(contact_sheet(open_samples(tar), columns=3, size=16))
    step, margin = 16 + 4, sheet.shape[1] - 3 * (16 + 4)
    assert sheet.shape[0] == 3 * step
    for row, column, seed in ((0, 0, 3), (1, 0, 0), (1, 1, 1), (2, 0, 2)):
        top, left = row * step + 2, margin + column * step + 2
        tile = sheet[top : top + 16, left : left + 16]
        assert (tile == make.pixels(seed).repeat(2, axis=0).repeat(2, axis=1)).all()
    assert (sheet[:, margin + 2 * step :] == 255).all()  # no class has three
    assert (sheet[:, :margin] < 128).any()  # names


def test_large_images_are_reduced_whole(tmp_path: Path, make) -> None:
    wide = make.encode(Image.new("RGB", (200, 50), (9, 9, 9)))
    sheet = np.asarray(contact_sheet(open_samples(make.folder(tmp_path / "d", {"a.png": wide})), 2, 40))
    assert sheet.shape == (44, 88, 3)
    dark = (sheet == 9).all(axis=2)
    assert dark.sum() == 40 * 10
    assert dark[2 + 15 : 2 + 25, 2:42].all()


def test_a_wrong_label_is_framed_in_red(tar: str) -> None:
    samples = open_samples(tar)
    red = (np.asarray(contact_sheet(samples, 2, 16)) == (220, 30, 30)).all(axis=2)
    assert not red.any()
    clean = samples.labels.copy()
    clean[3] = 1
    red = (np.asarray(contact_sheet(replace(samples, clean_labels=clean), 2, 16)) == (220, 30, 30)).all(
        axis=2
    )
    assert red.sum() == 20 * 20 - 16 * 16
    assert red[:20].sum() == red.sum()
