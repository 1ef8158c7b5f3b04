"""Search on GPUs: choice of the device and copies, on any machine; results as on the CPU, on one with a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes import (
    IndexOptions,
    SearchOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    delete_documents,
    merge_index,
    open_index,
)
from llm2comp_indexes.format.vectors import Storage, join_graph, new_graph_index
from llm2comp_indexes.options import STORES, Store
from llm2comp_indexes.search.segment import OpenSegment
from llm2comp_indexes.structures import build as structure_build
from llm2comp_indexes.structures import gpu, gpu_search
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.gpu import adopt_graph, gpu_count, resolve_device
from llm2comp_indexes.structures.gpu_search import GpuCopy, copy_to_gpus, spread_flat
from llm2comp_indexes.structures.structure import Effort, Structure, open_structure, parse_type
from tests.indexes.clustered import best_rows, draw_vectors, recall, store_vectors

ROWS, DIMENSION = 3000, 32
without_gpu = pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
needs_gpu = pytest.mark.skipif(gpu_count() == 0, reason="FAISS sees no GPU (faiss-cpu, or none there)")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return draw_vectors(ROWS, DIMENSION)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return draw_vectors(40, DIMENSION, seed=1)


@pytest.fixture(scope="module")
def storage(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return store_vectors(tmp_path_factory.mktemp("stored") / "v", vectors)


@pytest.fixture(scope="module")
def folder(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds an index of the vectors of a type; returns its folder."""
    root = tmp_path_factory.mktemp("indexes")
    np.save(root / "v.npy", vectors)
    (root / "ids.txt").write_text("".join(f"x{row}\n" for row in range(ROWS)))

    def build(text: str) -> Path:
        if not (root / text).exists():
            build_from_vectors(
                VectorFiles([root / "v.npy"], root / "ids.txt"), root / text, options=IndexOptions(type=text)
            )
        return root / text

    return build


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if gpu_count() else "cpu")


@without_gpu
def test_cuda_without_a_gpu_says_what_to_install(
    storage: Storage, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"sees no GPU.*faiss-gpu.*llm2comp\[gpu\]"):
        resolve_device("cuda")
    for text in ("flat", "hnsw", "ivf"):
        with pytest.raises(SettingsError, match="sees no GPU"):
            build_structure(parse_type(text, rows=20, dimension=DIMENSION), storage, rows=20, device="cuda")
    files = VectorFiles([folder("flat").parent / "v.npy"], folder("flat").parent / "ids.txt")
    for options in (IndexOptions(), IndexOptions(type="flat"), IndexOptions(type="ivf")):
        with pytest.raises(SettingsError, match="sees no GPU"):
            build_from_vectors(files, tmp_path / "idx", options=options, device="cuda")
    assert not (tmp_path / "idx").exists()
    for attempt in (
        open_index,
        merge_index,
        lambda index, device: add_documents(index, [tmp_path / "more.jsonl"], device=device),
    ):
        with pytest.raises(SettingsError, match="sees no GPU"):
            attempt(folder("flat"), device="cuda")
    with open_index(folder("flat"), device="auto") as index:
        assert len(index.search_vectors(draw_vectors(1, DIMENSION), 3).rows[0]) == 3


def test_other_devices_are_refused(folder: Callable[[str], Path]) -> None:
    with pytest.raises(SettingsError, match="'tpu', expected auto, cpu or cuda"):
        resolve_device("tpu")
    with pytest.raises(SettingsError, match="'tpu', expected auto, cpu or cuda"):
        open_index(folder("flat"), device="tpu")


