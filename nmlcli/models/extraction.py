"""Features out of a network: batches of pixels to rows of numbers."""

import torch
from torch import Tensor

from nmlcli.models.precision import autocast, device
from nmlcli.models.preprocessing import Normalise, Pixels
from nmlcli.models.schemes import Network
from nmlcli.products.features import FloatBlock


class Extractor:
    """A network on its device. pixels: the transform of an image; columns: the features' width D."""

    def __init__(self, network: Network, precision: str, dtype: str) -> None:
        self.network, self.device, self.precision = network, device(), precision
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.module = network.module.eval().to(self.device)
        self.module.to(memory_format=torch.channels_last)
        self.pixels = Pixels(network.preprocessing)
        self.normalise = Normalise(network.preprocessing, self.device)
        size = network.preprocessing.size
        self.columns = int(self(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape[1])

    def __call__(self, images: Tensor) -> FloatBlock:
        """Pooled features before the classifier, which timm calls pre-logits: uint8 [B, 3, H, W] to
        [B, D] of the dtype."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            last = self.module.forward_features(self.normalise(images))  # type: ignore[operator]
            pooled: Tensor = self.module.forward_head(last, pre_logits=True).float()  # type: ignore[operator]
        block: FloatBlock = pooled.to(self.dtype).cpu().numpy()
        return block
