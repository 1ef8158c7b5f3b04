"""Choice of a type: the rule on made-up measurements, and the whole choice on vectors."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.format.vectors import Storage
from llm2comp_indexes.options import Targets
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.structure import Effort, IndexType, memory_bytes
from llm2comp_indexes.tuning import trials as candidates_module
from llm2comp_indexes.tuning.choose import choose_type, decide, format_choice, try_alternatives
from llm2comp_indexes.tuning.measure import Point, best_point, measure_curve, search_rows
from llm2comp_indexes.tuning.trials import Candidate, Sample, growth_exponent, list_candidates, scale_point
from tests.indexes.clustered import best_rows, draw_clustered, store_vectors

MB = 1_000_000


def candidate(factory: str, memory: int, *curve: tuple[float, float]) -> Candidate:
    """A candidate whose trial measured these pairs of recall and milliseconds."""
    points = tuple(Point(Effort(rerank=1), recall, ms, 2 * ms, 0.0, 300) for recall, ms in curve)
    return Candidate(IndexType(factory), memory, points, "" if curve else "not needed")


FLAT = candidate("Flat", 1024 * MB, (1.0, 60.0))
IVF = candidate("IVF4000,SQfp16", 530 * MB, (0.8, 0.5), (0.96, 1.1), (0.99, 2.5))
HNSW = candidate("HNSW32", 1300 * MB, (0.9, 0.3), (0.97, 1.0), (0.995, 2.0))
SQ8 = candidate("IVF4000,SQ8", 270 * MB, (0.8, 0.6), (0.96, 1.4), (0.99, 3.0))
PQ = candidate("RR256,IVF4000,PQ32x8", 50 * MB, (0.6, 0.8), (0.90, 4.0), (0.96, 12.0))
ALL = (FLAT, IVF, HNSW, SQ8, PQ)


@pytest.mark.parametrize(
    ("targets", "expected", "recall", "met"),
    [
        (Targets(), IVF, 0.96, True),  # HNSW is a tenth faster: a tie, which memory decides
        (Targets(latency_ms=100), FLAT, 1.0, True),
        (Targets(latency_ms=100, memory=1000 * MB), IVF, 0.96, True),
        (Targets(latency_ms=0.4, recall=0.85), HNSW, 0.9, True),
        (Targets(recall=0.995), HNSW, 0.995, True),
        (Targets(recall=1.0), FLAT, 1.0, False),  # latency gives way
        (Targets(memory=300 * MB), SQ8, 0.96, True),
        (Targets(memory=300 * MB, recall=0.995), SQ8, 0.99, False),  # recall gives way, to the nearest
        (Targets(memory=100 * MB), PQ, 0.96, False),
        (Targets(memory=100 * MB, latency_ms=20), PQ, 0.96, True),
        (Targets(latency_ms=0.1), IVF, 0.96, False),
    ],
)
def test_the_rule(targets: Targets, expected: Candidate, recall: float, met: bool) -> None:
    choice = decide(ALL, targets)
    assert (choice.candidate.type.factory, choice.point.recall, choice.met) == (expected.type.factory, recall, met)


def test_a_sure_recall_goes_before_a_lucky_one() -> None:
    lucky = Candidate(IndexType("IVF100,SQ8"), 1, (Point(Effort(nprobe=1), 0.951, 0.1, 0.2, 0.01, 300),))
    assert decide([lucky, SQ8], Targets()).candidate is SQ8
    alone = decide([lucky], Targets())
    assert (alone.candidate, alone.met) == (lucky, True)


def draw_candidates(generator: np.random.Generator) -> list[Candidate]:
    names = ["Flat", "IVF100,SQfp16", "IVF100,SQ8", "HNSW16", "HNSW32", "RR64,IVF100,PQ16x8"]
    drawn = []
    for name in generator.permutation(names)[: generator.integers(1, 7)]:
        recalls, times = np.sort(generator.uniform(0.5, 1, 4)), np.sort(generator.uniform(0.1, 10, 4))
        curve = [(1.0, float(times[0]))] if name == "Flat" else list(zip(recalls.tolist(), times.tolist(), strict=True))
        drawn.append(candidate(str(name), int(generator.integers(1, 100)), *curve))
    return drawn


def test_whatever_was_measured_the_rule_keeps_its_word() -> None:
    generator = np.random.default_rng(5)
    refused = met = 0
    for _ in range(500):
        drawn = draw_candidates(generator)
        targets = Targets(
            memory=int(generator.integers(5, 100)),
            latency_ms=float(generator.uniform(0.2, 8)),
            recall=float(generator.uniform(0.6, 1)),
        )
        fitting = [(one, point) for one in drawn for point in one.points if one.memory <= targets.memory]
        if not fitting:
            with pytest.raises(SettingsError, match="memory limit"):
                decide(drawn, targets)
            refused += 1
            continue
        chosen = decide(drawn, targets)
        assert chosen.candidate.memory <= targets.memory
        reaching = [point.median_ms for _, point in fitting if point.recall >= targets.recall]
        assert chosen.met == (min(reaching, default=np.inf) <= targets.latency_ms)
        met += chosen.met
        if reaching:
            assert chosen.point.recall >= targets.recall
            if chosen.candidate.type.family != "flat" or not chosen.met:
                assert chosen.point.median_ms <= 1.25 * min(reaching)
        else:
            assert chosen.point.recall == max(point.recall for _, point in fitting)
        assert ("cannot all be met" in format_choice(chosen, drawn, targets)) == (not chosen.met)
    assert refused > 10
    assert 100 < met < 400


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (
            Targets(memory=100 * MB),
            "The targets cannot all be met: no type tried within 100 MB of memory reaches recall@10 0.95 in at most "
            "10 ms (the default). Chose the nearest, "
            "RR256,IVF4000,PQ32x8: recall@10 0.960, 12 ms per query, 50 MB of memory: latency gives way before "
            "recall, and memory not at all.",
        ),
        (
            Targets(memory=300 * MB, recall=0.995, latency_ms=5),
            "The targets cannot all be met: no type tried within 300 MB of memory reaches recall@10 0.995. Chose the "
            "nearest, "
            "IVF4000,SQ8: recall@10 0.990, 3 ms per query, 270 MB of memory: recall gives way, memory does not.",
        ),
        (
            Targets(latency_ms=2),
            "Chose IVF4000,SQfp16: recall@10 0.960, 1.1 ms per query, 530 MB of memory. Of the types that meet the "
            "targets (recall 0.95, at most 2 ms, any "
            "memory) it is the smallest of the fastest (within a quarter of the least time); for comparison: HNSW32 1 "
            "ms and 1.3 GB, IVF4000,SQ8 1.4 ms and "
            "270 MB, exact search 60 ms.",
        ),
    ],
)
def test_it_says_why(targets: Targets, text: str) -> None:
    assert format_choice(decide(ALL, targets), ALL, targets) == text


def test_candidates_are_types_faiss_makes_and_their_memory_is_theirs() -> None:
    for rows, dimension in ((20_000, 64), (1_000_000, 256), (100_000_000, 4096), (10_001, 100), (50, 8)):
        listed = list_candidates(rows, dimension, "float32")
        assert [one.type.factory for one in listed][0] == "Flat"
        assert len({one.type.factory for one in listed}) == len(listed)
        for one in listed:
            assert one.memory == memory_bytes(one.type, rows=rows, dimension=dimension, store="float32")
        smallest = min(one.memory for one in listed)
        assert smallest < 0.3 * rows * 4 * dimension or rows < 10_000


def measured(factory: str, *points: tuple[int, float, float]) -> list[Point]:
    field = "ef_search" if factory.startswith("HNSW") else "nprobe"
    return [Point(Effort(**{field: effort, "rerank": 1}), recall, ms, 2 * ms) for effort, recall, ms in points]


def test_time_of_exact_search_is_linear_in_the_rows() -> None:
    flat = IndexType("Flat")
    scaled = scale_point(
        Point(Effort(), 1.0, 2.0, 3.0),
        Point(Effort(), 1.0, 2.0, 3.0),
        flat,
        flat,
        rows=1_000_000,
        sample_rows=50_000,
        exponent=0.0,
    )
    assert (scaled.median_ms, scaled.p99_ms, scaled.recall) == (40.0, 60.0, 1.0)


def test_time_of_hnsw_is_logarithmic_in_the_rows() -> None:
    kind, [point] = IndexType("HNSW16"), measured("HNSW16", (64, 0.9, 0.5))
    scaled = scale_point(point, point, kind, kind, rows=1_000_000, sample_rows=1000, exponent=0.0)
    assert scaled.median_ms == pytest.approx(1.0)
    assert scaled.effort.ef_search == 64
    harder = scale_point(point, point, kind, kind, rows=1_000_000, sample_rows=1000, exponent=1 / 3)
    assert harder.effort.ef_search in (640, 641)
    assert harder.median_ms == pytest.approx(10.0)


def test_time_of_ivf_is_linear_in_the_rows_probed() -> None:
    base, point = measured("IVF", (1, 0.3, 0.2), (10, 0.9, 0.7))
    scaled = scale_point(
        point,
        base,
        IndexType("IVF4000,SQ8"),
        IndexType("IVF1000,SQ8"),
        rows=1_000_000,
        sample_rows=50_000,
        exponent=0.0,
    )
    assert scaled.effort.nprobe == 40  # 1 % of the lists, as on the sample
    assert scaled.median_ms == pytest.approx(
        4 * 0.2 + 20 * 0.5
    )  # four times as many centroids to compare, twenty times as many rows
    easier = scale_point(
        point, base, IndexType("IVF4000,SQ8"), IndexType("IVF1000,SQ8"), rows=800_000, sample_rows=50_000, exponent=-0.5
    )
    assert easier.effort.nprobe == 10
    assert easier.median_ms == pytest.approx(4 * 0.2 + 4 * 0.5)


def test_growth_of_the_effort_is_read_off_two_curves() -> None:
    hnsw = IndexType("HNSW16")
    small, large = (
        measured("HNSW16", (16, 0.9, 1), (32, 0.95, 1), (64, 0.99, 1)),
        measured("HNSW16", (32, 0.9, 1), (64, 0.95, 1), (128, 0.99, 1)),
    )
    assert growth_exponent(large, small, (hnsw, hnsw), growth=16, recall=0.95) == pytest.approx(0.25)
    assert growth_exponent(small, large, (hnsw, hnsw), growth=16, recall=0.95) == 0.0  # more rows are never easier
    assert growth_exponent(large, small, (hnsw, hnsw), growth=16, recall=0.999) == 0.5  # not reached: the most
    kinds = (IndexType("IVF1000,SQ8"), IndexType("IVF250,SQ8"))
    small, large = measured("IVF", (5, 0.9, 1), (10, 0.95, 1)), measured("IVF", (10, 0.9, 1), (20, 0.95, 1))
    assert growth_exponent(large, small, kinds, growth=4, recall=0.95) == pytest.approx(
        -0.5
    )  # twice the lists, a quarter as large: half of the share


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return store_vectors(tmp_path_factory.mktemp("plan") / "vectors.faiss", draw_clustered(6000, 32, seed=1))


def all_of(storage: Storage) -> NDArray[np.float32]:
    return storage.read(np.arange(storage.rows))


class Clock:
    """A clock that advances by the same step at each reading, so that every query takes the same time."""

    def __init__(self, step: float = 1e-4) -> None:
        self._readings: Iterator[int] = count()
        self._step = step

    def __call__(self) -> float:
        return self._step * next(self._readings)


def test_a_small_corpus_is_searched_exactly(storage: Storage) -> None:
    tried: list[str] = []
    plan = choose_type(storage, Targets(latency_ms=1000), threads=1, on_trial=tried.append)
    assert (plan.type, plan.met, plan.point.recall, tried) == (IndexType("Flat"), True, 1.0, ["Flat"])
    assert plan.reason.startswith("Chose exact search: recall@10 1.000, ")
    assert {one.skipped for one in plan.candidates if one.type != plan.type} == {"not needed"}


def test_types_that_were_not_needed_are_tried_for_comparison(storage: Storage, tmp_path: Path) -> None:
    tried: list[str] = []
    queries = draw_clustered(100, 32, seed=2)
    options = {"threads": 1, "workdir": tmp_path, "on_trial": tried.append}
    candidates = try_alternatives(storage, Targets(), queries, seconds=3, clock=Clock(1e-6), **options)
    listed = list_candidates(storage.rows, 32, "float32")
    assert [candidate.type for candidate in candidates] == [other.type for other in listed[1:]]
    assert tried == [candidate.type.factory for candidate in candidates]
    assert all(max(point.recall for point in candidate.points) > 0.9 for candidate in candidates)
    assert not list(tmp_path.iterdir())
    limit = Targets(memory=max(candidate.memory for candidate in candidates) - 1)
    assert 0 < len(try_alternatives(storage, limit, queries, clock=Clock(1e-6), **options)) < len(candidates)
    assert try_alternatives(storage, Targets(), queries, seconds=1e-9, **options) == ()


@pytest.mark.parametrize("rows", [1, 5, 12, 100])
@pytest.mark.parametrize("targets", [Targets(), Targets(latency_ms=1e-6)])
def test_a_handful_of_documents(tmp_path: Path, rows: int, targets: Targets) -> None:
    plan = choose_type(store_vectors(tmp_path / "vectors.faiss", draw_clustered(rows, 32, seed=1)), targets, threads=1)
    assert plan.met == (targets.latency_ms is None)
    assert plan.point.recall >= 0.95


def test_no_documents_no_choice(tmp_path: Path, storage: Storage) -> None:
    with pytest.raises(SettingsError, match="no vectors"):
        choose_type(store_vectors(tmp_path / "vectors.faiss", draw_clustered(0, 32, seed=1)), Targets())
    with pytest.raises(SettingsError, match="no queries"):
        choose_type(storage, Targets(), queries=np.zeros((0, 32), np.float32))


def test_queries_are_not_among_the_sampled_rows(storage: Storage) -> None:
    with Sample(storage, Targets(), seed=3) as sample:
        rows = {row.tobytes() for row in all_of(sample.storage)}
        queries = {query.tobytes() for query in sample.queries}
        assert rows | queries == {row.tobytes() for row in all_of(storage)}
        assert len(rows) == 5700
        assert len(queries) == 300
        assert not rows & queries


def test_temporary_files_are_removed(storage: Storage, tmp_path: Path) -> None:
    choose_type(storage, Targets(), threads=1, workdir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_types_over_the_memory_limit_are_neither_tried_nor_chosen(storage: Storage) -> None:
    tried: list[str] = []
    limit = memory_bytes(IndexType("Flat"), rows=storage.rows, dimension=32, store="float32") - 1
    plan = choose_type(storage, Targets(memory=limit), threads=1, seconds=3, on_trial=tried.append)
    sizes = {one.type.factory: one.memory for one in plan.candidates}
    assert tried
    assert all(sizes[name] <= limit for name in tried)
    assert plan.memory <= limit
    assert {one.type.factory for one in plan.candidates if one.skipped == "over the memory limit"} == {
        name for name in sizes if sizes[name] > limit
    }


def test_too_little_memory_for_any_type_names_the_least(storage: Storage) -> None:
    with pytest.raises(
        SettingsError, match=r"too little for any index of 6,000 vectors of dimension 32: the smallest, .* \(--memory\)"
    ) as caught:
        choose_type(storage, Targets(memory=1000))
    least = int(re.findall(r"at least (\d+) bytes", str(caught.value))[0])
    assert choose_type(storage, Targets(memory=least), threads=1, seconds=3).memory == least
    with pytest.raises(SettingsError):
        choose_type(storage, Targets(memory=least - 1), threads=1)


def test_targets_that_cannot_be_met_give_the_nearest_and_say_so(storage: Storage) -> None:
    plan = choose_type(storage, Targets(latency_ms=1e-6, recall=0.9), threads=1, seconds=3)
    assert not plan.met
    assert plan.point.recall >= 0.9
    assert "The targets cannot all be met: no type tried reaches recall@10 0.9 in at most 1e-06 ms." in plan.reason
    assert "latency gives way before recall" in plan.reason


def test_the_same_seed_gives_the_same_plan(storage: Storage) -> None:
    plans = [
        choose_type(storage, Targets(latency_ms=0.05), threads=1, seed=4, seconds=1, clock=Clock()) for _ in range(2)
    ]
    assert plans[0] == plans[1]
    assert len([one for one in plans[0].candidates if one.points]) > 3


def test_the_time_it_takes_is_bounded(storage: Storage) -> None:
    tried: list[str] = []
    plan = choose_type(
        storage, Targets(latency_ms=1e-6), threads=1, seconds=1, clock=Clock(step=0.1), on_trial=tried.append
    )
    assert tried == ["Flat"]
    assert {one.skipped for one in plan.candidates if not one.points} == {"no time left"}


def test_a_larger_corpus_is_judged_by_a_sample(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "_ROWS", (2000, 2000))
    monkeypatch.setattr(candidates_module, "_SLOW_ROWS", (1000, 1000))
    plan = choose_type(storage, Targets(latency_ms=1e-6), threads=1, seconds=4)
    assert "Measured on 2,000 and 1,000 of the vectors with 300 others as queries" in plan.reason
    assert plan.reason.endswith("; times are scaled to 6,000.")


def check_on_other_queries(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], folder: Path, targets: Targets
) -> None:
    """Chooses, builds, tunes with half of the queries, and measures recall with the other half, by brute force."""
    storage = store_vectors(folder / "vectors.faiss", vectors)
    plan = choose_type(storage, targets, threads=1, seconds=8)
    assert plan.type.family != "flat"
    assert plan.memory <= targets.memory
    structure = build_structure(plan.type, storage, threads=1)
    half = len(queries) // 2
    effort = best_point(
        measure_curve(structure, storage, queries[:half], k=targets.k, recall=targets.recall, seconds=0), targets
    ).effort
    truth = best_rows(vectors, queries[half:], targets.k)
    answers = [search_rows(structure, storage, query[None], targets.k, effort) for query in queries[half:]]
    reached = np.mean(
        [
            len(set(answer.tolist()) & set(best.tolist())) / targets.k
            for answer, best in zip(answers, truth, strict=True)
        ]
    )
    assert reached >= targets.recall


@pytest.mark.parametrize("share", [0.7, 0.4, 0.2])
def test_the_recall_asked_for_is_reached_on_clustered_vectors(tmp_path: Path, share: float) -> None:
    targets = Targets(memory=int(share * 12_000 * 4 * 64), recall=0.95)
    check_on_other_queries(draw_clustered(12_000, 64, seed=1), draw_clustered(600, 64, seed=2), tmp_path, targets)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_the_recall_asked_for_is_reached_on_real_vectors(
    tmp_path: Path, python_docs: NDArray[np.float32], share: float
) -> None:
    rows, dimension = 3000, python_docs.shape[1]
    check_on_other_queries(
        python_docs[:rows], python_docs[rows:], tmp_path, Targets(memory=int(share * rows * 4 * dimension), recall=0.9)
    )
