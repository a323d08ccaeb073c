"""The contrastive loss of images and texts (CLIP), over all pairs or over a part of their rows."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor | float, keys: Tensor, own: slice | None = None
) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy of picking a pair's partner in the batch (Radford et al. 2021, Fig. 3).

    images, texts: embeddings [B, D] of length 1, row i of both being pair i. scale: the inverse
    temperature. keys: int64 [B, K]; pairs that share a key in any column (the same caption, the same
    image) are twins: neither is a negative of the other, so they are left out of each other's
    denominators. Without twins this is the loss of the paper. own: the rows whose loss is wanted; the
    mean over equal parts of the rows is the loss of all.

    Returns the mean loss, and the share of images of `own` whose own text is nearest of all but twins.
    """
    if images.shape != texts.shape or images.ndim != 2 or len(images) != len(keys):
        shapes = f"{tuple(images.shape)}, {tuple(texts.shape)} and {tuple(keys.shape)}"
        raise ValueError(f"images, texts and keys have shapes {shapes}, not [B, D], [B, D] and [B, K]")
    own = slice(0, len(images)) if own is None else own
    partners = torch.arange(len(images), device=images.device)[own]  # [b]
    twins = (keys[own, None] == keys).any(-1)  # [b, B]
    twins[torch.arange(len(partners), device=images.device), partners] = False
    to_texts = (scale * images[own] @ texts.T).masked_fill(twins, -torch.inf)
    to_images = (scale * texts[own] @ images.T).masked_fill(twins, -torch.inf)
    loss = (F.cross_entropy(to_texts, partners) + F.cross_entropy(to_images, partners)) / 2
    right = to_texts.detach().argmax(1) == partners
    return loss, right.float().mean()
