"""The three terms of NMTune (Chen et al. 2024, Eq. 3-5), with exact gradients written by hand.

Notation: F [M, D] the frozen features of a batch, Z [M, D] what the head made of them. L_COV and
L_SVD are computed in float64 from the smaller of the two Gram matrices of Z, which gives what a
transcription (svdvals, D x D covariance) gives at a fraction of its cost. No gradient flows to F,
except through `consistency_loss`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Reduction = Literal["row", "element"]

_TINY = 1e-300  # whose inverse is finite
RANK_TOLERANCE = 1e-7  # singular values below this share of the largest are rounding of float32 data


def consistency_loss(features: Tensor, transformed: Tensor, reduction: Reduction = "row") -> Tensor:
    """Squared distance of the rows of F and Z after scaling both to length 1 (L_MSE, Eq. 3).

    "row": mean over the M rows of ‖f/‖f‖ - z/‖z‖‖² = 2 - 2 cos(f, z), as in the paper; "element":
    that divided by D (the mean of the released code). A zero row stays zero and gets no gradient.
    """
    _check(features, transformed)
    difference = _unit_rows(features) - _unit_rows(transformed)
    return difference.square().sum(1).mean() * _share(reduction, transformed)


def covariance_loss(transformed: Tensor) -> Tensor:
    """Squared off-diagonal covariances of Z, summed and divided by D (L_COV, Eq. 4).

    C = Zcᵀ Zc / (M - 1) with Zc the column-centred Z, as in VICReg. 0 for a single row.
    """
    return _combine(None, transformed, cov=1.0)[0]


def dominant_singular_value_loss(transformed: Tensor, top: int = 1) -> Tensor:
    """Minus the share of the largest singular value of Z, uncentred (L_SVD, Eq. 5): -σ₁ / Σσ.

    top: minus the mean of that many largest shares (the released code takes 5). Where Z lacks rank
    the gradient is the subgradient of least norm; for Z = 0 loss and gradient are 0.
    """
    return _combine(None, transformed, svd=1.0, top=top)[0]


def nmtune_loss(
    features: Tensor,
    transformed: Tensor,
    *,
    mse: float,
    cov: float,
    svd: float,
    top: int = 1,
    reduction: Reduction = "row",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the three terms, as one node of the graph.

    Returns the scalar loss and its unweighted terms, detached: {"mse", "cov", "svd"}, without those
    of weight 0, which are not computed. F is taken as constant.
    """
    return _combine(features, transformed, mse=mse, cov=cov, svd=svd, top=top, reduction=reduction)


