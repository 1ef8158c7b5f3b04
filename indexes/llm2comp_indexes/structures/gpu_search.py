"""Search by a copy of a structure on the GPUs that FAISS sees. Written from FAISS's sources and tests; not yet run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss, ivf_of
from llm2comp_indexes.format.vectors import Neighbors, Storage
from llm2comp_indexes.structures.gpu import flat_centroids, gpu_count
from llm2comp_indexes.structures.types import IndexType

__all__ = ["GpuCopy", "copy_to_gpus"]

_MOST = 2048
"""Maximum number of answers, and of lists visited, in FAISS's searches on GPUs."""
_EXTRA = 16
"""Number of rows fetched beyond k: float16 may order close neighbors differently than the stored vectors do."""
_LEAST_SHARE = 0.5
"""Minimum share of rows allowed: GPUs search without a filter, and rows not allowed are removed from the result."""


class GpuCopy:
    """A FAISS index on GPUs. Any number of threads may search it; they take turns, as FAISS requires."""

    def __init__(self, index: Any, rows: int) -> None:
        self._index, self._rows = index, rows
        self._lock = threading.Lock()

    def find(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        nprobe: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Neighbors | None:
        """At least the k best rows for each query, best first; None if only the CPU can search them.

        Args:
            queries: Unit vectors, float32 (queries, dimension).
            k: Number of rows per query; if fewer are found, the rest is -1.
            nprobe: Number of lists of an IVF index to visit.
            allowed: Mask of the rows that may be found, (rows,); None for all.
        """
        share = 1.0 if allowed is None else np.count_nonzero(allowed) / self._rows
        width = min(int(np.ceil(k / max(share, _LEAST_SHARE))) + _EXTRA, self._rows)
        if share < _LEAST_SHARE or max(width, nprobe or 0) > _MOST:
            return None
        with self._lock:
            if nprobe is not None:
                _set_nprobe(self._index, nprobe)
            neighbors = Neighbors(*self._index.search(np.ascontiguousarray(queries, np.float32), width))
        return neighbors if allowed is None else _filtered(neighbors, k, allowed)


def _filtered(neighbors: Neighbors, k: int, allowed: NDArray[np.bool_]) -> Neighbors | None:
    """The neighbors that are allowed; None if a query has fewer than k and a wider search might find more."""
    kept = (neighbors.rows >= 0) & allowed[neighbors.rows]
    if ((kept.sum(axis=1) < k) & (neighbors.rows[:, -1] >= 0)).any():
        return None
    order = np.argsort(~kept, axis=1, kind="stable")
    scores, rows = np.where(kept, neighbors.scores, -np.inf).astype(np.float32), np.where(kept, neighbors.rows, -1)
    return Neighbors(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def _set_nprobe(index: Any, nprobe: int) -> None:
    """Sets nprobe in all parts of the index: one spread over several GPUs takes no parameters with a search."""
    faiss = import_faiss()
    space = faiss.GpuParameterSpace() if hasattr(faiss, "GpuParameterSpace") else faiss.ParameterSpace()
    space.set_index_parameter(index, "nprobe", nprobe)


def copy_to_gpus(kind: IndexType, index: Any, storage: Storage) -> GpuCopy:
    """A copy of the structure, its vectors spread over all GPUs: flat in float16, IVF with its own codes.

    Raises:
        SettingsError: FAISS has no such index for GPUs, or they have too little memory.
    """
    faiss = import_faiss()
    try:
        if kind.family == "flat":
            return GpuCopy(spread_flat(storage, gpu_count(), _new_flat), storage.rows)
        options = faiss.GpuMultipleClonerOptions()
        options.shard, options.useFloat16 = True, True  # float16 tables of PQ: with float32, long codes fit no GPU
        if hasattr(options, "use_cuvs") and kind.family == "ivf" and kind.ivf.codes.startswith("SQ"):
            options.use_cuvs = False  # cuVS has no scalar quantizers
        with _flat_quantizer(kind, index):
            return GpuCopy(faiss.index_cpu_to_all_gpus(index, co=options), storage.rows)
    except RuntimeError as error:
        raise SettingsError(
            f"FAISS cannot search {kind.factory!r} on a GPU ({str(error)[-120:]}); choose flat, ivf or ivfpq, or the "
            "device cpu"
        ) from error


def _new_flat(dimension: int, device: int) -> Any:
    faiss = import_faiss()
    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = device, True
    return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dimension, config)


def spread_flat(storage: Storage, parts: int, new_flat: Callable[[int, int], Any]) -> Any:
    """An index of all stored vectors in flat parts, filled block by block.

    FAISS's own copy of a flat index would need all vectors in memory at once.

    Args:
        storage: The vectors.
        parts: Number of parts, each with consecutive rows.
        new_flat: Makes an empty part from the dimension and its number.
    """
    shards = import_faiss().IndexShards(
        storage.dimension, True, True
    )  # searched by threads; rows are numbered through all parts
    flats = [new_flat(storage.dimension, part) for part in range(parts)]
    ends = [storage.rows * (part + 1) // parts for part in range(parts)]
    part = first = 0
    for block in storage.blocks():
        while len(block):
            while first == ends[part]:
                part += 1
            taken, block = np.split(block, [ends[part] - first])
            flats[part].add(taken)
            first += len(taken)
    for flat in flats:
        shards.add_shard(flat)
    return shards


@contextmanager
def _flat_quantizer(kind: IndexType, index: Any) -> Iterator[None]:
    """Within the block, a graph over the centroids is replaced by a flat index: FAISS has no such graph for GPUs."""
    if kind.family != "ivf" or not kind.ivf.links:
        yield
        return
    inner, centroids = ivf_of(index), flat_centroids(index)
    graph = inner.quantizer
    inner.quantizer = centroids
    try:
        yield
    finally:
        inner.quantizer = graph
        centroids.thisown = True  # FAISS's Python wrapper gave up ownership to the index
