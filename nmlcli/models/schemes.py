"""SCHEMES: the ways to name a network, and how each is opened."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.provenance import Facts, Record, hash_file, identity_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from nmlcli.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode, and how features are had of it.

    preprocessing: what happens to a sample first. encode: a batch of samples, on the network's
    device, to features [B, D]. facts: what records of its features say of it (`model` in a Record),
    identity, layer and preprocessing included. record: of the checkpoint that it was read from, if it
    was one of ours.
    """

    module: "Module"
    preprocessing: "Preprocessing | Tokenizer"
    encode: "Callable[[Any], Tensor]"
    facts: dict[str, Any]
    record: Record | None = None


class Tokenizer(Protocol):
    """What makes tokens of texts."""

    def __call__(self, texts: Sequence[str], texts2: Sequence[str] | None) -> list[Any]:
        """The tokens of each text, or of each pair of texts; `len` tells how many."""

    def batch(self, tokens: Sequence[Any]) -> "dict[str, Tensor]":
        """Tokens of B texts as tensors [B, T], T that of the longest, padded on the right."""

    def facts(self) -> Facts:
        """What a record says of it."""


@dataclass(frozen=True)
class Wanted:
    """How a network is wanted: its images' size (None: its own), with weights or drawn from a seed.

    layer, pool: of what and how features are made, None: as the network's scheme has it. texts: its
    tower for texts, of a network that has both.
    """

    size: int | None = None
    random_init: bool = False
    seed: int = 0
    layer: str | None = None
    pool: str | None = None
    texts: bool = False


@dataclass(frozen=True)
class Scheme:
    """identify: a name to the network's identity and files, unbuilt. open: with that identity, to the
    network. takes: a name to what its network takes, "images", "texts" or both."""

    help: str
    identify: Callable[[str, Wanted], tuple[str, tuple[Path, ...]]]
    open: Callable[[str, Wanted, str], Network]
    takes: Callable[[str], tuple[str, ...]] = lambda name: ("images",)


