"""States of spectra: written, read back, and refused where they are damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.products.formats import FORMATS, open_container, write_spectrum_state
from nmlcli.products.spectrum import SpectrumState, unpack_state
from nmlcli.provenance import Record

X = np.random.default_rng(0).normal(size=(20, 3))
STATE = SpectrumState(
    Record("spectrum", "s" * 32, "spectrum", {"preset": "raw"}, rows=20, columns=3),
    np.linalg.svd(X, compute_uv=False), (X - X.mean(0)).T @ (X - X.mean(0)), X.sum(axis=0), 20,
)  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_back_what_it_got(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"s{suffix}")
    write_spectrum_state(path, STATE)
    state = unpack_state(open_container(path))
    assert (state.record, state.count, state.source) == (STATE.record, 20, path)
    for name in ("singular_values", "centred_gram", "column_sums"):
        assert (getattr(state, name) == getattr(STATE, name)).all()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"count": 21}, "its record says 20 × 3, its sums are of 21 × 3"),
        ({"centred_gram": np.ones((3, 4))}, r"centred_gram is float64 \[3, 4\]"),
        ({"column_sums": np.ones(4)}, "column_sums is"),
        ({"singular_values": np.ones(2)}, "it has 2 singular values"),
        ({"centred_gram": np.full((3, 3), np.nan)}, "centred_gram holds values that are not finite"),
        ({"centred_gram": np.arange(9.0).reshape(3, 3)}, "is not symmetric"),
        ({"record": replace(STATE.record, kind="head")}, "holds a head, not a spectrum"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = str(tmp_path / "s.safetensors")
    write_spectrum_state(path, replace(STATE, **change))
    with pytest.raises(InvalidInput, match=message):
        unpack_state(open_container(path))
