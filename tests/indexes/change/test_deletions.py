"""Searching after deletions: the right answers, as fast, and with hundreds of thousands of deletions."""

import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp_indexes import (
    Effort,
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    verify_index,
)
from llm2comp_indexes.format.vectors import Storage
from tests.indexes.clustered import best_rows, draw_vectors, recall
from tests.indexes.live import RecordingEncoder, answers, build_of_vectors, make_documents
from tests.word_encoder import WordEncoder

ROWS, DIMENSION = 6000, 32
TYPES = {"flat": 1.0, "HNSW16": 0.95, "IVF64,SQ8": 0.95, "IVF64,PQ16x4": 0.9, "SQ8": 0.95}
"""Types, and the minimum recall@10 of each."""


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return draw_vectors(ROWS, DIMENSION)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return draw_vectors(60, DIMENSION, seed=1)


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> Callable[[str], Path]:
    """The index of a type, built once; tests must not change it."""
    made: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in made:
            made[kind] = build_of_vectors(tmp_path_factory.mktemp("built"), vectors, queries, IndexOptions(kind))
        return made[kind]

    return build


@pytest.mark.parametrize("share", [0.02, 0.5, 0.985])
@pytest.mark.parametrize(("kind", "least"), TYPES.items())
def test_recall_after_deletions_and_after_a_merge(
    tmp_path: Path,
    built: Callable[[str], Path],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    kind: str,
    least: float,
    share: float,
) -> None:
    folder = shutil.copytree(built(kind), tmp_path / "idx")
    alive = np.random.default_rng(3).random(ROWS) >= share
    delete_documents(folder, [f"v{row}" for row in np.flatnonzero(~alive)])
    truth = best_rows(vectors, queries, 10, alive)
    neighbors = open_index(folder).search_vectors(queries, 10)
    assert alive[neighbors.rows].all(), "a deleted row was found"
    assert recall(neighbors.rows, truth) >= least

    merge_index(
        folder, options=IndexOptions("flat") if share > 0.9 else None
    )  # what is left has fewer rows than the type has lists
    numbers = np.flatnonzero(alive)
    neighbors = open_index(folder).search_vectors(queries, 10)
    assert recall(numbers[neighbors.rows], truth) >= (1 if share > 0.9 else least)
    assert verify_index(folder).segments[0].rows == len(numbers)


@pytest.mark.parametrize("store", ["float16", "int8"])
def test_deletions_with_coarser_vectors(
    tmp_path: Path, vectors: NDArray[np.float32], queries: NDArray[np.float32], store: Any
) -> None:
    folder = build_of_vectors(tmp_path, vectors, queries, IndexOptions("flat", store=store))
    before = open_index(folder).search_vectors(queries, 10)
    delete_documents(folder, [f"v{row}" for row in np.unique(before.rows[:, ::2])])
    after = open_index(folder).search_vectors(queries, 10)
    gone = np.isin(before.rows, before.rows[:, ::2])
    for old, new, dead in zip(before.rows, after.rows, gone, strict=True):
        assert old[~dead].tolist() == new[: int((~dead).sum())].tolist(), "the others move up, in their order"


@pytest.mark.parametrize(("kind", "most"), [("HNSW16", 1000), ("flat", 100)])
def test_a_deletion_does_not_slow_a_search_down(
    tmp_path: Path,
    built: Callable[[str], Path],
    queries: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    most: int,
) -> None:
    """Comparing all rows would take HNSW a hundred times as long; reading them one by one, exact search seven times."""
    folder = shutil.copytree(built(kind), tmp_path / "idx")
    delete_documents(folder, ["v1", "v2"])
    index = open_index(folder)
    scored: list[int] = []
    compared: list[int] = []
    scores, search = Storage.scores, Storage.search
    monkeypatch.setattr(
        Storage, "scores", lambda self, query, rows: scored.append(len(rows)) or scores(self, query, rows)
    )
    monkeypatch.setattr(
        Storage, "search", lambda self, *args, **options: compared.append(self.rows) or search(self, *args, **options)
    )
    index.search_vectors(queries[:5], 10)
    assert max(scored) <= most
    assert bool(compared) == (kind == "flat")


def test_what_is_left_when_k_is_larger(
    tmp_path: Path, built: Callable[[str], Path], queries: NDArray[np.float32]
) -> None:
    folder = shutil.copytree(built("HNSW16"), tmp_path / "idx")
    delete_documents(folder, [f"v{row}" for row in range(ROWS) if row not in (5, 77, 4000)])
    neighbors = open_index(folder).search_vectors(queries[:4], 10)
    assert np.sort(neighbors.rows[:, :3], axis=1).tolist() == [[5, 77, 4000]] * 4
    assert (neighbors.rows[:, 3:] == -1).all()
    assert np.isneginf(neighbors.scores[:, 3:]).all()


def test_identical_documents_are_deleted_one_by_one(
    tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    build_index(
        [write_corpus([{"_id": f"same{row}", "text": "bread"} for row in range(6)])], tmp_path / "idx", model=encoder
    )
    delete_documents(tmp_path / "idx", ["same0", "same3"])
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["bread"], 10)
    assert [hit.id for hit in hits] == ["same1", "same2", "same4", "same5"], "equal scores keep the order of the index"
    assert len({hit.score for hit in hits}) == 1


