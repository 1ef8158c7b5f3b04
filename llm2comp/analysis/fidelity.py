"""Fidelity of a text: how much of what the text is worth to a frozen language model, the reader, its memory keeps.

    (loss after nothing - loss after its memory) / (loss after nothing - loss after the text)

The loss is the reader's cross-entropy of what follows, and what follows is one of two:

- `reconstruction`: the text itself. After the text, the reader reads it a second time.
- `continuation`: the text's second half, after its first half; or another given text, after the whole text.

1 says that memory tokens serve the reader as well as the text, 0 that they serve it no better than nothing; below 0, it
reads worse with them. The reader's input is that of stage 1 (`training.compression`): the beginning-of-sequence token,
the memory tokens (or nothing, or the text), and what follows. Zhang et al., AAAI 2026, section 3.2.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch

from llm2comp.analysis.reading import MARGIN
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.reading.frozen_reader import check_reader, encode_contexts, loss_of, read_after
from llm2comp.training.splits import Split

__all__ = [
    "MEASURES",
    "Fidelity",
    "Measure",
    "TextSplit",
    "TooShortError",
    "measure_fidelity",
    "measure_splits",
    "split_text",
]

Measure = Literal["reconstruction", "continuation"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
_TEXTS_AT_ONCE = 64


class TooShortError(SettingsError):
    """A text has too few tokens for a measure."""


class Fidelity(NamedTuple):
    """Losses of the reader on what follows, in nats per token.

    Attributes:
        nothing: After the beginning-of-sequence token alone.
        memory: After that token and the memory tokens of the text.
        text: After the text.
        tokens: Number of tokens of the text in its memory.
        cut: Whether the text is longer than that: the model reads no more at once.
    """

    nothing: float
    memory: float
    text: float
    tokens: int
    cut: bool = False

    @property
    def share(self) -> float | None:
        """Share of the text's worth that the memory keeps; None if the text does not help the reader."""
        worth = self.nothing - self.text
        return (self.nothing - self.memory) / worth if worth > 0 else None


class TextSplit(NamedTuple):
    """Token ids of a text and of what follows it.

    Attributes:
        parts: Context (beginning-of-sequence token first) and continuation.
        cut: Whether tokens at the end were left out.
    """

    parts: Split
    cut: bool = False


def measure_fidelity(
    model: LLM2Comp,
    texts: Sequence[str],
    measure: Measure = "reconstruction",
    *,
    following: Sequence[str] | None = None,
    max_tokens: int | None = None,
) -> list[Fidelity]:
    """The fidelity of each text, in order; the same whenever the same texts are given.

    Args:
        model: A model with its reader: one of stage 1, or after `llm2comp.reading.set_reader`.
        texts: The texts.
        measure: What follows a text.
        following: With `continuation`, a text for each that follows it; None: each text is cut in the middle.
        max_tokens: Number of tokens, beginning-of-sequence token included, after which a text is cut; None: what model
            and reader can take.

    Raises:
        SettingsError: The model has no reader, there is no such measure, `max_tokens` is below 2, texts are no list of
            texts, following ones are given for a reconstruction or are not as many, a text is too short, by its
            position, or a loss is not finite.
    """
    encoder = check_reader(model).encoder
    _check_texts("texts", texts)
    if following is not None:
        _check_texts("following", following)
    if following is not None and len(following) != len(texts):
        raise SettingsError(f"{len(texts)} texts, and {len(following)} that follow them: give one for each")
    splits = []
    for position, text in enumerate(texts):
        after = None if following is None else following[position]
        try:
            splits.append(split_text(encoder, text, measure, following=after, max_tokens=max_tokens))
        except SettingsError as error:
            raise type(error)(f"text {position}: {error}") from error
    return measure_splits(encoder, splits)


