"""How well a frozen language model, the reader, continues a text from its memory tokens: held-out losses and samples.

A text is cut in two at a random place. The reader scores the second part after one of four beginnings:

- `nothing`: the beginning-of-sequence token alone;
- `another text`: that token and the memory tokens of another text's first part: the effect of memory tokens whatever
  they contain;
- `memory`: that token and the memory tokens of the first part;
- `whole text`: the first part itself, token by token.

`nothing` and `whole text` are the two ends of the scale. Rows and losses are those of stage 1 (`training.compression`,
`training.objectives`): Zhang et al., AAAI 2026, section 3.2.
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
from llm2comp.reading.frozen_reader import encode_contexts, loss_of, read_after
from llm2comp.training.objectives import distillation
from llm2comp.training.splits import Split, cut_in_two

__all__ = [
    "BEGINNINGS",
    "MARGIN",
    "Reading",
    "Sample",
    "Share",
    "Split",
    "pooled_share",
    "read_held_out",
    "split_texts",
    "write_samples",
]

BEGINNINGS = ("nothing", "another text", "memory", "whole text")
MARGIN = 10
"""Fewest tokens on either side of a cut, as in stage 1."""

_RESAMPLES = 1000


class Sample(NamedTuple):
    """Greedy continuations by the reader, beside the text's real one."""

    context: str
    continuation: str
    written: dict[str, str]
    """The reader's continuation by beginning."""


class Share(NamedTuple):
    """A share and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """Held-out losses by beginning, in nats per token.

    Attributes:
        texts: Number of texts.
        tokens: Number of tokens of all second parts.
        nll: Cross-entropy of the second parts, a mean over all tokens.
        ctkd: KL(whole text || beginning) of the next token, a mean over a text's rows, then over texts; 0 for
            `whole text`.
        nll_share: Share of the context's benefit that the memory tokens keep,
            (nothing - memory) / (nothing - whole text), with its 95 % bootstrap interval over texts; None if the
            context does not lower the reader's loss, overall or in a resample.
        ctkd_share: Share of the divergence that the memory tokens remove, 1 - memory / nothing, likewise.
    """

    texts: int
    tokens: int
    nll: dict[str, float]
    ctkd: dict[str, float]
    nll_share: Share | None
    ctkd_share: Share | None


def split_texts(encoder: MemoryEncoder, texts: Sequence[str], *, limit: int, max_tokens: int, seed: int) -> list[Split]:
    """A random sample of texts, each cut in two as in stage 1; texts too short for two margins are left out.

    The sample is drawn from all texts because the first texts of a corpus often belong to one document; `another text`
    would then say nearly as much as the text itself.

    Args:
        encoder: Its tokenizer makes the token ids.
        texts: All texts.
        limit: Largest number of splits.
        max_tokens: Longest text; longer ones are shortened before they are cut in two.
        seed: Seed of the sample and of the cuts.
    """
    splits: list[Split] = []
    for row in random.Random(seed).sample(range(len(texts)), len(texts)):
        if len(splits) == limit:
            break
        tokens = encoder.token_ids([texts[row]])[0][:max_tokens]
        if len(tokens) >= 2 * MARGIN + 1:
            splits.append(cut_in_two(tokens, margin=MARGIN, seed=seed, row=row))
    return splits


@torch.no_grad()
def read_held_out(encoder: MemoryEncoder, splits: Sequence[Split]) -> Reading:
    """Losses on at least two texts; each text's memory tokens also serve as `another text` for the next one."""
    backbone, device = encoder.backbone, encoder.memory.device
    memories = encode_contexts(encoder, [split.context for split in splits])
    losses = np.zeros((2, len(BEGINNINGS), len(splits)))  # nll: sum over tokens; ctkd: mean over rows
    for number, split in enumerate(splits):
        beginnings = _beginnings(encoder, split, memories[number - 1], memories[number])
        states = list(read_after(encoder, beginnings, [split.continuation] * len(beginnings)))
        rows_of_text = len(split.continuation) + 1
        mean = torch.full((rows_of_text,), 1.0 / rows_of_text, device=device)
        losses[0, :, number] = [loss_of(encoder, rows, split.continuation) for rows in states]
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
        nll_share=pooled_share(nll[0] - nll[2], nll[0] - nll[3]),
        ctkd_share=pooled_share(ctkd[0] - ctkd[2], ctkd[0]),
    )


def pooled_share(kept: NDArray[np.float64], whole: NDArray[np.float64]) -> Share | None:
    """Sum of `kept` over texts divided by that of `whole`, with its 95 % bootstrap interval over texts.

    None if the sum of `whole` is not above 0, overall or in a resample.
    """
    resamples = np.random.default_rng(0).integers(len(whole), size=(_RESAMPLES, len(whole)))
    wholes = whole[resamples].sum(-1)
    if whole.sum() <= 0 or (wholes <= 0).any():
        return None
    low, high = np.percentile(kept[resamples].sum(-1) / wholes, [2.5, 97.5])
    return Share(float(kept.sum() / whole.sum()), float(low), float(high))


def write_samples(encoder: MemoryEncoder, splits: Sequence[Split], *, count: int, tokens: int) -> list[Sample]:
    """Greedy continuations of the first `count` texts after each beginning, of at most `tokens` tokens."""
    samples = []
    for number, split in enumerate(splits[:count]):
        other, memory = encode_contexts(encoder, [splits[row].context for row in (number - 1, number)])
        written = {
            name: _write(encoder, prefix, tokens)
            for name, prefix in zip(BEGINNINGS, _beginnings(encoder, split, other, memory), strict=True)
        }
        samples.append(Sample(_text(encoder, split.context[1:]), _text(encoder, split.continuation[:tokens]), written))
    return samples


@torch.no_grad()
def _beginnings(encoder: MemoryEncoder, split: Split, other: Tensor, memory: Tensor) -> list[Tensor]:
    """Input embeddings of each of `BEGINNINGS`, (tokens, hidden)."""
    text = encoder.backbone.embed_frozen(torch.tensor(split.context, device=encoder.memory.device))
    first = text[:1]
    return [first, torch.cat([first, other.to(text.dtype)]), torch.cat([first, memory.to(text.dtype)]), text]


@torch.no_grad()
def _write(encoder: MemoryEncoder, before: Tensor, tokens: int) -> str:
    """The reader's greedy continuation, until the end-of-sequence token or the given number of tokens."""
    written: list[int] = []
    for _ in range(tokens):
        [states] = read_after(encoder, [before], [written])
        token = int(encoder.backbone.head(states[-1:]).argmax())
        if token == encoder.tokenizer.eos_token_id:
            break
        written.append(token)
    return _text(encoder, written)


def _text(encoder: MemoryEncoder, tokens: list[int]) -> str:
    text = encoder.tokenizer.decode(tokens, skip_special_tokens=True)
    assert isinstance(text, str)
    return text
