"""Networks of texts, as transformers builds them: tokens of texts, hidden states, features of a pool.

Only what the encoder says is used. Code that comes with weights is never run.
"""

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Embedding, Module

from nmlcli import keyed
from nmlcli.errors import InvalidInput, NmlError, UsageError, first
from nmlcli.models.hub import brief, fetching
from nmlcli.models.pooling import POOLINGS
from nmlcli.models.schemes import Network, Wanted
from nmlcli.provenance import Facts

try:
    import transformers
except ImportError as error:
    raise NmlError("networks of texts need transformers", 'pip install "nmlcli[text]"') from error

log = logging.getLogger(__name__)

_BRING = "bring its folder (config.json, tokenizer, model.safetensors) and name it: hf:DIR"
Tokens = NDArray[np.int64]  # [T, K] of one text: a row a token, a column an input of the network


class TextTokenizer:
    """A tokenizer of transformers, its padding on the right and masked, whatever its own is.

    inputs: what the network takes of each token. longest: tokens of a text, special ones included; more
    are cut off, None: as many as there are.
    """

    def __init__(self, tokenizer: Any, inputs: Sequence[str], longest: int | None) -> None:
        self.tokenizer, self.inputs, self.longest = tokenizer, tuple(inputs), longest
        known = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, 0)
        end = next(token for token in known if token is not None)
        pad = tokenizer.pad_token_id
        fill = {"input_ids": end if pad is None else pad, "token_type_ids": tokenizer.pad_token_type_id}
        self._padding = [fill[name] for name in self.inputs]
        self._nothing = np.array([[end if name == "input_ids" else 0 for name in self.inputs]])
        self._told = False

    def __call__(self, texts: Sequence[str], texts2: Sequence[str] | None) -> list[Tokens]:
        """The tokens of each text, or of each pair, at least one: nothing is read as its end."""
        found = self._tokens(texts, texts2, None)
        long = [row for row, each in enumerate(found) if self.longest and len(each) > self.longest]
        if long:
            some = None if texts2 is None else [texts2[row] for row in long]
            cut = self._tokens([texts[row] for row in long], some, self.longest)
            for row, each in zip(long, cut, strict=True):
                found[row] = each
            self._tell(len(long), len(found))
        return [each if len(each) else self._nothing for each in found]

    def _tokens(
        self, texts: Sequence[str], texts2: Sequence[str] | None, longest: int | None
    ) -> list[Tokens]:
        found = self.tokenizer(
            list(texts), None if texts2 is None else list(texts2), padding=False, verbose=False,
            truncation=longest is not None, max_length=longest, return_attention_mask=False,
            return_token_type_ids="token_type_ids" in self.inputs,
        )  # fmt: skip
        columns = (found[name] for name in self.inputs)
        return [np.array(each, dtype=np.int64).T for each in zip(*columns, strict=True)]

    def _tell(self, cut: int, of: int) -> None:
        if not self._told:
            log.info(
                "%d of the first %d texts are longer than %d tokens; what is longer is cut there",
                cut, of, self.longest,
            )  # fmt: skip
        self._told = True

    def batch(self, tokens: Sequence[Tokens]) -> dict[str, Tensor]:
        """Tokens of B texts as the network takes them, each int64 [B, T], and their attention mask."""
        shape = (len(tokens), max(map(len, tokens)))
        padded, kept = np.empty((*shape, len(self.inputs)), np.int64), np.zeros(shape, np.int64)
        padded[:] = self._padding
        for row, each in enumerate(tokens):
            padded[row, : len(each)], kept[row, : len(each)] = each, 1
        columns = {
            name: torch.from_numpy(padded[:, :, column].copy())
            for column, name in enumerate(self.inputs)
        }
        return {**columns, "attention_mask": torch.from_numpy(kept)}

    def facts(self) -> Facts:
        """What a record says of it."""
        name = type(self.tokenizer).__name__.removesuffix("Fast")
        return {"tokenizer": name, "max_length": self.longest}


