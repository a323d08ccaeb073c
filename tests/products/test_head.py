"""Heads: what is saved is what is applied, and layers that do not fit are refused."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import FORMATS, read_head, write_head
from nmlcli.products.head import Head, pack_head
from nmlcli.products.stream import write_safetensors
from nmlcli.provenance import Record

D, HIDDEN, C, N = 6, 9, 4, 50
GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.standard_normal((N, D)).astype(np.float32)


def draw(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


def make(widths, residual=False, scale=None, classes=None, **extra):
    layers = tuple((draw(b, a), draw(b)) for a, b in pairwise(widths))
    record = Record("head", "0" * 32, "tune", classes=classes or tuple("abcd"), columns=D, extra=extra)
    return Head(record, layers, draw(D) if residual else None, scale, "made")


HEADS = {
    "linear": make((D, C)),
    "scaled": make((D, C), scale=0.1),
    "mlp": make((D, HIDDEN, HIDDEN, D, C)),
    "residual": make((D, HIDDEN, D, C), residual=True, scale=3.3),
    "no activation": make((D, HIDDEN, D, C), activation="none"),
    "cosine": make((D, C), scale=0.1, logits="cosine"),
    "cosine of an mlp": make((D, HIDDEN, D, C), residual=True, logits="cosine"),
}
MLP = HEADS["mlp"]


def transcribed(head, features):
    """The head as torch layers, by the words of the interface."""
    count = len(head.layers)
    scaled = torch.from_numpy(features) * (1.0 if head.input_scale is None else head.input_scale)
    Z = scaled
    for number, (weight, bias) in enumerate(head.layers[:-1]):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        Z = layer(Z)
        followed = (
            number not in (count - 1, count - 2) and head.record.extra.get("activation") != "none"
        )
        Z = torch.relu(Z) if followed else Z
    if head.residual is not None:
        Z = Z + torch.from_numpy(head.residual) * scaled
    weight, bias = (torch.from_numpy(array) for array in head.layers[-1])
    last = torch.nn.functional.normalize(Z) if head.record.extra.get("logits") == "cosine" else Z
    return Z.detach().numpy(), torch.nn.functional.linear(last, weight, bias).detach().numpy()


@pytest.mark.parametrize("name", HEADS)
def test_apply_is_the_torch_network(name):
    for ours, theirs in zip(
        HEADS[name].apply(FEATURES), transcribed(HEADS[name], FEATURES), strict=True
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e-42])
def test_cosines_are_of_rows_of_any_length_and_zeros_stay(factor):
    weight, bias = HEADS["cosine"].layers[0]
    rows = np.where(np.arange(N)[:, None] == 7, 0, FEATURES * np.float32(factor)).astype(np.float32)
    transformed, logits = replace(HEADS["cosine"], input_scale=None).apply(rows)
    assert (transformed == rows).all()
    assert (logits[7] == bias).all()
    exact = rows.astype(np.float64)
    lengths = np.sqrt((exact**2).sum(1, keepdims=True))
    lengths[7] = 1
    np.testing.assert_allclose(logits, exact / lengths @ weight.T + bias, rtol=1e-5, atol=1e-5)
    assert (rows[7] == 0).all()


def test_apply_leaves_its_features_alone_and_takes_half_precision():
    before = FEATURES.copy()
    for head in HEADS.values():
        head.apply(FEATURES)
        half = FEATURES.astype(np.float16)
        np.testing.assert_allclose(head.apply(half)[1], head.apply(half.astype(np.float32))[1])
    assert (before == FEATURES).all()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", HEADS)
def test_heads_come_back(tmp_path, suffix, name):
    head, path = HEADS[name], str(tmp_path / f"head{suffix}")
    write_head(path, head)
    back = read_head(path)
    assert back.record == head.record and back.input_scale == head.input_scale
    for ours, theirs in zip(head.apply(FEATURES), back.apply(FEATURES), strict=True):
        assert (ours == theirs).all()
    first = (tmp_path / f"head{suffix}").read_bytes()
    write_head(path, back)
    assert (tmp_path / f"head{suffix}").read_bytes() == first


def linear(weight, bias, **changes):
    facts = {"residual": None, "input_scale": None, **changes}
    return Head(HEADS["linear"].record, ((weight, bias),), source="made", **facts)


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (linear(draw(C, D), draw(C + 1)), "bias.0"),
        (linear(draw(C, D), draw(C, 1)), "bias.0"),
        (linear(draw(C, D, 1), draw(C)), "weight.0"),
        (linear(draw(C + 1, D), draw(C + 1)), "4 classes"),
        (linear(draw(C, D + 1), draw(C)), "7"),
        (linear(draw(C, D), draw(C), residual=draw(D + 1)), "residual"),
        (linear(draw(C, D) * np.nan, draw(C)), "not finite"),
        (linear(draw(C, D), draw(C), input_scale=float("inf")), "not finite"),
        (make((D, HIDDEN, D + 1, C), residual=True), "weight.2"),
        (Head(MLP.record, MLP.layers[:2] + MLP.layers[3:], None, None, ""), "weight.2"),
        (Head(MLP.record, (), None, None, ""), "no weight.0"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit_are_refused(tmp_path, head, word):
    path = str(tmp_path / "head.safetensors")
    write_head(path, head)
    with pytest.raises(InvalidInput, match=r"head\.safetensors") as caught:
        read_head(path)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array"),
    [("other", draw(2)), ("bias.1", draw(C)), ("input_scale", np.array(2, dtype=np.float32)),
     ("input_scale", np.array([2.0]))],
)  # fmt: skip
def test_arrays_of_other_names_or_types_are_refused(tmp_path, name, array):
    path = tmp_path / "head.safetensors"
    with path.open("wb") as file:
        write_safetensors(file, HEADS["linear"].record, {**pack_head(HEADS["linear"]), name: array})
    with pytest.raises(InvalidInput, match=name):
        read_head(str(path))


def test_a_head_goes_through_a_pipe_and_not_into_a_table(tmp_path):
    with pytest.raises(UsageError, match=r"no format has the suffix \.csv.*\.safetensors, \.h5"):
        write_head(str(tmp_path / "head.csv"), HEADS["mlp"])
