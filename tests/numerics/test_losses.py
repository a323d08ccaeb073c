"""The fused losses against slow float64 transcriptions through autograd."""

import pytest
import torch
from torch import Tensor

from nmlcli.numerics.losses import (
    consistency_loss,
    covariance_loss,
    dominant_singular_value_loss,
    nmtune_loss,
)

SHAPES = [(2, 7), (7, 2), (8, 8), (5, 31), (31, 5), (64, 96), (96, 64), (3, 1), (2, 2)]


def slow_consistency(F: Tensor, Z: Tensor) -> Tensor:
    return (2 - 2 * torch.cosine_similarity(F, Z, dim=1)).mean()


def slow_covariance(Z: Tensor) -> Tensor:
    C = torch.cov(Z.T).reshape(Z.shape[1], Z.shape[1])
    return (
        sum(C[i, j] ** 2 for i in range(len(C)) for j in range(len(C)) if i != j) / len(C) + 0 * Z.sum()
    )


def slow_dominance(Z: Tensor, top: int = 1) -> Tensor:
    sigma = torch.linalg.svdvals(Z)
    return -(sigma / sigma.sum())[:top].mean()


def gradient_of(loss: Tensor, Z: Tensor) -> Tensor:
    return torch.autograd.grad(loss, Z)[0]


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    assert (got - wanted).norm() <= tolerance * max(wanted.norm().item(), 1e-3)


