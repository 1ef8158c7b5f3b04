"""Crafted and damaged structure files: each is refused or searched without a crash and within bounded memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.vectors import Storage
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.structure import open_structure
from llm2comp_indexes.structures.types import IndexType, parse_type
from tests.indexes.clustered import draw_vectors, store_vectors
from tests.indexes.processes import run_python

ROWS, DIMENSION, MUTATIONS = 400, 16, 300
CHECKED = ["HNSW4", "IVF8,Flat", "IVF8,SQ8", "OPQ4_8,IVF8,PQ4x4", "IVF16_HNSW4,SQfp16", "PCA8,IVF8,SQ4"]

_FUZZ = """
import json, sys
import numpy as np
from pathlib import Path
import faiss
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.vectors import open_storage
from llm2comp_indexes.structures.structure import Effort, IndexType, open_structure
from tests.indexes.processes import peak_mib
folder, factory = Path(sys.argv[1]), sys.argv[2]
mutations, rows, dimension = map(int, sys.argv[3:])
faiss.omp_set_num_threads(1)
kind = IndexType(factory)
storage = open_storage(folder / "v", rows=rows, dimension=dimension, store="float32")
content = (folder / "i").read_bytes()
generator = np.random.default_rng(7)
queries = generator.standard_normal((4, dimension), dtype=np.float32)
masks = [None, generator.random(rows) < 0.5]
refused = searched = 0
extremes = [0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), rows, rows - 1, rows + 1, 2**40, 255]
for number in range(mutations):
    changed, how = bytearray(content), number % 5
    # half of the changes are among the first bytes, which hold the structure, where a number does most
    place = int(generator.integers(len(changed) if generator.random() < 0.5 else min(700, len(changed))))
    if how == 0:
        changed[place] ^= 1 << int(generator.integers(8))
    elif how == 1:
        width = int(generator.choice([4, 8]))
        value = extremes[generator.integers(len(extremes))] & (2 ** (8 * width) - 1)
        changed[place : place + width] = value.to_bytes(width, "little")
        del changed[len(content):]
    elif how == 2:
        del changed[place:]
    elif how == 3:
        other = int(generator.integers(len(changed)))
        span = int(generator.integers(1, 64))
        changed[place : place + span] = changed[other : other + span]
    else:
        changed[place:place] = generator.bytes(int(generator.integers(1, 32)))
    path = folder / "changed"
    path.unlink(missing_ok=True)
    path.write_bytes(changed)
    try:
        structure = open_structure(path, kind, storage, record=FileRecord(len(changed), ""))
        for mask in masks:
            for effort in (Effort(nprobe=1, ef_search=4), Effort(nprobe=1000, ef_search=500)):
                neighbors = structure.search(queries, 10, effort=effort, allowed=mask)
                assert neighbors.rows.max() < rows and neighbors.rows.min() >= -1
        searched += 1
    except IndexFolderError:
        refused += 1
