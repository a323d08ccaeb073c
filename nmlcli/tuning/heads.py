"""Heads while they are trained, and what is left of them: linear layers that numpy can run.

How they are read, written and recorded is the stages' business; the loop is training's.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nmlcli import keyed
from nmlcli.numerics.losses import nmtune_loss
from nmlcli.products.head import Float32
from nmlcli.progress import Advance, silent
from nmlcli.training.loop import Means, fit
from nmlcli.training.optim import cosine
from nmlcli.tuning.presets import Settings

Batch = tuple[Tensor, Tensor]

_BLOCK = 4096  # rows of a validation block


class TrainableHead(nn.Module):
    """An MLP of settings.layers linear layers and a linear classifier: F [B, D] to Z and logits.

    The layers start as torch's own linear layers do; the classifier's bias at 0 and its weight by
    kaiming_uniform, as in the released code. Every tensor is drawn by its own key, so that the
    classifier starts alike whatever lies before it.
    """

    def __init__(self, width: int, classes: int, settings: Settings, seed: int) -> None:
        super().__init__()
        hidden = settings.hidden or 4 * width
        widths = (width, *(hidden,) * (settings.layers - 1), width) if settings.layers else (width,)
        self.layers = nn.ModuleList(
            _linear(inputs, outputs, inputs**-0.5, seed, f"layers.{number}")
            for number, (inputs, outputs) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(w) for w in widths[1:-1] if settings.batch_norm)
        self.scale = nn.Parameter(torch.ones(width)) if settings.residual and settings.layers else None
        self.activation = settings.activation
        self.classifier = _linear(width, classes, (6 / width) ** 0.5, seed, "classifier")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Transform features [B, D]; returns Z [B, D] and logits [B, C]."""
        transformed = features
        for number, layer in enumerate(self.layers):
            transformed = layer(transformed)
            if number < len(self.layers) - 1:
                if self.norms:
                    transformed = self.norms[number](transformed)
                if self.activation == "relu":
                    transformed = F.relu(transformed)
        if self.scale is not None:
            transformed = self.scale * transformed + features
        return transformed, self.classifier(transformed)

    def folded(self) -> tuple[tuple[tuple[Float32, Float32], ...], Float32 | None]:
        """What is left for inference: (weight, bias) of each layer, and the residual's factors [D].

        Batch norm (its running statistics) and the scale of the residual go into the weights, in
        float64: Z = mlp(F) + residual * F with residual 1.
        """
        layers = []
        for number, layer in enumerate([*self.layers, self.classifier]):
            factor, shift = np.ones(()), np.zeros(())
            if number < len(self.norms):
                factor, shift = _affine(cast(nn.BatchNorm1d, self.norms[number]))
            elif self.scale is not None and number == len(self.layers) - 1:
                factor = _float64(self.scale)
            weight, bias = _float64(layer.weight), _float64(layer.bias)
            weight, bias = (weight.T * factor).T, bias * factor + shift
            layers.append((weight.astype(np.float32, order="C"), bias.astype(np.float32)))
        width = self.classifier.in_features
        return tuple(layers), np.ones(width, np.float32) if self.scale is not None else None


def train(
    head: TrainableHead,
    features: Tensor,
    labels: Tensor,
    settings: Settings,
    seed: int,
    *,
    after_epoch: Callable[[int, Means], None] | None = None,
    advance: Advance = silent,
) -> None:
    """Train a head on features [N, D] float32 and labels [N] that lie in memory.

    Each epoch takes all rows in an order of its own; a last batch of one row is left out.
    """
    rows, size = len(features), settings.batch_size
    steps = steps_per_epoch(rows, size)

    def batches(epoch: int) -> Iterator[Batch]:
        order = torch.from_numpy(keyed.permutation(rows, seed, f"order/{epoch}"))
        for index in torch.split(order[: steps * size], size):
            yield features.index_select(0, index), labels.index_select(0, index)

    optimiser = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    head.train()
    fit(
        _objective(head, settings), batches, optimiser,
        schedule=cosine(optimiser, settings.epochs * steps), epochs=settings.epochs,
        steps_per_epoch=steps, after_epoch=after_epoch, advance=advance,
    )  # fmt: skip
    head.eval()


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Steps that an epoch takes; rows % batch_size of 1 makes no batch of its own."""
    return rows // batch_size + (rows % batch_size > 1)


def _objective(head: TrainableHead, settings: Settings) -> Callable[[Batch], dict[str, Tensor]]:
    """Eq. 6: cross-entropy + lambda (mse L_MSE + cov L_COV + svd L_SVD), one view of each sample.

    Without any weight the terms are not computed, and what is left is MLP tuning to the bit.
    """
    weights = {term: settings.lambda_ * getattr(settings, term) for term in ("mse", "cov", "svd")}
    top, reduction = settings.top, settings.reduction

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        features, labels = batch
        transformed, logits = head(features)
        loss = F.cross_entropy(logits, labels)
        if not any(weights.values()):
            return {"loss": loss, "cross_entropy": loss}
        weighted, terms = nmtune_loss(features, transformed, **weights, top=top, reduction=reduction)
        return {"loss": loss + weighted, "cross_entropy": loss, **terms}

    return loss_of


@torch.no_grad()
def accuracy(head: TrainableHead, features: Tensor, labels: Tensor) -> float:
    """The share of labels [N] that a head gets right on features [N, D], with fixed statistics."""
    training = head.training
    head.eval()
    blocks = zip(torch.split(features, _BLOCK), torch.split(labels, _BLOCK), strict=True)
    right = torch.stack([(head(block)[1].argmax(1) == truth).sum() for block, truth in blocks])
    head.train(training)
    return float(right.sum()) / len(labels)


def _linear(inputs: int, outputs: int, bound: float, seed: int, name: str) -> nn.Linear:
    """A linear layer with weight and bias uniform in ±bound, drawn by the layer's key."""
    layer = cast(nn.Linear, nn.utils.skip_init(nn.Linear, inputs, outputs))  # type: ignore[no-untyped-call]
    generator = torch.Generator().manual_seed(keyed.scalar(seed, f"init/{name}"))
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _affine(norm: nn.BatchNorm1d) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a trained batch norm does to each column: the factor and the shift."""
    factor = _float64(norm.weight) / np.sqrt(_float64(norm.running_var) + norm.eps)
    return factor, _float64(norm.bias) - factor * _float64(norm.running_mean)


def _float64(tensor: Tensor | None) -> NDArray[np.float64]:
    if tensor is None:
        raise ValueError("the layer has no such tensor")
    return tensor.detach().cpu().numpy().astype(np.float64)
