"""Networks of timm: built by name, drawn from a seed or with weights from a file or the hub."""

import os
import pickle
import socket
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub.constants
import timm
import torch
from safetensors import SafetensorError
from torch.nn import Module

from nmlcli import keyed
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models.preprocessing import Preprocessing, of_timm, resized
from nmlcli.models.schemes import Network, Wanted
from nmlcli.products.formats import read_checkpoint
from nmlcli.provenance import Facts, Record

_UNFIT = (
    RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError, SafetensorError, EOFError,
)  # fmt: skip


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


def build(architecture: str, num_classes: int, size: int | None, seed: int) -> Module:
    """Build a network without weights, its initial values decided by the seed alone.

    size: of its images, in pixels. Raises UsageError where timm has no such network, or where it
    cannot take that size.
    """
    require_architecture(architecture)
    torch.manual_seed(keyed.scalar(seed, "init"))
    sized = _size_argument(architecture, size)
    try:
        module: Module = timm.create_model(architecture, num_classes=num_classes, **sized)
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
    """A network by timm's name: drawn from a seed, with a file's weights, or with the hub's."""
    require_architecture(architecture)
    if wanted.random_init:
        module = build(architecture, 0, wanted.size, wanted.seed)
    elif weights is not None:
        module = _with_file(architecture, weights, wanted.size)
    else:
        module = _with_hub(architecture, wanted.size)
    name = architecture if wanted.random_init or weights else tagged(architecture)
    facts = {"name": name, "architecture": architecture.partition(".")[0]}
    seed = wanted.seed if wanted.random_init else None
    return _network(module, of_timm(module, wanted.size), identity, {**facts, "seed": seed})


def _network(
    module: Module,
    preprocessing: Preprocessing,
    identity: str,
    known: Facts,
    record: Record | None = None,
) -> Network:
    """A network in evaluation mode; known: what else a record says of it, its pre-training if any."""
    unknown = dict.fromkeys(("objective", "data", "noise"))
    taken = {"identity": identity, "layer": "pre_logits", "preprocessing": preprocessing.facts()}
    return Network(module.eval(), preprocessing, {**unknown, **known, **taken}, record)


def _with_file(architecture: str, weights: Path, size: int | None) -> Module:
    """Load a file strictly, whatever its classifier: its width is the file's own.

    Strictness matters, since timm otherwise passes over every weight that is missing.
    """
    config = timm.get_pretrained_cfg(architecture)
    try:
        state = timm.models.load_state_dict(str(weights), weights_only=True)
        classifier = config.classifier if config is not None else None
        name = classifier if isinstance(classifier, str) else (classifier or ("",))[0]
        found = state.get(f"{name}.weight")
        widths = [found.shape[0]] if found is not None else [config.num_classes if config else 0, 0]
    except (*_UNFIT, OSError) as error:
        remedy = "bring safetensors, or a state dict and nothing else"
        raise InvalidInput(f"{weights} holds no weights that can be read safely", remedy) from error
    for width in widths:
        overlay = {"file": str(weights), "num_classes": width, "label_offset": 0}
        try:
            return timm.create_model(
                architecture, pretrained=True, num_classes=width, pretrained_cfg_overlay=overlay,
                **_size_argument(architecture, size),
            )  # fmt: skip
        except _UNFIT as error:
            unfit = error
    raise InvalidInput(f"{weights} does not fit {architecture}: {_brief(unfit)}") from unfit


def _with_hub(architecture: str, size: int | None) -> Module:
    """Load the hub's weights, from its cache where they are there."""
    reached = _hub_answers()
    if not reached:  # else huggingface_hub tries again and again for 40 seconds
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    sized = _size_argument(architecture, size)
    try:
        module: Module = timm.create_model(architecture, pretrained=True, **sized)
    except (OSError, RuntimeError) as error:
        why = _brief(error) if reached else "it cannot be reached"
        remedy = f"bring their file and name it: timm:{architecture}@FILE"
        wrong = f"the weights of {architecture} cannot be fetched from the hub ({why})"
        raise NmlError(wrong, remedy) from error
    return module


def _hub_answers() -> bool:
    """Whether the hub can be reached; taken as given where a proxy stands in between."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def open_checkpoint(source: str, wanted: Wanted, identity: str) -> Network:
    """A network that `pretrain` wrote, or its untrained twin."""
    checkpoint = read_checkpoint(source)
    model = checkpoint.record.model or {}
    try:
        architecture, values = str(model["architecture"]), model["preprocessing"]
        own = Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{source}: its record does not say how to build the network") from error
    preprocessing = resized(own, wanted.size)
    num_classes = len(checkpoint.record.classes or ())
    module = build(architecture, num_classes, preprocessing.size, wanted.seed)
    if wanted.random_init:
        twin = {"name": architecture, "architecture": architecture, "seed": wanted.seed}
        return _network(module, preprocessing, identity, twin)
    try:
        module.load_state_dict(checkpoint.weights, strict=True)
    except RuntimeError as error:
        raise InvalidInput(f"{source} does not fit {architecture}: {_brief(error)}") from error
    return _network(module, preprocessing, identity, model, checkpoint.record)


def _brief(error: BaseException) -> str:
    """The first two lines of another library's message, cut where it gets long."""
    text = " ".join(str(error).splitlines()[:2]).strip() or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"
