"""The frozen language model that reads memory tokens: whose it is, and its states after given beginnings."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.loading import find_source, load_tokenizer
from llm2comp.backbone.vocabulary import trim_tokenizer
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.objectives import cross_entropy

__all__ = ["check_memory", "check_reader", "encode_contexts", "find_own_reader", "loss_of", "read_after", "set_reader"]

_TOKENS_PER_PASS = {"cpu": 2_048, "cuda": 16_384}
"""Tokens of a pass of the reader, at most, unless a single text has more."""


def find_own_reader(model: LLM2Comp) -> str:
    """Reason why a model does not contain the frozen language model it began as; empty if it does.

    With an adapter, the weights below it are those of the language model, unless an earlier stage's adapter was merged
    into them.
    """
    backbone = model.encoder.backbone
    if backbone.has_other_reader:
        return ""
    if backbone.lacks_reader:
        return f"only the first {backbone.layers} layers of the language model it began as are in it"
    if not backbone.has_adapter and model.stages:
        return "all its weights were trained, so the language model it began as is not in it"
    if backbone.has_adapter and len(model.stages) > 1 and not (backbone.reference or backbone.wheel):
        return "its language model may hold the adapter of an earlier stage"
    return ""


def set_reader(model: LLM2Comp, name: str) -> None:
    """Makes a language model the reader of the model's memory tokens.

    Args:
        model: The model, changed in place; its vectors stay as they are.
        name: Folder, Hub id or GGUF file (also in a distribution, `wheel:…`) of the language model.

    Raises:
        BackboneError: If it cannot be loaded, or is not of the width, vocabulary or length of the model.
        SettingsError: If its tokenizer numbers tokens in another way.
    """
    encoder = model.encoder
    reader = Backbone.load(name, dtype=encoder.backbone.dtype, attention=encoder.backbone.attention)
    encoder.backbone.check_reader(reader)
    tokenizer = load_tokenizer(find_source(name))
    kept = encoder.backbone.kept_tokens
    if kept is not None and len(tokenizer) > len(kept):
        tokenizer = trim_tokenizer(tokenizer, kept.tolist())
    if tokenizer.get_vocab() != encoder.tokenizer.get_vocab():
        raise SettingsError(
            f"the reader {name} has another vocabulary than the encoder: give the language model that the encoder was "
            "trained from"
        )
    encoder.backbone.read_with(reader)


def check_reader(model: object, name: str | None = None) -> LLM2Comp:
    """The model, with the language model of this name as its reader, or its own without a name.

    Raises:
        BackboneError: As `set_reader`.
        SettingsError: As `set_reader`; or the model has no memory tokens, or neither a reader of its own nor a name.
    """
    checked = check_memory(model)
    if name:
        set_reader(checked, name)
    if reason := find_own_reader(checked):
        raise SettingsError(
            f"no language model reads this model's memory tokens: {reason}; name it (--reader, or reader= in Python)"
        )
    checked.encoder.backbone.check_head()
    return checked


def check_memory(model: object) -> LLM2Comp:
    """The model, which has memory tokens.

    Raises:
        SettingsError: It is no model of llm2comp.
    """
    if not isinstance(model, LLM2Comp):
        raise SettingsError(
            f"{type(model).__name__} has no memory tokens that a language model could read: give a model of llm2comp"
        )
    return model


@torch.no_grad()
def encode_contexts(encoder: MemoryEncoder, contexts: Sequence[Sequence[int]]) -> Tensor:
    """Memory tokens of contexts, (contexts, k, hidden), float32; token ids, beginning-of-sequence token first."""
    features = {name: value.to(encoder.memory.device) for name, value in encoder.pad(contexts).items()}
    memory: Tensor = encoder(features)["token_embeddings"]
    return memory


@torch.no_grad()
def read_after(
    encoder: MemoryEncoder, beginnings: Sequence[Tensor], continuations: Sequence[Sequence[int]]
) -> Iterator[Tensor]:
    """States of the reader after each beginning, (continuation + 1, hidden): from the last token of the beginning on.

    Args:
        encoder: Its frozen language model reads.
        beginnings: Input embeddings, each (tokens, hidden), at least one token.
        continuations: Token ids that follow each beginning; may be empty.
    """
    backbone = encoder.backbone
    sizes = [len(before) + len(after) for before, after in zip(beginnings, continuations, strict=True)]
    for rows in _passes(sizes, _TOKENS_PER_PASS.get(encoder.memory.device.type, _TOKENS_PER_PASS["cpu"])):
        packed = [
            part
            for row in rows
            for part in (beginnings[row], backbone.embed_frozen(_tensor(continuations[row], beginnings[row])))
        ]
        states = backbone.read(torch.cat(packed), [sizes[row] for row in rows])
        for row, text in zip(rows, states.split([sizes[row] for row in rows]), strict=True):
            yield text[len(beginnings[row]) - 1 :]


@torch.no_grad()
def loss_of(encoder: MemoryEncoder, states: Tensor, tokens: Sequence[int]) -> float:
    """Cross-entropy of tokens in nats, summed; the states are those of `read_after` for them, (tokens + 1, hidden)."""
    ones = torch.ones(len(tokens), device=states.device)
    return float(cross_entropy(states[:-1], _tensor(tokens, states), ones, encoder.backbone.head))


def _tensor(tokens: Sequence[int], beside: Tensor) -> Tensor:
    return torch.tensor(tokens, dtype=torch.long, device=beside.device)


def _passes(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Rows of each pass, in order, of at most so many tokens together."""
    begin = tokens = 0
    for row, size in enumerate(sizes):
        if row > begin and tokens + size > most:
            yield range(begin, row)
            begin, tokens = row, 0
        tokens += size
    if sizes:
        yield range(begin, len(sizes))
