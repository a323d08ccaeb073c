"""The `nml` record that every product carries, and the identity that says what made it.

An identity is a hash of the command, its revision, the options that change the result and the
identities of the inputs: it is known before the work is done, so `--reuse` can compare it. Nothing
here holds a time, a host, a user or a path. Where a record is stored is the formats' business.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.version import __version__

FORMAT = 1
KEY = "nml"  # the metadata key, dataset name and file suffix under which a record is stored
KINDS = ("labels", "checkpoint", "features", "head", "spectrum")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """What a product is and what it came from. `None` means not known or does not apply.

    kind: one of KINDS. identity: see identity_of. command: the command's name. options: those that
    change the result. classes: names, in the order of the labels' numbers. data: the samples' set,
    {name, task, domain, split, identity}. model: the network, {name, identity, preprocessing,
    layer, seed, objective, data, noise, …}, where data and noise are those of its pre-training.
    noise: of the labels, {kind, requested, realised, flipped, of, seed, draw}; None is not known,
    realised 0 known to be clean. parents: {kind, identity, command} of all products it came from.
    extra: what only one kind has (a head's method, the files it was chosen on).
    """

    kind: str
    identity: str
    command: str
    options: Facts = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    rows: int | None = None
    columns: int | None = None
    data: Facts | None = None
    model: Facts | None = None
    noise: Facts | None = None
    parents: tuple[Facts, ...] = ()
    extra: Facts = field(default_factory=dict)
    version: str = __version__
    format: int = FORMAT

    def to_json(self) -> str:
        """The record as one line of JSON, the same bytes for the same record."""
        return canonical(asdict(self))

    def as_parent(self) -> Facts:
        """What a product made from this one remembers of it."""
        return {"kind": self.kind, "identity": self.identity, "command": self.command}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spare spaces, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def identity_of(command: str, revision: int, options: Facts, inputs: Iterable[str]) -> str:
    """The identity of what a command makes of inputs (their identities, in order): 32 hex digits."""
    made_of = {"command": command, "revision": revision, "options": options, "inputs": list(inputs)}
    try:
        return hashlib.sha256(canonical(made_of).encode()).hexdigest()[:32]
    except ValueError as error:
        raise UsageError(
            f"{_odd(options)} is infinite or not a number", "give finite numbers"
        ) from error


def _odd(options: Facts) -> str:
    """The option whose value JSON has no word for."""
    for name, value in options.items():
        try:
            canonical(value)
        except ValueError:
            return _odd(value) if isinstance(value, dict) else f"--{name.replace('_', '-')}"
    return "an option"


def hash_file(path: str | Path) -> str:
    """The identity of a foreign file: a hash of its bytes, 32 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def chain(*records: Record | None) -> tuple[Facts, ...]:
    """The parents of a product made from these: each record and its own parents, once each."""
    seen: dict[str, Facts] = {}
    for record in records:
        if record is not None:
            for parent in (record.as_parent(), *record.parents):
                seen.setdefault(parent["identity"], parent)
    return tuple(seen.values())


def layer_of(model: Facts) -> str | None:
    """What features are of a network: its tower, if it has two, the layer, and how it is pooled."""
    return " ".join(str(model[key]) for key in ("input", "layer", "pool") if model.get(key)) or None


def parse_record(text: str | bytes, source: str) -> Record:
    """Read a record from its JSON. Raises InvalidInput, naming source, where it is damaged."""
    try:
        values = json.loads(text)
        canonical(values).encode()  # neither NaN nor half characters, which could not be written again
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{source}: its nml record is not JSON") from error
    if not isinstance(values, dict) or values.get("kind") not in KINDS:
        raise InvalidInput(f"{source}: its nml record names no kind that is known")
    if values.get("format") != FORMAT:
        raise InvalidInput(
            f"{source}: its nml record has format {values.get('format')}, not {FORMAT}",
            "read it with the version that wrote it",
        )
    try:
        return _checked(values)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{source}: its nml record is damaged ({error})") from error


def _checked(values: dict[str, Any]) -> Record:
    missing = [name for name in Record.__dataclass_fields__ if name not in values]
    if missing:
        raise ValueError(f"no {missing[0]}")
    known = {name: values[name] for name in Record.__dataclass_fields__}
    for name, kinds in (
        ("identity", str), ("command", str), ("version", str), ("options", dict), ("extra", dict),
        ("parents", list), ("classes", list | None), ("rows", int | None), ("columns", int | None),
        ("data", dict | None), ("model", dict | None), ("noise", dict | None),
    ):  # fmt: skip
        if not isinstance(known[name], kinds) or isinstance(known[name], bool):
            raise TypeError(f"{name} is {type(known[name]).__name__}")
    if min(known["rows"] or 0, known["columns"] or 0) < 0:
        raise ValueError("rows and columns below zero")
    if known["classes"] is not None:
        if not all(isinstance(name, str) for name in known["classes"]):
            raise TypeError("classes are not all text")
        if len(set(known["classes"])) != len(known["classes"]):
            raise ValueError("a class is named twice")
        known["classes"] = tuple(known["classes"])
    for parent in known["parents"]:
        if not isinstance(parent, dict) or not all(isinstance(value, str) for value in parent.values()):
            raise TypeError("a parent is not told in text")
        if not {"kind", "identity", "command"} <= parent.keys():
            raise ValueError("a parent lacks its kind, identity or command")
    known["parents"] = tuple(known["parents"])
    return Record(**known)
