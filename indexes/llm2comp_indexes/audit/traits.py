"""Traits of texts that a fidelity may go with, and rank correlations."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TRAITS", "Correlation", "correlate", "rank_correlation", "text_traits"]

TRAITS = (
    "tokens",
    "digits",
    "uppercase letters",
    "other symbols",
    "characters beyond ASCII",
    "rare tokens",
    "repeated tokens",
)
"""Number of tokens, and shares: of the characters that are digits; uppercase letters; neither letters, digits nor white
space; no ASCII; of the tokens that occur in no other of the texts; that occurred in the text before."""


class Correlation(NamedTuple):
    """Spearman's rank correlation of a trait with the fidelity.

    Attributes:
        trait: One of `TRAITS`.
        value: From -1 to 1; None where the trait or the fidelity is the same for all texts.
        texts: Number of texts with a fidelity.
        chance: Absolute value that independent rankings of so many texts exceed once in twenty times.
    """

    trait: str
    value: float | None
    texts: int
    chance: float


def text_traits(texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    """The `TRAITS` of each text.

    Args:
        texts: The texts.
        tokens: Token ids of each, without special tokens.
    """
    found_in = Counter(token for ids in tokens for token in set(ids))
    return [
        (
            float(len(ids)),
            _share(text, str.isdigit),
            _share(text, str.isupper),
            _share(text, lambda character: not (character.isalnum() or character.isspace())),
            _share(text, lambda character: not character.isascii()),
            sum(found_in[token] == 1 for token in ids) / max(1, len(ids)),
            1 - len(set(ids)) / max(1, len(ids)),
        )
        for text, ids in zip(texts, tokens, strict=True)
    ]


def _share(text: str, kind: Callable[[str], bool]) -> float:
    return sum(map(kind, text)) / max(1, len(text))


def correlate(traits: Sequence[Sequence[float]], shares: Sequence[float | None]) -> list[Correlation]:
    """The correlation of each trait with the fidelity, over the texts that have one."""
    known = [(values, share) for values, share in zip(traits, shares, strict=True) if share is not None]
    chance = min(1.0, 1.96 / math.sqrt(max(1, len(known) - 1)))
    columns = np.array([[*values, share] for values, share in known], np.float64).reshape(-1, len(TRAITS) + 1).T
    return [
        Correlation(name, rank_correlation(column, columns[-1]), len(known), chance)
        for name, column in zip(TRAITS, columns, strict=False)
    ]


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's correlation: that of Pearson of the ranks, equal values sharing their mean rank.

    None if either is constant, or has fewer than two values.
    """
    if len(first) < 2:
        return None
    ranks = np.stack([_ranks(first), _ranks(second)])
    ranks -= ranks.mean(-1, keepdims=True)
    norms = float(np.sqrt((ranks**2).sum(-1)).prod())
    return float(ranks[0] @ ranks[1]) / norms if norms else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]
