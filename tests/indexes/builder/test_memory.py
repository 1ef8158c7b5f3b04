"""Memory of a build: it does not grow with the corpus beyond what the index needs to be searched."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from llm2comp_benchmarks.cost.processes import watch_process
from llm2comp_indexes.structures.types import default_type, memory_bytes
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from /proc"),
]

DIMENSION, FEW, MANY = 64, 100_000, 1_000_000
MOST_GROWTH = 300 * 10**6
_BUILD = """
import sys
from pathlib import Path
import faiss
from llm2comp_indexes import IndexOptions, VectorFiles, build_from_vectors
folder, kind = Path(sys.argv[1]), sys.argv[2]
faiss.omp_set_num_threads(1)
build_from_vectors(VectorFiles([folder / "v.npy"], folder / "ids.txt"), folder / kind, options=IndexOptions(type=kind))
"""


def write_vectors(folder: Path, rows: int) -> None:
    """Writes vectors in clusters and their ids, block by block."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((2000, DIMENSION), dtype=np.float32)
    vectors = np.lib.format.open_memmap(folder / "v.npy", mode="w+", dtype=np.float32, shape=(rows, DIMENSION))
    for start in range(0, rows, 10_000):
        noise = 0.5 * generator.standard_normal((10_000, DIMENSION), dtype=np.float32)
        vectors[start : start + 10_000] = centres[generator.integers(0, 2000, 10_000)] + noise
    (folder / "ids.txt").write_text("".join(f"document-{row}\n" for row in range(rows)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("memory")
    made = {rows: root / str(rows) for rows in (FEW, MANY)}
    for rows, folder in made.items():
        write_vectors(folder, rows)
    return made


@pytest.mark.parametrize("kind", ["ivf", "flat"])
def test_a_million_vectors_take_300_mb_more_than_100_000_at_most(folders: dict[int, Path], kind: str) -> None:
    """Growth without the pages of mapped files, which the system may evict, and with those beyond the index itself."""
    environment = {"PYTHONPATH": os.pathsep.join(map(str, [ROOT / "indexes", ROOT]))}
    peaks = {
        rows: watch_process([sys.executable, "-c", _BUILD, str(folder), kind], environment)
        for rows, folder in folders.items()
    }
    need = {
        rows: memory_bytes(
            default_type(kind, rows=rows, dimension=DIMENSION), rows=rows, dimension=DIMENSION, store="float32"
        )
        for rows in folders
    }
    growth = {name: peaks[MANY][name] - peaks[FEW][name] for name in ("anonymous", "resident")}
    assert growth["anonymous"] <= MOST_GROWTH, peaks
    assert growth["resident"] - (need[MANY] - need[FEW]) <= MOST_GROWTH, (peaks, need)
    (folders[FEW].parent / f"{kind}.txt").write_text(f"{peaks} {need}")
