"""Features of a set: every image through a network in evaluation mode, row by row."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nmlcli.data.samples import Samples
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import NmlError, UsageError
from nmlcli.models.schemes import Wanted, identify_network, open_network
from nmlcli.products.features import Features, FloatBlock
from nmlcli.products.formats import FORMATS, Format, write_features
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.stages.outputs import check_out, is_folder, make_folder, record_of, up_to_date

if TYPE_CHECKING:
    from nmlcli.models.extraction import Extractor

REVISION = 1


@dataclass(frozen=True)
class EmbedOptions:
    """source: how the sets are read. seed: of a network without weights. size: of its images, None:
    its own. shard: `I/N`, the I-th (from 0) of N runs of rows of each set. compress: the files, which
    must be HDF5. batch_size and workers decide the speed, not the rows."""

    source: SourceOptions = field(default_factory=SourceOptions)
    random_init: bool = False
    seed: int = 0
    size: int | None = None
    precision: str = "fp32"
    dtype: str = "float32"
    shard: str | None = None
    compress: bool = False
    batch_size: int = 256
    workers: int = 0
    reuse: bool = False

    @property
    def wanted(self) -> Wanted:
        """How the network is wanted."""
        return Wanted(self.size, self.random_init, self.seed)

    def facts(self) -> Facts:
        """The options that change the result."""
        facts = {"dtype": self.dtype, "precision": self.precision, "size": self.size}
        if self.shard is not None:
            facts["shard"] = self.shard
        return {**facts, "random_init": True, "seed": self.seed} if self.random_init else facts


def embed(
    sources: Sequence[str],
    model: str,
    out: str | None,
    options: EmbedOptions,
    advance: Advance = silent,
) -> list[Record]:
    """Write the features of sets; returns the records of those that were not up to date.

    Where out is a folder (it exists, or ends with /) every set becomes a file NAME.h5 in it. Raises
    NmlError where a sample cannot be read or its features are not finite, naming it.
    """
    model_identity, model_files = identify_network(model, options.wanted)
    sets = [_shard_of(open_samples(source, options.source), options.shard) for source in sources]
    targets, pending = _targets(sets, out), []
    for target in targets:
        check_out(target, [*model_files, *(file for samples in sets for file in samples.files)])
    if options.compress and not all(map(_can_compress, targets)):
        raise UsageError("only HDF5 can be compressed", "give -o FILE.h5")
    for samples, target in zip(sets, targets, strict=True):
        inputs = [samples.identity, model_identity]
        identity = identity_of("embed", REVISION, options.facts(), inputs)
        files = [*samples.files, *model_files]
        alike = options.reuse and _packed_alike(target, options.compress)
        if not (alike and up_to_date(target, identity, files)):
            pending.append((samples, target, identity))
    total, done, records = sum(len(samples) for samples, _, _ in pending), 0, []
    extractor = cache(lambda: _extractor(model, options))  # built once, if at all
    for samples, target, identity in pending:
        shown = {"set": str(samples.name)} if len(sets) > 1 else {}
        upwards = shifted(advance, done, total, **shown)
        features = _features(extractor(), samples, identity, options, upwards)
        write_features(target, features)
        records.append(features.record)
        done += len(samples)
    return records


def _packed_alike(target: str | None, compress: bool) -> bool:
    """Whether a file is compressed as is wanted, which no record tells; true where it is not known."""
    format_ = _format_of(target)
    if format_ is None or not Path(str(target)).is_file():  # a pipe would wait
        return True
    return format_.is_compressed(str(target)) in (None, compress)


def _can_compress(target: str | None) -> bool:
    format_ = _format_of(target)
    return format_ is not None and bool(format_.compressed)


def _format_of(target: str | None) -> Format | None:
    return FORMATS.get(Path(str(target)).suffix.lower())


def _extractor(model: str, options: EmbedOptions) -> "Extractor":
    from nmlcli.models.extraction import Extractor

    return Extractor(open_network(model, options.wanted), options.precision, options.dtype)


def _shard_of(samples: Samples, shard: str | None) -> Samples:
    """The rows of one shard; raises UsageError where there is no such shard, or nothing in it."""
    if shard is None:
        return samples
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard, re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if number >= count:
        raise UsageError(f"--shard is {shard}", "give I/N, with I from 0 to N - 1")
    rows = np.arange(number * len(samples) // count, (number + 1) * len(samples) // count)
    if not len(rows):
        raise UsageError(f"{samples.name} has {len(samples)} samples, and none in shard {shard}")
    return samples.take(rows)


def _targets(sets: Sequence[Samples], out: str | None) -> list[str | None]:
    """The file of each set; raises UsageError where several would share one."""
    if not is_folder(out):
        if len(sets) > 1:
            raise UsageError("several sets cannot share one output", "give a folder: -o DIR/")
        return [out]
    names = [str(samples.name).replace("/", "-").replace(":", "-") for samples in sets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two sets are named {name}", "name them: NAME=DATA")
    folder = make_folder(str(out))
    return [str(folder / f"{name}.h5") for name in names]


def _features(
    extractor: "Extractor", samples: Samples, identity: str, options: EmbedOptions, advance: Advance
) -> Features:
    """The features of a set, computed as they are read."""
    network = extractor.network
    parents = chain(network.record, *samples.parents)
    record = record_of(
        samples, "features", identity, "embed", options.facts(),
        columns=extractor.columns, model=network.facts, parents=parents,
    )  # fmt: skip

    def blocks(rows: int) -> Iterator[FloatBlock]:
        return _blocks(extractor, samples, rows, options, advance)

    known, dtype = (samples.ids, samples.labels, samples.clean_labels), np.dtype(options.dtype)
    return Features(record, *known, dtype, blocks, str(samples.name), compress=options.compress)


def _blocks(
    extractor: "Extractor", samples: Samples, rows: int, options: EmbedOptions, advance: Advance
) -> Iterator[FloatBlock]:
    from nmlcli.data.loader import load_batches

    everything, pixels = np.arange(len(samples)), extractor.pixels
    batches = load_batches(samples, everything, pixels, options.batch_size, workers=options.workers)
    for indices, images in batches:
        block = extractor(images)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            wrong = f"the features of {samples.ids[indices[np.argmin(finite)]]} are not finite"
            remedy = "compute with --precision fp32 --dtype float32, or look at the weights"
            raise NmlError(wrong, remedy)
        advance(int(indices[-1]) + 1, len(samples))
        for start in range(0, len(block), rows):
            yield block[start : start + rows]
