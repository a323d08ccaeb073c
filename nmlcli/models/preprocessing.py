"""What happens to an image before a network sees it, in training and evaluation alike.

Resizing and cropping are timm's own, on the decoded image; normalising is done on whole batches,
with the same operations in the same order as torchvision's, so that the bytes are those of timm.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.provenance import Facts

if TYPE_CHECKING:
    from PIL.Image import Image

SMALL = 64  # pixels; up to here the whole image is kept, since there is no border to spare


@dataclass(frozen=True)
class Preprocessing:
    """Size in pixels, square; mean and std of pixels in [0, 1]; the rest as timm names it."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"

    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


def of_timm(module: torch.nn.Module, size: int | None = None) -> Preprocessing:
    """The preprocessing that timm states for a network, at another size where one is given.

    Raises UsageError where the network does not take square RGB images.
    """
    from timm.data.config import resolve_data_config

    config = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    channels, height, width = config["input_size"]
    if channels != 3 or (size is None and height != width):
        raise UsageError(f"the network takes images of {channels} × {height} × {width}", "give --size")
    mean, std, mode = tuple(config["mean"]), tuple(config["std"]), config.get("crop_mode") or "center"
    own = Preprocessing(height, mean, std, config["interpolation"], config["crop_pct"], mode)
    return resized(own, size)


def of_record(model: Facts, source: str) -> tuple[str, Preprocessing]:
    """The architecture and the preprocessing that the record of a checkpoint states.

    Raises InvalidInput where it does not.
    """
    try:
        architecture, values = str(model["architecture"]), model["preprocessing"]
        own = Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        return architecture, own
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{source}: its record does not say how to build the network") from error


def resized(preprocessing: Preprocessing, size: int | None) -> Preprocessing:
    """The same at another size; small images are not cropped."""
    if size is None or size == preprocessing.size:
        return preprocessing
    share = 1.0 if size <= SMALL else preprocessing.crop_pct
    return replace(preprocessing, size=size, crop_pct=share)


class Pixels:
    """The evaluation transform up to normalising: an RGB image to uint8 [3, size, size].

    The second argument, the sample's number, is not needed. Can be pickled, for workers.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        from timm.data.transforms_factory import create_transform

        known = ("interpolation", "crop_pct", "crop_mode", "mean")  # mean: the colour of added borders
        settings = {name: getattr(preprocessing, name) for name in known}
        shape = (3, preprocessing.size, preprocessing.size)
        # use_prefetcher is timm's word for stopping before normalisation.
        self.transform = create_transform(shape, is_training=False, use_prefetcher=True, **settings)

    def __call__(self, image: "Image", index: int) -> Tensor:
        return torch.as_tensor(self.transform(image))


class Normalise:
    """Batches [B, 3, H, W] to float32 on a device: uint8 is normalised, floats stay as they are."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device = device
        self.mean = torch.tensor(preprocessing.mean, device=device)
        self.std = torch.tensor(preprocessing.std, device=device)

    def __call__(self, images: Tensor) -> Tensor:
        batch = images.to(self.device, memory_format=torch.channels_last)
        if batch.is_floating_point():
            return batch
        # By whole lines of pixels, [B, H, 3 W]: several times as fast as by three channels at a time.
        lines, width = batch.permute(0, 2, 3, 1).flatten(2), batch.shape[3]
        done = lines.float().div_(255).sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        return done.view(len(batch), -1, width, 3).permute(0, 3, 1, 2)