def _identify_timm(name: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    architecture, weights = split_timm(name)
    if wanted.random_init:
        options = {"name": architecture, "random_init": True, "seed": wanted.seed}
        return identity_of("timm", 1, options, []), ()
    if weights is None:
        from nmlcli.models.networks import tagged

        return identity_of("timm", 1, {"name": tagged(architecture)}, []), ()
    files = (weights_of(weights), *([weights / "config.json"] if weights.is_dir() else []))
    return identity_of("timm", 1, {"name": architecture}, map(hash_file, files)), files


def _open_timm(name: str, wanted: Wanted, identity: str) -> Network:
    from nmlcli.models.networks import open_timm

    return open_timm(*split_timm(name), wanted, identity)


def split_timm(name: str) -> tuple[str, Path | None]:
    """A name and weights from `NAME[@FILE]` or `NAME[@DIR]`. Raises InvalidInput where they are
    missing."""
    architecture, at, file = name.partition("@")
    if at and not (file and Path(file).exists()):
        raise InvalidInput(f"there is no file of weights {file!r}")
    return architecture, Path(file) if at else None


def weights_of(place: Path) -> Path:
    """The file of weights: itself, or that of a folder as the hub holds it.

    Raises InvalidInput for a folder that lacks it, or config.json.
    """
    if not place.is_dir():
        return place
    names = ("model.safetensors", "pytorch_model.bin")
    found = [place / name for name in names if (place / name).is_file()]
    if not found or not (place / "config.json").is_file():
        missing = "no config.json" if found else "no weights"
        raise InvalidInput(f"{place} holds {missing}", f"bring config.json and {' or '.join(names)}")
    return found[0]


def _identify_clip(name: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    architecture, tag, weights = split_clip(name)
    config = Path(architecture) if architecture.endswith(".json") else None
    given = (config, None if wanted.random_init else weights)
    files = tuple(file for file in given if file is not None)
    options = {"name": config.stem if config else architecture, "tag": tag}
    drawn = {"random_init": True, "seed": wanted.seed} if wanted.random_init else {}
    return identity_of("open_clip", 1, {**options, **drawn}, map(hash_file, files)), files


def _open_clip(name: str, wanted: Wanted, identity: str) -> Network:
    from nmlcli.models.clip import open_clip_network

    return open_clip_network(*split_clip(name), wanted, identity)


def split_clip(name: str) -> tuple[str, str | None, Path | None]:
    """An architecture or the file of its configuration, a tag and a file of weights, from
    `ARCH[/TAG][@FILE]`. Raises InvalidInput where a file is missing."""
    source, weights = split_timm(name)
    if weights is not None and weights.is_dir():
        raise InvalidInput(f"{weights} is a folder", "name its file of weights")
    if source.endswith(".json"):
        if not Path(source).is_file():
            raise InvalidInput(f"there is no configuration {source!r}")
        return source, None, weights
    architecture, _, tag = source.partition("/")
    return architecture, tag or None, weights


def _identify_checkpoint(source: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    record = _record_of(source)
    if not wanted.random_init:
        return record.identity, (Path(source),)
    model = record.model or {}
    options = {"architecture": model.get("architecture"), "seed": wanted.seed, "random_init": True}
    options |= {"config": model["config"]} if "config" in model else {}
    return identity_of("checkpoint", 1, options, []), (Path(source),)


def _record_of(source: str) -> Record:
    """The record of a checkpoint; raises InvalidInput where there is none."""
    from nmlcli.products.formats import read_record

    if not Path(source).is_file():
        remedy = "name a file, or a network of timm as timm:NAME"
        raise InvalidInput(f"there is no checkpoint {source}", remedy)
    record = read_record(source)
    if record is None:
        raise InvalidInput(f"{source} has no nml record", f"name its architecture: timm:NAME@{source}")
    if record.kind != "checkpoint":
        raise InvalidInput(f"{source} holds {record.kind}, not a checkpoint")
    return record


def _open_checkpoint(source: str, wanted: Wanted, identity: str) -> Network:
    if _checkpoint_takes(source) == _BOTH:
        from nmlcli.models.clip import open_clip_checkpoint

        return open_clip_checkpoint(source, wanted, identity)
    from nmlcli.models.networks import open_checkpoint

    return open_checkpoint(source, wanted, identity)


def _checkpoint_takes(source: str) -> tuple[str, ...]:
    """Both where it is of open_clip, whose configuration the record then holds."""
    return _BOTH if "config" in (_record_of(source).model or {}) else ("images",)


def _identify_hf(name: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    facts: dict[str, Any] = {"random_init": True, "seed": wanted.seed} if wanted.random_init else {}
    if name and Path(name).is_dir():
        files = _hf_files(Path(name), not wanted.random_init)
        facts["files"] = [file.name for file in files]
        return identity_of("hf", 1, facts, map(hash_file, files)), files
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InvalidInput(f"there is no folder {name!r}", "name a folder, or a network of the hub")
    return identity_of("hf", 1, {**facts, "name": name}, []), ()


def _hf_files(folder: Path, weights: bool) -> tuple[Path, ...]:
    """The files of a folder that decide the features: configuration, tokenizer and weights, of which
    transformers takes safetensors before all else. Raises InvalidInput where some are missing."""
    files = [file for form in ("*.json", "*.txt", "*.model") for file in folder.glob(form)]
    if not (folder / "config.json").is_file():
        raise InvalidInput(f"{folder} holds no config.json", "name the folder of a network of texts")
    if not any(re.match(r"(tokenizer|vocab)\.|.*\.model$", file.name) for file in files):
        raise InvalidInput(f"{folder} holds no tokenizer", "bring tokenizer.json, or its vocabulary")
    if weights:
        found = [*folder.glob("model*.safetensors")] or [*folder.glob("pytorch_model*.bin")]
        if not found:
            raise InvalidInput(f"{folder} holds no weights", "bring model.safetensors")
        files += found
    return tuple(sorted(files))


def _open_hf(name: str, wanted: Wanted, identity: str) -> Network:
    from nmlcli.models.text import open_hf

    return open_hf(name, wanted, identity)


_BOTH = ("images", "texts")
_TIMM = "timm:NAME (weights of the hub), timm:NAME@FILE (of a file, or a folder like the hub's)"
_CLIP = "open_clip:ARCH/TAG (of the hub), open_clip:ARCH@FILE, open_clip:ARCH/TAG@FILE"
_HF = "hf:NAME (texts; of the hub), hf:DIR (its folder)"
_FILE = "FILE.safetensors, a checkpoint of nml pretrain"
SCHEMES = {
    "timm:": Scheme(_TIMM, _identify_timm, _open_timm),
    "open_clip:": Scheme(_CLIP, _identify_clip, _open_clip, lambda name: _BOTH),
    "hf:": Scheme(_HF, _identify_hf, _open_hf, lambda name: ("texts",)),
    "FILE": Scheme(_FILE, _identify_checkpoint, _open_checkpoint, _checkpoint_takes),
}


def _find(spec: str) -> tuple[Scheme, str]:
    prefix, colon, rest = spec.partition(":")
    if prefix + colon in SCHEMES and colon:
        return SCHEMES[prefix + colon], rest
    if colon and re.fullmatch("[a-z_]+", prefix) and not Path(spec).exists():
        known = [name for name in SCHEMES if name.endswith(":")]
        near = get_close_matches(prefix + colon, known) or known
        raise UsageError(f"no networks are named {prefix}:…", f"did you mean {near[0]}{rest}?")
    return SCHEMES["FILE"], spec


def takes(spec: str) -> tuple[str, ...]:
    """What a network takes: "images", "texts" or both."""
    scheme, rest = _find(spec)
    return scheme.takes(rest)


def identify_network(spec: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    """The identity of a network and the files it is read from, without building it."""
    scheme, rest = _find(spec)
    return scheme.identify(rest, wanted)


def open_network(spec: str, wanted: Wanted) -> Network:
    """Build a network and load its weights (never anything but weights).

    Raises UsageError for an unknown name, InvalidInput for a file that is missing or does not fit.
    """
    scheme, rest = _find(spec)
    return scheme.open(rest, wanted, scheme.identify(rest, wanted)[0])
