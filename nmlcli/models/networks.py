"""Networks of timm: built by name, drawn from a seed or with weights from a file or the hub."""

import json
import pickle
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module

from nmlcli import keyed
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.models.hub import brief, fetching
from nmlcli.models.layers import LAST, tap
from nmlcli.models.preprocessing import Preprocessing, of_record, of_timm, resized
from nmlcli.models.schemes import Network, Wanted, weights_of
from nmlcli.products.formats import read_checkpoint
from nmlcli.provenance import Facts, Record

# What libraries raise where weights are none, or not those of a network.
UNFIT = (
    RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError, SafetensorError, EOFError,
)  # fmt: skip
_STATED = ("mean", "std", "input_size", "interpolation", "crop_pct", "crop_mode", "classifier")


def require_architecture(name: str) -> None:
    """Raise UsageError, with the nearest names, where timm has no such network."""
    if timm.is_model(name.partition(".")[0]):
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # a tag that it does not have
            tags = timm.list_pretrained(name.partition(".")[0] + ".*")
            raise UsageError(f"timm has no {name}", f"it has {', '.join(tags[:5])}") from error
        return
    near = get_close_matches(name, timm.list_models(), n=3)
    remedy = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
    raise UsageError(f"timm has no network {name!r}", remedy)


def tagged(name: str) -> str:
    """A name with the tag of its weights on the hub; timm takes a default one where none is given."""
    require_architecture(name)
    config = timm.get_pretrained_cfg(name)
    return f"{config.architecture}.{config.tag}" if config and config.tag else name


def build(
    architecture: str, num_classes: int, size: int | None, seed: int, drop_path: float = 0.0
) -> Module:
    """Build a network without weights, its initial values decided by the seed alone.

    size: of its images, in pixels. drop_path: the rate at which layers are left out in training.
    Raises UsageError where timm has no such network, or where it cannot take that size.
    """
    require_architecture(architecture)
    torch.manual_seed(keyed.scalar(seed, "init"))
    settings = _size_argument(architecture, size)
    settings |= {"drop_path_rate": drop_path} if drop_path else {}
    try:
        module: Module = timm.create_model(architecture, num_classes=num_classes, **settings)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        pixels = f"{size or 'its own'} pixels"
        raise UsageError(f"timm cannot build {architecture} at {pixels}: {error}") from error
    return module


def _size_argument(architecture: str, size: int | None) -> dict[str, Any]:
    """Networks with position embeddings must be told the size, others cannot be told."""
    config = timm.get_pretrained_cfg(architecture)
    fixed = size is not None and config is not None and config.fixed_input_size
    return {"img_size": size} if fixed and size is not None else {}


def open_timm(architecture: str, weights: Path | None, wanted: Wanted, identity: str) -> Network:
    """A network by timm's name: drawn from a seed, with weights of a file or folder, or of the hub."""
    require_architecture(architecture)
    if wanted.random_init:
        module = build(architecture, 0, wanted.size, wanted.seed)
    elif weights is not None:
        module = _with_weights(architecture, weights, wanted.size)
    else:
        module = _with_hub(architecture, wanted.size)
    name = architecture if wanted.random_init or weights else tagged(architecture)
    facts = {"name": name, "architecture": architecture.partition(".")[0]}
    known = {**facts, "seed": wanted.seed if wanted.random_init else None, "identity": identity}
    return _network(module, of_timm(module, wanted.size), wanted, known)


def _network(
    module: Module, preprocessing: Preprocessing, wanted: Wanted, known: Facts,
    record: Record | None = None,
) -> Network:  # fmt: skip
    """A network in evaluation mode; known: what else a record says of it, its pre-training if any."""
    unknown = dict.fromkeys(("objective", "data", "noise"))
    encode, taken = features_of(module, wanted)
    facts = {**unknown, **known, **taken, "preprocessing": preprocessing.facts()}
    return Network(module.eval(), preprocessing, encode, facts, record)


