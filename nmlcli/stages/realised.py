"""What is known of the noise of training labels: the labels before it, from class to class, and what
there is of it among some of the rows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.noise.statistics import transition_counts
from nmlcli.products.features import Features
from nmlcli.products.labels import align, noise_facts, read_labels, renumber
from nmlcli.provenance import Facts
from nmlcli.stages.inputs import LabelledSet
from nmlcli.stages.splits import Numbers, Portion


def clean_labels(whole: LabelledSet, table: str | None) -> Numbers | None:
    """The labels before the noise int64 [N], in the numbers of the set's classes; None: not known.

    table: what the labels come from, if not from the features. A pipe cannot be read again.
    """
    if table is not None and not Path(table).is_file():
        return None
    if table is None:
        parts = [_of_part(part, whole.classes) for part in whole.parts]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    labels = read_labels(table)
    clean = align(labels, [name for part in whole.parts for name in part.ids], table)[1]
    if clean is not None:
        return renumber(clean, labels.classes, whole.classes, labels.source)
    return whole.labels if (whole.noise or {}).get("realised") == 0 else None


def _of_part(part: Features, classes: tuple[str, ...]) -> Numbers | None:
    numbers = part.clean_labels
    if numbers is None and (part.record.noise or {}).get("realised") == 0:
        numbers = part.labels
    own = part.record.classes or classes
    return None if numbers is None else renumber(numbers, own, classes, part.source)


def transition(whole: LabelledSet, clean: Numbers | None) -> NDArray[np.float64]:
    """T[true, noisy] [C, C] as it came out, from the counts of all rows of a set.

    1 on the diagonal for a class that no row is truly of. Raises InvalidInput where the labels before
    the noise are not known.
    """
    source = whole.parts[0].source
    if clean is None:
        remedy = "take labels from nml corrupt, which keeps them in a column clean_label"
        raise InvalidInput(f"{source}: the labels before the noise are not known", remedy)
    size = len(whole.classes)
    counts = np.zeros((size, size))
    true, noisy, rows = transition_counts(clean, whole.labels, size).T
    counts[true, noisy] = rows
    empty = np.flatnonzero(counts.sum(1) == 0)
    counts[empty, empty] = 1
    shares: NDArray[np.float64] = counts / counts.sum(1, keepdims=True)
    return shares


def noise_among(portion: Portion, clean: Numbers | None) -> Facts | None:
    """The noise of a set's labels among some of its rows: recounted, else not known how much."""
    noise = portion.whole.noise
    if portion.rows is None or noise is None:
        return noise
    if clean is not None:
        counted = noise_facts(None, None, portion.labels, clean[portion.rows], None)
        return {**noise, **{key: counted[key] for key in ("realised", "flipped", "of")}}
    return {**noise, "realised": None, "flipped": None, "of": len(portion)}
