"""Plain tars: which files they hold, and where in the tar the bytes of each lie."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from nmlcli.data.images import is_image
from nmlcli.errors import InvalidInput, first

_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive: its path there, and where its bytes lie."""

    name: str
    offset: int
    size: int


def read_members(archive: str) -> list[Member]:
    """The regular files of a plain tar, in its order. Raises as scan."""
    return scan(archive)[0]


def scan(archive: str) -> tuple[list[Member], list[str]]:
    """The regular files of a plain tar, in its order, and the names of all else.

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
                else:
                    links.append(name)
            tar.fileobj.seek(tar.offset)
            ended = tar.fileobj.read(_BLOCK) == bytes(_BLOCK)
    except tarfile.TarError as error:
        raise InvalidInput(f"{archive} is not a readable tar ({_why(archive, error)})") from error
    except OSError as error:
        raise InvalidInput(f"{archive} cannot be read ({error.strerror})") from error
    if not ended:
        raise InvalidInput(f"{archive} was cut short after {len(members)} files", "fetch it again")
    if linked := [name for name in links if is_image(name)]:
        raise InvalidInput(f"{archive} holds links where images should be ({first(linked)})")
    return members, links


def _why(archive: str, error: tarfile.TarError) -> str:
    with Path(archive).open("rb") as file:
        start = file.read(2)
    if start in _COMPRESSED:
        return f"{_COMPRESSED[start]} was used on it, and only plain ones are read by offset: unpack it"
    return str(error)
