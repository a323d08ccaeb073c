"""Pictures of spectra: bands that cover all ranks, and every curve in every panel."""

import numpy as np
import pytest

from nmlcli.report.spectra import Curve, bands, draw_spectra


@pytest.mark.parametrize("size", [1, 2, 3, 8, 11, 512, 999, 1000, 2048])
def test_bands_cover_every_rank_once(size: int) -> None:
    ranks = [rank for low, high in bands(size) for rank in range(low, high + 1)]
    assert ranks == list(range(1, size + 1))
    assert len(bands(size)) == min(size, 3)


def test_the_bands_of_wide_features() -> None:
    assert bands(2048) == ((1, 20), (21, 500), (501, 2048))
    assert bands(512) == ((1, 8), (9, 64), (65, 512))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_any_number_of_curves_of_any_length(tmp_path, count: int) -> None:
    pytest.importorskip("matplotlib")
    curves = [Curve(f"set {k}", np.linspace(2, 0, 3 + 5 * k)) for k in range(count)]
    out = tmp_path / "x.svg"
    draw_spectra(curves, out, centred=True)
    text = out.read_text()
    assert "<!-- singular value, centred -->" in text
    assert ("<!-- set 0 -->" in text) == (count <= 10)
    one = tmp_path / "one.png"
    draw_spectra([Curve("one", np.ones(1))], one, centred=False)
    assert one.stat().st_size > 1000
