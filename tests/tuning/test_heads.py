"""Heads in training against a plain transcription, and what folding leaves of them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmlcli import keyed
from nmlcli.products.head import Head
from nmlcli.provenance import Record
from nmlcli.tuning.heads import TrainableHead, assess, steps_per_epoch, train
from nmlcli.tuning.methods import TRAINED, settle
from nmlcli.tuning.presets import PRESETS, Settings

D, C, N = 12, 4, 38
SMALL = {"epochs": 3, "batch_size": 16, "hidden": 20}
CASES = [(preset, method) for preset in PRESETS for method in TRAINED]


def data(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, C, N)
    features = generator.normal(size=(N, D)) + np.eye(C, D)[labels]
    return torch.tensor(features, dtype=dtype), torch.tensor(labels)


def settings_of(method: str, preset: str, **knobs: Any) -> Settings:
    return settle(method, preset, {**SMALL, **knobs})[0]


def plain_terms(features: Tensor, z: Tensor, preset: str) -> Tensor:
    """The three terms as the paper prints them, and as the released code computes them."""
    off_diagonal = torch.cov(z.T) - torch.diag(torch.cov(z.T).diagonal())
    covariance = off_diagonal.pow(2).sum() / D
    shares = torch.linalg.svdvals(z)
    shares = shares / shares.sum()
    unit_f, unit_z = F.normalize(features, dim=1), F.normalize(z, dim=1)
    if preset != "released":
        return 0.01 * ((unit_f - unit_z).pow(2).sum(1).mean() + covariance - shares[0])
    return F.mse_loss(unit_z, unit_f) + 0.04 * covariance - 0.001 * shares[:5].mean()


def plain_training(
    start: TrainableHead, method: str, preset: str, seed: int
) -> tuple[nn.Module, nn.Module, Any]:
    """Three epochs with torch's own layers; returns the MLP, the classifier and the scale."""
    features, labels = data(dtype=torch.float64)
    mlp, scale = nn.Sequential(), None
    if method != "lp":
        norm = [nn.BatchNorm1d(20)] if preset == "released" else []
        mlp = nn.Sequential(nn.Linear(D, 20), *norm, nn.ReLU(), nn.Linear(20, D)).double()
        mlp[0].load_state_dict(start.layers[0].state_dict())
        mlp[-1].load_state_dict(start.layers[1].state_dict())
        scale = nn.Parameter(torch.ones(D, dtype=torch.float64)) if preset == "released" else None
    classifier = nn.Linear(D, C).double()
    classifier.load_state_dict(start.classifier.state_dict())
    linear = {"paper": (0.1, 0.0), "paper-text": (0.01, 0.0), "released": (0.01, 1e-4)}
    rate, decay = (1e-3, 1e-4) if method != "lp" else linear[preset]
    learned = [*mlp.parameters(), *([scale] if scale is not None else []), *classifier.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=rate, weight_decay=decay)
    step = 0
    for epoch in range(3):
        order = torch.from_numpy(keyed.permutation(N, seed, f"order/{epoch}"))
        for index in (order[:16], order[16:32], order[32:]):
            for group in optimiser.param_groups:
                half_cosine = (1 + math.cos(math.pi * step / 9)) / 2
                group["lr"] = rate * (1 - step / 9 if preset == "paper-text" else half_cosine)
            f = features[index]
            z = mlp(f) if scale is None else scale * mlp(f) + f
            loss = F.cross_entropy(classifier(z), labels[index])
            if method == "nmtune":
                loss = loss + plain_terms(f, z, preset)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    return mlp.eval(), classifier, scale


@pytest.mark.parametrize(("preset", "method"), CASES)
def test_training_follows_the_plain_transcription(preset: str, method: str) -> None:
    settings = settings_of(method, preset)
    mlp, classifier, scale = plain_training(TrainableHead(D, C, settings, 5), method, preset, 5)
    # In float64: the gradient of a bias before batch norm is rounding, which AdamW turns into steps.
    head = TrainableHead(D, C, settings, 5).double()
    train(head, *data(dtype=torch.float64), settings, 5)
    features = data(1, torch.float64)[0]
    with torch.no_grad():
        wanted = mlp(features) if scale is None else scale * mlp(features) + features
        z, logits = head(features)
        torch.testing.assert_close(z, wanted, atol=1e-7, rtol=0)
        torch.testing.assert_close(logits, classifier(wanted), atol=1e-7, rtol=0)


