"""Fusing several rankings of the same documents into one: by their scores, or by their ranks."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.format.vectors import Neighbors

__all__ = ["DEFAULT_WEIGHTS", "WINDOW", "Fused", "Fusion", "are_equal", "fuse", "fuse_ranks", "fuse_scores"]

Fusion = Literal["scores", "ranks"]

DEFAULT_WEIGHTS: dict[Fusion, tuple[float, float]] = {"scores": (0.3, 0.7), "ranks": (1.0, 1.0)}
"""Weights of the rankings by vectors and by words. 0.3 is the best of tenths for llm2comp-small on SciFact's training
claims (docs/evaluation.md)."""

WINDOW = 100
"""Number of first rows of a ranking whose scores `fuse_scores` scales to 0..1."""

_ROUNDING = 1e-5
"""Relative difference up to which scores are equal: BM25 of the same words differs by rounding between segments."""


class Fused(NamedTuple):
    """Fused scores and rows, both (queries, k); where a query has fewer rows, row -1 with score 0."""

    scores: NDArray[np.float64]
    rows: NDArray[np.int64]


def fuse(by_vectors: Neighbors, by_words: Neighbors, k: int, fusion: Fusion, weights: tuple[float, float]) -> Fused:
    """The k best rows of each query by vectors and by words together, as a search in mode `hybrid` ranks them.

    Args:
        by_vectors: Scores and rows (queries, depth), at least `WINDOW` deep where there are so many.
        by_words: The same by BM25.
        k: Number of rows per query.
        fusion: By scores, or by ranks.
        weights: Weights of the two.
    """
    if fusion == "ranks":
        return fuse_ranks([by_vectors.rows, by_words.rows], weights=weights, k=k)
    return fuse_scores([by_vectors, by_words], weights=weights, k=k, least=(None, 0.0))


def fuse_scores(
    rankings: Sequence[Neighbors],
    *,
    weights: Sequence[float] | None = None,
    k: int = 10,
    least: Sequence[float | None] | None = None,
    window: int = WINDOW,
) -> Fused:
    """The k best rows of each query by the weighted mean of scaled scores, 0 to 1.

    Each ranking's first `window` scores are scaled so that the best is 1 and the last 0; a row that is not among them
    counts as 0 (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023: a convex
    combination of scaled scores finds more than reciprocal ranks). Where these scores are all equal (but for rounding),
    every row of this score counts as 1 and belongs to the window, however deep it stands. Rows that are in the window
    of no ranking follow, by the same mean without the bound, at 0 or less; so the first results do not depend on k or
    on the rankings' depth. Equal scores are ordered by row.

    Args:
        rankings: Scores and rows (queries, depth) of each ranking, best first, row -1 for none. Depths may differ. A
            row occurs at most once per query.
        weights: One number per ranking, 0 or more; None: all are equal. A ranking of weight 0 adds no rows.
        k: Number of rows per query.
        least: For each ranking the score of a row that it does not find, which is scaled to 0 where the ranking does
            not fill the window: 0 for BM25. None: the last score is.
        window: Number of first rows whose scores are scaled.

    Raises:
        SettingsError: There is no ranking, rankings differ in the number of queries, or a value is out of range.
    """
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    least = [None] * len(rankings) if least is None else least
    _check([ranking.rows for ranking in rankings], weights, k)
    if window < 1:
        raise SettingsError(f"window is {window}, expected at least 1")
    total = sum(weight / max(weights) for weight in weights)
    shares = [weight / max(weights) / total for weight in weights]
    used = [
        _scaled(ranking, share, bottom, window)
        for ranking, share, bottom in zip(rankings, shares, least, strict=True)
        if share > 0
    ]
    lowest = np.sum([part.lowest for part in used], axis=0)
    query, row, inside, part, beyond = (
        np.concatenate(column) for column in zip(*(part.columns for part in used), strict=True)
    )
    query, row, (inside, part, beyond) = _sum_by_row(query, row, inside, part, beyond)
    return _best(query, row, np.where(inside > 0, part, np.minimum(lowest[query] + beyond, 0)), len(lowest), k)


def fuse_ranks(
    rankings: Sequence[NDArray[np.int64]], *, weights: Sequence[float] | None = None, k: int = 10, constant: float = 60
) -> Fused:
    """The k best rows of each query by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).

    The score of a row is the sum of weight / (constant + rank) over the rankings that contain it, with ranks from 1.
    Scores within a ranking are not used, so rankings of any kind can be fused. Equal scores are ordered by row.

    Args:
        rankings: For each ranking an array (queries, depth) of rows, best first, -1 for no row. Depths may differ. A
            row occurs at most once per query.
        weights: One number per ranking, 0 or more; None: all are 1. A ranking of weight 0 adds no rows.
        k: Number of rows per query.
        constant: A smaller constant gives the first ranks more weight. 60 is the value of the paper.

    Raises:
        SettingsError: There is no ranking, rankings differ in the number of queries, or a value is out of range.
    """
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    _check(rankings, weights, k)
    if not (math.isfinite(constant) and constant >= 0):
        raise SettingsError(f"constant is {constant}, expected a number from 0 up (60 is usual)")
    used = [(ranking, weight) for ranking, weight in zip(rankings, weights, strict=True) if weight > 0]
    query, row, part = (
        np.concatenate(column)
        for column in zip(*(_reciprocal(ranking, weight, constant) for ranking, weight in used), strict=True)
    )
    query, row, (part,) = _sum_by_row(query, row, part)
    return _best(query, row, part, len(rankings[0]), k)


def are_equal(scores: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether scores are equal but for rounding."""
    equal: NDArray[np.bool_] = np.isclose(scores, others, rtol=_ROUNDING, atol=0)
    return equal


