"""The supervised objective against its formula; mixing keyed by the step."""

import numpy as np
import pytest
import torch

from nmlcli.training.objectives import Examples, Mixer, supervised


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
