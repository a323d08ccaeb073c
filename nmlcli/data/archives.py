"""Tar archives, one or many parts: read by offset in the archive's order, never unpacked."""

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.images import decode, is_image
from nmlcli.data.listing import Listing, ids_of_paths, label_by_folder
from nmlcli.errors import InvalidInput, first
from nmlcli.provenance import hash_file

if TYPE_CHECKING:
    from PIL.Image import Image

_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its path there, and where its bytes lie."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class MemberReader:
    """Reading of members by offset: ids [N], and part number, offset and size of each, int64 [N, 3]."""

    ids: Sequence[str]
    archives: Sequence[Path]
    places: NDArray[np.int64]

    def __call__(self, index: int) -> "Image":
        part, offset, size = (int(value) for value in self.places[index])
        archive = self.archives[part]
        try:
            handle = os.open(archive, os.O_RDONLY)
            try:
                data = os.pread(handle, size, offset)
            finally:
                os.close(handle)
        except OSError as error:
            raise InvalidInput(
                f"sample {self.ids[index]} of {archive} cannot be read ({error.strerror})"
            ) from error
        if len(data) < size:
            raise InvalidInput(f"{archive} was cut short while it was in use", "run again")
        return decode(data, self.ids[index], str(archive))


def list_archives(source: str, archives: Sequence[Path]) -> Listing:
    """List the images of one or many tars, part after part, in the archives' order.

    A class is the first folder of a member's path; where all lie in one outer folder (`tar cf x.tar
    x`), the next. Raises InvalidInput for a damaged or compressed tar, or one without images.
    """
    members = [[m for m in read_members(archive) if is_image(m.name)] for archive in archives]
    for archive, found in zip(archives, members, strict=True):
        if not found:
            raise InvalidInput(f"{archive} holds no images")
    flat = [(part, member) for part, found in enumerate(members) for member in found]
    names = [member.name for _, member in flat]
    ids = ids_of_paths(names, [archives[part].stem for part, _ in flat] if len(archives) > 1 else None)
    labels, classes = label_by_folder(_inner([tuple(name.split("/")) for name in names]), source)
    places = np.array([(part, m.offset, m.size) for part, m in flat], dtype=np.int64)
    return Listing(
        source,
        ids,
        labels,
        classes,
        MemberReader(ids, archives, places),
        sizes=places[:, 2],
        contents=tuple(hash_file(archive) for archive in archives),
        files=tuple(archives),
        paths=[archives[part] / member.name for part, member in flat],
    )


def _inner(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The paths without the outer folders that all of them share, as long as a class folder is left."""
    while all(len(path) > 2 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    return parts


def read_members(archive: Path) -> list[Member]:
    """The regular files of a plain tar, in its order.

    Raises InvalidInput where the tar is compressed, damaged or cut short: the mark of its end has to
    be there, since one that was cut between two members would otherwise pass for a smaller set.
    """
    members, links = [], []
    try:
        with tarfile.open(archive, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep a kilobyte a member
                name = member.name.removeprefix("./")
                if member.isreg() and not member.issparse():
                    members.append(Member(name, member.offset_data, member.size))
                elif is_image(name):
                    links.append(name)
            tar.fileobj.seek(tar.offset)
            ended = tar.fileobj.read(_BLOCK) == bytes(_BLOCK)
    except tarfile.TarError as error:
        raise InvalidInput(f"{archive} is not a readable tar ({_why(archive, error)})") from error
    except OSError as error:
        raise InvalidInput(f"{archive} cannot be read ({error.strerror})") from error
    if not ended:
        raise InvalidInput(f"{archive} was cut short after {len(members)} files", "fetch it again")
    if links:
        raise InvalidInput(f"{archive} holds links where images should be ({first(links)})")
    return members


def _why(archive: Path, error: tarfile.TarError) -> str:
    with archive.open("rb") as file:
        start = file.read(2)
    if start in _COMPRESSED:
        return f"{_COMPRESSED[start]} was used on it, and only plain ones are read by offset: unpack it"
    return str(error)
