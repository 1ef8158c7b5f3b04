"""Ranking rows by vectors, by words or by both, over all segments of a commit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.faiss_module import bounded_threads
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.format.vectors import Neighbors
from llm2comp_indexes.search.fusion import WINDOW, fuse
from llm2comp_indexes.search.opened import OpenedCommit
from llm2comp_indexes.search.options import SearchOptions

__all__ = ["rank", "rank_by_vectors", "rescore_by_maxsim"]


def rank(
    opened: OpenedCommit,
    queries: list[str],
    vectors: NDArray[np.float32] | None,
    k: int,
    options: SearchOptions,
    where: Where | None,
) -> Neighbors:
    """The k best rows of each query, numbered through all segments: by words if there are no vectors.

    Args:
        opened: The commit.
        queries: The queries.
        vectors: Their vectors (queries, dimension); None with mode `bm25`.
        k: Number of rows per query.
        options: Mode, fusion, weights, effort and threads.
        where: Filter on metadata.
    """
    if vectors is None:
        return _rank_by_words(opened, queries, k, where)
    if options.mode == "dense":
        return rank_by_vectors(opened, vectors, k, options, where)
    depth = max(WINDOW, 3 * k)
    fused = fuse(
        rank_by_vectors(opened, vectors, depth, options, where),
        _rank_by_words(opened, queries, depth, where),
        k,
        options.fusion,
        options.fused_weights,
    )
    return Neighbors(fused.scores.astype(np.float32), fused.rows)


def rank_by_vectors(
    opened: OpenedCommit, vectors: NDArray[np.float32], k: int, options: SearchOptions, where: Where | None
) -> Neighbors:
    """The k nearest rows of each vector (queries, dimension), numbered through all segments."""
    with bounded_threads(options.threads):
        parts = [
            segment.search(vectors, min(k, segment.rows), effort=options.effort, where=where)
            for segment in opened.segments
        ]
    return _best(parts, opened.starts, len(vectors), k)


def rescore_by_maxsim(opened: OpenedCommit, memory: NDArray[np.float32], best: Neighbors) -> Neighbors:
    """The same rows, ordered by MaxSim over the vectors of the memory tokens, equal scores by row.

    Args:
        opened: The commit, whose segments store these vectors.
        memory: Vectors of the memory tokens of the queries, (queries, k, dimension).
        best: Rows of each query, numbered through all segments; -1 where there are none.
    """
    scores = np.full(best.rows.shape, -np.inf, np.float32)
    for start, segment in zip(opened.starts, opened.segments, strict=False):
        assert segment.memory is not None
        inside = (best.rows >= start) & (best.rows < start + segment.rows)
        for query in np.flatnonzero(inside.any(axis=1)).tolist():
            its = inside[query]
            scores[query, its] = segment.memory.scores(memory[query], best.rows[query, its] - start)
    order = np.lexsort((best.rows, -scores))
    return Neighbors(np.take_along_axis(scores, order, axis=1), np.take_along_axis(best.rows, order, axis=1))


def _rank_by_words(opened: OpenedCommit, queries: list[str], k: int, where: Where | None) -> Neighbors:
    corpus = [segment.lexical for segment in opened.segments if segment.lexical is not None]
    parts = []
    for segment, part in zip(opened.segments, corpus, strict=True):
        scores, rows = part.search(queries, min(k, segment.rows), allowed=segment.allowed(where), corpus=corpus)
        parts.append(Neighbors(np.where(rows < 0, -np.inf, scores).astype(np.float32), rows))
    return _best(parts, opened.starts, len(queries), k)


def _best(parts: Sequence[Neighbors], starts: Sequence[int], queries: int, k: int) -> Neighbors:
    """The k best of the neighbors in each segment, with rows numbered through all segments."""
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([np.empty((queries, 0), np.float32), *(part.scores for part in parts)], axis=1)
    shifted = [np.where(part.rows < 0, -1, part.rows + start) for part, start in zip(parts, starts, strict=False)]
    rows = np.concatenate([np.empty((queries, 0), np.int64), *shifted], axis=1)
    best = np.lexsort((rows, -scores))[:, :k]
    return Neighbors(np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1))
