"""A head: what `tune` makes of features, runnable in numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.errors import InvalidInput
from nmlcli.products.container import Array, Container, require, require_names, require_record
from nmlcli.provenance import Record

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """A head of linear layers, batch norm folded in: features F [N, D] to Z and logits [N, C].

    layers: (weight [out, in], bias [out]) each; ReLU follows every layer but the last two (`activation`
    in the record's extra: "relu" or "none"). Z = the last layer's input, plus residual · F where
    residual [D] is given. Where the extra's `logits` is "cosine", the last layer takes the rows of Z
    at length 1. input_scale: F is multiplied by it first. source: for messages.
    """

    record: Record
    layers: tuple[tuple[Float32, Float32], ...]
    residual: Float32 | None
    input_scale: float | None
    source: str

    def apply(self, features: NDArray[np.floating]) -> tuple[Float32, Float32]:
        """Transform a block of features [N, D]; returns Z [N, D'] and logits [N, C], float32."""
        scaled = np.asarray(features, dtype=np.float32)
        if self.input_scale is not None:
            scaled = scaled * np.float32(self.input_scale)
        transformed = scaled
        for number, (weight, bias) in enumerate(self.layers[:-1]):
            transformed = _affine(transformed, weight, bias)
            if number < len(self.layers) - 2 and self.record.extra.get("activation", "relu") == "relu":
                np.maximum(transformed, 0, out=transformed)
        if self.residual is not None:
            transformed = transformed + self.residual * scaled
        cosine = self.record.extra.get("logits") == "cosine"
        weight, bias = self.layers[-1]
        return transformed, _affine(_unit(transformed) if cosine else transformed, weight, bias)


def _unit(rows: Float32) -> Float32:
    """Rows at length 1; one of zeros stays as it is. In float64, which holds any square of float32."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    unit: Float32 = np.divide(
        rows, lengths, out=np.zeros_like(rows), where=lengths > 0, casting="same_kind"
    )
    return unit


def _affine(rows: Float32, weight: Float32, bias: Float32) -> Float32:
    product: Float32 = rows @ weight.T
    product += bias  # a sum in a fresh array of wide logits takes a quarter of the product's time
    return product


def pack_head(head: Head) -> dict[str, Array]:
    """The arrays of a head: `weight.i`, `bias.i`, and `input_scale`, `residual` where it has them."""
    arrays: dict[str, Array] = {}
    for number, (weight, bias) in enumerate(head.layers):
        arrays[f"weight.{number}"], arrays[f"bias.{number}"] = weight, bias
    if head.residual is not None:
        arrays["residual"] = head.residual
    arrays = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
    if head.input_scale is None:
        return arrays
    # It comes first, since each array is aligned to its own size.
    return {"input_scale": np.asarray(head.input_scale, dtype=np.float64), **arrays}


def unpack_head(container: Container) -> Head:
    """Read a head; raises InvalidInput where its layers do not fit one another or its classes."""
    record = require_record(container, "head")
    count = max(1, sum(name.startswith("weight.") for name in container.tensors))
    names = [f"{part}.{number}" for number in range(count) for part in ("weight", "bias")]
    require_names(container, (*names, "residual", "input_scale"))
    width = start = require(container, "weight.0", ("float32",), (None, None)).shape[1]
    if record.columns not in (None, width):
        raise InvalidInput(
            f"{container.source} is for {record.columns} columns by its record, not {width}"
        )
    for number in range(count):
        width = require(container, f"weight.{number}", ("float32",), (None, width)).shape[0]
        require(container, f"bias.{number}", ("float32",), (width,))
    if "residual" in container.tensors:
        require(container, "residual", ("float32",), (start,))
        require(container, f"weight.{count - 1}", ("float32",), (None, start))
    if "input_scale" in container.tensors:
        require(container, "input_scale", ("float64",), ())
    if record.classes is not None and len(record.classes) != width:
        raise InvalidInput(f"{container.source} gives {width} logits for {len(record.classes)} classes")
    arrays = container.arrays(container.tensors)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InvalidInput(f"{container.source}: {name} holds values that are not finite")
    return Head(
        record=record,
        layers=tuple((arrays[f"weight.{i}"], arrays[f"bias.{i}"]) for i in range(count)),
        residual=arrays.get("residual"),
        input_scale=float(arrays["input_scale"]) if "input_scale" in arrays else None,
        source=container.source,
    )
