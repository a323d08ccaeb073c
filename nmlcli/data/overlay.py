"""What is laid over a set or taken from it: labels by id, a domain, classes, the first N."""

from dataclasses import replace

import numpy as np

from nmlcli.data.listing import Listing, recount
from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.products.labels import Labels, align, renumber


def select_domain(listing: Listing, domain: str) -> Listing:
    """Only the samples of one domain. Raises UsageError where the set has no such domain."""
    if listing.domains is None:
        raise UsageError(f"{listing.source} has no domains", "leave --domain out")
    rows = np.array([row for row, name in enumerate(listing.domains) if name == domain], dtype=np.int64)
    if not len(rows):
        known = first(tuple(sorted(set(listing.domains))), 10)
        raise UsageError(f"{listing.source} has no domain {domain}", f"choose {known}")
    return listing.take(rows)


def select_classes(listing: Listing, classes: tuple[str, ...]) -> Listing:
    """Only the samples of these classes, which are numbered anew, in the order that they had."""
    if listing.labels is None or listing.classes is None:
        raise UsageError(f"{listing.source} has no labels", "leave --classes out")
    unknown = tuple(name for name in classes if name not in listing.classes)
    if unknown:
        raise UsageError(
            f"{listing.source} has no class {first(unknown)}", f"choose {first(listing.classes, 10)}"
        )
    kept = tuple(name for name in listing.classes if name in classes)
    numbers = [listing.classes.index(name) for name in kept]
    if listing.clean_labels is not None and not np.isin(listing.clean_labels, numbers).all():
        raise InvalidInput(f"{listing.source}: clean labels lie outside the classes that were chosen")
    chosen = listing.take(np.flatnonzero(np.isin(listing.labels, numbers)))
    if not len(chosen):
        raise InvalidInput(f"{listing.source} holds no samples of {first(kept)}")
    return replace(_renumbered(chosen, kept), classes=kept)


def _renumbered(listing: Listing, classes: tuple[str, ...]) -> Listing:
    known = listing.classes or ()
    labels, clean = listing.labels, listing.clean_labels
    return replace(
        listing,
        labels=None if labels is None else renumber(labels, known, classes, listing.source),
        clean_labels=None if clean is None else renumber(clean, known, classes, listing.source),
    )


def take_first(listing: Listing, limit: int) -> Listing:
    """The first samples, all where there are fewer."""
    return listing.take(np.arange(limit)) if limit < len(listing) else listing


def lay_labels(listing: Listing, labels: Labels, everything: Listing) -> Listing:
    """Lay labels over the samples by id, matched by class name.

    everything: the set before anything was selected from it. Each sample needs a label; a label may be
    of any sample in everything, so labels of a whole set fit a selection of it. The clean labels are
    those of the table, else the set's own. Raises InvalidInput, naming the first three, otherwise.
    """
    fitting = _selected(labels, listing, everything)
    numbers, clean = align(fitting, listing.ids, listing.source)
    if listing.labels is None or listing.classes is None:
        classes = labels.classes
    else:
        classes = listing.classes
        numbers = renumber(numbers, labels.classes, classes, labels.source)
        clean = (
            listing.labels if clean is None else renumber(clean, labels.classes, classes, labels.source)
        )
    facts = labels.noise if clean is None else recount(labels.noise, numbers, clean)
    parents = (*listing.parents, labels.record) if labels.record is not None else listing.parents
    return replace(
        listing, labels=numbers, clean_labels=clean, classes=classes, noise=facts, parents=parents
    )


def _selected(labels: Labels, listing: Listing, everything: Listing) -> Labels:
    """The labels without those of samples that were not selected."""
    if len(listing) == len(everything):
        return labels
    whole, kept = set(everything.ids), set(listing.ids)
    spare = tuple(name for name in labels.ids if name not in whole)
    if spare:
        raise InvalidInput(
            f"{labels.source} labels samples that {listing.source} lacks: {first(spare)}"
        )
    rows = np.array([row for row, name in enumerate(labels.ids) if name in kept], dtype=np.int64)
    clean = labels.clean_labels
    return replace(
        labels,
        ids=[labels.ids[row] for row in rows],
        labels=labels.labels[rows],
        clean_labels=None if clean is None else clean[rows],
    )
