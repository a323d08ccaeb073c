"""PRECISIONS: in which number format a network computes, and on which device."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Precision:
    """autocast: torch's name of the format that autocast uses; None: float32 throughout.
    scaled: gradients would vanish in it, so the loss is scaled."""

    help: str
    autocast: str | None = None
    scaled: bool = False


PRECISIONS = {
    "fp32": Precision("float32 throughout"),
    "bf16": Precision("autocast to bfloat16", "bfloat16"),
    "fp16": Precision("autocast to float16, the loss scaled", "float16", scaled=True),
}


def device() -> "torch.device":
    """The GPU where there is one, set to give the same bytes again and true float32; else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def autocast(precision: str, place: "torch.device") -> AbstractContextManager[None]:
    """The context in which a network computes in a precision of the menu."""
    import torch

    name = PRECISIONS[precision].autocast
    return nullcontext() if name is None else torch.autocast(place.type, getattr(torch, name))
