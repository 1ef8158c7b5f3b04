"""Search structures over the stored vectors of a segment: saved, opened, searched, on the CPU or on GPUs."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.format.vectors import Neighbors, Selection, Storage, highest, lowest, selector
from llm2comp_indexes.structures.effort import Effort, default_effort
from llm2comp_indexes.structures.gpu_search import GpuCopy, copy_to_gpus
from llm2comp_indexes.structures.load import load_structure
from llm2comp_indexes.structures.types import IndexType, memory_bytes, parse_type

__all__ = ["Effort", "IndexType", "Structure", "default_effort", "memory_bytes", "open_structure", "parse_type"]

_CACHED_PARAMETERS = 256
"""Number of efforts whose FAISS parameters are cached."""

_NO_EFFORT = Effort()


def _parameters(index: Any, effort: Effort, k: int, chosen: Any = None) -> Any:
    """FAISS's parameters of a search, also for an index with wrappers around its lists or graph; None if it takes none.

    Args:
        index: Any FAISS index.
        effort: nprobe and ef_search; the index uses those that it has.
        k: Number of rows to find.
        chosen: FAISS selector of the rows that may be found; None for all.
    """
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap):
        return _parameters(index.index, effort, k, chosen)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(index.index, effort, k, chosen)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, effort, k, chosen)
        return inner and faiss.IndexRefineSearchParameters(base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=max(effort.ef_search or 1, k), sel=chosen)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(effort.nprobe or 1, int(index.nlist)), sel=chosen)
    return None


class Structure:
    """A FAISS index over rows 0 … rows - 1 of a storage. Any number of threads may search it."""

    def __init__(self, kind: IndexType, rows: int, storage: Storage, index: Any, file: Path | None = None) -> None:
        self.type, self.rows = kind, rows
        self._storage, self._index = storage, index
        self._cached: dict[tuple[Effort, int], Any] = {}
        self._file = file  # temporary, where the index was built on disk
        self._gpus: GpuCopy | None = None

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        effort: Effort | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Neighbors:
        """The k best rows for each query, best first, with FAISS's scores, which may be approximate.

        Args:
            queries: Unit vectors, float32 (queries, dimension).
            k: Number of rows per query; if fewer are found, the rest is -1 with a score of -inf.
            effort: nprobe and ef_search; `rerank` is left to the caller.
            allowed: Mask of the rows that may be found, (rows,); None for all.

        Raises:
            IndexFolderError: The structure names a row that does not exist: its file was altered.
        """
        if self.type.family == "flat":
            return self._search_flat(queries, k, allowed)
        return _ordered(*self.find(queries, k, effort=effort, allowed=allowed), k)

    def find(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        effort: Effort | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Neighbors:
        """The rows as FAISS returns them, for callers that score them again.

        (queries, columns), where the number of columns need not be k. Equal scores come in any order; missing rows
        are -1.

        Raises:
            IndexFolderError: As for `search`.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if self._gpus is not None:
            nprobe, lists = self._with_defaults(effort or _NO_EFFORT).nprobe, self.type.lists
            neighbors = self._gpus.find(
                queries, k, nprobe=min(nprobe, lists) if nprobe and lists else None, allowed=allowed
            )
            if neighbors is not None:
                return neighbors
        if self.type.family == "flat":
            return self._search_flat(queries, k, allowed)
        if allowed is not None and self.type.family == "other":
            return self._search_and_filter(queries, k, effort or _NO_EFFORT, allowed)
        return self._search(queries, k, effort or _NO_EFFORT, selector(allowed, self.rows))

    def _search(self, queries: NDArray[np.float32], k: int, effort: Effort, chosen: Selection | None) -> Neighbors:
        parameters = self._parameters(effort, k, chosen.selector) if chosen else self._parameters_for_all(effort, k)
        scores, rows = self._index.search(queries, min(k, self.rows), params=parameters)
        if highest(rows) >= self.rows or lowest(rows) < -1:
            raise IndexFolderError(
                f"the index of {self._storage.path.parent} names row {rows.max():,} of {self.rows:,}; it was altered: "
                "build it again"
            )
        return Neighbors(scores, rows)

    def _search_and_filter(
        self, queries: NDArray[np.float32], k: int, effort: Effort, allowed: NDArray[np.bool_]
    ) -> Neighbors:
        """For types that may not take a selector: each query fetches more rows until k allowed ones are among them."""
        result = Neighbors(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        for position, query in enumerate(queries):
            width = 0
            while width < self.rows:
                width = min(self.rows, 4 * max(k, width))
                scores, rows = (
                    column[0] for column in _ordered(*self._search(query[None], width, effort, None), width)
                )
                kept = np.flatnonzero((rows >= 0) & allowed[rows])[:k]
                if len(kept) == k or (rows < 0).any():  # the rest lies in lists that were not probed
                    break
            result.scores[position, : len(kept)], result.rows[position, : len(kept)] = scores[kept], rows[kept]
        return result

    def _search_flat(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Neighbors:
        if self.rows < self._storage.rows:
            mask = np.zeros(self._storage.rows, np.bool_)
            mask[: self.rows] = True if allowed is None else allowed
            allowed = mask
        return self._storage.search(queries, k, allowed=allowed)

    def _parameters_for_all(self, effort: Effort, k: int) -> Any:
        """Parameters of searches among all rows, cached.

        FAISS only reads them, and making them takes as long as all other overhead of a quick search.
        """
        parameters = self._cached.get((effort, k))
        if parameters is None:
            if len(self._cached) >= _CACHED_PARAMETERS:
                self._cached.clear()
            parameters = self._cached[effort, k] = self._parameters(effort, k, None)
        return parameters

    def _parameters(self, effort: Effort, k: int, chosen: Any) -> Any:
        return _parameters(self._index, self._with_defaults(effort), k, chosen)

    def _with_defaults(self, effort: Effort) -> Effort:
        default = default_effort(self.type)
        return Effort(effort.nprobe or default.nprobe, effort.ef_search or default.ef_search)

    def use_gpus(self) -> None:
        """Copies the structure to all GPUs that FAISS sees, where it is searched from now on.

        Searches that a GPU cannot do, such as those with a narrow filter, still run on the CPU.

        Raises:
            SettingsError: FAISS has no such index for GPUs, or they have too little memory.
        """
        self._gpus = copy_to_gpus(self.type, self._index, self._storage)

    def save(self, path: Path) -> FileRecord:
        """Writes the structure to a new file; returns its record. Of HNSW, only the graph: the storage has the vectors.

        Raises:
            SettingsError: A flat index has no structure beside its vectors.
        """
        faiss = import_faiss()
        if self.type.family == "flat":
            raise SettingsError("a flat index has no structure to save: its vectors are all there is")
        if self._file is not None:
            return _place(self._file, path)
        with HashedFile(path) as file:
            faiss.write_index(
                self._index,
                faiss.PyCallbackIOWriter(file.write),
                faiss.IO_FLAG_SKIP_STORAGE if self.type.family == "hnsw" else 0,
            )
            return file.finish()


def _place(file: Path, path: Path) -> FileRecord:
    """Links the file to `path`, or copies it if it cannot be linked; returns its record once it is on the device."""
    if path.exists():
        raise FileExistsError(f"{path} exists")
    try:
        os.link(file, path)
    except OSError:
        shutil.copyfile(file, path)
    with path.open("r+b") as target:
        os.fsync(target.fileno())
        return FileRecord(os.fstat(target.fileno()).st_size, hashlib.file_digest(target, "sha256").hexdigest())


def _ordered(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Neighbors:
    """The neighbors, best first, equal scores by row, padded to k columns with row -1."""
    scores = np.where(rows < 0, np.float32(-np.inf), scores)
    order = np.lexsort((rows, -scores))
    if len(rows) == 1:  # a single query: the general way takes longer than some searches
        scores, rows = scores[:, order[0]], rows[:, order[0]]
    else:
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    if rows.shape[1] == k:
        return Neighbors(scores, rows)
    missing = ((0, 0), (0, k - rows.shape[1]))
    return Neighbors(np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1))


def open_structure(path: Path, kind: IndexType, storage: Storage, *, record: FileRecord | None) -> Structure:
    """The saved structure over all rows of the storage, memory-mapped if FAISS can map it. A flat one has no file.

    Raises:
        IndexFolderError: The file is missing, altered or not a structure of this type. No file can crash the process.
    """
    if kind.family == "flat":
        return Structure(kind, storage.rows, storage, None)
    if record is None:
        raise IndexFolderError(f"{path}: the index has no record of its {kind.factory} structure; build it again")
    return Structure(kind, storage.rows, storage, load_structure(path, kind, storage, record=record))
