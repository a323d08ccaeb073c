"""Texts to tokens, as networks of open_clip take them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nmlcli.errors import UsageError
from nmlcli.provenance import Facts


class ClipTokenizer:
    """The tokenizer of a network of open_clip: as many tokens a text as the network takes."""

    def __init__(self, tokenize: Any) -> None:
        self.tokenize = tokenize

    def __call__(self, texts: Sequence[str], texts2: Sequence[str] | None) -> list[Tensor]:
        """int64 [T] of each text, cut or filled up. Raises UsageError for pairs."""
        if texts2 is not None:
            raise UsageError("networks of open_clip read no pairs of texts", "bring one text a sample")
        return list(self.tokenize(list(texts)).long())

    def batch(self, tokens: Sequence[Tensor]) -> dict[str, Tensor]:
        """int64 [B, T]."""
        return {"tokens": torch.stack(list(tokens))}

    def check_fits(self, vocabulary: int, label: str) -> None:
        """Raise UsageError where it makes tokens that a network for so many has no embedding of."""
        made = self.tokenize.vocab_size
        if made > vocabulary:
            wrong = f"{label} takes {vocabulary} different tokens, and its tokenizer makes {made}"
            raise UsageError(wrong, "raise vocab_size of its text_cfg")

    def facts(self) -> Facts:
        """What a record says of it."""
        return {"tokenizer": type(self.tokenize).__name__, "max_length": self.tokenize.context_length}