def split_text(
    encoder: MemoryEncoder,
    text: str,
    measure: Measure = "reconstruction",
    *,
    following: str | None = None,
    max_tokens: int | None = None,
) -> TextSplit:
    """A text and what follows it; the arguments are those of `measure_fidelity`, for one text.

    Raises:
        TooShortError, SettingsError: As there.
    """
    if measure not in MEASURES:
        raise SettingsError(f"measure is {measure!r}, expected one of {', '.join(MEASURES)}")
    if max_tokens is not None and max_tokens < 2:
        raise SettingsError(f"max_tokens is {max_tokens}, expected at least 2")
    if measure == "reconstruction" and following is not None:
        raise SettingsError("a text that follows is given, which only the measure continuation reads")
    if measure == "continuation" and following is None:
        tokens, cut = _tokens(encoder, text, _most(encoder, max_tokens))
        if len(tokens) < 2 * MARGIN + 1:
            raise TooShortError(
                f"{len(tokens) - 1} tokens are too few to be cut in two: give at least {2 * MARGIN}, or measure the "
                "reconstruction"
            )
        return TextSplit(Split(tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]), cut)
    most = _most(encoder, max_tokens, copies=2)
    context, cut = _tokens(encoder, text, most)
    after = context if following is None else _tokens(encoder, following, most)[0]
    if min(len(context), len(after)) < 2:
        raise TooShortError("it, or what follows it, has no tokens: leave empty texts out")
    return TextSplit(Split(context, after[1:]), cut)


@torch.no_grad()
def measure_splits(encoder: MemoryEncoder, splits: Sequence[TextSplit]) -> list[Fidelity]:
    """The fidelity of each text of `split_text`, in order, by an encoder that has its reader."""
    return [
        fidelity
        for first in range(0, len(splits), _TEXTS_AT_ONCE)
        for fidelity in _measure(encoder, splits[first : first + _TEXTS_AT_ONCE])
    ]


def _measure(encoder: MemoryEncoder, splits: Sequence[TextSplit]) -> Iterator[Fidelity]:
    contexts, following = zip(*(split.parts for split in splits), strict=True)
    texts = [encoder.backbone.embed_frozen(torch.tensor(context, device=encoder.memory.device)) for context in contexts]
    memories = encode_contexts(encoder, contexts)
    beginnings = [
        beginning
        for text, memory in zip(texts, memories, strict=True)
        for beginning in (text[:1], torch.cat([text[:1], memory.to(text.dtype)]), text)
    ]
    repeated = [after for after in following for _ in range(3)]
    states = read_after(encoder, beginnings, repeated)
    losses = [loss_of(encoder, rows, after) / len(after) for rows, after in zip(states, repeated, strict=True)]
    if not all(map(math.isfinite, losses)):
        raise SettingsError(
            "a loss of the reader is not finite: load the model with dtype float32, or check its weights"
        )
    for number, split in enumerate(splits):
        nothing, memory, text = losses[3 * number : 3 * number + 3]
        yield Fidelity(nothing, memory, text, len(split.parts.context) - 1, split.cut)


def _check_texts(name: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise SettingsError(f"{name} is a string, expected a list: [{texts[:40]!r}]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise SettingsError(f"{name}[{position}] is {type(text).__name__}, expected a text")


def _most(encoder: MemoryEncoder, max_tokens: int | None, *, copies: int = 1) -> int:
    """Most tokens of a text that the reader takes so many times, after one beginning-of-sequence token."""
    positions = encoder.backbone.max_positions
    limits = [limit for limit in (max_tokens, positions and 1 + (positions - 1) // copies) if limit is not None]
    return min([encoder.max_seq_length, *limits])


def _tokens(encoder: MemoryEncoder, text: str, most: int) -> tuple[list[int], bool]:
    """Token ids of the text, and whether some at its end were left out."""
    encoder.pop_truncated()
    [tokens] = encoder.token_ids([text])
    cut = encoder.pop_truncated() > 0
    return tokens[:most], cut or len(tokens) > most
