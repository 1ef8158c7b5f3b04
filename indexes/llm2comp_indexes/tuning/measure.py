"""Recall against exact search and latency of single queries, over a sweep of efforts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.vectors import Neighbors, Storage
from llm2comp_indexes.options import Targets
from llm2comp_indexes.structures.effort import efforts_of
from llm2comp_indexes.structures.structure import Effort

if TYPE_CHECKING:
    from llm2comp_indexes.structures.structure import Structure

__all__ = ["Point", "best_point", "exact_search", "measure_curve", "rank", "search_rows"]

_BLOCK_BYTES = 16 << 20  # size of the decoded vectors compared at once
_QUERIES_AT_ONCE = 4096
_TIE = 1e-6  # inner products of unit vectors that differ by less are equal up to float32 rounding
_WARM_UP = 10
_LEAST_QUERIES = 20
_PERFECT = 0.9995
_GAIN = 0.001  # minimum gain of recall over two steps of effort; below it, more effort does not help
_SURE = 1.645  # standard errors below the measured mean: the one-sided 95 % bound of the true mean


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the recall-latency curve.

    Attributes:
        effort: Effort of each search.
        recall: Mean share of the k best rows that was found, 0 to 1.
        median_ms: Median time of a single query in milliseconds.
        p99_ms: 99th percentile of the time of a single query in milliseconds.
        error: Standard error of `recall`.
        queries: Number of queries measured.
    """

    effort: Effort
    recall: float
    median_ms: float
    p99_ms: float
    error: float = 0.0
    queries: int = 0

    @property
    def sure_recall(self) -> float:
        """Lower bound of the recall for other queries of the same kind, with 95 % confidence."""
        return self.recall - _SURE * self.error


def exact_search(storage: Storage, queries: NDArray[np.float32], k: int) -> Neighbors:
    """Scores and rows of the best, both (queries, min(k, rows)), best first, by exhaustive comparison.

    The stored vectors are read once per 4,096 queries, in blocks of 16 MB, so memory does not grow with the corpus.

    Raises:
        SettingsError: k is below 1, or the queries have another shape than (queries, dimension).
    """
    if k < 1:
        raise SettingsError(f"k is {k}, expected at least 1")
    if queries.ndim != 2 or queries.shape[1] != storage.dimension:
        raise SettingsError(f"query vectors of shape {queries.shape}, expected (queries, {storage.dimension})")
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    parts = [
        _exact_block(storage, queries[start : start + _QUERIES_AT_ONCE], min(k, storage.rows))
        for start in range(0, len(queries), _QUERIES_AT_ONCE)
    ]
    if not parts:
        return Neighbors(np.zeros((0, min(k, storage.rows)), np.float32), np.zeros((0, min(k, storage.rows)), np.int64))
    return Neighbors(*map(np.concatenate, zip(*parts, strict=True)))


def _exact_block(storage: Storage, queries: NDArray[np.float32], k: int) -> Neighbors:
    faiss = import_faiss()
    scores = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    first = 0
    for block in storage.blocks(max(1, _BLOCK_BYTES // (4 * storage.dimension))):
        block_scores, places = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, block_scores], axis=1)  # (queries, k + k of this block)
        rows = np.concatenate([rows, places + first], axis=1)
        best = np.lexsort((rows, -scores))[:, :k]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        first += len(block)
    return Neighbors(scores, rows)


def search_rows(
    structure: "Structure | Storage", storage: Storage, query: NDArray[np.float32], k: int, effort: Effort
) -> NDArray[np.int64]:
    """Rows of the k best answers to one query (1, dimension): candidates of the structure, re-scored."""
    if isinstance(structure, Storage):
        rows: NDArray[np.int64] = structure.search(query, min(k, structure.rows)).rows[0]
        return rows[rows >= 0]
    candidates: NDArray[np.int64] = structure.find(
        query, min(k * (effort.rerank or 1), storage.rows), effort=effort
    ).rows[0]
    candidates = candidates[candidates >= 0]
    best: NDArray[np.int64] = np.lexsort((candidates, -storage.scores(query[0], candidates)))[:k]
    return candidates[best]


def measure_curve(
    structure: "Structure | Storage",
    storage: Storage,
    queries: NDArray[np.float32],
    *,
    k: int,
    recall: float | None = None,
    efforts: Sequence[Effort] | None = None,
    truth: NDArray[np.float32] | None = None,
    point_seconds: float = 5.0,
    seconds: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Point, ...]:
    """Recall@k and latency of single queries for each effort, smallest effort first.

    Queries are searched one at a time, as in a service, after ten unmeasured ones, with the threads that FAISS is set
    to (`faiss.omp_get_max_threads()`). The time covers finding and scoring rows, not encoding the query or reading
    documents.

    Recall@k is the number of returned rows whose exact score is at least the k-th true one (up to float32 rounding),
    divided by k, so any of several equally good rows counts (the definition of ANN-Benchmarks: Aumüller, Bernhardsson,
    Faithfull 2020, section 2.1).

    Args:
        structure: The structure to measure; `storage` itself for exact search.
        storage: The stored vectors, which are the ground truth.
        queries: Vectors (queries, dimension); not rows of `storage`, which would find themselves.
        k: Number of answers per query.
        recall: Target recall: the effort that reaches it is found first, by bisection, even if that takes longer than
            `seconds`. None: only the sweep.
        efforts: Efforts to measure, all of them. None: a sweep for the type, which stops once recall is 1 or no longer
            grows.
        truth: Scores (queries, k) of `exact_search`, if they are known already.
        point_seconds: Time limit of a point, after at least 20 queries.
        seconds: Time after which no further point of the sweep is begun.
        clock: Function that returns seconds.

    Raises:
        SettingsError: There are no queries.
    """
    if not len(queries):
        raise SettingsError("no queries to measure with, expected at least one")
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    known = exact_search(storage, queries, k).scores if truth is None else truth
    curve = _Curve(_Meter(structure, storage, queries, k, known, point_seconds, clock), clock() + seconds)
    if isinstance(structure, Storage) or efforts is not None:
        curve.follow(efforts or [Effort()])
        return curve.points()
    groups = [list(group) for _, group in groupby(efforts_of(structure.type, k), key=lambda effort: effort.rerank)]
    if recall is not None:
        curve.find(groups, recall)
    for group in groups:
        if curve.follow(group, until_flat=True):
            break
    return curve.points([effort for group in groups for effort in group])