class _KnownGradient(torch.autograd.Function):
    """A value whose gradient was computed along with it."""

    @staticmethod
    def forward(ctx: Any, transformed: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        return outer * ctx.saved_tensors[0], None, None


def _combine(
    features: Tensor | None,
    transformed: Tensor,
    *,
    mse: float = 0.0,
    cov: float = 0.0,
    svd: float = 0.0,
    top: int = 1,
    reduction: Reduction = "row",
) -> tuple[Tensor, dict[str, Tensor]]:
    _check(features, transformed)
    terms: dict[str, Tensor] = {}
    with torch.no_grad():  # float64 products, which autocast leaves alone
        Z = transformed.detach().to(torch.promote_types(transformed.dtype, torch.float32))
        if cov or svd:
            batch = _Batch.of(Z)
            mixing, rest = batch.gram, batch.centred
            if svd:  # before _covariance, which uses up the centred Z and its Gram matrix
                terms["svd"], dominance = _dominance(batch, top, svd)
            if cov:
                terms["cov"], mixing, rest = _covariance(batch, cov)
            else:
                mixing, rest = mixing.zero_(), rest.zero_()
            if svd:
                mixing += dominance
            sides = (mixing, batch.rows) if batch.wide else (batch.rows, mixing)
            gradient = rest.addmm_(*sides).to(Z.dtype)
        else:
            gradient = torch.zeros_like(Z)
        if mse and features is not None:
            scale = _share(reduction, Z)
            terms["mse"] = scale * _consistency(features.detach().to(Z.dtype), Z, mse * scale, gradient)
        weights = {"mse": mse, "cov": cov, "svd": svd}
        total = Z.new_zeros(())
        for name, term in terms.items():
            total = torch.add(total, term, alpha=weights[name])
        total, gradient = total.to(transformed.dtype), gradient.to(transformed.dtype)
    return _KnownGradient.apply(transformed, total, gradient), terms


@dataclass(frozen=True)
class _Batch:
    """Z in float64, its column mean, the centred Z and its smaller Gram matrix; wide: M ≤ D."""

    rows: Tensor  # Z [M, D]
    mean: Tensor  # [D]
    centred: Tensor  # Zc [M, D], which ends as the gradient: fresh arrays this large cost page faults
    gram: Tensor  # Zc Zcᵀ [M, M] if wide, else Zcᵀ Zc [D, D]
    wide: bool

    @classmethod
    def of(cls, transformed: Tensor) -> "_Batch":
        rows = transformed.double()
        mean = rows.mean(0)
        centred = rows - mean
        wide = rows.shape[0] <= rows.shape[1]
        gram = centred @ centred.T if wide else centred.T @ centred
        return cls(rows, mean, centred, gram, wide)

    def raw_gram(self) -> Tensor:
        """The Gram matrix of Z itself, by adding back what the mean took away."""
        if self.wide:
            along = self.rows @ self.mean  # [M]
            return self.gram + along[:, None] + along - self.mean @ self.mean
        return self.gram + len(self.rows) * torch.outer(self.mean, self.mean)


def _covariance(batch: _Batch, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """L_COV; weight times its gradient is mixing · Z (Z · mixing if not wide) plus a rest [M, D].

    Returns the loss, mixing and the rest; they are written over the centred Z and, if wide, its Gram.
    """
    M, D = batch.rows.shape
    scale = 1 / (D * max(M - 1, 1) ** 2)
    slope = 4 * scale * weight
    if batch.wide:  # ‖C‖² without forming C, less the squared variances
        squares = batch.centred.square().sum(0)  # [D]
        whole = batch.gram.flatten()
        value = (whole @ whole - squares @ squares).clamp_(min=0) * scale
        return value, batch.gram.mul_(slope), batch.centred.mul_(squares.mul_(-slope))
    apart = batch.gram - torch.diag(batch.gram.diagonal())
    mixing = slope * apart
    return scale * apart.square().sum(), mixing, batch.centred.copy_(-(batch.mean @ mixing))


def _dominance(batch: _Batch, top: int, weight: float) -> tuple[Tensor, Tensor]:
    """L_SVD; weight times its gradient is mixing · Z (Z · mixing if not wide)."""
    if top < 1:
        raise ValueError(f"top is {top}: it counts singular values, so it starts at 1")
    gram = batch.raw_gram()
    try:
        eigenvalues, vectors = torch.linalg.eigh(gram)  # ascending
    except RuntimeError:  # of NaN: the loss says so, and the loop names the step
        return gram.new_full((), torch.nan), torch.full_like(gram, torch.nan)
    sigma = eigenvalues.clamp_(min=0).sqrt_()
    kept = sigma > RANK_TOLERANCE * sigma[-1]
    sigma *= kept
    inverse = sigma.clamp(min=_TINY).reciprocal_().mul_(kept)
    per_total = sigma.sum().clamp_(min=_TINY).reciprocal_()
    count = min(top, len(sigma))
    share = sigma[-count:].sum() * per_total / count
    slopes = inverse * (share * per_total)  # dL/dσ over σ
    slopes[-count:] -= inverse[-count:] * (per_total / count)
    return -share, (vectors * slopes.mul_(weight)) @ vectors.T


def _consistency(features: Tensor, Z: Tensor, weight: float, gradient: Tensor) -> Tensor:
    """L_MSE with the mean over rows; weight times its gradient to Z is added to gradient [M, D]."""
    per_feature, per_row = _inverse_lengths(features), _inverse_lengths(Z)  # [M, 1]
    per_both = per_feature * per_row
    cosines = (features * Z).sum(1, keepdim=True).mul_(per_both)
    slope = 2 * weight / len(Z)
    gradient.addcmul_(Z, cosines * per_row.square() * slope)
    gradient.addcmul_(features, per_both, value=-slope)
    return ((per_feature > 0).to(Z.dtype) + (per_row > 0).to(Z.dtype) - 2 * cosines).mean()


def _unit_rows(rows: Tensor) -> Tensor:
    return rows * _inverse_lengths(rows)


def _inverse_lengths(rows: Tensor) -> Tensor:
    """1 / ‖row‖ [M, 1], and 0 for a zero row."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return lengths.masked_fill(lengths == 0, torch.inf).reciprocal()


def _share(reduction: Reduction, transformed: Tensor) -> float:
    if reduction not in ("row", "element"):
        raise ValueError(f"reduction is {reduction!r}, not 'row' or 'element'")
    return 1.0 if reduction == "row" else 1.0 / transformed.shape[1]


def _check(features: Tensor | None, transformed: Tensor) -> None:
    if transformed.ndim != 2 or 0 in transformed.shape:
        raise ValueError(f"transformed has shape {tuple(transformed.shape)}, not [M, D]")
    if features is not None and features.shape != transformed.shape:
        raise ValueError(
            f"features {tuple(features.shape)} and transformed {tuple(transformed.shape)} differ"
        )
