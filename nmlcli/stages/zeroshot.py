"""`tune --method zeroshot`: the names of classes to a head, by a network for images and texts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput, UsageError, first
from nmlcli.models.schemes import Network, Wanted, identify_network, open_network, takes
from nmlcli.products.formats import write_head
from nmlcli.products.head import Float32, Head
from nmlcli.products.labels import texts
from nmlcli.products.tables import mapped, read_table
from nmlcli.progress import Advance, silent
from nmlcli.provenance import Facts, Record, chain, identity_of
from nmlcli.stages.embed import BATCH
from nmlcli.stages.inputs import check_stdin
from nmlcli.stages.outputs import check_out, up_to_date

log = logging.getLogger(__name__)

REVISION = 1
METHOD = "zeroshot"
IMAGENET = "openai-imagenet"  # the 80 templates that CLIP's authors chose for ImageNet

Names = Mapping[str, Sequence[str]]  # the words of each class


@dataclass(frozen=True)
class ZeroShotOptions:
    """class_names: a table of classes and words. templates: a file of sentences, None: IMAGENET."""

    class_names: str
    templates: str | None = None
    reuse: bool = False


def zeroshot(
    model: str, out: str | None, options: ZeroShotOptions, advance: Advance = silent
) -> Record | None:
    """Write the classifier that a network makes of the names of classes, a linear head on the features
    of its images; returns its record, None where it is up to date.

    Row c of the weight is the mean over all words and templates of class c of the texts' embeddings,
    each at length 1, itself at length 1 (Radford et al. 2021, section 3.1.4); the logits are
    exp(logit_scale) · cos. Raises UsageError for a network that does not take both, InvalidInput for
    names and templates that cannot be used.
    """
    files = [options.class_names, *([options.templates] if options.templates else [])]
    check_stdin(*files)
    if lacking := sorted({"images", "texts"} - {*takes(model)}):
        remedy = "take a checkpoint of CLIP, or open_clip:ARCH/TAG"
        raise UsageError(f"{model} takes no {lacking[0]}", remedy)
    model_identity, model_files = identify_network(model, Wanted())
    files += map(str, model_files)
    check_out(out, files)
    names = read_class_names(options.class_names)
    templates = None if options.templates is None else read_templates(options.templates)
    asked: dict[str, Any] = {"method": METHOD, "templates": templates or IMAGENET}
    pairs = [text for name, words in names.items() for each in words for text in (name, each)]
    asked["class_names"] = identity_of("class names", REVISION, {}, pairs)
    identity = identity_of("tune", REVISION, asked, [model_identity])
    if options.reuse and up_to_date(out, identity, files):
        return None
    sentences = templates or _imagenet()
    network = open_network(model, Wanted())  # of images, for what is to be said of their features
    facts, parent = network.facts, network.record
    del network
    weight = _weight(open_network(model, Wanted(texts=True)), names, sentences, advance)
    if not np.isfinite(weight).all():
        raise InvalidInput(f"what {model} says of texts is not finite", "its weights are damaged")
    record = Record(
        "head", identity, "tune", asked, tuple(names), columns=weight.shape[1], model=facts,
        parents=chain(parent), extra=_extra(asked, templates),
    )  # fmt: skip
    bias = np.zeros(len(names), dtype=np.float32)
    write_head(out, Head(record, ((weight, bias),), None, None, out or "stdout"))
    count = f"{len(sentences)} template{'s' * (len(sentences) > 1)}"
    log.info("%s: %s, %d classes by %s", out or "stdout", METHOD, len(names), count)
    return record


def _extra(asked: Facts, templates: Sequence[str] | None) -> Facts:
    """What result lines take from the record: nothing was trained, drawn or chosen."""
    unknown = ("preset", "seed", "loss", "scale", "fraction", "selected_by", "validated_on")
    told = {"templates": identity_of("templates", REVISION, {}, templates)[:8]} if templates else {}
    return {
        **dict.fromkeys(unknown), **asked, "options": told, "trained_on": [], "logits": "cosine"
    }  # fmt: skip


def read_class_names(source: str) -> Names:
    """The words of each class, both sorted, from a table: a row is one name of a class.

    The columns are class and words; of two others the first is the class. Raises InvalidInput for
    other columns, empty cells, a row that is there twice and fewer than two classes.
    """
    table = read_table(source)
    columns = ("class", "words")
    if not {*columns} <= {*table.columns}:
        if len(table.columns) != 2:
            wrong = f"{table.source} has {len(table.columns)} columns"
            raise InvalidInput(wrong, "two are wanted, class and words, by name or alone")
        columns = table.columns[0], table.columns[1]
    classes = texts(table.column(columns[0]), "class", columns[0], table.source)
    cells = [each.strip() if isinstance(each, str) else each for each in table.column(columns[1])]
    names: dict[str, list[str]] = {}
    words = texts(cells, "words", columns[1], table.source)
    for row, (name, each) in enumerate(zip(classes, words, strict=True), start=1):
        known = names.setdefault(name, [])
        if each in known:
            raise InvalidInput(f"{table.source}: row {row} names {name} {each!r} again", "leave it out")
        known.append(each)
    if len(names) < 2:
        raise InvalidInput(f"{table.source} names {len(names)} class", "give two or more")
    _warn_of_twins(names, table.source)
    return {name: sorted(names[name]) for name in sorted(names)}


def _warn_of_twins(names: Names, source: str) -> None:
    """Remark that words stand for several classes, which they cannot tell apart."""
    classes: dict[str, list[str]] = {}
    for name, words in names.items():
        for each in words:
            classes.setdefault(each, []).append(name)
    for each, named in classes.items():
        if len(named) > 1:
            log.warning("%s: %r stands for %d classes: %s", source, each, len(named), first(named))


def read_templates(source: str) -> list[str]:
    """Sentences with {} for the words, one a line, but for empty lines and those that start with #.

    Raises InvalidInput for a line without {}, naming it, and where none is left.
    """
    name = "stdin" if source == "-" else source
    try:
        lines = bytes(mapped(source, name)).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is no UTF-8 text", "recode it") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    kept = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    for number, line in kept:
        if "{}" not in line:
            wrong = f"{name}: line {number} has no {{}}, which stands for the words"
            raise InvalidInput(wrong, "write it as in: a photo of a {}.")
    if not kept:
        raise InvalidInput(f"{name} holds no templates", "give one or more: a photo of a {}.")
    return [line for _, line in kept]


def _imagenet() -> list[str]:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


def _weight(network: Network, names: Names, templates: Sequence[str], advance: Advance) -> Float32:
    """The weight [C, D] of the classes, times exp(logit_scale)."""
    from nmlcli.models.extraction import TextExtractor

    extractor = TextExtractor(network, "fp32", "float32")
    sums = np.zeros((len(names), extractor.columns))
    numbers, prompts = zip(*_prompts(names, templates), strict=True)
    for start in range(0, len(prompts), BATCH["texts"]):
        batch = slice(start, start + BATCH["texts"])
        embedded = extractor(extractor.tokenizer(prompts[batch], None))
        np.add.at(sums, list(numbers[batch]), _unit(embedded.astype(np.float64)))
        advance(start + len(embedded), len(prompts))
    logit_scale = cast(Any, network.module).logit_scale.detach().double()
    weight: Float32 = (_unit(sums) * float(logit_scale.exp())).astype(np.float32)
    return weight


def _prompts(names: Names, templates: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Every sentence, with the number of its class."""
    for number, words in enumerate(names.values()):
        for each in words:
            for template in templates:
                yield number, template.replace("{}", each)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at length 1; the least length is that of torch.nn.functional.normalize."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = rows / np.maximum(lengths, 1e-12)
    return unit