@dataclass(frozen=True, slots=True)
class _Meter:
    """Measures points of one curve; the arguments are those of `measure_curve`."""

    structure: "Structure | Storage"
    storage: Storage
    queries: NDArray[np.float32]
    k: int
    truth: NDArray[np.float32]
    point_seconds: float
    clock: Callable[[], float]

    def measure(self, effort: Effort) -> Point:
        """The point of the effort."""
        for query in self.queries[:_WARM_UP]:
            self._search(query, effort)
        end = self.clock() + self.point_seconds
        times: list[float] = []
        answers: list[NDArray[np.int64]] = []
        for query in self.queries:
            start = self.clock()
            if start > end and len(times) >= _LEAST_QUERIES:
                break
            answers.append(self._search(query, effort))
            times.append(1e3 * (self.clock() - start))
        shares = [_share(self.storage, *answer) for answer in zip(self.queries, answers, self.truth, strict=False)]
        error = float(np.std(shares) / np.sqrt(len(shares)))
        return Point(
            effort,
            float(np.mean(shares)),
            float(np.median(times)),
            float(np.percentile(times, 99, method="higher")),
            error,
            len(times),
        )

    def _search(self, query: NDArray[np.float32], effort: Effort) -> NDArray[np.int64]:
        return search_rows(self.structure, self.storage, query[None], self.k, effort)


class _Curve:
    """Points measured so far, by effort; each effort is measured once."""

    def __init__(self, meter: _Meter, end: float) -> None:
        self._meter, self._end = meter, end
        self._points: dict[Effort, Point] = {}

    def points(self, order: Sequence[Effort] = ()) -> tuple[Point, ...]:
        """The points in the order of the efforts, or in the order measured."""
        return tuple(self._points[effort] for effort in order or self._points if effort in self._points)

    def follow(self, efforts: Sequence[Effort], *, until_flat: bool = False) -> bool:
        """Measures the efforts in order until time is up; returns whether recall is 1.

        Args:
            efforts: Efforts, smallest first.
            until_flat: Stop once more effort no longer adds recall.
        """
        reached: list[float] = []
        for effort in efforts:
            if self._points and self._late():
                break
            reached.append(self._at(effort).recall)
            if until_flat and (reached[-1] >= _PERFECT or (len(reached) > 4 and reached[-1] - reached[-3] < _GAIN)):
                break
        return bool(reached) and reached[-1] >= _PERFECT

    def find(self, groups: Sequence[Sequence[Effort]], recall: float) -> None:
        """Finds the smallest effort of each group whose `sure_recall` reaches the recall, by bisection.

        Once one is found and time is up, no further group is begun. Efforts of a group rise.
        """
        reached = False
        for group in groups:
            if reached and self._late():
                return
            reached = self._bisect(group, recall) or reached

    def _bisect(self, efforts: Sequence[Effort], recall: float) -> bool:
        low, high = 0, len(efforts)
        least = self._at(efforts[0])
        if least.sure_recall >= recall:
            return True
        while high - low > 1:
            middle = (low + high) // 2
            point = self._at(efforts[middle])
            if point.sure_recall >= recall:
                high = middle
            elif middle - low > 1 and point.recall - least.recall < _GAIN:  # more effort does not help
                break
            else:
                low, least = middle, point
        return high < len(efforts)

    def _at(self, effort: Effort) -> Point:
        if effort not in self._points:
            self._points[effort] = self._meter.measure(effort)
        return self._points[effort]

    def _late(self) -> bool:
        return self._meter.clock() > self._end


def _share(storage: Storage, query: NDArray[np.float32], rows: NDArray[np.int64], truth: NDArray[np.float32]) -> float:
    """Recall of the rows, given the scores of the true neighbors (k, best first)."""
    if not len(truth):
        return 1.0
    return min(1.0, int(np.sum(storage.scores(query, np.unique(rows)) >= truth[-1] - _TIE)) / len(truth))


def rank(point: Point, targets: Targets) -> int:
    """How well the point keeps to recall and latency, 0 (best) to 4.

    0: both, with confidence; 1: both, as measured; 2: too slow, recall with confidence; 3: too slow, recall as
    measured; 4: recall too low.
    """
    fast = point.median_ms <= targets.latency
    if point.sure_recall >= targets.recall:
        return 0 if fast else 2
    if point.recall >= targets.recall:
        return 1 if fast else 3
    return 4


def best_point(points: Sequence[Point], targets: Targets) -> Point:
    """The fastest point that keeps to recall and latency, else the nearest.

    Recall comes before latency: if no point keeps to both, it is the fastest one that reaches the recall, and if none
    does, the one with the highest recall.

    Raises:
        SettingsError: There are no points.
    """
    if not points:
        raise SettingsError("no measured points to choose from, expected at least one")
    best = min(rank(point, targets) for point in points)
    if best == 4:
        return min(points, key=lambda point: (-point.recall, point.median_ms))
    return min((point for point in points if rank(point, targets) == best), key=lambda point: point.median_ms)
