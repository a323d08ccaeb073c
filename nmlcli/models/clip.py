"""Networks of open_clip: the tower for images or that for texts, with what comes before it, and both
as a whole to be trained."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import open_clip
import torch
from open_clip.factory import load_state_dict
from torch import Tensor
from torch.nn import Identity, Linear, Module

from nmlcli import keyed
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models.clip_tokens import ClipTokenizer
from nmlcli.models.hub import brief, fetching
from nmlcli.models.layers import tap
from nmlcli.models.networks import UNFIT, pre_logits
from nmlcli.models.preprocessing import Preprocessing, of_record, resized
from nmlcli.models.schemes import Network, Wanted
from nmlcli.products.formats import read_record
from nmlcli.provenance import Facts, Record, identity_of

# A network, what makes features [B, D] of a batch, and what a record says of that.
Tower = tuple[Module, Callable[[Any], Tensor], Facts]
PROJECTED, BEFORE = "projection", "pre_projection"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_STATED = ("mean", "std", "interpolation", "resize_mode")
_ODD = (
    OSError,
    AssertionError,
    AttributeError,
    StopIteration,
    ZeroDivisionError,
)  # what open_clip raises besides
_ONCE = "run it once where the hub can be reached"
# How open_clip resizes, and how timm names the same; at crop_pct 1 their pixels are equal.
_MODES = {"shortest": "center", "squash": "squash"}
# The sets for pre-training that tags begin with, or name as what they were fine-tuned from.
_SETS = re.compile(
    r"laion(\d+[bm]|_aesthetic)|yfcc15m|cc12m|datacomp(1b|_(s|m|l|xl)(?=_|$))|merged2b|webli|dfn\d+b"
    r"|commonpool_(s|m|l|xl)(_(clip|laion|image|text|basic))?|metaclip_(400m|fullcc)"
)


@dataclass(frozen=True)
class _Architecture:
    """name: by which open_clip knows it. label: by which we do. tag: of its weights. config: of its
    towers. stated: what is known of its preprocessing and activation."""

    name: str
    label: str
    tag: str | None
    config: dict[str, Any]
    stated: dict[str, Any]

    @property
    def texts(self) -> dict[str, Any]:
        """The configuration of its tower for texts."""
        found: dict[str, Any] = self.config["text_cfg"]
        return found


@dataclass(frozen=True)
class ClipNetwork:
    """A whole network to be trained.

    module: open_clip's, with encode_image, encode_text and logit_scale, in training mode. label: its
    architecture, for records. config: open_clip's configuration, by which it is built again.
    """

    module: Module
    label: str
    config: Facts
    preprocessing: Preprocessing
    tokenizer: ClipTokenizer


def open_clip_network(
    source: str, tag: str | None, weights: Path | None, wanted: Wanted, identity: str
) -> Network:
    """A tower of a network by open_clip's name or the file of its configuration.

    tag: of weights of the hub, or, with a file, of what is known of them. Features are by default the
    projected embedding, not normalised. Raises UsageError for an unknown name, InvalidInput for files
    that cannot be read or do not fit, NmlError where the hub is wanted and cannot be reached.
    """
    with _silence():
        known = _architecture(source, tag)
        if not (tag or weights or wanted.random_init):
            tags = _tags(source)
            tagged = f"{source}/TAG ({tags}), " if tags else ""
            remedy = f"give {tagged}{source}@FILE or --random-init"
            raise UsageError(f"open_clip:{source} names no weights", remedy)
        drawn = wanted.random_init
        other = {"multimodal_cfg", "init_logit_bias"} & known.config.keys()
        contrastive = tag is not None and not other
        data = _SETS.search(tag or "")
        facts = {
            "name": f"{known.label}/{tag}" if tag else known.label, "architecture": known.label,
            "objective": "clip" if contrastive and not drawn else None,
            "data": {"name": data[0]} if data and not drawn else None, "noise": None,
            "seed": wanted.seed if drawn else None, "identity": identity,
        }  # fmt: skip
        return _tower(known, weights, wanted, facts)


def open_clip_checkpoint(source: str, wanted: Wanted, identity: str) -> Network:
    """A tower of a network that was trained as `build_clip` builds it, or of its untrained twin.

    Raises UsageError for a layer that it has not, InvalidInput where the record does not say how to
    build it or the weights do not fit.
    """
    record = read_record(source)
    model = (record.model if record else None) or {}
    label, own = of_record(model, source)
    facts = {key: value for key, value in model.items() if key != "config"}
    if wanted.random_init:
        unknown = dict.fromkeys(("objective", "data", "noise"))
        record, facts = None, {**unknown, "name": label, "architecture": label, "seed": wanted.seed}
    with _silence():
        known = _configured(label, model.get("config"), {}, source)
        facts |= {"identity": identity}
        return _tower(known, Path(source), wanted, facts, own, record)


def _tower(
    known: _Architecture, weights: Path | None, wanted: Wanted, facts: Facts,
    own: Preprocessing | None = None, record: Record | None = None,
) -> Network:  # fmt: skip
    """A tower in evaluation mode. facts: what else a record says of it. own: the preprocessing of its
    images, None: as open_clip states it."""
    if wanted.texts and wanted.size is not None:
        raise UsageError("a tower for texts takes no images", "leave out --size")
    model = _model(known, weights, wanted)
    tower: Tower = (_texts if wanted.texts else _images)(model, known.label, wanted)
    module, encode, taken = tower
    preprocessing: Preprocessing | ClipTokenizer
    if wanted.texts:
        preprocessing = _tokenizer(known)
    else:
        preprocessing = resized(own, wanted.size) if own else _preprocessing(module, known.label)
    facts = {
        **facts, "input": "texts" if wanted.texts else "images", **taken,
        "preprocessing": preprocessing.facts(),
    }  # fmt: skip
    return Network(module.eval(), preprocessing, encode, facts, record)


def build_clip(architecture: str, size: int | None, seed: int) -> ClipNetwork:
    """Build a whole network to be trained, its initial values decided by the seed alone.

    architecture: open_clip's name, or the file of a configuration (.json). size: of its images in
    pixels, None: its own. Raises UsageError for an unknown name and for what the contrastive loss does
    not train, InvalidInput for a file that is no configuration.
    """
    with _silence():
        known = _architecture(architecture, None)
        _require_contrastive(known)
        module = _model(known, None, Wanted(size, random_init=True, seed=seed))
        preprocessing = _preprocessing(module.visual, known.label)
        config = deepcopy(known.config)
        config["vision_cfg"]["image_size"] = preprocessing.size
        tokenizer = _tokenizer(known)
        tokenizer.check_fits(cast(Any, module).vocab_size, known.label)
        return ClipNetwork(module, known.label, config, preprocessing, tokenizer)


def _require_contrastive(known: _Architecture) -> None:
    """Raise UsageError for a network that is trained by another loss too, or is in part of the hub."""
    texts = known.texts
    reasons = {
        "learns to write captions too (CoCa)": "multimodal_cfg" in known.config,
        "is for a loss of another kind (SigLIP)": known.config.get("init_logit_bias") is not None,
        "reads texts by transformers": texts.get("hf_model_name") or texts.get("hf_tokenizer_name"),
    }
    for reason, found in reasons.items():
        if found:
            raise UsageError(f"{known.label} {reason}", "take a plain CLIP, such as ViT-B-32 or RN50")


@contextmanager
def _silence() -> Iterator[None]:
    """open_clip speaks through the root logger, which would set itself up for standard error where
    nobody did; who set it up still hears all."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)
    try:
        yield
    finally:
        root.removeHandler(nowhere)