print(json.dumps({"refused": refused, "searched": searched, "peak": peak_mib()}))
"""


def fuzz(folder: Path, factory: str, mutations: int) -> dict[str, int]:
    storage = store_vectors(folder / "v", draw_vectors(ROWS, DIMENSION))
    build_structure(IndexType(factory), storage, threads=1).save(folder / "i")
    return json.loads(run_python("-c", _FUZZ, folder, factory, mutations, ROWS, DIMENSION))


@pytest.mark.parametrize("factory", CHECKED)
def test_no_mutation_crashes_the_process_or_fills_memory(factory: str, tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, factory, MUTATIONS)
    assert outcome["refused"] + outcome["searched"] == MUTATIONS
    assert outcome["refused"] > MUTATIONS // 3, "cut and lengthened files at least"
    assert outcome["peak"] < 400, "MiB; Python, numpy and FAISS alone take most of them"


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["SQ8", "IVF8,PQ4x4fs"])
def test_types_we_cannot_check_are_tried_in_another_process_first(factory: str, tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, factory, 30)
    assert outcome["refused"] + outcome["searched"] == 30
    assert outcome["refused"] >= 12


@pytest.fixture
def graph(tmp_path: Path) -> tuple[Storage, Path, Any]:
    """A storage, the file of a graph over it, and the graph as read by FAISS, in which the test changes a field."""
    storage = store_vectors(tmp_path / "v", draw_vectors(ROWS, DIMENSION))
    path = tmp_path / "i"
    build_structure(IndexType("HNSW4"), storage, threads=1).save(path)
    return storage, path, faiss.read_index(str(path), faiss.IO_FLAG_SKIP_STORAGE)


def set_number(vector: Any, position: int, value: int) -> None:
    numbers = faiss.vector_to_array(vector)
    numbers[position] = value
    faiss.copy_array_to_vector(numbers, vector)


def set_neighbour(index: Any, position: int, value: int) -> None:
    faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())[position] = value


def link_to_a_low_row(index: Any) -> None:
    """A link on an upper level to a row without that level: FAISS would read past the links of the row."""
    levels, offsets = faiss.vector_to_array(index.hnsw.levels), faiss.vector_to_array(index.hnsw.offsets)
    high, low = int(np.flatnonzero(levels > 1)[0]), int(np.flatnonzero(levels == 1)[-1])
    set_neighbour(index, int(offsets[high]) + 2 * 4, low)


@pytest.mark.parametrize(
    "alter",
    [
        lambda index: set_neighbour(index, 0, ROWS),
        lambda index: set_neighbour(index, 0, 2**31 - 1),
        lambda index: set_neighbour(index, 5, -2),
        link_to_a_low_row,
        lambda index: setattr(index.hnsw, "entry_point", ROWS),
        lambda index: setattr(index.hnsw, "entry_point", -1),
        lambda index: setattr(index.hnsw, "max_level", 9),
        lambda index: setattr(index.hnsw, "max_level", index.hnsw.max_level - 1),
        lambda index: set_number(index.hnsw.levels, 0, 30),
        lambda index: set_number(index.hnsw.levels, 0, 0),
        lambda index: set_number(index.hnsw.offsets, 3, 1 << 40),
        lambda index: set_number(index.hnsw.offsets, 3, 0),
        lambda index: set_number(index.hnsw.cum_nneighbor_per_level, 1, 1 << 20),
        lambda index: setattr(index, "ntotal", ROWS + 1),
        lambda index: setattr(index, "d", 2 * DIMENSION),
    ],
)
def test_graphs_that_lead_astray_are_refused(graph: tuple[Storage, Path, Any], alter: Callable[[Any], None]) -> None:
    storage, path, index = graph
    open_structure(path, IndexType("HNSW4"), storage, record=FileRecord(path.stat().st_size, ""))
    alter(index)
    faiss.write_index(index, faiss.FileIOWriter(str(path)), faiss.IO_FLAG_SKIP_STORAGE)
    with pytest.raises(IndexFolderError, match="not the HNSW4 index of 400 vectors"):
        open_structure(path, IndexType("HNSW4"), storage, record=FileRecord(path.stat().st_size, ""))


@pytest.mark.parametrize("built", [*CHECKED, "SQ8", "IVF8,SQ6", "IVF9,Flat", "PCA4,IVF8,SQ4"])
@pytest.mark.parametrize("promised", ["HNSW4", "IVF8,Flat", "OPQ4_8,IVF8,PQ4x4", "PCA8,IVF8,SQ4"])
def test_an_index_of_another_type_is_refused(built: str, promised: str, tmp_path: Path) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(ROWS, DIMENSION))
    record = build_structure(parse_type(built, rows=ROWS, dimension=DIMENSION), storage, threads=1).save(tmp_path / "i")
    if built == promised:
        assert open_structure(tmp_path / "i", IndexType(promised), storage, record=record).rows == ROWS
        return
    with pytest.raises(IndexFolderError, match="not the .* index of 400 vectors"):
        open_structure(tmp_path / "i", IndexType(promised), storage, record=record)


def test_an_index_of_other_vectors_is_refused(tmp_path: Path) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(ROWS, DIMENSION))
    for factory in ("HNSW4", "IVF8,Flat", "SQ8"):
        record = build_structure(IndexType(factory), storage, threads=1, rows=ROWS - 1).save(tmp_path / factory)
        with pytest.raises(IndexFolderError, match="not the .* index of 400 vectors"):
            open_structure(tmp_path / factory, IndexType(factory), storage, record=record)


def test_ids_beyond_the_rows_are_refused_when_they_are_found(tmp_path: Path) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(ROWS, DIMENSION))
    record = build_structure(IndexType("IVF1,Flat"), storage, threads=1).save(tmp_path / "i")
    content = bytearray((tmp_path / "i").read_bytes())
    content[-8:] = (1 << 62).to_bytes(8, "little")  # the id of the last row
    (tmp_path / "crafted").write_bytes(content)
    opened = open_structure(tmp_path / "crafted", IndexType("IVF1,Flat"), storage, record=record)
    with pytest.raises(IndexFolderError, match="names row 4,611,686,018,427,387,904 of 400"):
        opened.search(storage.read(np.array([ROWS - 1])), 5)


def test_missing_cut_and_linked_files_are_named(tmp_path: Path) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(ROWS, DIMENSION))
    record = build_structure(IndexType("HNSW4"), storage, threads=1).save(tmp_path / "i")
    with pytest.raises(IndexFolderError, match="missing"):
        open_structure(tmp_path / "none", IndexType("HNSW4"), storage, record=record)
    (tmp_path / "link").symlink_to(tmp_path / "i")
    with pytest.raises(IndexFolderError, match="not a plain file"):
        open_structure(tmp_path / "link", IndexType("HNSW4"), storage, record=record)
    (tmp_path / "cut").write_bytes((tmp_path / "i").read_bytes()[:-1])
    with pytest.raises(IndexFolderError, match="bytes, expected"):
        open_structure(tmp_path / "cut", IndexType("HNSW4"), storage, record=record)
