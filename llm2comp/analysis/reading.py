"""What the memory tokens of a text are worth to a frozen language model: held-out losses beside both ends of the scale, and what it writes from them.

A text is cut in two at a random place. The reader scores the second part after one of four beginnings:

- `nothing`: the beginning-of-sequence token alone;
- `another text`: that token and the memory tokens of another text's first part: what any memory tokens do, whatever
  they hold;
- `memory`: that token and the memory tokens of the first part;
- `whole text`: the first part itself, token by token.

Rows and losses are those of stage 1 (`training.compression`, `objectives`): Zhang et al., AAAI 2026, section 3.2.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm2comp.encoder import MemoryEncoder
from llm2comp.model import LLM2Comp
from llm2comp.training.objectives import cross_entropy, distillation

__all__ = [
    "BEGINNINGS",
    "MARGIN",
    "Reading",
    "Sample",
    "Share",
    "Split",
    "find_own_reader",
    "read_held_out",
    "split_texts",
    "write_samples",
]

BEGINNINGS = ("nothing", "another text", "memory", "whole text")
MARGIN = 10
"""Fewest tokens on either side of a cut, as in stage 1."""

_RESAMPLES = 1000


class Split(NamedTuple):
    """Token ids of a text cut in two, the beginning-of-sequence token first."""

    context: list[int]
    continuation: list[int]


class Sample(NamedTuple):
    """What the reader writes, greedily, after each beginning, beside what the text goes on with."""

    context: str
    continuation: str
    written: dict[str, str]


class Share(NamedTuple):
    """A share and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """Held-out losses in nats a token by beginning.

    Attributes:
        texts: Texts read.
        tokens: Tokens of all second parts.
        nll: Cross-entropy of the second parts, a mean over all tokens.
        ctkd: KL(whole text || beginning) of the next token, a mean over a text's rows, then over texts; 0 after the whole text.
        nll_share: Share of what the context is worth that is kept, (nothing - memory) / (nothing - whole text), and its
            95 % bootstrap interval over texts; None where the context was worth nothing to the reader, overall or in a
            resample.
        ctkd_share: 1 - memory / nothing, likewise.
    """

    texts: int
    tokens: int
    nll: dict[str, float]
    ctkd: dict[str, float]
    nll_share: Share | None
    ctkd_share: Share | None


def find_own_reader(model: LLM2Comp) -> str:
    """Why a model has no frozen language model of its own to read with; empty if it has one.

    Below an adapter the weights are those of the language model, unless the adapter of an earlier stage was added to
    them.
    """
    backbone = model.encoder.backbone
    if backbone.has_other_reader:
        return ""
    if not backbone.has_adapter and model.stages:
        return "all its weights were trained, so the language model it began as is not in it"
    if backbone.has_adapter and len(model.stages) > 1 and backbone.reference is None:
        return "its language model may hold the adapter of an earlier stage"
    return ""


def split_texts(encoder: MemoryEncoder, texts: Sequence[str], *, limit: int, max_tokens: int, seed: int) -> list[Split]:
    """Texts of at least two margins, cut to `max_tokens` and then in two at a place drawn from the seed and the text's number.

    They are drawn from all texts: the first of a corpus are often of one document, and then `another text` says nearly
    as much as the text itself.
    """
    splits: list[Split] = []
    for row in random.Random(seed).sample(range(len(texts)), len(texts)):
        if len(splits) == limit:
            break
        tokens = encoder.token_ids([texts[row]])[0][:max_tokens]
        if len(tokens) >= 2 * MARGIN + 1:
            cut = random.Random(f"{seed}:{row}").randint(MARGIN, len(tokens) - MARGIN)
            splits.append(Split(tokens[:cut], tokens[cut:]))
    return splits


