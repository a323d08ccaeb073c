"""What a named layer of an image network says, as one row an image."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor
from torch.nn import Conv2d, Module

from nmlcli.errors import UsageError
from nmlcli.models.pooling import POOLINGS

LAST = "forward_features"  # the name for what timm's networks pool themselves


class _Reached(Exception):  # noqa: N818
    """The layer has spoken; what comes after it need not be computed."""


def tap(module: Module, layer: str, pool: str) -> Callable[[Tensor], Tensor]:
    """A function of images [B, 3, S, S] that gives what a layer by its name in the module says of them
    when it is first called, pooled: [B, D].

    A layer may give [B, D], tokens [B, T, D] (of which those before the patches are left out, but by
    pooling `cls` or `last`) or a square map, [B, D, H, H] or [B, H, H, D]. Raises UsageError where
    there is no such layer, or where what it gives cannot be pooled so.
    """
    layers = dict(module.named_modules())
    if layer != LAST and (layer not in layers or not layer):
        names = [name for name in layers if name]
        near = get_close_matches(layer, names, n=3, cutoff=0.4) or names[-3:]
        raise UsageError(f"the network has no layer {layer!r}", f"it has {', '.join(near)}, …")
    says: Any = module.forward_features if layer == LAST else _listener(module, layers[layer], layer)
    last = _layout(module, "output_fmt") == "NHWC" and not isinstance(layers.get(layer), Conv2d)

    def encode(images: Tensor) -> Tensor:
        features = _pooled(module, says(images), layer, pool, last)
        if len(features) != len(images):
            wrong = f"layer {layer} gives {len(features)} rows of {len(images)} images"
            raise UsageError(wrong, "take the layer around it")
        return features

    return encode


def _listener(module: Module, layer: Module, name: str) -> Callable[[Tensor], Tensor]:
    def says(images: Tensor) -> Tensor:
        said: list[Tensor] = []

        def listen(_: Module, __: object, out: object) -> None:
            if isinstance(out, Tensor):
                said.append(out)
            raise _Reached

        handle = layer.register_forward_hook(listen)
        try:
            module(images)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not said:
            raise UsageError(f"layer {name} gives no tensor", "take one inside it, or after it")
        return said[0]

    return says


def _layout(module: Any, name: str) -> Any:
    """What timm's networks, also inside those of open_clip, say of their layers."""
    return getattr(getattr(module, "trunk", module), name, None)


def _prefix(module: Module, tokens: int) -> int:
    """How many tokens come before those of the patches; none where all are of one kind."""
    own = _layout(module, "class_embedding") is not None  # open_clip's networks do not tell
    prefix = 1 if own else int(_layout(module, "num_prefix_tokens") or 0)
    patches = getattr(_layout(module, "patch_embed"), "num_patches", None)
    return 0 if tokens in (patches, prefix) else prefix


def _pooled(module: Module, states: Tensor, layer: str, pool: str, channels_last: bool) -> Tensor:
    """One row an image [B, D] of what a layer gave, by a pool of the menu."""
    if states.ndim == 2:
        return states
    is_map = states.ndim == 4
    if is_map and POOLINGS[pool].of_order:
        raise UsageError(f"layer {layer} gives a map, which has no {pool}", "take --pool mean or max")
    tokens = _positions(states, channels_last) if is_map else states
    if tokens is None or tokens.ndim != 3:
        raise UsageError(f"layer {layer} gives no tokens and no square map", "take another")
    kept = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if not is_map:
        kept[:, : _prefix(module, tokens.shape[1])] = False
    return POOLINGS[pool].pool(tokens, kept)


def _positions(states: Tensor, channels_last: bool) -> Tensor | None:
    """A map as [B, H · H, D]: the sides that are alike are height and width, the last of them channels
    where all are and channels_last; None where none are."""
    one, two, three = states.shape[1:]
    if one == two and (two != three or channels_last):
        return states.flatten(1, 2)
    return states.flatten(2).transpose(1, 2) if two == three else None