def _architecture(source: str, tag: str | None) -> _Architecture:
    """An architecture by open_clip's name or the file of its configuration, with what a tag states."""
    if source.endswith(".json"):
        return _of_file(Path(source))
    if source not in open_clip.list_models():
        near = get_close_matches(source, open_clip.list_models(), n=3)
        remedy = (
            f"did you mean {', '.join(near)}?" if near else "open_clip.list_models() names them all"
        )
        raise UsageError(f"open_clip has no network {source!r}", remedy)
    tags = open_clip.list_pretrained_tags_by_model(source)
    if tag is not None and tag not in tags:
        near = get_close_matches(tag, tags, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"its tags: {_tags(source) or 'none'}"
        raise UsageError(f"open_clip has no weights {source}/{tag}", remedy)
    stated = open_clip.get_pretrained_cfg(source, tag) if tag else {}
    return _Architecture(source, source, tag, open_clip.get_model_config(source), stated)


def _tags(name: str) -> str:
    return ", ".join(open_clip.list_pretrained_tags_by_model(name)[:5])


def _of_file(source: Path) -> _Architecture:
    """An architecture from a file of open_clip's, alone or as the hub has it, with preprocessing."""
    if not source.is_file():
        raise InvalidInput(f"there is no configuration {str(source)!r}")
    try:
        read = json.loads(source.read_bytes())
        config, stated = read.get("model_cfg", read), dict(read.get("preprocess_cfg") or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{source} is no configuration of open_clip") from error
    return _configured(source.stem, config, stated, str(source))


def _configured(label: str, config: Any, stated: dict[str, Any], source: str) -> _Architecture:
    """An architecture by its configuration, which open_clip gets to know under a name of its own, so
    that none of its networks becomes another one."""
    towers = config.keys() & {"vision_cfg", "text_cfg"} if isinstance(config, dict) else ()
    if len(towers) < 2 or "embed_dim" not in config:
        raise InvalidInput(f"{source} lacks embed_dim, vision_cfg or text_cfg")
    if not all(isinstance(config[tower], dict) for tower in towers):
        raise InvalidInput(f"{source} is no configuration of open_clip")
    name = f"{Path(label).name}-{identity_of('configuration', 1, config, ())}"
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.json")
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
    return _Architecture(name, label, None, config, stated)


def _of_transformers(known: _Architecture, name: str | None) -> bool:
    """Whether a part must be fetched for transformers, in whose names it is; raises NmlError where they
    are not there."""
    if name and find_spec("transformers") is None:
        raise NmlError(f"{known.label} needs transformers", 'pip install "nmlcli[text]"')
    return bool(name) and not Path(str(name)).is_dir()


def _model(known: _Architecture, weights: Path | None, wanted: Wanted) -> Any:
    """The whole network: drawn from a seed, or with weights of a file or the hub, loaded strictly."""
    if weights is not None and weights.suffix not in _SUFFIXES:
        raise InvalidInput(f"{weights} is no file of weights", f"bring {', '.join(_SUFFIXES)}")
    file = None if wanted.random_init else weights
    tag = None if wanted.random_init or file else known.tag
    hub: Any = nullcontext()
    remote = _of_transformers(known, known.texts.get("hf_model_name"))
    if remote:
        hub = fetching(f"the text tower of {known.label}", _ONCE)
    elif tag:
        remedy = f"bring their file and name it: open_clip:{known.label}/{tag}@FILE"
        hub = fetching(f"the weights of {known.label}/{tag}", remedy)
    torch.manual_seed(keyed.scalar(wanted.seed, "init"))
    with hub:
        try:
            return open_clip.create_model(
                known.name, str(file) if file else tag, pretrained_hf=False,
                force_image_size=wanted.size,
                # open_clip only warns where a tag was trained with another activation.
                force_quick_gelu=bool(known.stated.get("quick_gelu")),
                force_preprocess_cfg={key: known.stated[key] for key in _STATED if key in known.stated},
            )  # fmt: skip
        except (*UNFIT, *_ODD) as error:
            unreached = (RuntimeError, OSError) if tag else OSError
            if (tag or remote) and isinstance(error, unreached):
                raise
            raise _unfit(known.label, file, error) from error


def _unfit(label: str, file: Path | None, error: Exception) -> NmlError:
    if file is None:
        return UsageError(f"open_clip cannot build {label}: {brief(error)}")
    try:
        load_state_dict(str(file))
    except (*UNFIT, *_ODD):
        remedy = "bring safetensors, or a state dict and nothing else"
        return InvalidInput(f"{file} holds no weights that can be read safely", remedy)
    return InvalidInput(f"{file} does not fit {label}: {brief(error)}")


def _images(model: Any, label: str, wanted: Wanted) -> Tower:
    """The tower for images alone, so that memory holds no other."""
    visual = model.visual
    if wanted.layer not in (None, PROJECTED, BEFORE):
        pool = wanted.pool or "mean"
        return visual, tap(visual, wanted.layer, pool), {"layer": wanted.layer, "pool": pool}
    _refuse_pool(wanted)
    unprojected = _before(visual, label) if wanted.layer == BEFORE else visual

    def encode(images: Tensor) -> Tensor:
        found = unprojected(images)  # CoCa gives tokens besides
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features

    return visual, encode, {"layer": wanted.layer or PROJECTED}


def _before(visual: Any, label: str) -> Callable[[Tensor], Any]:
    """The tower for images up to its projection, which it loses."""
    if hasattr(visual, "trunk"):  # of timm: the projection is in its head, or is its classifier
        inside = dict(visual.head.named_children())
        if "pool" in inside or not (inside or visual.trunk.num_classes):
            raise UsageError(f"{label} has no projection of its own", "leave out --layer")
        return pre_logits(visual.trunk)
    if hasattr(visual, "attnpool"):  # its attention multiplies by the projection's weight itself
        width = visual.attnpool.c_proj.in_features
        identity = Linear(width, width, device="cpu")
        torch.nn.init.eye_(identity.weight)
        torch.nn.init.zeros_(identity.bias)
        visual.attnpool.c_proj = identity
    else:
        visual.proj = None
    return visual  # type: ignore[no-any-return]


def _texts(model: Any, label: str, wanted: Wanted) -> Tower:
    """The network without its tower for images."""
    if wanted.layer not in (None, PROJECTED, BEFORE):
        raise UsageError(
            f"the tower for texts has no layer {wanted.layer!r}", f"take {PROJECTED} or {BEFORE}"
        )
    _refuse_pool(wanted)
    tower, model.visual = getattr(model, "text", model), None
    if wanted.layer == BEFORE:
        place = "text_projection" if hasattr(tower, "text_projection") else "proj"
        if isinstance(getattr(tower, place), Identity | None):
            raise UsageError(f"the tower of {label} for texts has no projection", "leave out --layer")
        setattr(tower, place, None if place == "text_projection" else Identity())

    def encode(batch: dict[str, Tensor]) -> Tensor:
        features: Tensor = model.encode_text(batch["tokens"], normalize=False)
        return features

    return model, encode, {"layer": wanted.layer or PROJECTED}


def _refuse_pool(wanted: Wanted) -> None:
    if wanted.pool is not None:
        raise UsageError("an embedding is pooled already", "name a --layer, or leave out --pool")


def _preprocessing(visual: Any, label: str) -> Preprocessing:
    """What open_clip makes of an image for a tower, in our words."""
    stated = visual.preprocess_cfg
    size = stated["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UsageError(f"{label} takes images of {height} × {width}", "give --size")
    mode = stated["resize_mode"]
    if mode not in _MODES:
        raise UsageError(
            f"{label} resizes images by {mode!r}", f"only {' and '.join(_MODES)} are known"
        )
    interpolation = "bilinear" if stated["interpolation"] == "bilinear" else "bicubic"
    mean, std = tuple(stated["mean"]), tuple(stated["std"])
    if len(mean) != 3 or len(std) != 3:
        raise UsageError(f"{label} states no mean and std of three colours", "give three numbers each")
    return Preprocessing(height, mean, std, interpolation, 1.0, _MODES[mode])


def _tokenizer(known: _Architecture) -> ClipTokenizer:
    remote = _of_transformers(known, known.texts.get("hf_tokenizer_name"))
    with fetching(f"the tokenizer of {known.label}", _ONCE) if remote else nullcontext():
        return ClipTokenizer(open_clip.get_tokenizer(known.name))
