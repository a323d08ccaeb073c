"""Losses for noisy labels against naive transcriptions in float64, and the laws that they keep."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nmlcli.numerics.robust import (
    EarlyLearning,
    forward_corrected_loss,
    generalised_cross_entropy,
    label_smoothing_loss,
    log_of_transition,
)

C = 5
T = np.array(
    [[0.7, 0.3, 0, 0, 0], [0, 0.6, 0.4, 0, 0], [0.1, 0.1, 0.6, 0.1, 0.1], [0, 0, 0, 1, 0],
     [0.25, 0, 0, 0.25, 0.5]]
)  # fmt: skip


def batch(size: int = 7, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(size)
    logits = torch.tensor(generator.normal(size=(size, C)) * spread, requires_grad=True)
    return logits, torch.tensor(generator.integers(0, C, size))


def shares(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    target = 0.8 * torch.eye(C, dtype=torch.float64)[labels] + 0.2 / C
    return -(target * shares(logits).log()).sum(1).mean()


def generalised(logits: Tensor, labels: Tensor) -> Tensor:
    return ((1 - shares(logits)[torch.arange(len(labels)), labels] ** 0.7) / 0.7).mean()


def corrected(logits: Tensor, labels: Tensor) -> Tensor:
    return -(shares(logits) @ torch.tensor(T))[torch.arange(len(labels)), labels].log().mean()


CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "label-smoothing": (lambda z, y: label_smoothing_loss(z, y, 0.2), smoothed),
    "gce": (lambda z, y: generalised_cross_entropy(z, y, 0.7), generalised),
    "forward": (lambda z, y: forward_corrected_loss(z, y, log_of_transition(T).to(z)), corrected),
}


@pytest.mark.parametrize("size", [1, 2, 7, 64])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name: str, size: int) -> None:
    own, naive = CASES[name]
    logits, labels = batch(size)
    values = [loss(logits, labels) for loss in (own, naive)]
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_float32_keeps_its_digits_far_out(name: str) -> None:
    logits, labels = batch(64, spread=60.0)
    logits = logits.detach()
    wide = logits.clone().requires_grad_()
    narrow = logits.float().requires_grad_()
    own = CASES[name][0]
    own(wide, labels).backward()
    own(narrow, labels).backward()
    assert wide.grad is not None and narrow.grad is not None
    assert torch.isfinite(narrow.grad).all()
    torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=1e-3, atol=1e-6)


def test_the_limits_are_cross_entropy() -> None:
    logits, labels = batch(32)
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    identity = log_of_transition(np.eye(C))
    for value in (
        label_smoothing_loss(logits, labels, 0.0),
        generalised_cross_entropy(logits, labels, 0.0),
        generalised_cross_entropy(logits, labels, 1e-9),
        forward_corrected_loss(logits, labels, identity),
    ):
        torch.testing.assert_close(value, wanted, rtol=1e-7, atol=1e-9)
    own = shares(logits)[torch.arange(32), labels]
    torch.testing.assert_close(generalised_cross_entropy(logits, labels, 1.0), (1 - own).mean())


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_the_sum_of_gce_over_all_labels_is_bounded(q: float) -> None:
    """Zhang and Sabuncu (2018), Lemma 2."""
    logits = batch(200)[0].detach()
    total = sum(
        generalised_cross_entropy(logits[i : i + 1], torch.tensor([c]), q)
        for i in range(1)
        for c in range(C)
    )
    assert (C - C ** (1 - q)) / q - 1e-9 <= float(total) <= (C - 1) / q + 1e-9


def early_learning(logits: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """As the authors' code has it: the term and the targets that it leaves."""
    p = torch.clamp(torch.softmax(logits, dim=1), 1e-4, 1 - 1e-4)
    kept = p.data.detach()
    targets = beta * targets + (1 - beta) * (kept / kept.sum(dim=1, keepdim=True))
    return ((1 - (targets * p).sum(dim=1)).log()).mean(), targets


def test_elr_follows_its_authors_code_row_by_row() -> None:
    regulariser = EarlyLearning(20, C, 0.7)
    regulariser.targets = regulariser.targets.double()
    targets = torch.zeros(20, C, dtype=torch.float64)
    for step in range(5):
        rows = torch.from_numpy(np.random.default_rng(step).permutation(20)[:8])
        logits = batch(8, spread=1.0 + 4 * step)[0]
        value = regulariser(logits, rows)
        wanted, targets[rows] = early_learning(logits, targets[rows], 0.7)
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)
        own, naive = (torch.autograd.grad(each, logits)[0] for each in (value, wanted))
        torch.testing.assert_close(own, naive, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(regulariser.targets, targets)


def test_elr_starts_without_a_pull_to_anything() -> None:
    regulariser = EarlyLearning(4, C, 1.0)  # targets never move
    assert float(regulariser(batch(4)[0].detach(), torch.arange(4))) == 0.0
    assert not math.isnan(float(EarlyLearning(4, C, 0.0)(batch(4, 500.0)[0].detach(), torch.arange(4))))
