"""Search structures over the stored vectors of a segment: built, saved, opened, searched."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.checked_files import FileRecord, HashedFile, check_content
from llm2comp_indexes.faiss_module import bounded_threads, import_faiss
from llm2comp_indexes.index_types import IndexType, memory_bytes, new_index, parse_type
from llm2comp_indexes.storage import Found, Storage, fix_int8_range, selector

__all__ = ["Effort", "IndexType", "Structure", "build_structure", "default_effort", "memory_bytes", "open_structure", "parse_type"]

BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a search tries; None: the index's own default (`default_effort`).

    Attributes:
        nprobe: Lists that an IVF index looks into.
        ef_search: Candidates that an HNSW index keeps while it walks the graph.
        rerank: Candidates fetched for each answer wanted, scored again with the stored vectors (1: the k best only).
    """

    nprobe: int | None = None
    ef_search: int | None = None
    rerank: int | None = None

    def __post_init__(self) -> None:
        for name in ("nprobe", "ef_search", "rerank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}, expected at least 1")


def default_effort(kind: IndexType) -> Effort:
    """The effort of a search that names none: 1/32 of the lists, at least 8, or an ef_search of 64.

    Codes of 8 bits and fewer rank roughly: 4 candidates are then scored again for each answer.
    """
    if kind.family == "hnsw":
        return Effort(ef_search=64, rerank=1)
    if kind.family == "ivf":
        return Effort(nprobe=min(kind.ivf.lists, max(8, kind.ivf.lists // 32)), rerank=4 if kind.ivf.bits <= 8 else 1)
    return Effort(rerank=4 if kind.family == "other" else 1)


class Structure:
    """A FAISS index over rows 0 … rows - 1 of a storage. Any number of threads may search it."""

    def __init__(self, kind: IndexType, rows: int, storage: Storage, index: Any) -> None:
        self.type, self.rows = kind, rows
        self._storage, self._index = storage, index

    def search(self, queries: NDArray[np.float32], k: int, *, effort: Effort | None = None, allowed: NDArray[np.bool_] | None = None) -> Found:
        """The k best rows found for each query (queries, dimension), with FAISS's scores, which may be approximate.

        Args:
            queries: Unit vectors, float32 (queries, dimension).
            k: Rows per query; where fewer are found, the rest is -1 with a score of -inf.
            effort: How hard to try; `rerank` is the caller's business.
            allowed: Which rows may be found, (rows,); None for all.

        Raises:
            IndexFolderError: The structure names rows that don't exist: its file was altered.
        """
        if self.type.family == "flat":
            return self._search_flat(queries, k, allowed)
        chosen = selector(allowed, self.rows)
        parameters = self._parameters(effort or Effort(), k, chosen.selector if chosen else None)
        found, rows = self._index.search(np.ascontiguousarray(queries, np.float32), min(k, self.rows), params=parameters)
        if len(rows) and rows.max() >= self.rows:
            raise IndexFolderError(f"the index of {self._storage.path.parent} names row {rows.max():,} of {self.rows:,}; it was altered: build it again")
        return _ordered(found, rows, k)

    def _search_flat(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        if self.rows < self._storage.rows:
            mask = np.zeros(self._storage.rows, np.bool_)
            mask[: self.rows] = True if allowed is None else allowed
            allowed = mask
        return self._storage.search(queries, k, allowed=allowed)

    def _parameters(self, effort: Effort, k: int, chosen: Any) -> Any:
        faiss, default = import_faiss(), default_effort(self.type)
        if self.type.family == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(effort.ef_search or default.ef_search or 1, k), sel=chosen)
        if self.type.family == "ivf":
            inner = faiss.SearchParametersIVF(nprobe=min(effort.nprobe or default.nprobe or 1, self.type.ivf.lists), sel=chosen)
            return faiss.SearchParametersPreTransform(index_params=inner) if self.type.ivf.transform else inner
        return faiss.SearchParameters(sel=chosen) if chosen is not None else None

    def save(self, path: Path) -> FileRecord:
        """Record of the new file that holds the structure (of HNSW, the graph alone: its vectors are those of the storage).

        Raises:
            SettingsError: A flat index has no structure beside its vectors.
        """
        faiss = import_faiss()
        if self.type.family == "flat":
            raise SettingsError("a flat index has no structure to save: its vectors are all there is")
        with HashedFile(path) as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write), faiss.IO_FLAG_SKIP_STORAGE if self.type.family == "hnsw" else 0)
            return file.finish()


def _ordered(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Found:
    """Found, best first and equal scores by row, filled up to k columns with -1."""
    scores = np.where(rows < 0, -np.inf, scores).astype(np.float32)
    order = np.lexsort((rows, -scores))
    missing = ((0, 0), (0, k - rows.shape[1]))
    return Found(
        np.pad(np.take_along_axis(scores, order, axis=1), missing, constant_values=-np.inf),
        np.pad(np.take_along_axis(rows, order, axis=1), missing, constant_values=-1),
    )


def build_structure(
    kind: IndexType,
    storage: Storage,
    *,
    rows: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    on_rows: Callable[[int], None] | None = None,
    workdir: Path | None = None,
) -> Structure:
    """The structure over the first `rows` vectors of the storage.

    Args:
        kind: What to build.
        storage: The vectors.
        rows: How many of them, from the first; None for all.
        device: "cpu", "cuda" or "auto" (CUDA where FAISS sees a GPU).
        threads: FAISS threads; None for all cores.
        seed: Of the training sample and k-means; with one thread, the same seed gives the same index.
        on_rows: Called with the number of rows added so far.
        workdir: Where temporary files lie; None for the system's folder.

    Raises:
        SettingsError: There is no row to index, or FAISS cannot build the type with so few.
    """
    count = storage.rows if rows is None else rows
    if kind.family == "flat":
        return Structure(kind, count, storage, None)
    with bounded_threads(threads):
        index = _new_empty(kind, storage)
        if not index.is_trained:
            index.train(next(storage.blocks(min(count, 100_000))))
        done = 0
        for block in storage.blocks(BLOCK):
            block = block[: count - done]
            if not len(block):
                break
            index.add(block)
            done += len(block)
            if on_rows:
                on_rows(done)
    return Structure(kind, count, storage, index)


def _new_empty(kind: IndexType, storage: Storage) -> Any:
    faiss = import_faiss()
    if kind.family != "hnsw":
        return new_index(kind, storage.dimension)
    if storage.store == "float32":
        index = faiss.IndexHNSWFlat(storage.dimension, kind.links, faiss.METRIC_INNER_PRODUCT)
    else:
        quantizer = faiss.ScalarQuantizer.QT_fp16 if storage.store == "float16" else faiss.ScalarQuantizer.QT_8bit_uniform
        index = faiss.IndexHNSWSQ(storage.dimension, quantizer, kind.links, faiss.METRIC_INNER_PRODUCT)
        if storage.store == "int8":
            fix_int8_range(faiss.downcast_index(index.storage))
        index.is_trained = True
    index.hnsw.efConstruction = 6 * kind.links
    return index


def open_structure(path: Path, kind: IndexType, storage: Storage, *, record: FileRecord) -> Structure:
    """The saved structure, memory-mapped where FAISS can.

    Raises:
        IndexFolderError: The file is missing, altered or not a structure of this type.
    """
    if kind.family == "flat":
        return Structure(kind, storage.rows, storage, None)
    faiss = import_faiss()
    check_content(path, record)
    try:
        index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_STORAGE if kind.family == "hnsw" else faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise IndexFolderError(f"{path}: not an index FAISS can read; build the index again") from error
    if kind.family == "hnsw":
        index.storage, index.own_fields = storage.index, False
    return Structure(kind, int(index.ntotal), storage, index)
