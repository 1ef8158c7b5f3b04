"""Counts the texts of a whole job that were cut to a model's maximum length, where each call of `encode` would warn."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["TruncationCount", "add_truncated", "count_truncated"]


@dataclass(slots=True)
class TruncationCount:
    """How many texts were encoded, how many of them were cut, and to how many tokens."""

    texts: int = 0
    cut: int = 0
    tokens: int = 0


_counting: ContextVar[TruncationCount | None] = ContextVar("llm2comp_truncation_count", default=None)


@contextmanager
def count_truncated() -> Iterator[TruncationCount]:
    """Counts what `encode` cuts in this thread within the block, in place of a warning for each call."""
    count = TruncationCount()
    token = _counting.set(count)
    try:
        yield count
    finally:
        _counting.reset(token)


def add_truncated(texts: int, cut: int, tokens: int) -> bool:
    """Adds to the count of the block this is called in. False outside of such a block, where a warning is due.

    Args:
        texts: Encoded by one call.
        cut: How many of them were longer than the maximum.
        tokens: The maximum.
    """
    if (count := _counting.get()) is None:
        return False
    count.texts += texts
    count.cut += cut
    count.tokens = tokens
    return True
