"""Recall against exact search, and the time of single queries, over a sweep of efforts."""

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

_BLOCK_BYTES = 16 << 20  # of decoded vectors compared at once
_QUERIES_AT_ONCE = 4096
_TIE = 1e-6  # inner products of unit vectors that differ by less are equal: rounding in float32
_WARM_UP = 10
_LEAST_QUERIES = 20
_PERFECT = 0.9995
_GAIN = 0.001  # of recall over two steps of effort; less: more effort does not help
_SURE = 1.645  # standard errors: 19 times out of 20 the true mean is not below the measured one by more


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the recall-latency curve.

    Attributes:
        effort: How hard each search tried.
        recall: Mean share of the k best rows that was found, 0 to 1.
        median_ms: Half of the single queries took at most so many milliseconds.
        p99_ms: 99 of 100 did.
        error: Standard error of `recall`: how far the mean over other queries of the same kind would lie.
        queries: How many were asked.
    """

    effort: Effort
    recall: float
    median_ms: float
    p99_ms: float
    error: float = 0.0
    queries: int = 0

    @property
    def sure_recall(self) -> float:
        """The recall that other queries of the same kind reach too, 19 times out of 20."""
        return self.recall - _SURE * self.error


def exact_search(storage: Storage, queries: NDArray[np.float32], k: int) -> Neighbors:
    """Scores and rows, both (queries, min(k, rows)), best first, by exhaustive comparison.

    The stored vectors pass through memory once per 4,096 queries, in blocks of 16 MB: memory does not grow with the
    corpus.

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
        found, places = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, found], axis=1)  # (queries, k + k of this block)
        rows = np.concatenate([rows, places + first], axis=1)
        best = np.lexsort((rows, -scores))[:, :k]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        first += len(block)
    return Neighbors(scores, rows)


def search_rows(
    structure: "Structure | Storage", storage: Storage, query: NDArray[np.float32], k: int, effort: Effort
) -> NDArray[np.int64]:
    """Rows of the k best answers to one query (1, dimension): candidates of the structure, scored again with the stored vectors."""
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
    """Recall@k and the time of single queries, effort by effort, least first.

    Each query is searched alone, as a service would, after ten unmeasured ones, in as many threads as FAISS is set to
    (`faiss.omp_get_max_threads()`); the time is that of finding and scoring the rows, without encoding the question or
    reading documents.

    Recall@k counts the returned rows whose exact score is at least the k-th true one (or equal but for float32
    rounding), over k: so any of several equally good rows counts (the definition of ANN-Benchmarks, Aumüller,
    Bernhardsson, Faithfull 2020, section 2.1).

    Args:
        structure: What is measured; `storage` itself for exact search.
        storage: The vectors that are searched, the truth.
        queries: (queries, dimension); not rows of `storage`, which would find themselves.
        k: Answers wanted per query.
        recall: The recall asked for: where it is reached is found first, by halving, even if that takes longer than
            `seconds`. None: the sweep alone.
        efforts: All of them are measured. None: a sweep made for the type, which stops when recall is 1 or does not
            grow any more.
        truth: Scores (queries, k) of `exact_search`, where they are known already.
        point_seconds: No further query is asked for a point after so long (but at least 20 are).
        seconds: No further point of the sweep is begun after so long.
        clock: Gives seconds.

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
        found: list[NDArray[np.int64]] = []
        for query in self.queries:
            start = self.clock()
            if start > end and len(times) >= _LEAST_QUERIES:
                break
            found.append(self._search(query, effort))
            times.append(1e3 * (self.clock() - start))
        shares = [_share(self.storage, *answer) for answer in zip(self.queries, found, self.truth, strict=False)]
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
    """Points measured so far, by effort; an effort is measured once."""

    def __init__(self, meter: _Meter, end: float) -> None:
        self._meter, self._end = meter, end
        self._points: dict[Effort, Point] = {}

    def points(self, order: Sequence[Effort] = ()) -> tuple[Point, ...]:
        """All of them, in the order of the efforts, or in that of their measuring."""
        return tuple(self._points[effort] for effort in order or self._points if effort in self._points)

    def follow(self, efforts: Sequence[Effort], *, until_flat: bool = False) -> bool:
        """Measures the efforts, one after the other, while there is time; `until_flat`: as long as that adds recall. Whether all was found."""
        reached: list[float] = []
        for effort in efforts:
            if self._points and self._late():
                break
            reached.append(self._at(effort).recall)
            if until_flat and (reached[-1] >= _PERFECT or (len(reached) > 4 and reached[-1] - reached[-3] < _GAIN)):
                break
        return bool(reached) and reached[-1] >= _PERFECT

    def find(self, groups: Sequence[Sequence[Effort]], recall: float) -> None:
        """Halves each group of growing efforts until the least is known that surely reaches the recall; no further group once it is found and late."""
        found = False
        for group in groups:
            if found and self._late():
                return
            found = self._halve(group, recall) or found

    def _halve(self, efforts: Sequence[Effort], recall: float) -> bool:
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
    """Share of the true neighbours (k scores, best first) that the rows make up."""
    if not len(truth):
        return 1.0
    return min(1.0, int(np.sum(storage.scores(query, np.unique(rows)) >= truth[-1] - _TIE)) / len(truth))


def rank(point: Point, targets: Targets) -> int:
    """How well the point keeps to recall and latency: 0 surely, 1 as far as measured, 2 or 3 too slow, 4 too little recall."""
    fast = point.median_ms <= targets.latency
    if point.sure_recall >= targets.recall:
        return 0 if fast else 2
    if point.recall >= targets.recall:
        return 1 if fast else 3
    return 4


def best_point(points: Sequence[Point], targets: Targets) -> Point:
    """The fastest point that keeps to recall and latency; where none does, the nearest.

    Latency gives way before recall: then it is the fastest point with the recall asked for, and where no point has
    that, the one of highest recall.

    Raises:
        SettingsError: There are no points.
    """
    if not points:
        raise SettingsError("no measured points to choose from, expected at least one")
    best = min(rank(point, targets) for point in points)
    if best == 4:
        return min(points, key=lambda point: (-point.recall, point.median_ms))
    return min((point for point in points if rank(point, targets) == best), key=lambda point: point.median_ms)
