"""Sets that are known by name: `builtin:NAME:SPLIT[:DOMAIN]`, images generated on reading."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nmlcli.data.generated.menu import GENERATORS, Generator
from nmlcli.data.listing import Listing
from nmlcli.data.samples import SetName
from nmlcli.errors import UsageError, first
from nmlcli.products.labels import clean_facts


@dataclass(frozen=True)
class GeneratedReader:
    """Rendering of a generated set's samples."""

    name: str
    split: str
    domain: str | None

    def __call__(self, index: int) -> Image.Image:
        return self.many(np.array([index]))[0]

    def many(self, indices: NDArray[np.int64]) -> list[Image.Image]:
        """Render many at once, which is faster."""
        drawn = GENERATORS[self.name].render_many(self.split, self.domain, indices)
        return [Image.fromarray(pixels) for pixels in drawn]


def parse_builtin(spec: str) -> tuple[Generator, str, str | None]:
    """Take `builtin:NAME:SPLIT[:DOMAIN]` apart; the domain is the first one unless given.

    Returns generator, split and domain (None where there is but one). Raises UsageError, naming the
    choices.
    """
    name, split, domain = (*spec.split(":")[1:], "", "", "")[:3]
    if spec.count(":") > 3:
        raise UsageError(f"{spec} has too many parts", "write builtin:NAME:SPLIT[:DOMAIN]")
    generator = GENERATORS.get(name)
    if generator is None:
        raise UsageError(f"there is no builtin set named {name!r}", _choose(list(GENERATORS)))
    if split not in generator.splits:
        wrong = f"builtin:{name} has no split {split}" if split else f"{spec} names no split"
        raise UsageError(wrong, _choose(list(generator.splits)))
    if domain and domain not in generator.domains:
        remedy = _choose(generator.domains) if generator.domains else "leave it out"
        raise UsageError(f"builtin:{name} has no domain {domain}", remedy)
    return generator, split, domain or next(iter(generator.domains), None)


def _choose(names: Sequence[str]) -> str:
    return f"choose {first(tuple(names), 10)}"


def list_builtin(spec: str) -> Listing:
    """List a generated set; an id is `CLASS/SPLIT-NUMBER`, the same in every domain."""
    generator, split, domain = parse_builtin(spec)
    count = generator.splits[split]
    labels = generator.labels(split, np.arange(count))
    reader = GeneratedReader(generator.name, split, domain)
    return Listing(
        spec,
        [f"{generator.classes[label]}/{split}-{index:06d}" for index, label in enumerate(labels)],
        labels,
        generator.classes,
        reader,
        contents=(f"builtin:{generator.name}:{split}:{domain}:{generator.revision}",),
        read_many=reader.many,
        noise=clean_facts(count),
    )


def name_builtin(spec: str) -> SetName:
    """The name of a generated set; a domain that is the default is named too, so that a set has one
    name."""
    generator, split, domain = parse_builtin(spec)
    return SetName(generator.name, domain, split)
