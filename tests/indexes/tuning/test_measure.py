"""Recall and latency: against brute force, with ties, with a clock made for the test."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp.units import format_bytes, format_ms
from llm2comp_indexes.format.vectors import Neighbors, Storage
from llm2comp_indexes.options import STORES, Store, Targets
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.effort import efforts_of
from llm2comp_indexes.structures.structure import Effort, IndexType, Structure
from llm2comp_indexes.tuning import measure
from llm2comp_indexes.tuning.measure import Point, best_point, exact_search, measure_curve
from tests.indexes.clustered import best_rows, draw_clustered, store_vectors

ROWS, DIMENSION, K = 3000, 32, 10


class Sets(NamedTuple):
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    storage: Storage


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    vectors = draw_clustered(ROWS, DIMENSION, seed=1)
    return Sets(
        vectors,
        draw_clustered(60, DIMENSION, seed=2),
        store_vectors(tmp_path_factory.mktemp("sets") / "vectors.faiss", vectors),
    )


@pytest.fixture(scope="module")
def ivf(sets: Sets) -> Structure:
    return build_structure(IndexType("IVF64,SQ8"), sets.storage, threads=1)


class Clock:
    """A clock that advances by one second at each reading."""

    def __init__(self, steps: Iterator[float] | None = None) -> None:
        self.now = 0.0
        self._steps = steps

    def __call__(self) -> float:
        self.now += next(self._steps) if self._steps else 1.0
        return self.now


class FixedAnswers:
    """A structure that answers each query with fixed rows."""

    type = IndexType("IVF4,SQfp16")

    def __init__(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        self._answers = {query.tobytes(): row for query, row in zip(queries, rows, strict=True)}

    def find(self, queries: NDArray[np.float32], k: int, *, effort: Effort) -> Neighbors:
        rows = np.stack([self._answers[query.tobytes()] for query in queries])
        return Neighbors(np.zeros(rows.shape, np.float32), rows)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("k", [1, 10, 120])
def test_exact_search_equals_brute_force(
    tmp_path: Path, sets: Sets, store: Store, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_BLOCK_BYTES", 4 * DIMENSION * 700)  # several blocks
    monkeypatch.setattr(measure, "_QUERIES_AT_ONCE", 25)
    storage = store_vectors(tmp_path / "vectors.faiss", sets.vectors, store)
    decoded = storage.read(np.arange(ROWS))
    nearest = exact_search(storage, sets.queries, k).rows
    assert nearest.dtype == np.int64
    scores = sets.queries.astype(np.float64) @ decoded.astype(np.float64).T
    expected = np.take_along_axis(scores, best_rows(decoded, sets.queries, k), axis=1)
    # Of two rows that are closer than the tolerance, either is right
    np.testing.assert_allclose(np.take_along_axis(scores, nearest, axis=1), expected, atol=1e-6)
    assert all(len(set(rows)) == k for rows in nearest.tolist())


def test_exact_search_of_fewer_rows_than_k(tmp_path: Path, sets: Sets) -> None:
    storage = store_vectors(tmp_path / "vectors.faiss", sets.vectors[:4])
    np.testing.assert_array_equal(
        exact_search(storage, sets.queries, 10).rows, best_rows(sets.vectors[:4], sets.queries, 4)
    )


def test_exact_search_holds_one_block_at_a_time(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read = Storage.blocks

    def record(self: Storage, size: int = 0) -> Iterator[NDArray[np.float32]]:
        sizes.append(4 * DIMENSION * size)
        return read(self, size)

    monkeypatch.setattr(Storage, "blocks", record)
    exact_search(sets.storage, sets.queries, K)
    assert sizes
    assert max(sizes) <= 16 << 20


@pytest.mark.parametrize("queries", [np.zeros((2, DIMENSION + 1), np.float32), np.zeros(DIMENSION, np.float32)])
def test_queries_of_another_shape_are_refused(sets: Sets, queries: NDArray[np.float32]) -> None:
    with pytest.raises(SettingsError, match=r"expected \(queries, 32\)"):
        exact_search(sets.storage, queries, K)


@pytest.mark.parametrize("effort", [Effort(nprobe=1, rerank=1), Effort(nprobe=4, rerank=1), Effort(nprobe=4, rerank=4)])
def test_recall_equals_brute_force(sets: Sets, ivf: Structure, effort: Effort) -> None:
    [point] = measure_curve(ivf, sets.storage, sets.queries, k=K, efforts=[effort])
    truth = best_rows(sets.vectors, sets.queries, K)
    shares = []
    for query, best in zip(sets.queries, truth, strict=True):
        candidates = ivf.search(query[None], K * (effort.rerank or 1), effort=effort).rows[0]
        candidates = candidates[candidates >= 0]
        answer = candidates[np.argsort(-(sets.vectors[candidates].astype(np.float64) @ query), kind="stable")[:K]]
        shares.append(len(set(answer.tolist()) & set(best.tolist())) / K)
    assert point.recall == pytest.approx(np.mean(shares))
    assert 0 < point.recall < 1
    assert point.error == pytest.approx(np.std(shares) / np.sqrt(len(shares)))
    assert point.queries == len(sets.queries)
    assert 0 < point.median_ms <= point.p99_ms


def test_exact_search_has_recall_one(sets: Sets) -> None:
    [point] = measure_curve(sets.storage, sets.storage, sets.queries, k=K)
    assert (point.effort, point.recall, point.error) == (Effort(), 1.0, 0.0)


def test_any_of_equally_good_rows_counts(tmp_path: Path, sets: Sets) -> None:
    five_times = np.repeat(sets.vectors[:200], 5, axis=0)
    storage = store_vectors(tmp_path / "vectors.faiss", five_times)
    queries = sets.queries[:20]
    best = 5 * best_rows(sets.vectors[:200], queries, 1)  # (queries, 1): the first of five equal rows
    for chosen in ([0, 1, 2], [4, 2, 3]):
        answers = FixedAnswers(queries, best + np.array(chosen))
        [point] = measure_curve(answers, storage, queries, k=3, efforts=[Effort()])
        assert point.recall == 1.0


def test_a_row_counts_once(sets: Sets) -> None:
    best = best_rows(sets.vectors, sets.queries, 1)
    [point] = measure_curve(
        FixedAnswers(sets.queries, np.repeat(best, 4, axis=1)), sets.storage, sets.queries, k=4, efforts=[Effort()]
    )
    assert point.recall == 0.25


def test_missing_rows_are_misses(sets: Sets) -> None:
    rows = best_rows(sets.vectors, sets.queries, 4)
    rows[:, 1:] = -1
    [point] = measure_curve(FixedAnswers(sets.queries, rows), sets.storage, sets.queries, k=4, efforts=[Effort()])
    assert point.recall == 0.25


def test_k_beyond_the_rows(tmp_path: Path, sets: Sets) -> None:
    storage = store_vectors(tmp_path / "vectors.faiss", sets.vectors[:6])
    [point] = measure_curve(storage, storage, sets.queries, k=50)
    assert point.recall == 1.0


def test_latency_is_that_of_single_queries(sets: Sets, ivf: Structure) -> None:
    """The clock is read twice around each query; query n takes n + 1 seconds."""
    durations = iter([0.0, 0.0] + [step for query in range(60) for step in (0.0, query + 1.0)])
    [point] = measure_curve(
        ivf, sets.storage, sets.queries, k=K, efforts=[Effort(nprobe=1)], clock=Clock(durations), point_seconds=1e9
    )
    assert point.median_ms == pytest.approx(30_500)
    assert point.p99_ms == pytest.approx(60_000)


def test_a_slow_point_is_measured_with_twenty_queries(sets: Sets, ivf: Structure) -> None:
    points = measure_curve(
        ivf,
        sets.storage,
        sets.queries,
        k=K,
        efforts=[Effort(nprobe=1), Effort(nprobe=2)],
        clock=Clock(),
        point_seconds=1,
        seconds=1e9,
    )
    assert [point.queries for point in points] == [20, 20]


def test_no_point_is_begun_after_the_time_is_up(sets: Sets, ivf: Structure) -> None:
    efforts = [Effort(nprobe=number) for number in range(1, 9)]
    assert len(measure_curve(ivf, sets.storage, sets.queries, k=K, efforts=efforts, clock=Clock(), seconds=1)) == 1
    assert len(measure_curve(ivf, sets.storage, sets.queries, k=K, efforts=efforts, clock=Clock(), seconds=1e9)) == 8


@pytest.mark.parametrize(
    "factory", ["IVF64,SQfp16", "IVF64,SQ8", "HNSW8", "IVF64,PQ8x4", "IVF64,PQ8x4fs", "RR32,HNSW8,SQ8"]
)
@pytest.mark.parametrize("recall", [0.7, 0.95])
def test_the_least_effort_for_a_recall_is_found_without_time_for_a_sweep(
    sets: Sets, factory: str, recall: float
) -> None:
    structure = build_structure(IndexType(factory), sets.storage, threads=1)
    bisected = measure_curve(structure, sets.storage, sets.queries, k=K, recall=recall, seconds=0)
    swept = measure_curve(structure, sets.storage, sets.queries, k=K, point_seconds=60)
    assert len(bisected) < len(swept)
    assert [point.effort for point in bisected] == [
        effort for effort in efforts_of(structure.type, K) if effort in {point.effort for point in bisected}
    ]
    rerank = next(point.effort.rerank for point in swept if point.sure_recall >= recall)
    least = [
        next(point.effort for point in curve if point.sure_recall >= recall and point.effort.rerank == rerank)
        for curve in (bisected, swept)
    ]
    assert least[0] == least[1]


def test_a_recall_out_of_reach_ends_where_more_effort_does_not_help(sets: Sets) -> None:
    structure = build_structure(IndexType("IVF8,PQ1x4"), sets.storage, threads=1)
    points = measure_curve(structure, sets.storage, sets.queries, k=K, recall=1.0, seconds=0)
    swept = measure_curve(
        structure, sets.storage, sets.queries, k=K, efforts=efforts_of(structure.type, K), point_seconds=60
    )
    assert max(point.recall for point in points) > max(point.recall for point in swept) - 0.01
    assert max(point.recall for point in points) < 1


@pytest.mark.parametrize("factory", ["IVF64,SQfp16", "HNSW8", "IVF64,PQ8x4"])
def test_a_sweep_ends_where_all_is_found(sets: Sets, factory: str) -> None:
    structure = build_structure(IndexType(factory), sets.storage, threads=1)
    points = measure_curve(structure, sets.storage, sets.queries, k=K, point_seconds=60)
    recalls = [point.recall for point in points]
    assert recalls[0] < 0.95
    assert recalls[-1] > 0.999
    assert all(recall < 0.9995 for recall in recalls[:-1])


def test_lists_of_a_type_unknown_to_us_are_probed_in_steps_too(sets: Sets) -> None:
    structure = build_structure(IndexType("IVF64,PQ8x4fs"), sets.storage, threads=1)
    points = measure_curve(structure, sets.storage, sets.queries, k=K, point_seconds=60)
    assert {point.effort.nprobe for point in points} >= {1, 4, 16}
    assert points[0].recall < 0.6
    assert max(point.recall for point in points) > 0.95


def test_efforts_grow_in_small_steps() -> None:
    for kind, field in ((IndexType("IVF1000,SQfp16"), "nprobe"), (IndexType("HNSW16"), "ef_search")):
        values = [getattr(effort, field) for effort in efforts_of(kind, 10)]
        assert values[0] == {"nprobe": 1, "ef_search": 10}[field]
        assert values[-1] >= {"nprobe": 1000, "ef_search": 4096}[field]
        assert all(low < high <= max(low + 1, 1.5 * low) for low, high in pairwise(values))


def test_without_queries_there_is_no_curve(sets: Sets) -> None:
    with pytest.raises(SettingsError, match="no queries"):
        measure_curve(sets.storage, sets.storage, sets.queries[:0], k=K)


def make_point(recall: float, median_ms: float, error: float = 0.0) -> Point:
    return Point(Effort(nprobe=int(1000 * recall)), recall, median_ms, 2 * median_ms, error, 300)


CURVE = [make_point(0.80, 0.1), make_point(0.96, 1.0, 0.01), make_point(0.97, 2.0, 0.005), make_point(0.99, 4.0, 0.001)]


@pytest.mark.parametrize(
    ("recall", "latency_ms", "expected"),
    [
        (0.95, 10, 2),  # 0.96 ± 0.01 might be below 0.95 for other queries
        (0.95, 1.5, 1),  # but is taken if nothing surer is fast enough
        (0.5, 10, 0),
        (0.98, 10, 3),
        (0.98, 3, 3),  # latency gives way
        (0.95, 0.5, 2),
        (0.999, 10, 3),  # the recall is out of reach: the nearest
        (0.999, 1, 3),
    ],
)
def test_the_best_point(recall: float, latency_ms: float, expected: int) -> None:
    assert best_point(CURVE, Targets(latency_ms=latency_ms, recall=recall)) is CURVE[expected]


def test_no_points_no_best() -> None:
    with pytest.raises(SettingsError, match="no measured points"):
        best_point([], Targets())


@pytest.mark.parametrize(
    "wrong",
    [{"memory": 0}, {"latency_ms": 0.0}, {"latency_ms": float("nan")}, {"recall": 0.0}, {"recall": 1.5}, {"k": 0}],
)
def test_impossible_targets_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(wrong)).removesuffix('_ms')} is .*expected"):
        Targets(**wrong)


def test_numbers_for_people() -> None:
    assert [format_bytes(count) for count in (512, 20_480_045, 999_999, 1_310_000_000, 5e15)] == [
        "512 bytes",
        "20.5 MB",
        "1,000 kB",
        "1.31 GB",
        "5,000 TB",
    ]
    assert [format_ms(value) for value in (0.0412, 0.41, 9.96, 12.3, 1240)] == [
        "0.041 ms",
        "0.41 ms",
        "10 ms",
        "12 ms",
        "1,240 ms",
    ]