def open_hf(name: str, wanted: Wanted, identity: str) -> Network:
    """A network of texts by its folder or its name on the hub.

    Its default features are the mean of the last hidden state over the tokens of a text. Raises
    UsageError for a hidden state that it has not, InvalidInput where files are damaged or do not fit
    one another, NmlError where the hub does not have it.
    """
    if wanted.size is not None:
        raise UsageError("a network of texts takes no images", "leave out --size")
    with _quiet():
        config, tokenizer, module = _load(name, wanted)
    layer, last = _layer(config, wanted.layer)
    pool = wanted.pool or "mean"
    tokens = _tokenizer(name, tokenizer, config, module)
    local = Path(name).is_dir()
    facts = {
        **dict.fromkeys(("objective", "data", "noise")),
        "name": Path(name).resolve().name if local else name,
        "architecture": config.model_type if local else name.rpartition("/")[2],
        "seed": wanted.seed if wanted.random_init else None, "identity": identity,
        "layer": f"hidden_state.{layer}", "pool": pool, "preprocessing": tokens.facts(),
    }  # fmt: skip
    state = None if layer == last else layer
    return Network(module.eval(), tokens, _encoder(module, state, pool), facts)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers says nothing, now and later; what it would warn of is an error here."""
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(name: str, wanted: Wanted) -> tuple[Any, Any, Module]:
    """The configuration, the tokenizer, and the network in float32."""
    local = Path(name).is_dir()
    how = {"trust_remote_code": False, "local_files_only": local}
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # else the hub is asked to do it
    try:
        with nullcontext() if local else fetching(name, _BRING):
            config = transformers.AutoConfig.from_pretrained(name, **how)
            setattr(config, "dtype" if hasattr(config, "dtype") else "torch_dtype", torch.float32)
            config.use_cache = False
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **how)
            module, loaded = _module(name, config, wanted, how)
    except NmlError:
        raise
    except pickle.UnpicklingError as error:
        wrong = f"{name} holds no weights that can be read safely"
        raise InvalidInput(wrong, "bring model.safetensors") from error
    except Exception as error:  # tokenizers raises nothing more special
        wrong = f"{name} is no network that transformers can build: {brief(error)}"
        raise InvalidInput(wrong) from error
    unused = {"pooler", "decoder"} if config.is_encoder_decoder else {"pooler"}
    _require_fit(name, module, loaded, unused)
    encoder: Any = module
    if config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    return config, tokenizer, encoder


def _module(name: str, config: Any, wanted: Wanted, how: Facts) -> tuple[Module, Facts]:
    """The network, and which weights did not fit it."""
    if wanted.random_init:
        torch.manual_seed(keyed.scalar(wanted.seed, "init"))
        return transformers.AutoModel.from_config(config, trust_remote_code=False), {}
    found: tuple[Module, Facts] = transformers.AutoModel.from_pretrained(
        name, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **how
    )
    return found


def _require_fit(name: str, module: Module, loaded: Facts, unused: set[str]) -> None:
    """Raise InvalidInput where weights are missing, of another shape, or of layers it does not have.

    unused: parts that may be missing, since features are not made of them. Heads may be there.
    """
    prefix = f"{module.base_model_prefix}."
    modules = dict(module.named_modules())
    missing = [key for key in loaded.get("missing_keys", ()) if not unused & set(key.split("."))]
    shapes = [key for key, *_ in loaded.get("mismatched_keys", ())]
    spare = []
    for key in loaded.get("unexpected_keys", ()):
        inside = key.removeprefix(prefix)
        if inside.partition(".")[0] in modules and inside.rpartition(".")[0] not in modules:
            spare.append(inside)
    for wrong, keys in (("lacks", missing), ("has other shapes of", shapes), ("has besides", spare)):
        if keys:
            named = first(sorted(keys))
            raise InvalidInput(f"{name}: its weights do not fit its config.json: it {wrong} {named}")


def _tokenizer(name: str, tokenizer: Any, config: Any, module: Any) -> TextTokenizer:
    """The tokenizer of a network; raises InvalidInput where it has tokens that the network does not."""
    known = module.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > known:
        wrong = f"{name}: its tokenizer has {len(tokenizer)} tokens, its network {known}"
        raise InvalidInput(wrong, "bring the tokenizer that it was trained with")
    takes = signature(module.forward).parameters
    if "attention_mask" not in takes:  # what pads a short text would be read as part of it
        wrong = f"{name} ({config.model_type}) cannot tell a text from what pads it"
        raise InvalidInput(wrong, "take a network with an attention mask")
    inputs = ["input_ids"]
    if "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in takes:
        inputs.append("token_type_ids")
    return TextTokenizer(tokenizer, inputs, _longest(tokenizer, config, module))


def _longest(tokenizer: Any, config: Any, module: Module) -> int | None:
    """The tokens that a network takes at once. RoBERTa and its kin count places from after the
    padding's, so that these many of their position embeddings are never used."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 2**31 else []
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and places > 0:
        reserved = [
            each.padding_idx + 1
            for name, each in module.named_modules()
            if name.endswith("position_embeddings") and isinstance(each, Embedding)
            and each.padding_idx is not None
        ]  # fmt: skip
        limits.append(places - max(reserved, default=0))
    return min(limits, default=None)


def _layer(config: Any, layer: str | None) -> tuple[int, int]:
    """The number of a hidden state, and that of the last."""
    last = int(getattr(config, "num_hidden_layers", 0))
    if layer is None:
        return last, last
    if not (layer.isascii() and layer.isdigit() and int(layer) <= last):
        remedy = f"give a number from 0 (the embeddings) to {last}"
        raise UsageError(f"the network has no hidden state {layer!r}", remedy)
    return int(layer), last


def _encoder(module: Module, state: int | None, pool: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """A function of a batch that gives a hidden state, None: the last one, pooled over its tokens."""

    def encode(batch: dict[str, Tensor]) -> Tensor:
        said = module(**batch, output_hidden_states=state is not None, return_dict=True)
        states = said.last_hidden_state if state is None else said.hidden_states[state]
        return POOLINGS[pool].pool(
            states.float(), batch["attention_mask"].bool()
        )  # [B, T, D] to [B, D]

    return encode
