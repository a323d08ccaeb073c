"""Sets that are known by name: `builtin:NAME:SPLIT[:DOMAIN]`, images generated on reading."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nmlcli.data.generated.menu import GENERATORS, Generator
from nmlcli.data.samples import Samples, SetName
from nmlcli.errors import UsageError, first
from nmlcli.products.labels import clean_facts


def list_builtin(spec: str) -> Samples:
    """List a generated set; an id is `CLASS/SPLIT-NUMBER`, the same in every domain.

    A domain that is the default is named too, so that a set has one name.
    """
    generator, split, domain = _parse(spec)
    labels = generator.labels(split, np.arange(generator.splits[split]))
    names = [generator.classes[label] for label in labels]
    texts, clean = generator.texts(split, domain, np.arange(len(names))), clean_facts(len(names))

    def images(rows: NDArray[np.int64]) -> list[Image.Image]:
        return [Image.fromarray(pixels) for pixels in generator.render_many(split, domain, rows)]

    return Samples(
        SetName(generator.name, domain, split),
        spec,
        [f"{name}/{split}-{number:06d}" for number, name in enumerate(names)],
        labels,
        generator.classes,
        images,
        contents=(f"builtin:{generator.name}:{split}:{domain}:{generator.revision}",),
        texts=texts,
        texts_follow=True,
        noise=clean,
        text_noise=None if texts is None else clean,
    )


def _parse(spec: str) -> tuple[Generator, str, str | None]:
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
