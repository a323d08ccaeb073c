"""Losses for noisy labels: of logits [B, C] and labels int64 [B], means over the batch.

p = softmax(logits), p_y the share of the label. Gradients are autograd's, through forms that neither
overflow nor lose digits in float32. Which of them there are to choose from is tuning's business.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_CLIP = 1e-4  # of ELR's shares, as in its authors' code


def label_smoothing_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy to (1 - ε) onehot(y) + ε / C (Szegedy et al. 2016); 0 ≤ ε ≤ 1."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def generalised_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """(1 - p_y^q) / q (Zhang and Sabuncu 2018, Eq. 6), not truncated; 0 ≤ q ≤ 1.

    q = 0 is its limit, cross-entropy; q = 1 is 1 - p_y, half of the mean absolute error.
    """
    log_shares = _of_labels(F.log_softmax(logits, dim=1), labels)
    if q == 0:
        return -log_shares.mean()
    return -torch.expm1(q * log_shares).mean() / q  # which keeps its digits where p_y is near 1


def forward_corrected_loss(logits: Tensor, labels: Tensor, log_transition: Tensor) -> Tensor:
    """-log Σ_k p_k T[k, y]: the loss of p · T (Patrini et al. 2017, Theorem 2).

    log_transition: log T [C, C], T[true, noisy] with rows that sum to 1, -inf where T is 0. Each label
    needs a true class that goes to it. What the head predicts, and is scored by, stays p.
    """
    reached = log_transition.T[labels]  # [B, C]
    return -torch.logsumexp(F.log_softmax(logits, dim=1) + reached, dim=1).mean()


def log_of_transition(transition: NDArray[np.float64]) -> Tensor:
    """log T as a tensor [C, C], float64; 0 gives -inf."""
    return torch.from_numpy(transition).log()


class EarlyLearning:
    """The targets of early-learning regularisation (Liu et al. 2020), one of each row: float32 [N, C].

    They start at 0 and follow the head's shares: t ← β t + (1 - β) p / Σp, p clipped to
    [1e-4, 1 - 1e-4] and detached, before they are used, as in the authors' code.
    """

    def __init__(self, rows: int, classes: int, beta: float) -> None:
        self.targets = torch.zeros(rows, classes)
        self.beta = beta

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """mean log(1 - ⟨t, p⟩) (Eq. 6) for the rows int64 [B], each there once; moves their targets."""
        shares = F.softmax(logits, dim=1).clamp(_CLIP, 1 - _CLIP)
        now = shares.detach() / shares.detach().sum(1, keepdim=True)
        targets = self.beta * self.targets[rows].to(now) + (1 - self.beta) * now
        self.targets[rows] = targets.to(self.targets)
        return torch.log1p(-(targets * shares).sum(1)).mean()


def _of_labels(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None]).squeeze(1)
