"""Opening: files of every type are mapped and not read, and a search takes memory only for what it reads."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from llm2comp_indexes import Effort, IndexOptions, SearchOptions, VectorFiles, build_from_vectors, open_index
from tests.indexes.clustered import draw_vectors

ROWS, DIMENSION = 40_000, 32
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/smaps says what is mapped")


def resident(path: Path) -> tuple[int, int]:
    """Bytes of the file that this process has mapped, and bytes of these that are in memory."""
    mapped = in_memory = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            inside = line.endswith(f" {path}")
        elif inside and name == "Size:":
            mapped += 1024 * int(rest[0])
        elif inside and name == "Rss:":
            in_memory += 1024 * int(rest[0])
    return mapped, in_memory


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> VectorFiles:
    root = tmp_path_factory.mktemp("files")
    np.save(root / "vectors.npy", draw_vectors(ROWS, DIMENSION))
    np.save(root / "queries.npy", draw_vectors(40, DIMENSION, seed=1))
    (root / "ids.txt").write_text("".join(f"{row}\n" for row in range(ROWS)))
    return VectorFiles([root / "vectors.npy"], root / "ids.txt", root / "queries.npy")


@pytest.mark.parametrize("kind", ["flat", "HNSW4", "IVF64,SQfp16"])
def test_vectors_are_mapped_and_not_read_and_let_go_when_nobody_uses_them(
    tmp_path: Path, files: VectorFiles, kind: str
) -> None:
    build_from_vectors(files, tmp_path / "idx", options=IndexOptions(kind))
    path = tmp_path / "idx" / "segments" / "000001" / "vectors.faiss"
    assert resident(path) == (0, 0), "the build let go of it"
    index = open_index(tmp_path / "idx")
    size, (mapped, read) = path.stat().st_size, resident(path)
    assert mapped >= size, "the whole file is mapped"
    assert read < size / 10, "and hardly any of it read"
    neighbors = index.search_vectors(index.segments[0].storage.read(np.array([7])), 1)
    assert neighbors.rows.tolist() == [[7]]
    assert not kind.startswith("IVF") or resident(path)[1] < size / 2, "a search reads the candidates only"
    del index
    gc.collect()
    assert resident(path) == (0, 0)


def test_a_search_reads_the_lists_it_probes(tmp_path: Path, files: VectorFiles) -> None:
    build_from_vectors(files, tmp_path / "idx", options=IndexOptions("IVF64,SQfp16"))
    path = tmp_path / "idx" / "segments" / "000001" / "index.faiss"
    index = open_index(tmp_path / "idx")
    size, (mapped, read) = path.stat().st_size, resident(path)
    assert mapped >= size
    assert read < size / 10
    index.search_vectors(
        index.segments[0].storage.read(np.array([7])), 1, options=SearchOptions(effort=Effort(nprobe=1))
    )
    assert resident(path)[1] < size / 2
    index.search_vectors(
        index.segments[0].storage.read(np.array([7])), 1, options=SearchOptions(effort=Effort(nprobe=64))
    )
    assert resident(path)[1] > size / 2, "else nothing is measured here"
