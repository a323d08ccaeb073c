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
from nmlcli.numerics.losses import consistency_loss, nmtune_loss
from nmlcli.products.head import Float32
from nmlcli.progress import Advance, silent
from nmlcli.training.loop import Means, fit
from nmlcli.training.optim import Schedule, cosine
from nmlcli.tuning.criteria import LOSSES, Circumstances, Criterion
from nmlcli.tuning.presets import Settings

Batch = tuple[Tensor, Tensor, Tensor]  # rows of features, their labels, the rows' numbers

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
    views: Tensor | None = None,
    transition: NDArray[np.float64] | None = None,
    after_epoch: Callable[[int, Means], None] | None = None,
    advance: Advance = silent,
) -> None:
    """Train a head on features [N, D] float32 and labels [N] that lie in memory.

    views: [N, K, D], K ≥ 2, to be trained on in place of the features: epoch e takes the views 2e and
    2e + 1 modulo K. transition: T[true, noisy] [C, C], for a loss that needs it. Each epoch takes
    all rows in an order of its own; a last batch of one row is left out.
    """
    rows, size = len(features), settings.batch_size
    steps = steps_per_epoch(rows, size)

    def batches(epoch: int) -> Iterator[Batch]:
        for index in batch_indices(rows, size, seed, epoch):
            if views is None:
                yield features.index_select(0, index), labels.index_select(0, index), index
            else:
                pair = [views[index, (2 * epoch + number) % views.shape[1]] for number in (0, 1)]
                yield torch.cat(pair), labels.index_select(0, index).repeat(2), index

    optimiser = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    about = Circumstances(rows, head.classifier.out_features, transition)
    criterion = LOSSES[settings.loss].build(settings, about)
    head.train()
    fit(
        _objective(head, settings, criterion, two_views=views is not None), batches, optimiser,
        schedule=SCHEDULES[settings.schedule](optimiser, settings.epochs * steps),
        epochs=settings.epochs, steps_per_epoch=steps, after_epoch=after_epoch, advance=advance,
    )  # fmt: skip
    head.eval()


def batch_indices(rows: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The rows int64 [B] of an epoch's batches, in an order of its own."""
    order = torch.from_numpy(keyed.permutation(rows, seed, f"order/{epoch}"))
    return torch.split(order[: steps_per_epoch(rows, batch_size) * batch_size], batch_size)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Steps that an epoch takes; rows % batch_size of 1 makes no batch of its own."""
    return rows // batch_size + (rows % batch_size > 1)


def _line(optimiser: torch.optim.Optimizer, total_steps: int) -> Schedule:
    """A line, step by step, from each group's own rate to 0 at step total_steps."""
    rates = [float(group["lr"]) for group in optimiser.param_groups]

    def schedule(step: int) -> None:
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * max(0.0, 1 - step / max(1, total_steps))

    return schedule


SCHEDULES = {"cosine": cosine, "linear": _line}


def _objective(
    head: TrainableHead, settings: Settings, criterion: Criterion, *, two_views: bool
) -> Callable[[Batch], dict[str, Tensor]]:
    """Eq. 6: the loss of the logits + lambda (mse L_MSE + cov L_COV + svd L_SVD).

    Without any weight the terms are not computed, and what is left is MLP tuning to the bit. Of two
    views a batch is [first; second], as in the released code: the loss is the mean over both, L_COV and
    L_SVD are of both as one, and L_MSE is between Z of the second and the first's features.
    """
    weights = {term: settings.lambda_ * getattr(settings, term) for term in ("mse", "cov", "svd")}
    top, reduction = settings.top, settings.reduction

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        features, labels, rows = batch
        transformed, logits = head(features)
        values = dict(criterion(logits, labels, rows))
        if not any(weights.values()):
            return values
        own = {**weights, "mse": 0.0} if two_views else weights
        weighted, terms = nmtune_loss(features, transformed, **own, top=top, reduction=reduction)
        if two_views and weights["mse"]:
            half = len(rows)
            crossed = consistency_loss(features[:half], transformed[half:], reduction)
            weighted, terms["mse"] = weighted + weights["mse"] * crossed, crossed.detach()
        return {**values, "loss": values["loss"] + weighted, **terms}

    return loss_of


@torch.no_grad()
def assess(head: TrainableHead, features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of labels [N] on features [N, D], with fixed statistics."""
    training = head.training
    head.eval()
    right, loss = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.float64)
    for block, truth in zip(torch.split(features, _BLOCK), torch.split(labels, _BLOCK), strict=True):
        logits = head(block)[1]
        right += (logits.argmax(1) == truth).sum()
        loss += F.cross_entropy(logits, truth, reduction="sum").double()
    head.train(training)
    return float(right) / len(labels), float(loss) / len(labels)


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
