"""The contrastive loss against a slow transcription, open_clip's own, and its parts."""

import math

import open_clip
import pytest
import torch
import torch.nn.functional as F

from nmlcli.numerics.contrastive import contrastive_loss


def embeddings(count=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return F.normalize(rows, dim=-1).unbind()


def apart(count):
    return torch.arange(count)[:, None]


def transcribed(images, texts, scale, keys):
    """Over the pairs one by one, the twins of a pair left out."""
    total = 0.0
    for i in range(len(images)):
        others = [j for j in range(len(images)) if j == i or not any(keys[i] == keys[j])]
        for one, many in ((images[i], texts), (texts[i], images)):
            logits = {j: scale * float(one @ many[j]) for j in others}
            total += math.log(sum(math.exp(value) for value in logits.values())) - logits[i]
    return total / (2 * len(images))


def test_without_twins_it_is_open_clips_loss_with_its_gradient():
    images, texts = (rows.requires_grad_() for rows in embeddings())
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    ours = contrastive_loss(images, texts, scale, apart(6))[0]
    theirs = open_clip.loss.ClipLoss()(images, texts, scale)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for one, other in zip(
        torch.autograd.grad(ours, [images, texts, scale]),
        torch.autograd.grad(theirs, [images, texts, scale]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_twins_are_left_out_of_each_others_denominators():
    images, texts = embeddings(7)
    # The captions of 0, 3 and 6 are one; 1 and 2 are of one image.
    keys = torch.tensor([[0, 0], [1, 1], [2, 1], [0, 2], [3, 3], [4, 4], [0, 5]])
    for scale in (1.0, 20.0):
        loss = contrastive_loss(images, texts, scale, keys)[0]
        assert loss.item() == pytest.approx(transcribed(images, texts, scale, keys), rel=1e-12)
        assert loss.item() < contrastive_loss(images, texts, scale, apart(7))[0].item()


def test_all_pairs_alike_leave_nothing_to_choose():
    images, texts = embeddings()
    loss, accuracy = contrastive_loss(images, texts, 10.0, torch.zeros(6, 1, dtype=torch.int64))
    assert (loss.item(), accuracy.item()) == (0.0, 1.0)


def test_the_accuracy_counts_images_whose_own_caption_is_nearest():
    images = torch.eye(4)
    texts = torch.eye(4)
    texts[2, 2:], texts[3, 2:] = torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6])
    assert contrastive_loss(images, texts, 5.0, apart(4))[1].item() == 0.5
    same = torch.tensor([[0], [1], [2], [2]])  # a twin nearer than the own caption is no error
    assert contrastive_loss(images, texts, 5.0, same)[1].item() == 1.0


@pytest.mark.parametrize("parts", [2, 3])
def test_the_mean_over_parts_of_the_rows_is_the_whole(parts):
    images, texts = (rows.requires_grad_() for rows in embeddings())
    keys = torch.tensor([0, 1, 2, 0, 4, 5])[:, None]
    whole, accuracy = contrastive_loss(images, texts, 9.0, keys)
    size = 6 // parts
    some = [
        contrastive_loss(images, texts, 9.0, keys, slice(start, start + size))
        for start in range(0, 6, size)
    ]
    mean = sum(loss for loss, _ in some) / parts
    assert mean.item() == pytest.approx(whole.item(), rel=1e-12)
    assert sum(float(right) for _, right in some) / parts == pytest.approx(accuracy.item())
    for one, other in zip(
        torch.autograd.grad(mean, [images, texts], retain_graph=True),
        torch.autograd.grad(whole, [images, texts]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_together_is_refused():
    images, texts = embeddings()
    for wrong in (
        (images, texts[:5], apart(6)),
        (images, texts, apart(5)),
        (images[0], texts[0], apart(6)),
    ):
        with pytest.raises(ValueError, match="have shapes"):
            contrastive_loss(wrong[0], wrong[1], 1.0, wrong[2])
