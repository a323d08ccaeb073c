"""WebDataset layout: members of a tar that share a key, `a/1.jpg a/1.cls a/1.txt`, are one sample.

What the members of one tar say together, and how the tars of a set become one; tars are listed in
archives. A key is a member's path up to the first dot of its base name.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.images import is_image
from nmlcli.data.tars import Member
from nmlcli.errors import InvalidInput, first
from nmlcli.products.ids import repeated
from nmlcli.products.labels import class_order, number

_LARGEST = 16 << 20  # bytes of a caption or a label; whatever is larger is something else


@dataclass(frozen=True)
class Companions:
    """What one tar says of its N images, in its order: keys [N], labels and texts [N] (None: none)."""

    keys: list[str]
    labels: list[str | None]
    texts: list[str | None]


def read_companions(archive: str, members: Sequence[Member], links: Sequence[str]) -> Companions | None:
    """Labels and captions of a tar's images, or None where no image has a companion of its key.

    members: its files, in order. links: names of what is no file there. Companions are `.cls`, `.txt`
    and `.json`, whose fields count where the others are missing. Raises InvalidInput for a key that
    repeats, a companion without an image, and one that is damaged, too large or of the wrong form.
    """
    keys: list[str] = []
    found: dict[str, dict[str, Member]] = {"cls": {}, "txt": {}, "json": {}}
    twice: list[str] = []
    for member in members:
        key, suffix = _split(member.name)
        if is_image(member.name):
            keys.append(key)
        elif suffix in found:
            if key in found[suffix]:
                twice.append(key)
            found[suffix][key] = member
    known = set(keys)
    linked = [name for name in links if _split(name)[0] in known and _split(name)[1] in found]
    if not linked and all(known.isdisjoint(of_kind) for of_kind in found.values()):
        return None
    if linked:
        raise InvalidInput(f"{archive} holds links in place of labels or captions ({first(linked)})")
    if again := [*repeated(keys), *twice]:
        raise InvalidInput(
            f"{archive} has keys with two files of one kind ({first(again)})", "keep one"
        )
    if alone := {key: 0 for of_kind in found.values() for key in of_kind if key not in known}:
        raise InvalidInput(f"{archive} has labels or captions without an image ({first([*alone])})")
    companions = Companions(keys, [], [])
    try:
        with Path(archive).open("rb", buffering=0) as file:
            for key in keys:
                own = {suffix: of_kind[key] for suffix, of_kind in found.items() if key in of_kind}
                label, text = _label_and_text(file, archive, own)
                companions.labels.append(label)
                companions.texts.append(text)
    except OSError as error:
        raise InvalidInput(f"{archive} cannot be read ({error.strerror})") from error
    return companions


def join_tars(
    source: str, archives: Sequence[str], tars: Sequence[Companions]
) -> tuple[list[str], NDArray[np.int64] | None, tuple[str, ...] | None, list[str] | None]:
    """Ids, labels, classes and texts of a set from all its tars; labels and texts None where no sample
    has one.

    Ids are keys; those that repeat get their tar's name. A missing text is empty. Raises InvalidInput,
    naming three samples, where only some have a label.
    """
    again = set(repeated([key for tar in tars for key in tar.keys]))
    ids = [
        f"{Path(archive).stem}/{key}" if key in again else key
        for archive, tar in zip(archives, tars, strict=True)
        for key in tar.keys
    ]
    names = [label for tar in tars for label in tar.labels]
    known = [label for label in names if label is not None]
    labels = classes = None
    if known:
        without = [name for name, label in zip(ids, names, strict=True) if label is None]
        if without:
            raise InvalidInput(f"{source}: some samples have labels, but not {first(without)}")
        classes = class_order(known)
        labels = number(known, classes, source)
    texts = [text for tar in tars for text in tar.texts]
    if all(text is None for text in texts):
        return ids, labels, classes, None
    return ids, labels, classes, [text or "" for text in texts]


def _split(name: str) -> tuple[str, str]:
    """A member's key and what follows the first dot; nothing follows in a hidden file's name."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower() if key else ""


def _label_and_text(
    file: BinaryIO, archive: str, own: "dict[str, Member]"
) -> tuple[str | None, str | None]:
    """The label and the caption of one sample from its companions, by their suffix."""
    label = text = None
    if "json" in own:
        where = f"{archive}: {own['json'].name}"
        fields = _object(_text(file, archive, own["json"]), where)
        label = _field(fields, ("label", "cls"), where)
        text = _field(fields, ("caption", "text"), where)
    if "cls" in own:
        label = _text(file, archive, own["cls"])
    if "txt" in own:
        text = _text(file, archive, own["txt"]).removesuffix("\n")
    if label is not None:
        label = label.strip()
        if not label:
            holder = own.get("cls") or own["json"]
            raise InvalidInput(f"{archive}: {holder.name} holds an empty label")
    return label, text


def _text(file: BinaryIO, archive: str, member: Member) -> str:
    where = f"{archive}: {member.name}"
    if member.size > _LARGEST:
        raise InvalidInput(f"{where} has {member.size:,} bytes, too many for a label or a caption")
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size:
        raise InvalidInput(f"{where} cannot be read (the file became shorter while it was in use)")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where} is not UTF-8 text", "mend or remove it") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not JSON ({error})", "mend or remove it") from error
    if not isinstance(fields, dict):
        raise InvalidInput(f"{where} is JSON, but not an object", "mend or remove it")
    return fields


def _field(fields: dict[str, Any], names: Sequence[str], where: str) -> str | None:
    """The first of these fields that is there and not null, as text; whole numbers are taken, too."""
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        if type(value) not in (str, int):
            raise InvalidInput(f"{where} has a {name} that is neither text nor a whole number")
        try:
            str(value).encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair, written as an escape
            raise InvalidInput(f"{where} has a {name} that is not UTF-8 text") from error
        return str(value)
    return None
