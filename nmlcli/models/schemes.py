"""SCHEMES: the ways to name a network, and how each is opened."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.provenance import Record, hash_file, identity_of

if TYPE_CHECKING:
    from torch.nn import Module

    from nmlcli.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode.

    facts: what records of its features say of it (`model` in a Record), identity included. record:
    of the checkpoint that it was read from, if it was one of ours.
    """

    module: "Module"
    preprocessing: "Preprocessing"
    facts: dict[str, Any]
    record: Record | None = None


@dataclass(frozen=True)
class Wanted:
    """How a network is wanted: its images' size (None: its own), with weights or drawn from a seed."""

    size: int | None = None
    random_init: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Scheme:
    """identify: a name to the network's identity and files, unbuilt. open: with that identity, to the
    network."""

    help: str
    identify: Callable[[str, Wanted], tuple[str, tuple[Path, ...]]]
    open: Callable[[str, Wanted, str], Network]


def _identify_timm(name: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    architecture, weights = split_timm(name)
    if wanted.random_init:
        options = {"name": architecture, "random_init": True, "seed": wanted.seed}
        return identity_of("timm", 1, options, []), ()
    if weights is None:
        from nmlcli.models.networks import tagged

        return identity_of("timm", 1, {"name": tagged(architecture)}, []), ()
    return identity_of("timm", 1, {"name": architecture}, [hash_file(weights)]), (weights,)


def _open_timm(name: str, wanted: Wanted, identity: str) -> Network:
    from nmlcli.models.networks import open_timm

    return open_timm(*split_timm(name), wanted, identity)


def split_timm(name: str) -> tuple[str, Path | None]:
    """A name and a file of weights from `NAME[@FILE]`. Raises InvalidInput where that is missing."""
    architecture, at, file = name.partition("@")
    if at and not Path(file).is_file():
        raise InvalidInput(f"there is no file of weights {file!r}")
    return architecture, Path(file) if at else None


def _identify_checkpoint(source: str, wanted: Wanted) -> tuple[str, tuple[Path, ...]]:
    from nmlcli.products.formats import read_record

    if not Path(source).is_file():
        remedy = "name a file, or a network of timm as timm:NAME"
        raise InvalidInput(f"there is no checkpoint {source}", remedy)
    record = read_record(source)
    if record is None:
        raise InvalidInput(f"{source} has no nml record", f"name its architecture: timm:NAME@{source}")
    if record.kind != "checkpoint":
        raise InvalidInput(f"{source} holds {record.kind}, not a checkpoint")
    if not wanted.random_init:
        return record.identity, (Path(source),)
    options = {"architecture": (record.model or {}).get("architecture"), "seed": wanted.seed}
    return identity_of("checkpoint", 1, {**options, "random_init": True}, []), (Path(source),)


def _open_checkpoint(source: str, wanted: Wanted, identity: str) -> Network:
    from nmlcli.models.networks import open_checkpoint

    return open_checkpoint(source, wanted, identity)


_TIMM = "timm:NAME (weights of the hub), timm:NAME@FILE (weights of a file)"
_FILE = "FILE.safetensors, a checkpoint of nml pretrain"
SCHEMES = {
    "timm:": Scheme(_TIMM, _identify_timm, _open_timm),
    "FILE": Scheme(_FILE, _identify_checkpoint, _open_checkpoint),
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
