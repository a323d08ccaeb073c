"""AUGMENTATIONS: how training images are changed; a light menu over `pixels`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from nmlcli.keyed import Keys


@dataclass(frozen=True)
class Strength:
    """scale: the smallest share of the image's area that a crop has. hflip, reprob: probabilities of
    a mirror image and of an erased patch. color_jitter: brightness, contrast and saturation change by
    a factor in 1 ± this. policy: AutoAugment, RandAugment or AugMix as timm writes them."""

    scale: float = 0.08
    hflip: float = 0.5
    color_jitter: float = 0.0
    policy: str | None = None
    reprob: float = 0.0


@dataclass(frozen=True)
class Draws:
    """What the draws of one epoch are keyed by: hashes of all samples' ids [N], seed and epoch."""

    hashes: "Keys"
    seed: int
    epoch: int


@dataclass(frozen=True)
class Geometry:
    """What images become: their size in pixels, how they are resized, the mean colour in 0 … 255."""

    size: int
    interpolation: str
    mean: tuple[int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """batch: (pixels uint8 [B, S, S, 3] of the final size, samples' numbers [B], draws, strength) →
    uint8 [B, 3, S, S]. image: (geometry, draws, strength) → a transform (decoded image, sample's
    number) → uint8 [3, S, S]. Neither: nothing is changed."""

    help: str
    batch: "Callable[[Tensor, Any, Draws, Strength], Tensor] | None" = None
    image: "Callable[[Geometry, Draws, Strength], Callable[[Any, int], Tensor]] | None" = None


def _shift(pixels: "Tensor", rows: Any, draws: Draws, strength: Strength) -> "Tensor":
    from nmlcli.training.pixels import shift_and_flip

    return shift_and_flip(pixels, rows, draws, strength.hflip)


def _crop(geometry: Geometry, draws: Draws, strength: Strength) -> "Callable[[Any, int], Tensor]":
    from nmlcli.training.pixels import RandomCrops

    return RandomCrops(geometry, draws, strength)


AUGMENTATIONS = {
    "shift": Augmentation("moved by up to an eighth, mirrored", batch=_shift),
    "crop": Augmentation("random parts, resized; mirrored", image=_crop),
    "none": Augmentation("as in evaluation"),
}