@torch.no_grad()
def read_held_out(encoder: MemoryEncoder, splits: Sequence[Split]) -> Reading:
    """The losses on at least two texts; a text's memory tokens stand for the next one's as well (`another text`)."""
    backbone, device = encoder.backbone, encoder.memory.device
    memories = [_memory(encoder, split.context) for split in splits]
    losses = np.zeros((2, len(BEGINNINGS), len(splits)))  # nll summed over tokens, ctkd a mean over rows
    for number, split in enumerate(splits):
        states = [
            _states(encoder, before, split.continuation)
            for before in _beginnings(encoder, split, memories[number - 1], memories[number])
        ]
        targets = torch.tensor(split.continuation, device=device)
        each, mean = (
            torch.ones(len(targets), device=device),
            torch.full((len(targets) + 1,), 1.0 / (len(targets) + 1), device=device),
        )
        losses[0, :, number] = [float(cross_entropy(rows[:-1], targets, each, backbone.head)) for rows in states]
        losses[1, :-1, number] = [float(distillation(rows, states[-1], mean, backbone.head)) for rows in states[:-1]]
    return _summed(losses, np.array([len(split.continuation) for split in splits]))


def _summed(losses: NDArray[np.float64], tokens: NDArray[np.int64]) -> Reading:
    texts = len(tokens)
    nll, ctkd = losses
    return Reading(
        texts=texts,
        tokens=int(tokens.sum()),
        nll=dict(zip(BEGINNINGS, (nll.sum(-1) / tokens.sum()).tolist(), strict=True)),
        ctkd=dict(zip(BEGINNINGS, ctkd.mean(-1).tolist(), strict=True)),
        nll_share=_share(nll[0] - nll[2], nll[0] - nll[3]),
        ctkd_share=_share(ctkd[0] - ctkd[2], ctkd[0]),
    )


def _share(kept: NDArray[np.float64], whole: NDArray[np.float64]) -> Share | None:
    """Sum over texts of what is kept over that of the whole."""
    chosen = np.random.default_rng(0).integers(len(whole), size=(_RESAMPLES, len(whole)))
    wholes = whole[chosen].sum(-1)
    if whole.sum() <= 0 or (wholes <= 0).any():
        return None
    low, high = np.percentile(kept[chosen].sum(-1) / wholes, [2.5, 97.5])
    return Share(float(kept.sum() / whole.sum()), float(low), float(high))


@torch.no_grad()
def write_samples(encoder: MemoryEncoder, splits: Sequence[Split], *, count: int, tokens: int) -> list[Sample]:
    """What the frozen reader writes after each beginning of the first texts: at most so many tokens, the likeliest each time."""
    samples = []
    for number, split in enumerate(splits[:count]):
        other, memory = (_memory(encoder, splits[row].context) for row in (number - 1, number))
        written = {
            name: _write(encoder, prefix, tokens)
            for name, prefix in zip(BEGINNINGS, _beginnings(encoder, split, other, memory), strict=True)
        }
        samples.append(Sample(_text(encoder, split.context[1:]), _text(encoder, split.continuation[:tokens]), written))
    return samples


def _memory(encoder: MemoryEncoder, context: list[int]) -> Tensor:
    """(k, hidden)."""
    return encoder.memory_states(torch.tensor(context, device=encoder.memory.device), [len(context)])[0]


def _beginnings(encoder: MemoryEncoder, split: Split, other: Tensor, memory: Tensor) -> list[Tensor]:
    """Input embeddings of each of `BEGINNINGS`, (tokens, hidden)."""
    text = encoder.backbone.embed_frozen(torch.tensor(split.context, device=encoder.memory.device))
    first = text[:1]
    return [first, torch.cat([first, other.to(text.dtype)]), torch.cat([first, memory.to(text.dtype)]), text]


def _states(encoder: MemoryEncoder, before: Tensor, continuation: list[int]) -> Tensor:
    """States of the reader from the end of a beginning to that of the text, (continuation + 1, hidden)."""
    backbone = encoder.backbone
    after = backbone.embed_frozen(torch.tensor(continuation, device=before.device))
    return backbone.read(torch.cat([before, after]), [len(before) + len(after)])[len(before) - 1 :]


def _write(encoder: MemoryEncoder, before: Tensor, tokens: int) -> str:
    """The likeliest token, again and again, until the text ends or there are enough."""
    written: list[int] = []
    for _ in range(tokens):
        state = _states(encoder, before, written)[-1:] if written else encoder.backbone.read(before, [len(before)])[-1:]
        token = int(encoder.backbone.head(state).argmax())
        if token == encoder.tokenizer.eos_token_id:
            break
        written.append(token)
    return _text(encoder, written)


def _text(encoder: MemoryEncoder, tokens: list[int]) -> str:
    text = encoder.tokenizer.decode(tokens, skip_special_tokens=True)
    assert isinstance(text, str)
    return text
