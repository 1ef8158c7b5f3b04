"""Documents of an open index by id or by filter, and the stored vectors of its rows."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_indexes.search.index import Index

__all__ = ["find_rows", "read_vectors", "select_rows"]


def find_rows(index: Index, identifiers: Sequence[str]) -> list[list[int]]:
    """Rows of each document id, ascending, numbered through all segments; an empty list for an id that is not there."""
    listed = list(identifiers)
    rows: list[list[int]] = [[] for _ in listed]
    for start, segment in zip(_starts(index), index.segments, strict=True):
        for known, matches in zip(rows, segment.find_rows(listed), strict=True):
            known.extend(start + row for row in matches)
    return rows


def select_rows(index: Index, where: str | Where | None = None) -> NDArray[np.int64]:
    """Rows that match the filter and are not deleted, ascending, numbered through all segments; None: all of them.

    Raises:
        SettingsError: The filter cannot be parsed, or no document can match it.
    """
    parsed = parse_where(where) if isinstance(where, str) else where
    if parsed is not None:
        parsed.check(segment.metadata for segment in index.segments)
    parts = [np.empty(0, np.int64)]
    for start, segment in zip(_starts(index), index.segments, strict=True):
        allowed = segment.allowed(parsed)
        parts.append(start + (np.arange(segment.rows) if allowed is None else np.flatnonzero(allowed)))
    return np.concatenate(parts)


def read_vectors(index: Index, rows: Sequence[int]) -> NDArray[np.float32]:
    """Stored vectors (rows, dimension) of rows numbered through all segments, in the order of `rows`."""
    numbers = np.asarray(rows, dtype=np.int64)
    vectors = np.empty((len(numbers), index.manifest.dimension), np.float32)
    for start, segment in zip(_starts(index), index.segments, strict=True):
        inside = (numbers >= start) & (numbers < start + segment.rows)
        vectors[inside] = segment.storage.read(numbers[inside] - start)
    return vectors


def _starts(index: Index) -> Iterator[int]:
    """First row of each segment."""
    return iter(list(accumulate((segment.rows for segment in index.segments), initial=0))[:-1])
