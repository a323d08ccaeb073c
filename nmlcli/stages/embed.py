"""Features of a set: every image or text through a network in evaluation mode, row by row."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nmlcli.data.samples import Samples
from nmlcli.data.sources import SourceOptions, open_samples
from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.models.schemes import Wanted, identify_network, open_network, takes
from nmlcli.products.features import Features, FloatBlock
from nmlcli.products.formats import FORMATS, Format, write_features
from nmlcli.progress import Advance, shifted, silent
from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.stages.kept_rows import Make, check_newer, keeping
from nmlcli.stages.outputs import check_out, is_folder, make_folder, record_of, up_to_date

if TYPE_CHECKING:
    from nmlcli.models.extraction import ImageExtractor, TextExtractor

    Extractor = ImageExtractor | TextExtractor

log = logging.getLogger(__name__)

REVISION = 1
BATCH = {"images": 256, "texts": 32}  # at once, unless told; fewer texts go faster on a CPU
_LISTED = 20  # samples left out that are named


@dataclass(frozen=True)
class EmbedOptions:
    """source: how the sets are read. seed: of a network without weights, and of views. size: of its
    images, None: its own. layer, pool: of what and how, None: as the network has it. texts: those of
    sets that hold images too, by a network that takes both. views: how many augmented ones are made of
    each sample. shard: `I/N`, the I-th (from 0) of N runs of rows of each set. skip_bad: leave out
    what cannot be read. compress: the files, which must be HDF5. batch_size (None: the usual one),
    auto (fewer where memory runs out) and workers decide the speed, not the rows. resume: keep rows
    beside the file till it is whole, and go on from them."""

    source: SourceOptions = field(default_factory=SourceOptions)
    random_init: bool = False
    seed: int = 0
    size: int | None = None
    layer: str | None = None
    pool: str | None = None
    texts: bool = False
    precision: str = "fp32"
    dtype: str = "float32"
    views: int = 0
    shard: str | None = None
    skip_bad: bool = False
    compress: bool = False
    batch_size: int | None = None
    auto: bool = False
    workers: int = 0
    resume: bool = False
    reuse: bool = False

    def wanted(self, texts: bool) -> Wanted:
        """How the network is wanted."""
        return Wanted(self.size, self.random_init, self.seed, self.layer, self.pool, texts)

    def facts(self) -> Facts:
        """The options that change the result; those that few use only where they are used."""
        facts = {"dtype": self.dtype, "precision": self.precision, "size": self.size}
        rare = {
            "layer": self.layer, "pool": self.pool, "texts": self.texts, "views": self.views,
            "shard": self.shard, "skip_bad": self.skip_bad, "random_init": self.random_init,
        }  # fmt: skip
        seed = {"seed": self.seed} if self.random_init or self.views else {}
        return {**facts, **{name: value for name, value in rare.items() if value}, **seed}


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
    _check(options, out)
    sets = [_shard_of(open_samples(source, options.source), options.shard) for source in sources]
    texts = _of_texts(model, sets, options)
    model_identity, model_files = identify_network(model, options.wanted(texts))
    targets, pending = _targets(sets, out), []
    for target in targets:
        check_out(target, [*model_files, *(file for samples in sets for file in samples.files)])
    if options.compress and not all(map(_can_compress, targets)):
        raise UsageError("only HDF5 can be compressed", "give -o FILE.h5")
    going_on = options.resume and is_folder(out)  # with the sets that a killed run did not come to
    for samples, target in zip(sets, targets, strict=True):
        inputs = [samples.identity, model_identity]
        identity = identity_of("embed", REVISION, options.facts(), inputs)
        files = [*samples.files, *model_files]
        alike = (options.reuse or going_on) and _packed_alike(target, options.compress)
        if not (alike and up_to_date(target, identity, files)):
            pending.append((samples, target, identity))
            if options.resume:
                check_newer(str(target), files)
    passes = 2 if options.views else 1
    total, done, records = passes * sum(len(samples) for samples, _, _ in pending), 0, []
    extractor = cache(lambda: _extractor(model, options, texts))  # built once, if at all
    for samples, target, identity in pending:
        shown = {"set": str(samples.name)} if len(sets) > 1 else {}
        upwards = shifted(advance, done, total, **shown)
        with _features(extractor(), samples, identity, target, options, upwards) as features:
            write_features(target, features)
        records.append(features.record)
        done += passes * len(samples)
    return records


def _check(options: EmbedOptions, out: str | None) -> None:
    if options.layer == "":
        raise UsageError("--layer is empty", "leave it out for what comes before the logits")
    if options.resume and options.auto:
        raise UsageError("--batch-size auto does not go with --resume", "give a number")
    if options.resume and out in (None, "-"):
        raise UsageError("a stream cannot be resumed", "give -o FILE")


def _of_texts(model: str, sets: Sequence[Samples], options: EmbedOptions) -> bool:
    """Whether the network reads texts: it takes nothing else, or those are asked for, or the sets hold
    nothing else. Raises UsageError and InvalidInput where a set does not hold what is read."""
    taken = takes(model)
    if options.texts and "texts" not in taken:
        raise UsageError(f"{model} takes no texts", "leave out --texts")
    imageless = not any(samples.has_images for samples in sets)
    texts = taken == ("texts",) or options.texts or ("texts" in taken and imageless)
    if texts and options.views:
        raise UsageError("only images have views", "leave out --views")
    for samples in sets:
        if texts and samples.texts is None:
            wrong = f"{samples.name} has no texts, which the network takes"
            raise InvalidInput(wrong, "lay some over it with --captions, or give a table")
        if not (texts or samples.has_images):
            wrong = f"{samples.name} has no images, which the network takes"
            raise InvalidInput(wrong, "name their column with --image-column")
    return texts


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


def _extractor(model: str, options: EmbedOptions, texts: bool) -> "Extractor":
    from nmlcli.models.extraction import ImageExtractor, TextExtractor

    network = open_network(model, options.wanted(texts))
    if texts:
        return TextExtractor(network, options.precision, options.dtype)
    extractor = ImageExtractor(network, options.precision, options.dtype)
    if options.precision == "fp32" and log.isEnabledFor(logging.DEBUG):
        share = extractor.share_of_time("bf16")
        log.debug("features are computed in fp32; --precision bf16 takes %.2f of its time here", share)
    return extractor


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


@contextmanager
def _features(
    extractor: "Extractor", samples: Samples, identity: str, target: str | None,
    options: EmbedOptions, advance: Advance,
) -> Iterator[Features]:  # fmt: skip
    """The features of a set, computed as they are read, or before where rows are kept."""
    from nmlcli.stages.rows import Batching, Work

    size = options.batch_size or BATCH[extractor.takes]
    batching = Batching(size, not options.auto, options.workers, options.skip_bad)
    work = Work(extractor, samples, batching, options.seed, advance)
    makers: list[tuple[tuple[int, ...], Make]] = [((extractor.columns,), work.features)]
    if options.views:
        makers.append(((options.views, extractor.columns), partial(work.views, options.views)))
    if not (options.resume or options.skip_bad):
        whole = [partial(_cut, make) for _, make in makers]
        yield _made(extractor, samples, identity, options, whole)
        return
    about = {"identity": identity, "batch_size": size}
    with keeping(target, options.resume, about, extractor.dtype, makers) as (present, readers):
        some = samples if present.all() else _without(samples, present)
        yield _made(extractor, some, identity, options, readers, len(samples) - len(some))


def _without(samples: Samples, present: NDArray[np.bool_]) -> Samples:
    """The samples that could be read; says which could not."""
    out = [samples.ids[row] for row in np.flatnonzero(~present).tolist()]
    named = first(out, _LISTED)
    log.warning("%d of %d samples are left out: %s", len(out), len(samples), named)
    return samples.take(np.flatnonzero(present))


def _made(
    extractor: "Extractor", samples: Samples, identity: str, options: EmbedOptions,
    readers: Sequence[Callable[[int], Iterator[FloatBlock]]], left_out: int = 0,
) -> Features:  # fmt: skip
    """The features of samples, read by the first reader, and their views by a second."""
    network = extractor.network
    record = record_of(
        samples, "features", identity, "embed", options.facts(), columns=extractor.columns,
        model=network.facts, parents=chain(network.record, *samples.parents),
        extra={"left_out": left_out} if options.skip_bad else {},
    )  # fmt: skip
    return Features(
        record, samples.ids, samples.labels, samples.clean_labels, extractor.dtype, readers[0],
        str(samples.name), readers[1] if options.views else None, options.views, options.compress,
    )  # fmt: skip


def _cut(make: Make, rows: int) -> Iterator[FloatBlock]:
    """All rows in blocks of at most so many."""
    for block in make(0):
        for start in range(0, len(block), rows):
            yield block[start : start + rows]
