"""Reciprocal rank fusion of several rankings of the same documents."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError

__all__ = ["Fused", "fuse"]


class Fused(NamedTuple):
    """Fused scores and rows, both (queries, k); where a query has fewer rows, row -1 with score 0."""

    scores: NDArray[np.float64]
    rows: NDArray[np.int64]


def fuse(
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
    _check(rankings, weights, k, constant)
    used = [(ranking, weight) for ranking, weight in zip(rankings, weights, strict=True) if weight > 0]
    queries = len(rankings[0])
    query, row, part = (
        np.concatenate(column)
        for column in zip(*(_list_parts(ranking, weight, constant) for ranking, weight in used), strict=True)
    )
    # By part too: equal parts summed in another order could differ in the last bit, and no longer tie
    order = np.lexsort((part, row, query))
    query, row, part = query[order], row[order], part[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1) | np.diff(row, prepend=-1))
    query, row, score = query[starts], row[starts], np.add.reduceat(part, starts) if len(starts) else part
    order = np.lexsort((row, -score, query))
    query, row, score = query[order], row[order], score[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)  # 0 for the best row of a query
    kept = place < k
    fused = Fused(np.zeros((queries, k)), np.full((queries, k), -1, dtype=np.int64))
    fused.scores[query[kept], place[kept]] = score[kept]
    fused.rows[query[kept], place[kept]] = row[kept]
    return fused


def _list_parts(
    ranking: NDArray[np.int64], weight: float, constant: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For every row in the ranking: its query, the row, and what the ranking adds to its score."""
    query, column = np.nonzero(ranking >= 0)
    return (
        query.astype(np.int64),
        ranking[query, column].astype(np.int64),
        np.float64(weight) / (constant + 1 + column.astype(np.float64)),
    )


def _check(rankings: Sequence[NDArray[np.int64]], weights: Sequence[float], k: int, constant: float) -> None:
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
    if not (math.isfinite(constant) and constant >= 0):
        raise SettingsError(f"constant is {constant}, expected a number from 0 up (60 is usual)")
