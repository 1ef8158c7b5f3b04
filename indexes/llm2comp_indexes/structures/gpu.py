"""Training and building on the GPUs that FAISS sees. Written from FAISS's sources and tests; not yet run on a GPU.

The result is an ordinary CPU index. For an IVF index, the GPUs do k-means and assign vectors to lists, which take most
of the time of a build; codes are made on the CPU and written straight to the file of the lists, so that a segment may
be larger than the memory of all GPUs. The HNSW graph is built by CAGRA on one GPU if FAISS has it (it comes with cuVS),
else on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss, ivf_of
from llm2comp_indexes.format.vectors import Storage
from llm2comp_indexes.structures.types import IndexType

__all__ = [
    "adopt_graph",
    "build_graph",
    "can_build_graph",
    "clustering_on_gpus",
    "coarse_quantizer",
    "flat_centroids",
    "gpu_count",
    "resolve_device",
]

_GRAPH_ROWS = 10_000
"""Minimum number of rows for a graph on a GPU, below which its start takes longer; CAGRA needs more rows than links."""


def gpu_count() -> int:
    """Number of GPUs that FAISS can use: 0 with faiss-cpu."""
    faiss = import_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """The device to compute on: "auto" is CUDA if FAISS sees a GPU, else the CPU.

    Raises:
        SettingsError: `device` is another text, or "cuda" without a GPU that FAISS can use.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"device is {device!r}, expected auto, cpu or cuda")
    gpus = gpu_count() if device != "cpu" else 0
    if device == "cuda" and not gpus:
        raise SettingsError(
            "device is cuda, and FAISS sees no GPU: on a machine with one, put faiss-gpu in the place of faiss-cpu "
            '(pip uninstall faiss-cpu; pip install "llm2comp[gpu]"), or say cpu'
        )
    return "cuda" if gpus else "cpu"


@contextmanager
def clustering_on_gpus(index: Any) -> Iterator[None]:
    """Within the block, training the (untrained) IVF index compares vectors with centroids on the GPUs."""
    faiss = import_faiss()
    inner = ivf_of(index)
    inner.clustering_index = comparer = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(inner.d))
    try:
        yield
    finally:
        inner.clustering_index = None
        comparer.thisown = True  # FAISS's Python wrapper gave up ownership to the index, which does not free it


def coarse_quantizer(index: Any) -> Any:
    """A copy on the GPUs of the quantizer of a trained IVF index, which compares all centroids."""
    return import_faiss().index_cpu_to_all_gpus(flat_centroids(index))


def flat_centroids(index: Any) -> Any:
    """The centroids of a trained IVF index as a flat index, for GPUs, which do not walk HNSW graphs."""
    faiss = import_faiss()
    inner = ivf_of(index)
    centroids = faiss.IndexFlatIP(inner.d)
    centroids.add(inner.quantizer.reconstruct_n(0, inner.nlist))
    return centroids


def can_build_graph(kind: IndexType, rows: int) -> bool:
    """Whether the HNSW graph of this number of rows can be built on a GPU: FAISS compiled with cuVS has CAGRA."""
    return kind.family == "hnsw" and hasattr(import_faiss(), "GpuIndexCagra") and rows >= _GRAPH_ROWS


def build_graph(index: Any, storage: Storage, *, rows: int) -> None:
    """Builds the graph of the first `rows` vectors in the empty HNSW index: the lowest level on a GPU, the rest by CPU.

    All vectors are held in float32 meanwhile, in the memory of the machine and of the GPU.

    Raises:
        SettingsError: FAISS cannot build it; most likely, the GPU has too little memory.
    """
    faiss = import_faiss()
    vectors = np.empty((rows, storage.dimension), np.float32)
    done = 0
    for block in storage.blocks():
        block = block[: rows - done]
        vectors[done : done + len(block)] = block
        done += len(block)
    degree = index.hnsw.nb_neighbors(0)  # links of a row at the lowest level
    config = faiss.GpuIndexCagraConfig()
    config.graph_degree, config.intermediate_graph_degree = degree, 2 * degree
    try:
        graph = faiss.GpuIndexCagra(faiss.StandardGpuResources(), storage.dimension, faiss.METRIC_INNER_PRODUCT, config)
        graph.train(vectors)
        copy = faiss.IndexHNSWCagra()
        copy.base_level_only = False
        graph.copyTo(copy)
    except RuntimeError as error:
        raise SettingsError(f"FAISS cannot build the graph on a GPU ({str(error)[-120:]}); say device cpu") from error
    adopt_graph(index, copy)


def adopt_graph(index: Any, source: Any) -> None:
    """Copies the graph of `source` into the empty HNSW index; vectors are not copied.

    Raises:
        SettingsError: `source` has another number of links per row.
    """
    faiss = import_faiss()
    for name in ("cum_nneighbor_per_level", "levels", "offsets", "neighbors"):
        numbers = faiss.vector_to_array(getattr(source.hnsw, name))
        if name == "cum_nneighbor_per_level":
            if not np.array_equal(numbers, faiss.vector_to_array(index.hnsw.cum_nneighbor_per_level)):
                raise SettingsError(
                    f"a graph of {source.hnsw.nb_neighbors(0)} links for each row, expected "
                    f"{index.hnsw.nb_neighbors(0)}"
                )
            continue
        faiss.copy_array_to_vector(numbers, getattr(index.hnsw, name))
    index.hnsw.entry_point, index.hnsw.max_level = source.hnsw.entry_point, source.hnsw.max_level
    index.ntotal = source.ntotal