def pre_logits(module: Any) -> Callable[[Tensor], Tensor]:
    """A function of images [B, 3, H, W] to what timm calls pre-logits, [B, D]."""

    def encode(images: Tensor) -> Tensor:
        pooled: Tensor = module.forward_head(module.forward_features(images), pre_logits=True)
        return pooled

    return encode


def features_of(module: Module, wanted: Wanted) -> tuple[Callable[[Tensor], Tensor], Facts]:
    """What makes features [B, D] of images, and what a record says of it.

    By default what timm calls pre-logits, pooled and normed as the network has it. A pool alone is of
    what the network pools itself, a layer alone is pooled by its mean.
    """
    if wanted.layer is None and wanted.pool is None:
        return pre_logits(module), {"layer": "pre_logits"}
    layer, pool = wanted.layer or LAST, wanted.pool or "mean"
    return tap(module, layer, pool), {"layer": layer, "pool": pool}


def _with_weights(architecture: str, weights: Path, size: int | None) -> Module:
    """Load a file, or a folder as the hub holds it, strictly, whatever the classifier: its width is the
    file's own.

    Strictness matters, since timm otherwise passes over every weight that is missing.
    """
    stated = _stated(architecture, weights) if weights.is_dir() else {}
    file = weights_of(weights)
    config = timm.get_pretrained_cfg(architecture)
    try:
        state = timm.models.load_state_dict(str(file), weights_only=True)
        classifier = stated.get("classifier") or (config.classifier if config is not None else None)
        name = classifier if isinstance(classifier, str) else (classifier or ("",))[0]
        found = state.get(f"{name}.weight")
        widths = [found.shape[0]] if found is not None else [config.num_classes if config else 0, 0]
    except (*UNFIT, OSError) as error:
        remedy = "bring safetensors, or a state dict and nothing else"
        raise InvalidInput(f"{weights} holds no weights that can be read safely", remedy) from error
    for width in widths:
        overlay = {**stated, "file": str(file), "num_classes": width, "label_offset": 0}
        try:
            return timm.create_model(
                architecture, pretrained=True, num_classes=width, pretrained_cfg_overlay=overlay,
                **_size_argument(architecture, size),
            )  # fmt: skip
        except UNFIT as error:
            unfit = error
    raise InvalidInput(f"{weights} does not fit {architecture}: {brief(unfit)}") from unfit


def _stated(architecture: str, folder: Path) -> Facts:
    """What the config.json of a folder says of its weights, in timm's words."""
    source = folder / "config.json"
    try:
        config = json.loads(source.read_bytes())
        of, stated = config.get("architecture"), config.get("pretrained_cfg", config)
        known = {name: stated[name] for name in _STATED if stated.get(name) is not None}
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"{source} is no configuration of timm") from error
    if of and of != architecture.partition(".")[0]:
        raise InvalidInput(f"{folder} holds {of}, not {architecture}", f"name it timm:{of}@{folder}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}


def _with_hub(architecture: str, size: int | None) -> Module:
    """Load the hub's weights, from its cache where they are there."""
    remedy = f"bring their file and name it: timm:{architecture}@FILE"
    with fetching(f"the weights of {architecture}", remedy):
        module: Module = timm.create_model(
            architecture, pretrained=True, **_size_argument(architecture, size)
        )
    return module


def open_checkpoint(source: str, wanted: Wanted, identity: str) -> Network:
    """A network of timm that `pretrain` wrote, or its untrained twin."""
    checkpoint = read_checkpoint(source)
    model = checkpoint.record.model or {}
    architecture, own = of_record(model, source)
    preprocessing = resized(own, wanted.size)
    num_classes = len(checkpoint.record.classes or ())
    module = build(architecture, num_classes, preprocessing.size, wanted.seed)
    if wanted.random_init:
        twin = {"name": architecture, "architecture": architecture, "seed": wanted.seed}
        return _network(module, preprocessing, wanted, {**twin, "identity": identity})
    try:
        module.load_state_dict(checkpoint.weights, strict=True)
    except RuntimeError as error:
        raise InvalidInput(f"{source} does not fit {architecture}: {brief(error)}") from error
    known = {**model, "identity": identity}
    return _network(module, preprocessing, wanted, known, checkpoint.record)