class _Scaled(NamedTuple):
    """What a ranking adds to the scores of rows.

    Attributes:
        lowest: For each query, the least that it adds without the bound, which it adds to rows that it lacks.
        columns: For every row in it the query, the row, whether it is in the window (1 or 0), what it adds within the
            window (0 outside), and what it adds without the bound beyond `lowest`.
    """

    lowest: NDArray[np.float64]
    columns: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _scaled(ranking: Neighbors, share: float, least: float | None, window: int) -> _Scaled:
    found = ranking.rows >= 0
    query, column = np.nonzero(found)
    number = found.sum(axis=1)
    place = np.arange(len(query)) - np.searchsorted(query, query)
    # Of each query the first score and the last of the window; queries without a row are not looked at again
    scores = np.zeros((len(number), max(int(number.max(initial=0)), 1)))
    scores[query, place] = ranking.scores[query, column]
    top = scores[:, 0]
    bottom = scores[np.arange(len(number)), np.clip(number, 1, min(window, scores.shape[1])) - 1]
    if least is not None:
        bottom = np.where(number < window, np.minimum(least, bottom), bottom)
    span = top - bottom
    equal = are_equal(bottom, top) | ~(span > 0)
    best = are_equal(scores, top[:, None])
    scaled = np.where(equal[:, None], best, (scores - bottom[:, None]) / np.where(equal, 1, span)[:, None]) * share
    lowest = np.where((number > window) & ~equal, scaled[np.arange(len(number)), np.maximum(number, 1) - 1], 0.0)
    inside = (place < window) | (equal[query] & best[query, place])
    part = scaled[query, place]
    columns = (
        query.astype(np.int64),
        ranking.rows[query, column].astype(np.int64),
        inside.astype(np.int64),
        np.where(inside, part, 0.0),
        part - lowest[query],
    )
    return _Scaled(lowest, columns)


def _reciprocal(
    ranking: NDArray[np.int64], weight: float, constant: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For every row in the ranking: its query, the row, and what the ranking adds to its score."""
    query, column = np.nonzero(ranking >= 0)
    return (
        query.astype(np.int64),
        ranking[query, column].astype(np.int64),
        np.float64(weight) / (constant + 1 + column.astype(np.float64)),
    )


def _sum_by_row(
    query: NDArray[np.int64], row: NDArray[np.int64], *parts: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.float64], ...]]:
    """Each row of each query once, with the sums of its parts."""
    sums = []
    for part in parts:
        # By part too: equal parts summed in another order could differ in the last bit, and no longer tie
        order = np.lexsort((part, row, query))
        starts = np.flatnonzero(np.diff(query[order], prepend=-1) | np.diff(row[order], prepend=-1))
        sums.append(np.add.reduceat(part[order], starts) if len(starts) else part)
    return query[order][starts], row[order][starts], tuple(sums)


def _best(query: NDArray[np.int64], row: NDArray[np.int64], score: NDArray[np.float64], queries: int, k: int) -> Fused:
    order = np.lexsort((row, -score, query))
    query, row, score = query[order], row[order], score[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)  # 0 for the best row of a query
    kept = place < k
    fused = Fused(np.zeros((queries, k)), np.full((queries, k), -1, dtype=np.int64))
    fused.scores[query[kept], place[kept]] = score[kept]
    fused.rows[query[kept], place[kept]] = row[kept]
    return fused


def _check(rankings: Sequence[NDArray[np.int64]], weights: Sequence[float], k: int) -> None:
    if not rankings or any(ranking.ndim != 2 or len(ranking) != len(rankings[0]) for ranking in rankings):
        raise SettingsError(
            f"rankings of shapes {[ranking.shape for ranking in rankings]}, expected at least one, each (queries, "
            "depth) with the same queries"
        )
    if len(weights) != len(rankings):
        raise SettingsError(f"weights has {len(weights)} numbers for {len(rankings)} rankings; give one per ranking")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise SettingsError(f"weights is {list(weights)}, expected numbers from 0 up, at least one above 0")
    if k < 1:
        raise SettingsError(f"k is {k}, expected at least 1")