def batch(shape: tuple[int, int], seed: int = 0, mean: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    F = torch.randn(shape, generator=generator, dtype=torch.float64)
    Z = F + torch.randn(shape, generator=generator, dtype=torch.float64) + mean
    return F, Z.requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_values_and_gradients_match_the_transcriptions(shape: tuple[int, int], mean: float) -> None:
    F, Z = batch(shape, mean=mean)
    pairs = [
        (consistency_loss(F, Z), slow_consistency(F, Z)),
        (consistency_loss(F, Z, "element"), slow_consistency(F, Z) / shape[1]),
        (dominant_singular_value_loss(Z), slow_dominance(Z)),
        (dominant_singular_value_loss(Z, top=5), slow_dominance(Z, top=5)),
    ]
    if max(shape) < 40:
        pairs.append((covariance_loss(Z), slow_covariance(Z)))
    sigma = torch.linalg.svdvals(Z.detach())
    # Through a Gram matrix the square of the condition number is lost: 6e-10 for (8, 8), mean 30.
    tolerance = max(1e-10, float(torch.finfo(Z.dtype).eps * (sigma[0] / sigma[-1]) ** 2))
    for got, wanted in pairs:
        close(got, wanted)
        close(gradient_of(got, Z), gradient_of(wanted, Z), tolerance)


@pytest.mark.parametrize("shape", [(6, 11), (11, 6)])
@pytest.mark.parametrize("reduction", ["row", "element"])
@pytest.mark.parametrize(
    "weights", [(1, 1, 1), (1.0, 0.04, 0.001), (0, 0.5, 2), (3, 0, 0), (0, 0, 0), (2, 0, 1)]
)
def test_the_fused_form_is_the_weighted_sum(
    shape: tuple[int, int], reduction: str, weights: tuple[float, float, float]
) -> None:
    F, Z = batch(shape)
    mse, cov, svd = weights
    loss, terms = nmtune_loss(F, Z, mse=mse, cov=cov, svd=svd, top=2, reduction=reduction)
    slow = {
        "mse": slow_consistency(F, Z) / (1 if reduction == "row" else shape[1]),
        "cov": slow_covariance(Z),
        "svd": slow_dominance(Z, 2),
    }
    wanted = mse * slow["mse"] + cov * slow["cov"] + svd * slow["svd"]
    close(loss, wanted)
    close(gradient_of(3 * loss, Z), gradient_of(3 * wanted, Z))
    assert set(terms) == {name for name, weight in zip(slow, weights, strict=True) if weight}
    for name, value in terms.items():
        assert not value.requires_grad
        close(value, slow[name])


def test_the_gradient_of_the_consistency_reaches_the_features_too() -> None:
    F, Z = batch((4, 6))
    F.requires_grad_()
    close(gradient_of(consistency_loss(F, Z), F), gradient_of(slow_consistency(F, Z), F))


def test_gradcheck() -> None:
    for shape in ((4, 7), (7, 4)):
        F, Z = batch(shape)
        for function in (
            covariance_loss,
            dominant_singular_value_loss,
            lambda z, F=F: consistency_loss(F, z),
            lambda z, F=F: nmtune_loss(F, z, mse=1, cov=2, svd=3, top=2)[0],
        ):
            assert torch.autograd.gradcheck(function, (Z,))


def test_a_step_down_the_dominance_loss_raises_the_dominant_share() -> None:
    _, Z = batch((8, 20))
    moved = Z - 0.5 * gradient_of(dominant_singular_value_loss(Z), Z)
    sigma, after = torch.linalg.svdvals(Z.detach()), torch.linalg.svdvals(moved)
    assert after[0] / after.sum() > sigma[0] / sigma.sum()


@pytest.mark.parametrize("shape", [(8, 16), (16, 8)])
def test_lacking_rank_gives_the_subgradient_of_least_norm(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(shape[0], 4, generator=generator, dtype=torch.float64)
    right = torch.randn(4, shape[1], generator=generator, dtype=torch.float64)
    Z = (left @ right).requires_grad_()
    U, sigma, Vt = torch.linalg.svd(Z.detach(), full_matrices=False)
    U, sigma, Vt = U[:, :4], sigma[:4], Vt[:4]
    total = sigma.sum()
    wanted = sigma[0] / total**2 * (U @ Vt) - torch.outer(U[:, 0], Vt[0]) / total
    loss = dominant_singular_value_loss(Z)
    close(loss, -sigma[0] / total, 1e-7)
    close(gradient_of(loss, Z), wanted, 1e-6)


def test_repeated_singular_values_keep_the_gradient_finite_and_the_value_exact() -> None:
    for rows, columns in ((6, 10), (10, 6)):
        Z = (3 * torch.eye(rows, columns, dtype=torch.float64)).requires_grad_()
        loss = dominant_singular_value_loss(Z, top=2)
        close(loss, torch.tensor(-1 / 6, dtype=torch.float64))
        gradient = gradient_of(loss, Z)
        assert gradient.isfinite().all()
        assert abs((gradient * Z).sum().item()) < 1e-12  # a share does not change with the scale


def test_zero_rows_and_zero_batches_give_no_gradient() -> None:
    F, _ = batch((4, 6))
    Z = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    for loss, value in (
        (dominant_singular_value_loss(Z), 0.0),
        (covariance_loss(Z), 0.0),
        (consistency_loss(F, Z), 1.0),
        (nmtune_loss(F, Z, mse=1, cov=1, svd=1)[0], 1.0),
    ):
        assert loss.item() == pytest.approx(value, abs=1e-12)
        assert (gradient_of(loss, Z) == 0).all()


def test_one_row_has_no_covariance() -> None:
    Z = torch.ones(1, 5, requires_grad=True)
    assert covariance_loss(Z) == 0
    assert (gradient_of(covariance_loss(Z), Z) == 0).all()


@pytest.mark.parametrize("shape", [(64, 96), (96, 64)])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_lower_precision_keeps_its_own_dtype(
    shape: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    F, Z = batch(shape)
    F, Z = F.to(dtype), Z.detach().to(dtype).requires_grad_()
    exact = Z.detach().double().requires_grad_()
    loss, _ = nmtune_loss(F, Z, mse=1, cov=1, svd=1)
    wanted, _ = nmtune_loss(F.double(), exact, mse=1, cov=1, svd=1)
    got = gradient_of(loss, Z)
    assert loss.dtype == got.dtype == dtype
    close(loss.double(), wanted, tolerance)
    close(got.double(), gradient_of(wanted, exact), tolerance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = gradient_of(nmtune_loss(F, Z, mse=1, cov=1, svd=1)[0], Z)
    assert torch.equal(again, got)


def test_not_a_number_is_passed_on_rather_than_raised() -> None:
    F, Z = batch((4, 6))
    with torch.no_grad():
        Z[1, 2] = torch.nan
    loss, _ = nmtune_loss(F, Z, mse=1, cov=1, svd=1)
    assert loss.isnan()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(4, 5\)"):
        consistency_loss(torch.ones(4, 6), torch.ones(4, 5))
    with pytest.raises(ValueError, match="not"):
        covariance_loss(torch.ones(4))
    with pytest.raises(ValueError, match="top is 0"):
        dominant_singular_value_loss(torch.ones(4, 5), top=0)
    with pytest.raises(ValueError, match="reduction"):
        consistency_loss(torch.ones(4, 5), torch.ones(4, 5), "rows")  # type: ignore[arg-type]
