"""Every type of index, and the choice of one, on vectors of the Python documentation: recall and reports."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.units import format_bytes
from llm2comp_indexes import IndexOptions, Targets, VectorFiles, build_from_vectors, open_index, verify_index
from tests.indexes.clustered import best_rows, recall

pytestmark = pytest.mark.slow

ROWS, TUNING = 3000, 300
TYPES = ("flat", "hnsw", "ivf", "ivfpq")
STRINGS = (
    "HNSW24,Flat", "IVF48,Flat", "IVF48,SQ8", "IVF48_HNSW16,SQ4", "OPQ32_128,IVF48,PQ32x4", "PCAR128,IVF48,SQ8",
    "SQ8", "SQ6", "PQ64x4", "PQ64x4fs", "IVF48,PQ64x4fs", "IVF48,PQ64x4fs,RFlat", "IVF48,RaBitQ", "RaBitQ",
    "HNSW24_SQ8", "RR256,HNSW24,SQfp16", "NSG32", "IDMap,SQfp16", "PCA128,Flat", "IVF48,SQ4,Refine(SQfp16)",
    "L2norm,IVF48,Flat", "IVF48(HNSW16),RQ16x4",
)  # fmt: skip


class Files:
    """Vectors to index, half of the queries to measure with, and the other half to check the recall."""

    def __init__(self, folder: Path, vectors: NDArray[np.float32]) -> None:
        self.rows, self.queries = vectors[:ROWS], vectors[ROWS + TUNING :]
        np.save(folder / "v.npy", self.rows)
        np.save(folder / "q.npy", vectors[ROWS : ROWS + TUNING])
        (folder / "ids.txt").write_text("".join(f"x{row}\n" for row in range(ROWS)))
        self.vectors = VectorFiles([folder / "v.npy"], folder / "ids.txt", folder / "q.npy")
        self.tuning = vectors[ROWS : ROWS + TUNING]

    def recall(self, folder: Path, queries: NDArray[np.float32]) -> float:
        """Recall@10 of a search of the index."""
        truth = best_rows(self.rows, queries, 10)
        with open_index(folder) as index:
            return recall(index.search_vectors(queries, 10).rows, truth)


@pytest.fixture(scope="module")
def files(python_docs: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"), python_docs)


@pytest.mark.parametrize("text", [*TYPES, *STRINGS])
def test_every_type_reaches_the_recall_asked_for(files: Files, tmp_path: Path, text: str) -> None:
    report = build_from_vectors(
        files.vectors, tmp_path / "idx", options=IndexOptions(type=text, targets=Targets(latency_ms=1000))
    ).measured
    assert report.met, report.reason
    assert report.point.recall >= 0.95
    assert files.recall(tmp_path / "idx", files.tuning) == pytest.approx(report.point.recall, abs=0.005)
    assert files.recall(tmp_path / "idx", files.queries) >= 0.94
    assert report.type in report.reason or text == "flat"
    verify_index(tmp_path / "idx")


@pytest.mark.parametrize("share", [0.6, 0.3])
def test_auto_keeps_to_memory_and_recall(files: Files, tmp_path: Path, share: float) -> None:
    memory = int(share * files.rows.nbytes)
    report = build_from_vectors(
        files.vectors, tmp_path / "idx", options=IndexOptions(targets=Targets(memory=memory))
    ).measured
    assert report.met, report.reason
    assert report.memory <= memory
    assert files.recall(tmp_path / "idx", files.queries) >= 0.94
    assert report.reason.startswith("Chose ")
    assert "with 300 queries" in report.reason
    assert f"at most {format_bytes(memory)}" in report.reason


def test_targets_that_cannot_be_met_are_told_with_the_nearest(files: Files, tmp_path: Path) -> None:
    targets = Targets(memory=int(0.3 * files.rows.nbytes), latency_ms=0.0001, recall=0.95)
    report = build_from_vectors(files.vectors, tmp_path / "idx", options=IndexOptions(targets=targets)).measured
    assert not report.met
    assert report.memory <= targets.memory
    assert (
        "The targets cannot all be met: no type tried within 922 kB of memory reaches recall@10 0.95 in at most "
        "0.0001 ms." in report.reason
    )
    assert "Chose the nearest, " in report.reason
    assert "latency gives way before recall, and memory not at all" in report.reason
    assert report.point.recall >= 0.95
