"""The menu of losses: each goes with every method, preset and number of views."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nmlcli import keyed
from nmlcli.errors import UsageError
from nmlcli.tuning.criteria import LOSSES, Circumstances
from nmlcli.tuning.heads import TrainableHead, assess, train
from nmlcli.tuning.methods import SOLVERS, TRAINED, check_knobs, settle
from nmlcli.tuning.presets import PRESETS, Settings

D, C, N = 12, 4, 38
SMALL = {"epochs": 3, "batch_size": 16, "hidden": 20}
TRANSITION = np.full((C, C), 0.1) + 0.6 * np.eye(C)


def data(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, C, N)
    features = generator.normal(size=(N, D)) + 2 * np.eye(C, D)[labels]
    return torch.tensor(features, dtype=dtype), torch.tensor(labels)


def trained(method: str, preset: str, seed: int = 1, **knobs: Any) -> tuple[TrainableHead, Any]:
    settings, _ = settle(method, preset, {**SMALL, **knobs})
    head, means = TrainableHead(D, C, settings, seed), []
    train(head, *data(), settings, seed, transition=TRANSITION,
          after_epoch=lambda epoch, values: means.append(values))  # fmt: skip
    return head, means


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_loss_goes_with_every_method(loss: str, method: str, preset: str) -> None:
    head, means = trained(method, preset, loss=loss)
    assert all(torch.isfinite(value).all() for value in head.state_dict().values())
    settings, _ = settle(method, preset, {**SMALL, "loss": loss})
    for line in means:
        terms = sum(settings.lambda_ * getattr(settings, name) * line[name]
                    for name in ("mse", "cov", "svd") if name in line)  # fmt: skip
        weights = {"elr": settings.elr_lambda}
        own = [name for name in line if name not in ("loss", "mse", "cov", "svd")]
        total = sum(weights.get(name, 1.0) * line[name] for name in own)
        assert line["loss"] == pytest.approx(total + terms, rel=1e-4, abs=1e-5)
        assert ("mse" in line) == (method == "nmtune")


@pytest.mark.parametrize(
    ("loss", "knobs"),
    [("label-smoothing", {"smoothing": 0.0}), ("gce", {"gce_q": 0.0}), ("elr", {"elr_lambda": 0.0})],
)
def test_a_loss_at_its_limit_trains_as_cross_entropy_does(loss: str, knobs: dict[str, float]) -> None:
    one, other = trained("nmtune", "paper")[0], trained("nmtune", "paper", loss=loss, **knobs)[0]
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_forward_needs_the_transition() -> None:
    settings, _ = settle("lp", "paper", {"loss": "forward"})
    with pytest.raises(ValueError, match="transition"):
        LOSSES["forward"].build(settings, Circumstances(N, C))


def test_knobs_of_other_losses_and_solvers_are_refused() -> None:
    with pytest.raises(UsageError, match="--gce-q does not apply to --loss ce: it is for gce"):
        check_knobs(["lp"], {"gce_q": 0.5})
    check_knobs(["lp"], {"gce_q": 0.5}, ["ce", "gce"])
    assert settle("lp", "paper", {"gce_q": 0.5})[1] == {}
    with pytest.raises(UsageError, match=r"--gce-q is 1\.5: give at most 1"):
        check_knobs(["lp"], {"gce_q": 1.5}, ["gce"])
    with pytest.raises(UsageError, match="--solver lbfgs does not train nmtune: it is for lp"):
        check_knobs(["lp", "nmtune"], {}, solver="lbfgs")
    with pytest.raises(UsageError, match="--lr does not apply to --solver lbfgs: it is for adamw"):
        check_knobs(["lp"], {"lr": 0.5}, solver="lbfgs")
    with pytest.raises(UsageError, match="--l2 does not apply to --solver adamw: it is for lbfgs"):
        check_knobs(["lp"], {"l2": 0.5})


def test_menus_have_a_help_text() -> None:
    assert all(row.help for row in [*LOSSES.values(), *SOLVERS.values()])


def two_view_training(
    start: TrainableHead, views: Tensor, labels: Tensor, settings: Settings, method: str
) -> None:
    """The released code's step, on cached views: mean cross-entropy over both, terms of both as one."""
    optimiser = torch.optim.AdamW(start.parameters(), lr=1e-3, weight_decay=1e-4)
    step = 0
    for epoch in range(3):
        order = torch.from_numpy(keyed.permutation(N, 5, f"order/{epoch}"))
        for index in (order[:16], order[16:32], order[32:]):
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * (1 + math.cos(math.pi * step / 9)) / 2
            weak, strong = views[index, 2 * epoch % 3], views[index, (2 * epoch + 1) % 3]
            z, logits = start(torch.cat([weak, strong]))
            loss = F.cross_entropy(logits, torch.cat([labels[index], labels[index]]))
            if method == "nmtune":
                strong_z = z[len(index) :]
                consistent = F.mse_loss(F.normalize(strong_z, dim=1), F.normalize(weak, dim=1))
                covariance = torch.cov(z.T)
                off = (covariance - torch.diag(covariance.diagonal())).pow(2).sum() / D
                shares = torch.linalg.svdvals(z) / torch.linalg.svdvals(z).sum()
                loss = loss + consistent + 0.04 * off - 0.001 * shares[:5].mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1


@pytest.mark.parametrize("method", ["mlp", "nmtune"])
def test_two_views_follow_the_released_code(method: str) -> None:
    features, labels = data(dtype=torch.float64)
    noise = torch.randn(N, 3, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = features[:, None] + 0.3 * noise
    settings, _ = settle(method, "released", SMALL)
    own, plain = (TrainableHead(D, C, settings, 5).double().train() for _ in range(2))
    train(own, features, labels, settings, 5, views=views)
    two_view_training(plain, views, labels, settings, method)
    for one, other in zip(own.folded()[0], plain.eval().folded()[0], strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=2e-6)
        np.testing.assert_allclose(one[1], other[1], atol=2e-6)


def test_assessing_gives_accuracy_and_mean_cross_entropy() -> None:
    head = trained("mlp", "released")[0]
    features, labels = data(1)
    logits = head(features)[1].detach()
    accuracy, loss = assess(head, features, labels)
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)
