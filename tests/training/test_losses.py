"""Losses of logits against timm's, where it does the same, and against slow transcriptions."""

import math

import pytest
import torch
from timm.loss import BinaryCrossEntropy

from nmlcli.training.losses import LOSSES

DRAW = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(6, 4, generator=DRAW)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
MIXED = torch.tensor([[0.7, 0.3, 0, 0], [0.85, 0, 0.15, 0], [0, 1, 0, 0]] * 2)


def transcribed(targets, smoothing):
    """Each class for itself, in the logarithms of probabilities."""
    total = 0.0
    for row, wanted in zip(LOGITS.tolist(), targets.tolist(), strict=True):
        for logit, share in zip(row, wanted, strict=True):
            there = 1.0 if share > 0.2 else 0.0
            y, p = there * (1 - smoothing) + smoothing / len(row), 1 / (1 + math.exp(-logit))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total / LOGITS.numel()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_of_labels_and_of_mixed_ones_is_its_formula(smoothing):
    bce = LOSSES["bce"].mean
    sure = torch.nn.functional.one_hot(LABELS, 4)
    for given, targets in ((LABELS, sure), (MIXED, MIXED)):
        found = bce(LOGITS, given, smoothing).item()
        assert found == pytest.approx(transcribed(targets, smoothing), rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "smoothing", "threshold"),
    [(LABELS, 0.0, 0.2), (LABELS, 0.1, None), (MIXED, 0.0, 0.2)],  # timm's threshold undoes smoothing
)
def test_bce_is_timms_where_timm_smooths_or_has_a_threshold(targets, smoothing, threshold):
    theirs = BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold)(LOGITS, targets)
    ours = LOSSES["bce"].mean(LOGITS, targets, smoothing)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_ce_of_mixed_labels_is_its_formula():
    for smoothing in (0.0, 0.3):
        smoothed = MIXED * (1 - smoothing) + smoothing / 4
        wanted = -(smoothed * LOGITS.log_softmax(1)).sum(1).mean()
        assert LOSSES["ce"].mean(LOGITS, MIXED, smoothing).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_the_right_class_rises(name):
    """The law of every row: the gradient of the right class is negative, of the others positive."""
    logits = torch.zeros(3, 4, requires_grad=True)
    LOSSES[name].mean(logits, torch.tensor([1, 1, 2]), 0.0).backward()
    assert (logits.grad < 0).nonzero().tolist() == [[0, 1], [1, 1], [2, 2]]
