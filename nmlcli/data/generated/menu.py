"""GENERATORS: the image sets that are drawn rather than stored (`builtin:NAME:SPLIT[:DOMAIN]`).

An image is decided by (set, split, index) alone; its domain changes how it is rendered, never its
label. All arithmetic is integers and IEEE + - x / sqrt, so the bytes are the same everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALLEST, LARGEST = 16, 4096  # pixels


@dataclass(frozen=True)
class Request:
    """What to draw: images of a split by their numbers, int64 [N], with their classes, int64 [N]."""

    purpose: str
    domain: str | None
    indices: "NDArray[np.int64]"
    labels: "NDArray[np.int64]"
    size: int


@dataclass(frozen=True)
class Generator:
    """A generated set.

    classes: sorted names. domains: the ways to render it, the first is the default; empty where there
    is but one. splits: name → how many images. revision: rises when the bytes of any image change.
    draw: Request → uint8 [N,size,size,3], RGB. describe: Request → texts [N] of what they show, which
    follow from set, split, domain and index as the images do.
    """

    name: str
    help: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: dict[str, int]
    revision: int
    draw: "Callable[[Request], NDArray[np.uint8]]"
    describe: Callable[[Request], list[str]] | None = None

    def render(self, split: str, domain: str | None, index: int, size: int = 32) -> "NDArray[np.uint8]":
        """Draw one image: uint8 [size,size,3]; the same bytes as in any batch."""
        import numpy as np

        images = self.render_many(split, domain, np.array([index]), size)
        return images.reshape(size, size, 3)

    def render_many(
        self, split: str, domain: str | None, indices: "NDArray[np.int64]", size: int = 32
    ) -> "NDArray[np.uint8]":
        """Draw images: uint8 [N,size,size,3]; several times faster an image than one at a time.

        Raises ValueError for a split, domain, index or size that is not there.
        """
        import numpy as np

        if split not in self.splits:
            raise ValueError(f"split {split!r} is none of {', '.join(self.splits)}")
        if domain is not None and domain not in self.domains:
            raise ValueError(f"domain {domain!r} is none of {', '.join(self.domains) or 'no domain'}")
        if not SMALLEST <= size <= LARGEST:
            raise ValueError(f"size {size} is outside {SMALLEST} to {LARGEST}")
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.splits[split]:
            raise ValueError(f"an index is outside 0 to {self.splits[split] - 1}")
        chosen = domain or (self.domains[0] if self.domains else None)
        out = np.empty((len(indices), size, size, 3), np.uint8)
        step = max(1, 64 * 32 * 32 // size**2)  # the planes of a block stay in the processor's cache
        for start in range(0, len(indices), step):
            block = indices[start : start + step]
            request = Request(f"{self.name} {split}", chosen, block, self.labels(split, block), size)
            out[start : start + step] = self.draw(request)
        return out

    def texts(self, split: str, domain: str | None, indices: "NDArray[np.int64]") -> list[str] | None:
        """What images show in words, [N]; None where there are none for it."""
        if self.describe is None:
            return None
        labels = self.labels(split, indices)
        return self.describe(Request(f"{self.name} {split}", domain, indices, labels, SMALLEST))

    def label(self, split: str, index: int) -> int:
        """The class number of one image."""
        import numpy as np

        return int(self.labels(split, np.array([index]))[0])

    def labels(self, split: str, indices: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """The class numbers of images: int64 [N], balanced."""
        from nmlcli.data.generated.draw import balanced

        return balanced(indices, len(self.classes), f"{self.name} {split} label")


def _shapes(request: Request) -> "NDArray[np.uint8]":
    from nmlcli.data.generated import shapes

    return shapes.draw(request)


def _words_of_shapes(request: Request) -> list[str]:
    from nmlcli.data.generated import shapes

    return shapes.describe(request)


def _textures(request: Request) -> "NDArray[np.uint8]":
    from nmlcli.data.generated import textures

    return textures.draw(request)


def _words_of_textures(request: Request) -> list[str]:
    from nmlcli.data.generated import textures

    return textures.describe(request)


def _glyphs(request: Request) -> "NDArray[np.uint8]":
    from nmlcli.data.generated import glyphs

    return glyphs.draw(request)


GENERATORS = {
    "shapes": Generator(
        "shapes",
        "sixteen shapes in clutter; the label is the shape alone",
        classes=(
            "arrow", "bolt", "chevron", "circle", "corner", "crescent", "cross", "heart", "hexagon",
            "pentagon", "ring", "semicircle", "square", "star", "tee", "triangle",
        ),
        domains=("photo", "sketch", "cartoon", "noise"),
        splits={"train": 50_000, "val": 2_000, "test": 5_000},
        revision=1,
        draw=_shapes,
        describe=_words_of_shapes,
    ),
    "textures": Generator(
        "textures",
        "ten surfaces at any angle, scale and colour",
        classes=(
            "bricks", "checks", "cracks", "dots", "grid", "rings", "stripes", "twill", "waves", "wood",
        ),
        domains=(),
        splits={"train": 10_000, "val": 2_000, "test": 2_000},
        revision=1,
        draw=_textures,
        describe=_words_of_textures,
    ),
    "glyphs": Generator(
        "glyphs",
        "eighteen signs in an unsteady hand, on any colour",
        classes=tuple(f"sign{i:02d}" for i in range(18)),
        domains=(),
        splits={"train": 10_000, "val": 2_000, "test": 2_000},
        revision=1,
        draw=_glyphs,
    ),
}  # fmt: skip
