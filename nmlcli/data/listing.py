"""Rules that hold for every source: ids are unique texts, classes and ids come from paths alike."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, first
from nmlcli.products.ids import require_unique
from nmlcli.products.labels import noise_facts, number

_OF_THE_WHOLE = ("ratio_of", "selected", "realised_selected", "digest", "empty", "mended")


def check_ids(ids: Sequence[str], source: str) -> None:
    """Raise InvalidInput unless there are samples and each has its own id, which is UTF-8 text."""
    if not ids:
        raise InvalidInput(f"{source} holds no samples")
    require_unique(ids, source)
    try:
        "\n".join(ids).encode()
    except UnicodeEncodeError as error:
        broken = [ascii(name) for name in ids if not name.isprintable()]
        raise InvalidInput(f"{source}: names are not UTF-8 ({first(broken)})", "rename them") from error


def label_by_folder(
    parts: Sequence[tuple[str, ...]], source: str
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Labels from the class folder of each path, given in its parts: the first folder of the path.

    Flat paths have no labels. Raises InvalidInput where only some paths have a folder.
    """
    flat = ["/".join(path) for path in parts if len(path) == 1]
    if len(flat) == len(parts):
        return None, None
    if flat:
        raise InvalidInput(f"{source}: images lie outside the class folders ({first(flat)})")
    names = [path[0] for path in parts]
    classes = tuple(sorted(set(names)))
    return number(names, classes, source), classes


def ids_of_paths(paths: Sequence[str], parts: Sequence[str] | None = None) -> list[str]:
    """Ids of images: paths without suffix; those that collide keep it, then get their part's name."""
    ids = _told_apart([path.rpartition(".")[0] for path in paths], paths)
    if parts is None:
        return ids
    return _told_apart(ids, [f"{part}/{path}" for part, path in zip(parts, paths, strict=True)])


def _told_apart(ids: Sequence[str], fuller: Sequence[str]) -> list[str]:
    """Ids that occur more than once replaced by fuller ones."""
    counts = Counter(ids)
    return [full if counts[name] > 1 else name for name, full in zip(ids, fuller, strict=True)]


def recount(
    noise: Mapping[str, Any] | None, labels: NDArray[np.int64], clean_labels: NDArray[np.int64]
) -> dict[str, Any]:
    """What is known of a noise, with its extent counted anew for a selection of samples."""
    counted = noise_facts(None, None, labels, clean_labels, None)
    extent = {key: counted[key] for key in ("realised", "flipped", "of")}
    known = dict(noise or {})
    if known.get("of") != extent["of"]:  # what speaks of all the samples that the noise was put on
        known = {key: value for key, value in known.items() if key not in _OF_THE_WHOLE}
    return {**counted, **known, **extent}
