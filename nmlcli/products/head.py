"""A head: what `tune` makes of features, runnable in numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmlcli.provenance import Record

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """A head of linear layers, batch norm folded in: features F [N, D] to Z and logits [N, C].

    layers: (weight [out, in], bias [out]) each; ReLU follows every layer but the last two (`activation`
    in the record's extra: "relu" or "none"). Z = the last layer's input, plus residual · F where
    residual [D] is given. input_scale: F is multiplied by it first. source: for messages.
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
            transformed = transformed @ weight.T + bias
            if number < len(self.layers) - 2 and self.record.extra.get("activation", "relu") == "relu":
                np.maximum(transformed, 0, out=transformed)
        if self.residual is not None:
            transformed = transformed + self.residual * scaled
        weight, bias = self.layers[-1]
        return transformed, transformed @ weight.T + bias
