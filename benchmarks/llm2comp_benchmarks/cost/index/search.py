"""Recall and latency of several indexes over the same vectors, searched in turn, one query at a time."""

import json
import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp_benchmarks.cost.index.data import VectorSet

if TYPE_CHECKING:
    from llm2comp_indexes import Effort, Index

__all__ = ["compare_searches", "recall_of", "exact_scores", "find_equal_effort"]

_TIE = 1e-6
_BLOCK_BYTES = 256 << 20
_WARM_UP = 10

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]
Fetch = Callable[[NDArray[np.int64]], list[Any]]


class _Contestant(NamedTuple):
    """An index: queries (1, dimension) to rows (k,), and rows to documents."""

    search: Search
    fetch: Fetch


def exact_scores(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The k largest inner products of each query with all vectors, (queries, k), best first."""
    best: NDArray[np.float32] = np.full((len(queries), k), -np.inf, np.float32)
    size = max(k, _BLOCK_BYTES // (4 * max(1, len(queries))))
    for start in range(0, len(vectors), size):
        scores = queries @ np.asarray(vectors[start : start + size]).T
        kept = np.partition(scores, max(0, scores.shape[1] - k), axis=1)[:, -k:]
        best = -np.sort(-np.concatenate([best, kept], axis=1), axis=1)[:, :k]
    return best


def recall_of(
    vectors: NDArray[np.float32], query: NDArray[np.float32], rows: NDArray[np.int64], truth: NDArray[np.float32]
) -> float:
    """Recall of the rows: the share of the k best that are among them.

    A row counts if its score is at least the k-th of the true scores `truth` (k,), so any of equally good rows counts.
    """
    rows = np.unique(rows[rows >= 0])
    scores = vectors[rows].astype(np.float64) @ query.astype(np.float64)
    return min(1.0, float(np.count_nonzero(scores >= truth[-1] - _TIE)) / len(truth))


def compare_searches(
    source: VectorSet, ours: dict[str, Any], plain: dict[str, Any], *, k: int, rounds: int
) -> dict[str, Any]:
    """For each index recall@k, and median and 99th percentile of the time of a query, without and with its documents.

    The indexes take turns at each query, so that a busy machine slows all alike. That is repeated `rounds` times; a
    query's time is the least of them.

    Args:
        source: Vectors and queries.
        ours: Our indexes by name: `folder`, and `effort` (nprobe, ef_search, rerank) if it is not the tuned one.
        plain: Other indexes by name: `file`, and `parameters` as FAISS writes them ("nprobe=16") or None.
        k: Answers a query.
        rounds: Times each query is searched.
    """
    vectors, queries = source.map_vectors(), source.load("queries")
    contestants = {name: _our_index(Path(index["folder"]), k, index.get("effort")) for name, index in ours.items()}
    lines = _Lines(source.folder / "documents.jsonl")
    contestants |= {
        name: _faiss_index(index["file"], index.get("parameters"), lines, k) for name, index in plain.items()
    }
    truth = exact_scores(vectors, queries, k)
    times = {name: np.full((len(queries), 2), np.inf) for name in contestants}  # search alone, and with documents
    answers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in contestants}
    for number, query in [*enumerate(queries[:_WARM_UP]), *enumerate(queries)] * rounds:
        for name, contestant in contestants.items():
            start = time.perf_counter()
            rows = contestant.search(query[None])
            searched = time.perf_counter() - start
            contestant.fetch(rows)
            fetched = time.perf_counter() - start
            times[name][number] = np.minimum(times[name][number], (searched, fetched))
            if len(answers[name]) == number:
                answers[name].append(rows)
    return {
        name: _numbers(
            times[name], [recall_of(vectors, *one) for one in zip(queries, answers[name], truth, strict=True)]
        )
        for name in contestants
    }


def _numbers(seconds: NDArray[np.float64], recalls: list[float]) -> dict[str, Any]:
    milliseconds = 1e3 * seconds
    median, p99 = np.median(milliseconds, axis=0), np.percentile(milliseconds, 99, axis=0, method="higher")
    return {
        "recall": float(np.mean(recalls)),
        "recall_error": float(np.std(recalls) / np.sqrt(len(recalls))),
        "median_ms": float(median[0]),
        "p99_ms": float(p99[0]),
        "median_ms_with_documents": float(median[1]),
        "p99_ms_with_documents": float(p99[1]),
    }


def find_equal_effort(source: VectorSet, folder: Path, plain: dict[str, Any], *, k: int, rounds: int = 3) -> "Effort":
    """The highest effort at which the median query of our index is no slower than the other's; if none is, the lowest.

    The efforts are those that the index was tuned among, with the tuned number of rescored candidates. The queries are
    those of the tuning: the queries that recall is compared on have no part in this.
    """
    from llm2comp_indexes import open_index
    from llm2comp_indexes.structures.effort import efforts_of
    from llm2comp_indexes.structures.types import IndexType

    index, other = open_index(folder), _faiss_index(plain["file"], plain.get("parameters"), None, k)
    [segment] = index.segments
    assert segment.report is not None
    report = segment.report
    efforts = [
        effort
        for effort in efforts_of(IndexType(report.type), k)
        if effort.rerank in (None, report.point.effort.rerank)
    ]
    searches = [other.search, *(_search_of(index, k, effort) for effort in efforts)]
    queries = source.load("tuning")
    times = np.full((len(searches), len(queries)), np.inf)
    for number, query in [*enumerate(queries)] * rounds:
        for search, row in zip(searches, times, strict=True):
            start = time.perf_counter()
            search(query[None])
            row[number] = min(row[number], time.perf_counter() - start)
    limit, *medians = np.median(times, axis=1).tolist()
    quick = [effort for effort, median in zip(efforts, medians, strict=True) if median <= limit]
    return (quick or efforts[:1])[-1]


def _search_of(index: "Index", k: int, effort: "Effort | None") -> Search:
    from llm2comp_indexes import SearchOptions

    options = SearchOptions(effort=effort) if effort else None
    return lambda query: index.search_vectors(query, k, options=options).rows[0]


def _our_index(folder: Path, k: int, effort: dict[str, int | None] | None) -> _Contestant:
    from llm2comp_indexes import Effort, open_index

    index = open_index(folder)
    return _Contestant(
        search=_search_of(index, k, Effort(**effort) if effort else None),
        fetch=lambda rows: [index.fetch(row, 0.0) for row in rows.tolist() if row >= 0],
    )


def _faiss_index(file: str, parameters: str | None, lines: "_Lines | None", k: int) -> _Contestant:
    import faiss

    index: Any = faiss.read_index(file)
    if parameters:
        space: Any = faiss.ParameterSpace()
        space.set_index_parameters(index, parameters)
    return _Contestant(
        search=lambda query: index.search(query, k)[1][0],
        fetch=lambda rows: [lines[row] for row in rows.tolist() if row >= 0] if lines else [],
    )


class _Lines:
    """Documents beside a plain FAISS index, as written by hand: a mapped file of JSON lines, and where each begins."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        ends = np.flatnonzero(np.frombuffer(self._data, np.uint8) == ord("\n")) + 1
        self._ends: list[int] = [0, *ends.tolist()]

    def __getitem__(self, row: int) -> Any:
        return json.loads(self._data[self._ends[row] : self._ends[row + 1]])
