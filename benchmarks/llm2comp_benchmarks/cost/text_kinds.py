"""Kinds of texts that encoders are measured on, made from the documents of a corpus."""

import random
from collections.abc import Callable, Sequence
from itertools import chain, cycle, islice

__all__ = ["TEXT_KINDS", "text_name", "texts_of_kind"]

TEXT_KINDS = ("short", "document", "long")
"""`short`: at most 32 tokens, as queries and titles; `document`: documents as they are; `long`: the longest input."""

_SHORT_TOKENS = 32
_SHORT_WORDS = (4, 16)  # fewest and most; what has more than 32 tokens is left out
_PIECES = 4  # short texts of a document, so that all kinds take about the same time


def text_name(kind: str) -> str:
    """Name of a kind's texts in folders and records: `texts` of documents, else such as `short-texts`."""
    return "texts" if kind == "document" else f"{kind}-texts"


def texts_of_kind(
    kind: str,
    documents: Sequence[str],
    count_tokens: Callable[[list[str]], list[int]],
    *,
    max_length: int,
    seed: int = 0,
) -> list[str]:
    """Texts of a kind, the same for the same documents and seed.

    Args:
        kind: One of `TEXT_KINDS`.
        documents: Documents that the texts are taken from.
        count_tokens: Number of tokens of each text.
        max_length: Tokens of the longest input. Long texts have as many words, and so at least as many tokens.
        seed: Of the lengths of short texts.
    """
    if kind == "document":
        return list(documents)
    words = [document.split() for document in documents]
    if kind == "long":
        endless = cycle(chain.from_iterable(words))
        return [" ".join(islice(endless, max_length)) for _ in documents]
    generator = random.Random(seed)
    texts = [piece for document in words for piece in _pieces(document, generator)]
    return [text for text, tokens in zip(texts, count_tokens(texts), strict=True) if tokens <= _SHORT_TOKENS]


def _pieces(words: list[str], generator: random.Random) -> list[str]:
    """The first pieces of a document, of random lengths; all its words if it is shorter than one piece."""
    pieces: list[str] = []
    start = 0
    while start < len(words) and len(pieces) < _PIECES:
        length = generator.randint(*_SHORT_WORDS)
        pieces.append(" ".join(words[start : start + length]))
        start += length
    return pieces
