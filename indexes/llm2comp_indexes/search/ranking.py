"""Ranking rows by vectors, by words or by both, over all segments of a commit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.faiss_module import bounded_threads
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.format.vectors import Neighbors
from llm2comp_indexes.search.fusion import WINDOW, are_equal, fuse
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
        return _rank_by_words(opened, queries, k, _allowed(opened, where))
    if options.mode == "dense":
        return rank_by_vectors(opened, vectors, k, options, where)
    depth = max(WINDOW, 3 * k)
    by_vectors = rank_by_vectors(opened, vectors, depth, options, where)
    by_words = _rank_by_words(opened, queries, depth, _allowed(opened, where))
    if options.fusion == "scores":
        by_words = _with_equal(opened, queries, by_words, by_vectors)
    fused = fuse(by_vectors, by_words, k, options.fusion, options.fused_weights)
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


def _allowed(opened: OpenedCommit, where: Where | None) -> list[NDArray[np.bool_] | None]:
    """For each segment, the mask of the rows that may be found; None for all."""
    return [segment.allowed(where) for segment in opened.segments]


def _rank_by_words(
    opened: OpenedCommit, queries: list[str], k: int, allowed: Sequence[NDArray[np.bool_] | None]
) -> Neighbors:
    corpus = [segment.lexical for segment in opened.segments if segment.lexical is not None]
    parts = []
    for segment, part, mask in zip(opened.segments, corpus, allowed, strict=True):
        scores, rows = part.search(queries, min(k, segment.rows), allowed=mask, corpus=corpus)
        parts.append(Neighbors(np.where(rows < 0, -np.inf, scores).astype(np.float32), rows))
    return _best(parts, opened.starts, len(queries), k)


def _with_equal(opened: OpenedCommit, queries: list[str], by_words: Neighbors, by_vectors: Neighbors) -> Neighbors:
    """The ranking by words and, where all its rows score the same, the nearest rows that score so too.

    Such a ranking contains the first of its equals in index order; without the others they would count as not found.
    """
    full = by_words.rows.shape[1] >= WINDOW
    equal = full & (by_words.rows[:, -1] >= 0) & are_equal(by_words.scores[:, 0], by_words.scores[:, -1])
    if not equal.any():
        return by_words
    more = Neighbors(np.full((len(queries), WINDOW), -np.inf, np.float32), np.full((len(queries), WINDOW), -1))
    for query in np.flatnonzero(equal).tolist():
        near = np.setdiff1d(by_vectors.rows[query, :WINDOW], by_words.rows[query])
        if not (near := near[near >= 0]).size:
            continue
        its = _rank_by_words(opened, [queries[query]], WINDOW, _only(opened, near))
        rows = its.rows[0, are_equal(its.scores[0], by_words.scores[query, 0])]
        more.rows[query, : len(rows)], more.scores[query, : len(rows)] = rows, by_words.scores[query, 0]
    return Neighbors(
        np.concatenate([by_words.scores, more.scores], axis=1), np.concatenate([by_words.rows, more.rows], axis=1)
    )


def _only(opened: OpenedCommit, rows: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """For each segment, the mask of these rows, which are numbered through all segments."""
    mask = np.zeros(opened.starts[-1], bool)
    mask[rows] = True
    return np.split(mask, opened.starts[1:-1])


def _best(parts: Sequence[Neighbors], starts: Sequence[int], queries: int, k: int) -> Neighbors:
    """The k best of the neighbors in each segment, with rows numbered through all segments."""
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([np.empty((queries, 0), np.float32), *(part.scores for part in parts)], axis=1)
    shifted = [np.where(part.rows < 0, -1, part.rows + start) for part, start in zip(parts, starts, strict=False)]
    rows = np.concatenate([np.empty((queries, 0), np.int64), *shifted], axis=1)
    best = np.lexsort((rows, -scores))[:, :k]
    return Neighbors(np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1))
