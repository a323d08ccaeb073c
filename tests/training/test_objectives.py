"""The objectives against their formulas, whole and in parts; mixing keyed by the step."""

import math

import numpy as np
import pytest
import torch

from nmlcli.numerics.contrastive import contrastive_loss
from nmlcli.training.distributed import Ranks
from nmlcli.training.losses import LOSSES
from nmlcli.training.objectives import Examples, Mixer, Pairs, contrastive, parts_of, supervised


def test_loss_and_accuracy_are_those_of_the_logits():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    values = supervised(torch.nn.Identity(), 0.3)(Examples(logits, labels, labels))
    z = logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    targets = np.full((6, 4), 0.3 / 4)
    targets[np.arange(6), labels] += 0.7
    assert values["loss"].item() == pytest.approx(-(targets * log_p).sum(axis=1).mean(), abs=1e-6)
    assert values["accuracy"].item() == pytest.approx((z.argmax(axis=1) == labels.numpy()).mean())
    assert not values["accuracy"].requires_grad


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_mixing_is_keyed_by_the_step_and_does_not_smooth(mixup, cutmix):
    mixer = Mixer(mixup, cutmix, num_classes=5, seed=1)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3])
    np.random.seed(5)
    first = mixer(images.clone(), labels, 7)
    np.random.seed(6)
    again = mixer(images.clone(), labels, 7)
    other = mixer(images.clone(), labels, 8)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.allclose(first.targets.sum(1), torch.ones(4))
    assert (first.targets[:, 4] == 0).all()  # no class without an example gets a share
    assert torch.equal(first.labels, labels)


def test_the_loss_is_the_one_that_is_named():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    for name, row in LOSSES.items():
        found = supervised(torch.nn.Identity(), 0.1, name)(Examples(logits, labels, labels))["loss"]
        assert found.item() == row.mean(logits, labels, 0.1).item()


class Towers(torch.nn.Module):
    """Called as open_clip's networks are."""

    def __init__(self, norm):
        super().__init__()
        more = [torch.nn.BatchNorm1d(40, momentum=None)] if norm else []
        self.image = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(48, 40), *more, torch.nn.GELU(), torch.nn.Linear(40, 6)
        )
        self.text = torch.nn.Embedding(50, 6)
        self.logit_scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, images, tokens):
        norm = torch.nn.functional.normalize
        return norm(self.image(images)), norm(self.text(tokens).mean(1)), self.logit_scale.exp()


def towers(norm=False):
    torch.manual_seed(0)
    return Towers(norm)


@pytest.fixture
def pairs():
    draw = torch.Generator().manual_seed(1)
    images, tokens = (
        torch.randn(16, 3, 4, 4, generator=draw),
        torch.randint(50, (16, 5), generator=draw),
    )
    keys = torch.arange(16)[:, None]
    keys[9] = keys[2]
    return Pairs(images, tokens, keys)


def gradients(module, values):
    values["loss"].backward()
    return {name: value.grad for name, value in module.named_parameters()}


def test_the_contrastive_objective_is_the_loss_of_the_pairs(pairs):
    module = towers()
    values = contrastive(module, Ranks(), None)(pairs)
    images, texts, scale = module(pairs.images, pairs.tokens)
    loss, accuracy = contrastive_loss(images, texts, scale, pairs.keys)
    assert values["loss"].item() == loss.item()
    assert values["accuracy"].item() == accuracy.item()
    assert values["temperature"].item() == pytest.approx(math.exp(-1.5))
    assert not values["temperature"].requires_grad


@pytest.mark.parametrize("micro_batch", [1, 5, 15, 16, 100])
def test_parts_of_a_batch_are_the_whole_in_loss_and_gradient(pairs, micro_batch):
    whole, parts = towers(), towers()
    values, found = (
        contrastive(each, Ranks(), size)(pairs) for each, size in ((whole, None), (parts, micro_batch))
    )
    assert found["loss"].item() == pytest.approx(values["loss"].item(), abs=1e-6)
    assert found["accuracy"] == values["accuracy"]
    wanted = gradients(whole, values)
    for name, gradient in gradients(parts, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-6, msg=name)


def test_no_activations_of_parts_are_kept(pairs):
    """What is saved for the gradient before it is asked for: of the hidden layer all, or nothing."""
    saved = []

    def pack(tensor):
        saved.append(tuple(tensor.shape))
        return tensor

    for micro_batch, kept in ((None, True), (4, False)):
        objective = contrastive(towers(), Ranks(), micro_batch)
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            objective(pairs)
        assert any(shape[-1:] == (40,) for shape in saved) == kept


def test_batch_norm_remembers_each_part_once(pairs):
    """Up to five at a time: four of four pairs, none of which is a single one."""
    module, plain = towers(norm=True), towers(norm=True)
    values = contrastive(module, Ranks(), 5)(pairs)
    parts = [plain(pairs.images[i : i + 4], pairs.tokens[i : i + 4]) for i in range(0, 16, 4)]
    images, texts = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    loss, _ = contrastive_loss(images, texts, plain.logit_scale.exp(), pairs.keys)
    assert values["loss"].item() == pytest.approx(loss.item(), abs=1e-6)
    wanted = gradients(plain, {"loss": loss})
    for name, gradient in gradients(module, values).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5, msg=name)
    assert module.image[2].num_batches_tracked == 4
    for name, value in module.image[2].named_buffers():
        torch.testing.assert_close(value, plain.image[2].get_buffer(name))


def test_parts_are_as_equal_as_may_be():
    for count in range(1, 20):
        for micro_batch in range(1, 22):
            parts = torch.arange(count).tensor_split(parts_of(count, micro_batch))
            sizes = [len(part) for part in parts]
            assert max(sizes) <= micro_batch
            assert max(sizes) - min(sizes) <= 1
            assert len(sizes) == math.ceil(count / micro_batch)


def test_autocast_leaves_the_logits_their_digits(pairs):
    """Of embeddings alike to the last bit, so that only the products could lose any."""

    class Given(torch.nn.Module):
        def forward(self, images, tokens):
            rows = torch.nn.functional.normalize(images.flatten(1), dim=1)
            return rows, rows.roll(1, 0), torch.tensor(100.0)

    objective = contrastive(Given(), Ranks(), None)
    whole = objective(pairs)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        assert objective(pairs)["loss"].item() == whole.item()