@pytest.mark.parametrize(("preset", "method"), CASES)
def test_folding_leaves_the_same_function(preset: str, method: str) -> None:
    settings = settings_of(method, preset, **({} if method == "lp" else {"layers": 3}))
    head = TrainableHead(D, C, settings, 2)
    train(head, *data(), settings, 2)
    layers, residual = head.folded()
    folded = Head(
        Record("head", "0", "tune", extra={"activation": "relu"}), layers, residual, None, "here"
    )
    features = data(1)[0]
    with torch.no_grad():
        z, logits = head(features)
    own_z, own_logits = folded.apply(features.numpy())
    np.testing.assert_allclose(own_z, z.numpy(), atol=1e-5)
    np.testing.assert_allclose(own_logits, logits.numpy(), atol=1e-5)
    assert len(layers) == settings.layers + 1
    assert all(
        array.dtype == np.float32 and array.flags.c_contiguous for pair in layers for array in pair
    )
    assert (residual is None) == (method == "lp" or preset != "released")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("zero", [{"lambda_": 0.0}, {"mse": 0.0, "cov": 0.0, "svd": 0.0}])
def test_without_weights_nmtune_is_the_mlp_to_the_bit(preset: str, zero: dict[str, float]) -> None:
    heads = []
    for method, knobs in (("mlp", {}), ("nmtune", zero)):
        settings = settings_of(method, preset, **knobs)
        heads.append(TrainableHead(D, C, settings, 3))
        train(heads[-1], *data(), settings, 3)
    one, other = (head.state_dict() for head in heads)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_classifier_starts_alike_whatever_lies_below_it() -> None:
    one, other = (TrainableHead(D, C, settings_of(method, "paper"), 9) for method in ("lp", "nmtune"))
    assert torch.equal(one.classifier.weight, other.classifier.weight)
    assert not one.classifier.bias.any()
    bound = (6 / D) ** 0.5  # kaiming_uniform
    assert bound * 0.8 < one.classifier.weight.abs().max() <= bound
    assert not torch.equal(
        one.classifier.weight, TrainableHead(D, C, settings_of("lp", "paper"), 8).classifier.weight
    )


def test_every_layer_has_a_draw_of_its_own() -> None:
    first, second = TrainableHead(D, C, settings_of("mlp", "paper", hidden=D), 9).layers
    assert not torch.equal(first.weight, second.weight)
    assert first.weight.abs().max() <= D**-0.5  # torch's own linear layers
    assert first.bias.abs().max() > 0


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    settings = settings_of("nmtune", "paper")
    train(TrainableHead(D, C, settings, 1), *data(), settings, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_activation_none_makes_the_layers_one_map() -> None:
    settings = settings_of("mlp", "paper", activation="none")
    head = TrainableHead(D, C, settings, 1)
    (w1, b1), (w2, b2), _ = head.folded()[0]
    features = data()[0]
    wanted = features.numpy() @ (w2 @ w1).T + (w2 @ b1 + b2)
    np.testing.assert_allclose(head(features)[0].detach().numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "size", "steps"),
    [(64, 64, 1), (65, 64, 1), (66, 64, 2), (3, 64, 1), (130, 64, 3), (5, 2, 2)],
)
def test_a_last_batch_of_one_row_is_left_out(rows: int, size: int, steps: int) -> None:
    assert steps_per_epoch(rows, size) == steps
    settings = settings_of("nmtune", "released", batch_size=size, epochs=1)
    features, labels = (
        torch.randn(rows, D, generator=torch.Generator().manual_seed(0)),
        torch.arange(rows) % C,
    )
    shown: list[int] = []
    train(TrainableHead(D, C, settings, 0), features, labels, settings, 0,
          advance=lambda done, total, **_: shown.append(done))  # fmt: skip
    assert shown[-1] == steps


def test_accuracy_uses_fixed_statistics_and_restores_the_mode() -> None:
    settings = settings_of("nmtune", "released")
    head = TrainableHead(D, C, settings, 0)
    train(head, *data(), settings, 0)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.train()
    features, labels = data()
    share, _ = assess(head, features, labels)
    assert head.training
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())
    head.eval()
    assert share == pytest.approx((head(features)[1].argmax(1) == labels).float().mean().item())