@pytest.fixture
def several(tmp_path: Path, write_corpus: Callable[..., Path]) -> Callable[..., tuple[Path, Path, RecordingEncoder]]:
    """An index of several segments, some with deletions, and one built from the remaining documents, in order."""

    def make(**options: Any) -> tuple[Path, Path, RecordingEncoder]:
        encoder, chosen = RecordingEncoder(), IndexOptions(hybrid=True, **options)
        parts = [
            make_documents(range(40)),
            make_documents(range(40, 60)),
            [{"_id": "bare", "text": "bread in the oven"}],
        ]
        parts[1] = [{**document, "lang": "de"} for document in parts[1]]
        build_index([write_corpus(parts[0])], tmp_path / "several", model=encoder, options=chosen)
        for part in parts[1:]:
            add_documents(tmp_path / "several", [write_corpus(part)], model=encoder)
        gone = {f"d{row}" for row in (0, 1, 2, 30, 41, 59)}
        delete_documents(tmp_path / "several", gone)
        left = [document for part in parts for document in part if document["_id"] not in gone]
        build_index([write_corpus(left)], tmp_path / "whole", model=encoder, options=chosen)
        return tmp_path / "several", tmp_path / "whole", encoder

    return make


FILTERS = [
    "year >= 2005",
    '"even" in tags',
    'lang == "de"',
    "lang is None",
    'lang == "de" and year < 2004',
    "year > 2500",
]


@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.parametrize("kind", ["flat", "HNSW8"])
def test_filters_over_several_segments_and_deletions(
    several: Callable[..., tuple[Path, Path, RecordingEncoder]], kind: str, where: str
) -> None:
    folder, whole, encoder = several(type=kind)
    assert answers(folder, encoder, where=where) == answers(whole, encoder, where=where)
    assert bool(answers(whole, encoder, where=where)[0]) == (where != FILTERS[-1])


def test_bm25_over_segments_is_that_of_one_index_of_all_rows_deleted_ones_too(
    several: Callable[..., tuple[Path, Path, RecordingEncoder]], tmp_path: Path, write_corpus: Callable[..., Path]
) -> None:
    """Deleted documents count in BM25 statistics until a merge, as in Lucene; then scores are those of a rebuild."""
    folder, whole, encoder = several(type="flat")
    german = [{**document, "lang": "de"} for document in make_documents(range(40, 60))]
    everything = [*make_documents(range(40)), *german, {"_id": "bare", "text": "bread in the oven"}]
    build_index(
        [write_corpus(everything)], tmp_path / "everything", model=encoder, options=IndexOptions("flat", hybrid=True)
    )
    gone = {f"d{row}" for row in (0, 1, 2, 30, 41, 59)}
    expected = [
        [hit for hit in hits if hit[0] not in gone] for hits in answers(tmp_path / "everything", encoder, mode="bm25")
    ]
    assert answers(folder, encoder, mode="bm25") == expected
    assert expected != answers(whole, encoder, mode="bm25"), "the two kinds of statistics differ in this corpus"
    merge_index(folder)
    for mode in ("bm25", "hybrid", "dense"):
        assert answers(folder, encoder, mode=mode) == answers(whole, encoder, mode=mode)


def test_hybrid_search_fuses_over_all_segments(several: Callable[..., tuple[Path, Path, RecordingEncoder]]) -> None:
    folder, _, encoder = several(type="flat")
    index = open_index(folder, model=encoder)
    for query in ("bread in the oven", "moon"):
        ranks, scores = dict[str, float](), dict[str, float]()
        for mode, weight in (("dense", 0.3), ("bm25", 0.7)):
            [found] = index.search([query], 100, options=SearchOptions(mode=mode))
            bottom = found[-1].score if mode == "dense" or len(found) == 100 else 0.0
            for rank, hit in enumerate(found, start=1):
                ranks[hit.id] = ranks.get(hit.id, 0) + 1 / (60 + rank)
                scaled = (hit.score - bottom) / (found[0].score - bottom)
                scores[hit.id] = scores.get(hit.id, 0) + weight * scaled
        for fusion, expected in (("scores", scores), ("ranks", ranks)):
            [hits] = index.search([query], 10, options=SearchOptions(mode="hybrid", fusion=fusion))
            assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:10], abs=1e-6)
            assert [hit.score for hit in hits] == pytest.approx([expected[hit.id] for hit in hits], abs=1e-6)


@pytest.mark.slow
def test_300000_deletions(tmp_path: Path) -> None:
    rows, gone, dimension = 400_000, 300_000, 16
    vectors, queries = draw_vectors(rows, dimension), draw_vectors(50, dimension, seed=1)
    folder = build_of_vectors(tmp_path, vectors, queries, IndexOptions("IVF256,SQ8"))
    alive = np.ones(rows, np.bool_)
    alive[np.random.default_rng(5).choice(rows, gone, replace=False)] = False
    names = [f"v{row}" for row in np.flatnonzero(~alive)]
    tracemalloc.start()
    start = time.process_time()
    report = delete_documents(folder, names)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report == (gone, ())
    assert seconds < 60, f"300,000 deletions took {seconds:.0f} s of computing"
    assert peak < 60e6, f"300,000 deletions took {peak / 1e6:.0f} MB of memory"
    truth = best_rows(vectors, queries, 10, alive)
    assert (
        recall(
            open_index(folder).search_vectors(queries, 10, options=SearchOptions(effort=Effort(nprobe=32))).rows, truth
        )
        >= 0.95
    )
    assert merge_index(folder).dropped == gone
    numbers = np.flatnonzero(alive)
    assert (
        recall(
            numbers[
                open_index(folder).search_vectors(queries, 10, options=SearchOptions(effort=Effort(nprobe=32))).rows
            ],
            truth,
        )
        >= 0.95
    )
    assert delete_documents(folder, [f"v{row}" for row in range(rows)])[0] == rows - gone
    assert len(open_index(folder)) == 0
