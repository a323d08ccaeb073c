"""What is laid over a set or taken from it: labels, captions, a domain, classes, the first N."""

from dataclasses import replace

import numpy as np

from nmlcli.data.listing import recount
from nmlcli.data.samples import Samples
from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.captions import Captions, align_captions, differing
from nmlcli.products.labels import Labels, align, renumber


def select_domain(samples: Samples, domain: str) -> Samples:
    """Only the samples of one domain. Raises UsageError where the set has no such domain."""
    if samples.domains is None:
        raise UsageError(f"{samples.source} has no domains", "leave --domain out")
    rows = np.array([row for row, name in enumerate(samples.domains) if name == domain], dtype=np.int64)
    if not len(rows):
        known = first(tuple(sorted(set(samples.domains))), 10)
        raise UsageError(f"{samples.source} has no domain {domain}", f"choose {known}")
    return samples.take(rows)


def select_classes(samples: Samples, classes: tuple[str, ...]) -> Samples:
    """Only the samples of these classes, which are numbered anew, in the order that they had."""
    if samples.labels is None or samples.classes is None:
        raise UsageError(f"{samples.source} has no labels", "leave --classes out")
    unknown = tuple(name for name in classes if name not in samples.classes)
    if unknown:
        raise UsageError(
            f"{samples.source} has no class {first(unknown)}", f"choose {first(samples.classes, 10)}"
        )
    kept = tuple(name for name in samples.classes if name in classes)
    numbers = [samples.classes.index(name) for name in kept]
    if samples.clean_labels is not None and not np.isin(samples.clean_labels, numbers).all():
        raise InvalidInput(f"{samples.source}: clean labels lie outside the classes that were chosen")
    chosen = samples.take(np.flatnonzero(np.isin(samples.labels, numbers)))
    if not len(chosen):
        raise InvalidInput(f"{samples.source} holds no samples of {first(kept)}")
    labels, clean = (
        None if numbers is None else renumber(numbers, samples.classes, kept, samples.source)
        for numbers in (chosen.labels, chosen.clean_labels)
    )
    return replace(chosen, labels=labels, clean_labels=clean, classes=kept)


def take_first(samples: Samples, limit: int) -> Samples:
    """The first samples, all where there are fewer."""
    return samples.take(np.arange(limit)) if limit < len(samples) else samples


def lay_labels(samples: Samples, labels: Labels, everything: Samples) -> Samples:
    """Lay labels over the samples by id, matched by class name.

    everything: the set before anything was selected from it. Each sample needs a label; a label may be
    of any sample in everything, so labels of a whole set fit a selection of it. The clean labels are
    those of the table, else the set's own. Raises InvalidInput, naming the first three, otherwise.
    """
    numbers, clean = align(labels, samples.ids, samples.source, everything.ids)
    classes = labels.classes
    if samples.labels is not None and samples.classes is not None:
        classes = samples.classes
        numbers = renumber(numbers, labels.classes, classes, labels.source)
        if clean is None:
            clean = samples.labels
        else:
            clean = renumber(clean, labels.classes, classes, labels.source)
    return replace(
        samples,
        labels=numbers,
        clean_labels=clean,
        classes=classes,
        noise=labels.noise if clean is None else recount(labels.noise, numbers, clean),
        parents=(*samples.parents, *([labels.record] if labels.record is not None else [])),
    )


def lay_captions(samples: Samples, captions: Captions, everything: Samples) -> Samples:
    """Lay captions over the samples by id, in place of texts that they have; as lay_labels does.

    The clean ones are those of the table alone: other texts that a set has are not wrong, but others.
    """
    texts, clean = align_captions(captions, samples.ids, samples.source, everything.ids)
    noise = captions.noise
    if clean is not None:
        wrong = differing(texts, clean)
        noise = recount(noise, wrong, np.zeros_like(wrong))
    parents = () if captions.record is None else (captions.record,)
    return replace(
        samples, texts=texts, clean_texts=clean, texts_follow=False, text_noise=noise,
        parents=(*samples.parents, *parents),
    )  # fmt: skip
