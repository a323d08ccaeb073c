"""Tar archives, one or many parts: read by offset in the archive's order, never unpacked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nmlcli.data.images import image_reader, is_image
from nmlcli.data.listing import ids_of_paths, label_by_folder
from nmlcli.data.samples import Samples, SetName
from nmlcli.data.tars import Member, scan
from nmlcli.data.webdataset import Companions, join_tars, read_companions
from nmlcli.errors import InvalidInput, first
from nmlcli.provenance import hash_file


def list_archives(source: str, archives: Sequence[str]) -> Samples:
    """List the images of one or many tars, part after part, in the archives' order.

    Where images share their key with labels or captions, the tars are read as webdataset says. Else a
    class is the first folder of a member's path; where all lie in one outer folder (`tar cf x.tar
    x`), the next. Raises InvalidInput for a damaged or compressed tar, one without images, and parts
    of both layouts.
    """
    files: list[str] = []
    members: list[Member] = []
    companions: list[Companions | None] = []
    for archive in archives:
        everything, links = scan(archive)
        found = [member for member in everything if is_image(member.name)]
        if not found:
            raise InvalidInput(f"{archive} holds no images")
        companions.append(read_companions(archive, everything, links))
        files += [archive] * len(found)
        members += found
    names = [member.name for member in members]
    tars = [tar for tar in companions if tar is not None]
    if tars and len(tars) < len(archives):
        plain = [archive for archive, tar in zip(archives, companions, strict=True) if tar is None]
        raise InvalidInput(
            f"{source}: parts without labels or captions beside their images ({first(plain)})",
            "the other parts have them: read one layout at a time",
        )
    texts = None
    if tars:
        ids, labels, classes, texts = join_tars(source, archives, tars)
    else:
        ids = ids_of_paths(names, [Path(file).stem for file in files] if len(archives) > 1 else None)
        labels, classes = label_by_folder(_class_folders(names), source)
    offsets = np.array([member.offset for member in members], dtype=np.int64)
    sizes = np.array([member.size for member in members], dtype=np.int64)
    return Samples(
        SetName.of_path(source), source, ids, labels, classes,
        image_reader(ids, files, offsets, sizes), sizes,
        contents=tuple(hash_file(archive) for archive in archives), files=tuple(archives),
        texts=texts, paths=[f"{file}/{name}" for file, name in zip(files, names, strict=True)],
    )  # fmt: skip


def _class_folders(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Paths in their parts, without outer folders that all of them share."""
    parts = [tuple(name.split("/")) for name in names]
    while all(len(path) > 2 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    return parts
