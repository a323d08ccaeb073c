"""The figure of a comparison."""

import sys

import pytest

from nmlcli.errors import NmlError
from nmlcli.report.figures import draw
from nmlcli.report.grouping import compare
from tests.report.lines import backbone, result

LINES = [
    result(0.8), result(0.7, 0.3), result(0.5, role="ood", domain="sketch"),
    result(0.4, 0.3, role="ood", domain="sketch"),
    *({"kind": "spectrum", "sve": 4 + r, "lsvr": 3 - r, **backbone(r)} for r in (0.0, 0.3)),
]  # fmt: skip


def test_a_picture_with_a_panel_for_each_role_and_the_spectrum(tmp_path):
    from PIL import Image

    draw(compare(LINES), tmp_path / "all.png")
    draw(compare(LINES[:2]), tmp_path / "one.png")
    with Image.open(tmp_path / "all.png") as wide, Image.open(tmp_path / "one.png") as narrow:
        assert wide.width > 2 * narrow.width
        assert wide.height == narrow.height
        assert len(wide.convert("RGB").getcolors(1 << 20)) > 20  # something is drawn


def test_the_same_bytes_twice(tmp_path):
    draw(compare(LINES), tmp_path / "a.png")
    draw(compare(LINES), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_matplotlib_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NmlError, match=r'matplotlib: pip install "nmlcli\[plot\]"'):
        draw(compare(LINES), tmp_path / "a.png")


def test_without_noise_there_is_nothing_to_draw_against(tmp_path):
    with pytest.raises(NmlError, match="pretrain_ratio"):
        draw(compare(LINES, by=("role", "method")), tmp_path / "a.png")
