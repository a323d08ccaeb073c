"""Heads as they are given: files, folders of them, and the classifier that a network was trained with,
as a head on the network's own features."""

from pathlib import Path

import numpy as np

from nmlcli.errors import InvalidInput, first
from nmlcli.products.container import Container, require_record
from nmlcli.products.formats import FORMATS, open_container, read_record
from nmlcli.products.head import Head, unpack_head
from nmlcli.provenance import Facts, Record

METHOD = "own"  # the method that result lines name
# What timm calls the last layer of its networks (`classifier` in their configurations).
_NAMES = (
    "fc", "head", "head.fc", "classifier", "head.linear", "last_linear", "head.l", "head.head.l",
    "head.classifier.linear", "head.classifier.4", "head.fc.fc2", "head.fc2", "head.proj", "classif",
)  # fmt: skip
_FLOATS = ("float32", "float16", "float64")


def open_heads(source: str) -> list[Head]:
    """A head's file, or all heads in a folder by name; other products there are passed over."""
    if source == "-" or not Path(source).is_dir():
        return [open_head(source)]
    files = sorted(str(path) for path in Path(source).iterdir() if path.suffix in FORMATS)
    records = {file: read_record(file) for file in files}
    heads = [open_head(file) for file, record in records.items() if record and record.kind == "head"]
    if not heads:
        raise InvalidInput(f"{source} holds no heads", "make them with nml tune")
    return heads


def open_head(source: str) -> Head:
    """A head, or a checkpoint's own classifier as one."""
    container = open_container(source, "head")
    record = container.record
    is_network = record is not None and record.kind == "checkpoint"
    return own_classifier(container) if is_network else unpack_head(container)


def own_classifier(container: Container) -> Head:
    """The classifier of a checkpoint: a linear head on its pooled features before the logits.

    Only its two arrays are read, in numpy. Raises InvalidInput where the network was not trained as a
    classifier, or where it cannot be told which of its layers the classifier is.
    """
    record = require_record(container, "checkpoint")
    count = len(record.classes or ())
    name = _layer(container, count)
    arrays = container.arrays([f"{name}.weight", f"{name}.bias"])
    weight = arrays[f"{name}.weight"].reshape(count, -1).astype(np.float32)
    bias = arrays.get(f"{name}.bias", np.zeros(count)).astype(np.float32)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise InvalidInput(f"{container.source}: {name} holds values that are not finite")
    told = _as_head(record, weight.shape[1])
    return Head(told, ((weight, bias),), None, None, container.source)


def _layer(container: Container, count: int) -> str:
    """The name of the layer that gives the logits."""
    source, tensors = container.source, container.tensors
    if not count:
        wrong = f"{source} was not trained as a classifier"
        raise InvalidInput(wrong, "tune a head on its features: nml tune")

    def fits(name: str) -> bool:
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        if weight is None or weight.dtype not in _FLOATS or weight.shape[:1] != (count,):
            return False
        # [C, D], or a convolution of one pixel [C, D, 1, 1]
        flat = len(weight.shape) in (2, 4) and set(weight.shape[2:]) <= {1}
        return flat and (bias is None or (bias.dtype in _FLOATS and bias.shape == (count,)))

    found = [name for name in _NAMES if fits(name)]
    two = any(part.endswith("_dist") for name in tensors for part in name.split("."))
    if len(found) != 1 or two:
        last = first([name for name in reversed(list(tensors)) if name.endswith(".weight")])
        wrong = f"{source}: it cannot be told which layer is its classifier"
        raise InvalidInput(wrong, f"it ends with {last}; tune a head on its features instead")
    return found[0]


def _as_head(record: Record, columns: int) -> Record:
    """The record of a checkpoint as that of a head on its features, as embed names them."""
    model, extra = record.model or {}, record.extra
    facts: Facts = {
        "method": METHOD, "seed": model.get("seed"), "loss": _loss(record.options),
        "trained_on": _met_as(record.data), "validated_on": _met_as(extra.get("validation")),
        "selected_by": extra.get("selected_by"), "fraction": extra.get("fraction", 1.0),
    }  # fmt: skip
    return Record(
        "head", record.identity, record.command, record.options, record.classes, record.rows, columns,
        record.data, {**model, "layer": "pre_logits"}, record.noise, record.parents, facts,
    )  # fmt: skip


def _loss(options: Facts) -> str | None:
    """What a network was trained by, in the words for heads; None for labels that mixing made."""
    if options.get("mixup") or options.get("cutmix"):
        return None
    loss = str(options.get("loss", "ce"))
    return "label-smoothing" if loss == "ce" and options.get("label_smoothing") else loss


def _met_as(data: Facts | None) -> list[str]:
    """The identities by which a set of samples can be met again, under other labels too."""
    told = data or {}
    return [str(told[key]) for key in ("identity", "samples") if told.get(key)]
