"""Queries to measure an index of vectors with: random documents that it does not hold, or rows moved by noise."""

import random

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp_indexes.builder.vector_files import VectorBlock
from llm2comp_indexes.tuning.queries import Queries, QueryKind

__all__ = ["LEAST_MOVED", "MOST_QUERIES", "DrawnDocuments", "move_queries"]

MOST_QUERIES = 300
"""Number of documents that are held out, and most queries of a file that are used."""
_HELD_OUT_OF = 10_000
"""Number of documents from which some are held out of the segment that is measured."""
LEAST_MOVED = 32
"""Minimum number of rows that are moved by noise to serve as queries, if none are held out."""
_MOST_MOVED = 100
_MOVED_BY = 0.5


class DrawnDocuments:
    """Random documents whose vectors serve as queries.

    Attributes:
        held_out: Whether their rows are left out of the first segment; else they stay, and the queries are moved by
            noise.
        rows: Rows of the documents met so far.
    """

    def __init__(self, documents: int) -> None:
        self.held_out = documents >= _HELD_OUT_OF
        count = MOST_QUERIES if self.held_out else min(documents, max(LEAST_MOVED, min(_MOST_MOVED, documents // 100)))
        self._mask: NDArray[np.bool_] = np.zeros(documents, np.bool_)
        self._mask[random.Random(0).sample(range(documents), count)] = True  # the same when a build is resumed
        self._numbers: list[int] = []
        self._vectors: list[NDArray[np.float32]] = []
        self.rows: list[Document] = []

    def take(self, block: VectorBlock) -> VectorBlock:
        """The block without the documents that are held out."""
        drawn = self._mask[block.numbers]
        if not drawn.any():
            return block
        chosen = np.flatnonzero(drawn)
        self.rows += [block.rows[row] for row in chosen]
        self._numbers += block.numbers[chosen].tolist()
        self._vectors += list(block.read()[chosen])
        if not self.held_out:
            return block
        kept = np.flatnonzero(~drawn)
        return VectorBlock([block.rows[row] for row in kept], block.numbers[kept], lambda: block.read()[kept])

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Vectors (rows, dimension) of the drawn rows."""
        return np.stack(self._vectors)

    def queries(self, others: NDArray[np.float32]) -> Queries:
        """Queries (documents, dimension): the first row of each drawn document, moved by noise unless it is held out.

        Args:
            others: Rows (rows, dimension) that are used if no drawn document had a row.
        """
        firsts = self.vectors[np.unique(self._numbers, return_index=True)[1]] if self.rows else others
        if self.held_out and self.rows:
            return Queries(firsts, QueryKind.HELD_OUT, QueryKind.HELD_OUT.describe(count=len(firsts)))
        return move_queries(firsts)


def move_queries(rows: NDArray[np.float32]) -> Queries:
    """Queries near the rows (queries, dimension), which would themselves be found as exact matches."""
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    moved = rows + _MOVED_BY * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    unit = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return Queries(unit, QueryKind.MOVED_ROWS, QueryKind.MOVED_ROWS.describe(count=len(unit)))
