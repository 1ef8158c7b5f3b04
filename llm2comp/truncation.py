"""Number of texts that a job cut to the model's maximum length, instead of a warning for each call of `encode`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["TruncationCount", "add_truncated", "count_truncated"]


@dataclass(slots=True)
class TruncationCount:
    """Number of texts encoded, number of them that were cut, and the maximum length in tokens."""

    texts: int = 0
    cut: int = 0
    tokens: int = 0


_counting: ContextVar[TruncationCount | None] = ContextVar("llm2comp_truncation_count", default=None)


@contextmanager
def count_truncated() -> Iterator[TruncationCount]:
    """Counts the texts that `encode` cuts in this thread within the block, instead of a warning for each call."""
    count = TruncationCount()
    token = _counting.set(count)
    try:
        yield count
    finally:
        _counting.reset(token)


def add_truncated(texts: int, cut: int, tokens: int) -> bool:
    """Adds to the count of the surrounding `count_truncated` block; False outside of one, where a warning is due.

    Args:
        texts: Number of texts of one call.
        cut: Number of them that were longer than the maximum.
        tokens: The maximum length.
    """
    if (count := _counting.get()) is None:
        return False
    count.texts += texts
    count.cut += cut
    count.tokens = tokens
    return True