@pytest.mark.parametrize("parts", [1, 3, 7])
@pytest.mark.parametrize("store", STORES)
def test_a_flat_index_spread_over_parts_is_the_whole_one(
    parts: int, store: Store, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all parts on the CPU: checks that they add up."""
    read = Storage.blocks
    monkeypatch.setattr(Storage, "blocks", lambda self: read(self, 700))  # of which the parts' ends are no multiples
    storage = store_vectors(tmp_path / "v", vectors, store)
    index = spread_flat(storage, parts, lambda dimension, part: faiss.IndexFlatIP(dimension))
    assert (index.ntotal, index.count()) == (ROWS, parts)
    np.testing.assert_array_equal(index.search(queries, 10)[1], best_rows(storage.read(np.arange(ROWS)), queries, 10))


def test_fewer_rows_than_parts(tmp_path: Path) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(2, DIMENSION))
    index = spread_flat(storage, 5, lambda dimension, part: faiss.IndexFlatIP(dimension))
    assert sorted(index.search(storage.read(np.array([0])), 3)[1][0].tolist()) == [-1, 0, 1]


def flat_copy(storage: Storage) -> GpuCopy:
    return GpuCopy(spread_flat(storage, 2, lambda dimension, part: faiss.IndexFlatIP(dimension)), storage.rows)


def test_what_is_not_allowed_is_left_out_of_what_was_found(
    storage: Storage, vectors: np.ndarray, queries: np.ndarray
) -> None:
    copy, generator = flat_copy(storage), np.random.default_rng(5)
    for share in (0.99, 0.7):
        allowed = generator.random(ROWS) < share
        neighbors = copy.find(queries, 10, allowed=allowed)
        assert neighbors is not None
        np.testing.assert_array_equal(neighbors.rows[:, :10], best_rows(vectors, queries, 10, allowed))
        assert not np.isin(neighbors.rows[neighbors.rows >= 0], np.flatnonzero(~allowed)).any()


def test_what_a_gpu_cannot_tell_is_left_to_the_cpu(storage: Storage, vectors: np.ndarray, queries: np.ndarray) -> None:
    copy = flat_copy(storage)
    assert copy.find(queries, 3000) is None, "more answers than FAISS's searches on GPUs give"
    assert copy.find(queries, 10, nprobe=5000) is None
    assert copy.find(queries, 10, allowed=np.arange(ROWS) % 10 == 0) is None, "a narrow filter"
    nearest = np.ones(ROWS, np.bool_)
    nearest[best_rows(vectors, queries[:1], 100)[0]] = False
    assert copy.find(queries[:1], 10, allowed=nearest) is None, "of all rows that were found, none is allowed"


class StandInOptions:
    """FAISS's options of a copy to GPUs, for a FAISS without them."""

    shard = useFloat16 = False
    use_cuvs = True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In place of a copy on GPUs, the index itself is searched; its centroids must be flat. Returns the options."""
    taken: list[Any] = []

    def copy(index: Any, co: Any = None) -> Any:
        inner = faiss.downcast_index(faiss.extract_index_ivf(index))
        if not isinstance(faiss.downcast_index(inner.quantizer), faiss.IndexFlat):
            raise RuntimeError("This index type is not implemented on GPU.")
        taken.append(co)
        return index

    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", copy)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", StandInOptions, raising=False)
    monkeypatch.setattr(gpu_search, "gpu_count", lambda: 2)
    monkeypatch.setattr(gpu_search, "_new_flat", lambda dimension, device: faiss.IndexFlatIP(dimension))
    return taken


STRUCTURES = ["IVF40,Flat", "IVF40,SQfp16", "IVF40,SQ8", "IVF40_HNSW8,SQ8", "OPQ16_32,IVF40,PQ16x8"]


@pytest.mark.parametrize("text", ["Flat", *STRUCTURES])
def test_a_copy_finds_what_the_structure_finds(
    text: str, storage: Storage, queries: np.ndarray, stand_in: list[Any]
) -> None:
    built = build_structure(parse_type(text, rows=ROWS, dimension=DIMENSION), storage, threads=1)
    masks = [None, np.arange(ROWS) % 50 > 0, np.arange(ROWS) % 20 == 0]  # the last one is for the CPU
    efforts = [Effort(nprobe=1), Effort(nprobe=40), Effort()]
    before = [built.search(queries, 10, effort=effort, allowed=mask) for effort in efforts for mask in masks]
    built.use_gpus()
    after = [built.find(queries, 10, effort=effort, allowed=mask).rows for effort in efforts for mask in masks]
    for expected, rows in zip(before, after, strict=True):
        assert recall(rows[:, :10], expected.rows) > 0.999
    if text == "Flat":
        assert stand_in == []
        return
    [options] = stand_in
    assert (options.shard, options.useFloat16, options.use_cuvs) == (True, True, "SQ" not in text)
    if "_HNSW" in text:
        inner = faiss.downcast_index(faiss.extract_index_ivf(built._index))
        assert isinstance(faiss.downcast_index(inner.quantizer), faiss.IndexHNSW), (
            "the structure itself has its graph again"
        )


def test_a_type_that_faiss_has_not_for_gpus_is_refused_in_words(
    storage: Storage, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: Any, co: Any = None) -> None:
        raise RuntimeError("This index type is not implemented on GPU.")

    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", refuse)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", StandInOptions, raising=False)
    built = build_structure(parse_type("HNSW8", rows=ROWS, dimension=DIMENSION), storage, threads=1)
    with pytest.raises(
        SettingsError,
        match=r"cannot search 'HNSW8' on a GPU \(This index type is not implemented on GPU.\); choose flat, ivf or "
        "ivfpq",
    ):
        built.use_gpus()
    with open_index(folder("HNSW8")) as index:
        with pytest.raises(SettingsError, match="cannot search 'HNSW8' on a GPU"):
            index.use_gpus()
        index.use_gpus(required=False)
        assert (index.search_vectors(draw_vectors(2, DIMENSION), 5).rows >= 0).all()


@pytest.mark.parametrize("text", ["flat", "IVF40,SQfp16"])
def test_an_open_index_answers_the_same_from_gpus(
    text: str, folder: Callable[[str], Path], queries: np.ndarray, stand_in: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_index(folder(text)) as index:
        before = [index.search_vectors(queries, k) for k in (1, 10, 200)]
        index.use_gpus()
        monkeypatch.setattr(OpenSegment, "_compare", lambda *_: pytest.fail("compared on the CPU"))
        monkeypatch.setattr(Structure, "_search_flat", lambda *_: pytest.fail("searched on the CPU"))
        for expected, k in zip(before, (1, 10, 200), strict=True):
            neighbors = index.search_vectors(queries, k)
            assert recall(neighbors.rows, expected.rows) > (
                0.995 if text != "flat" else 0.9999
            )  # a few more candidates are scored
            same = neighbors.rows == expected.rows
            np.testing.assert_array_equal(neighbors.scores[same], expected.scores[same])


def test_deleted_documents_are_not_found_by_gpus(
    folder: Callable[[str], Path], queries: np.ndarray, stand_in: list[Any], tmp_path: Path
) -> None:
    root = folder("flat").parent
    build_from_vectors(
        VectorFiles([root / "v.npy"], root / "ids.txt"), tmp_path / "idx", options=IndexOptions(type="IVF40,Flat")
    )
    with open_index(tmp_path / "idx") as index:
        best = index.search_vectors(queries, 5).rows
    delete_documents(tmp_path / "idx", {f"x{row}" for row in best[:, 0].tolist()})
    full = SearchOptions(effort=Effort(nprobe=40))
    with open_index(tmp_path / "idx") as index:
        expected = index.search_vectors(queries, 5, options=full)
        index.use_gpus()
        np.testing.assert_array_equal(index.search_vectors(queries, 5, options=full).rows, expected.rows)
    assert not np.isin(expected.rows, best[:, 0]).any()


@pytest.mark.parametrize("store", STORES)
def test_the_graph_of_another_index_serves_the_stored_vectors(
    store: Store, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    """FAISS returns a CAGRA graph as this class too."""
    storage = store_vectors(tmp_path / "v", vectors, store)
    source = faiss.IndexHNSWCagra(DIMENSION, 8, faiss.METRIC_INNER_PRODUCT)
    source.base_level_only = False
    source.add(vectors)
    index = new_graph_index(DIMENSION, store, 8)
    adopt_graph(index, source)
    join_graph(index, storage)
    kind = parse_type("HNSW8", rows=ROWS, dimension=DIMENSION)
    record = Structure(kind, ROWS, storage, index).save(tmp_path / "i")
    opened = open_structure(tmp_path / "i", kind, storage, record=record)
    assert (
        recall(
            opened.search(queries, 10, effort=Effort(ef_search=200)).rows,
            best_rows(storage.read(np.arange(ROWS)), queries, 10),
        )
        > 0.98
    )
    with pytest.raises(SettingsError, match="a graph of 16 links for each row, expected 32"):
        adopt_graph(new_graph_index(DIMENSION, store, 16), source)


class StandInCagra:
    """Builds the graph on the CPU, with the number of links set for CAGRA, and returns it as FAISS does."""

    def __init__(self, resources: Any, dimension: int, metric: int, config: Any) -> None:
        assert config.intermediate_graph_degree > config.graph_degree
        self._index = faiss.IndexHNSWCagra(dimension, config.graph_degree // 2, metric)
        self._index.base_level_only = False

    def train(self, vectors: np.ndarray) -> None:
        self._index.add(vectors)

    def copyTo(self, other: Any) -> None:  # FAISS's name
        other.hnsw, other.ntotal = self._index.hnsw, self._index.ntotal


@without_gpu
@pytest.mark.parametrize("text", ["IVF40,SQfp16", "IVF40_HNSW8,SQ8", "OPQ16_32,IVF40,PQ16x8", "HNSW8", "SQ8"])
def test_what_is_built_by_way_of_gpus_is_an_ordinary_structure(
    text: str,
    storage: Storage,
    vectors: np.ndarray,
    queries: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, truth = parse_type(text, rows=ROWS, dimension=DIMENSION), best_rows(vectors, queries, 10)
    here = build_structure(kind, storage, threads=1)
    used: list[Any] = []
    monkeypatch.setattr(structure_build, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: used.append(index) or faiss.clone_index(index))
    monkeypatch.setattr(gpu, "_GRAPH_ROWS", 1000)
    for name, stand_in in {
        "GpuIndexCagra": StandInCagra,
        "GpuIndexCagraConfig": type("Config", (), {}),
        "StandardGpuResources": object,
    }.items():
        monkeypatch.setattr(faiss, name, stand_in, raising=False)
    there = build_structure(kind, storage, threads=1, device="cuda")
    assert len(used) == (2 if "IVF" in text else 0), "k-means, and the assignment of vectors to lists"
    opened = open_structure(tmp_path / "i", kind, storage, record=there.save(tmp_path / "i"))
    recalls = [
        recall(structure.search(queries, 10, effort=Effort(nprobe=8, ef_search=100)).rows, truth)
        for structure in (here, opened)
    ]
    assert abs(recalls[0] - recalls[1]) < 0.03


@pytest.fixture
def real(tmp_path: Path) -> tuple[Storage, np.ndarray, np.ndarray]:
    """Enough vectors for GPUs, queries, and their ten best rows."""
    vectors, queries = draw_vectors(20_000, 64), draw_vectors(100, 64, seed=1)
    return store_vectors(tmp_path / "v", vectors), queries, best_rows(vectors, queries, 10)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("text", ["IVF64,SQfp16", "IVF64,Flat", "IVF64_HNSW16,SQ8", "OPQ16_64,IVF64,PQ16x8", "HNSW16"])
def test_a_structure_built_on_gpus_is_read_and_searched_on_the_cpu(
    text: str, real: tuple[Storage, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """HNSW16 is built by CAGRA if FAISS has it, else by the CPU."""
    (storage, queries, truth), recalls = real, []
    kind = parse_type(text, rows=20_000, dimension=64)
    for device in ("cpu", "cuda"):
        record = build_structure(kind, storage, device=device).save(tmp_path / device)
        opened = open_structure(tmp_path / device, kind, storage, record=record)
        recalls.append(recall(opened.search(queries, 10, effort=Effort(nprobe=8, ef_search=100)).rows, truth))
    assert recalls[1] > recalls[0] - 0.03


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "text", ["Flat", "IVF64,Flat", "IVF64,SQfp16", "IVF64,SQ8", "IVF64_HNSW16,SQfp16", "OPQ16_64,IVF64,PQ16x8"]
)
def test_a_search_on_gpus_finds_what_numpy_finds(text: str, real: tuple[Storage, np.ndarray, np.ndarray]) -> None:
    storage, queries, truth = real
    kind = parse_type(text, rows=20_000, dimension=64)
    built = build_structure(kind, storage)
    neighbors = copy_to_gpus(kind, built._index, storage).find(queries, 100, nprobe=64 if kind.lists else None)
    assert neighbors is not None
    best = np.take_along_axis(
        neighbors.rows, np.argsort(-scores_of(storage, queries, neighbors.rows), axis=1, kind="stable")[:, :10], axis=1
    )
    assert recall(best, truth) > (0.9 if "PQ" in text else 0.99)


def scores_of(storage: Storage, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.stack([storage.scores(query, line) for query, line in zip(queries, rows, strict=True)])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("text", ["flat", "IVF40,SQfp16", "IVF40,Flat"])
def test_an_index_opened_on_gpus_answers_as_on_the_cpu(
    text: str, folder: Callable[[str], Path], queries: np.ndarray
) -> None:
    full = SearchOptions(effort=Effort(nprobe=40))
    with open_index(folder(text)) as index, open_index(folder(text), device="cuda") as other:
        expected, neighbors = (
            index.search_vectors(queries, 10, options=full),
            other.search_vectors(queries, 10, options=full),
        )
        assert recall(neighbors.rows, expected.rows) > 0.99
        same = neighbors.rows == expected.rows
        np.testing.assert_array_equal(neighbors.scores[same], expected.scores[same])
