"""Search structures over the stored vectors of a segment: built, saved, opened, searched."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.checked_files import FileRecord, HashedFile
from llm2comp_indexes.faiss_module import bounded_threads, import_faiss
from llm2comp_indexes.gpu import clustering_on_gpus, coarse_quantizer, resolve_device
from llm2comp_indexes.index_types import IndexType, memory_bytes, new_index, parse_type
from llm2comp_indexes.ivf_files import map_lists, write_lists
from llm2comp_indexes.storage import Found, Selection, Storage, join_graph, new_graph_index, selector
from llm2comp_indexes.structure_files import load_structure
from llm2comp_indexes.training import train_index

__all__ = ["Effort", "IndexType", "Structure", "build_structure", "default_effort", "memory_bytes", "open_structure", "parse_type"]

_BLOCK_BYTES = 32 << 20
_KEPT = 256
"""Parameters of searches that are kept."""


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


_NO_EFFORT = Effort()


def default_effort(kind: IndexType) -> Effort:
    """The effort of a search that names none: 1/32 of the lists, at least 8, or an ef_search of 64.

    Codes of 8 bits and fewer rank roughly: 4 candidates are then scored again for each answer, as with types whose codes we don't know.
    """
    rough = kind.family == "other" or (kind.family == "ivf" and kind.ivf.bits <= 8)
    nprobe = min(kind.lists, max(8, kind.lists // 32)) if kind.lists else None
    return Effort(nprobe, 64 if kind.walks_graph else None, 4 if rough else 1)


def _parameters(index: Any, effort: Effort, k: int, chosen: Any = None) -> Any:
    """FAISS's parameters for a search for k with this effort, through what is wrapped around lists or a graph; None where it takes none.

    Args:
        index: Any FAISS index.
        effort: With its nprobe and ef_search, where the index has a use for them.
        k: Answers wanted.
        chosen: Selector of rows; None for all.
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
        self._kept: dict[tuple[Effort, int], Any] = {}
        self._file = file  # temporary, where the index was built on disk

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
        return _ordered(*self.find(queries, k, effort=effort, allowed=allowed), k)

    def find(self, queries: NDArray[np.float32], k: int, *, effort: Effort | None = None, allowed: NDArray[np.bool_] | None = None) -> Found:
        """The same as FAISS gives it, (queries, up to k), for callers that score it again: equal scores in any order, -1 where fewer are found.

        Raises:
            SettingsError: The type is flat.
            IndexFolderError: As for `search`.
        """
        if self.type.family == "flat":
            raise SettingsError("a flat index has no candidates to find: all its vectors are compared")
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is not None and self.type.family == "other":
            return self._search_and_filter(queries, k, effort or _NO_EFFORT, allowed)
        return self._search(queries, k, effort or _NO_EFFORT, selector(allowed, self.rows))

    def _search(self, queries: NDArray[np.float32], k: int, effort: Effort, chosen: Selection | None) -> Found:
        parameters = self._parameters(effort, k, chosen.selector) if chosen else self._parameters_for_all(effort, k)
        found, rows = self._index.search(queries, min(k, self.rows), params=parameters)
        if rows.size and (rows.max() >= self.rows or rows.min() < -1):
            raise IndexFolderError(f"the index of {self._storage.path.parent} names row {rows.max():,} of {self.rows:,}; it was altered: build it again")
        return Found(found, rows)

    def _search_and_filter(self, queries: NDArray[np.float32], k: int, effort: Effort, allowed: NDArray[np.bool_]) -> Found:
        """For types that may not take a selector: fetches more until k allowed rows are among what was found, query by query."""
        result = Found(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        for position, query in enumerate(queries):
            width = 0
            while width < self.rows:
                width = min(self.rows, 4 * max(k, width))
                scores, rows = (column[0] for column in _ordered(*self._search(query[None], width, effort, None), width))
                kept = np.flatnonzero((rows >= 0) & allowed[rows])[:k]
                if len(kept) == k or (rows < 0).any():  # what is missing lies in lists that were not probed
                    break
            result.scores[position, : len(kept)], result.rows[position, : len(kept)] = scores[kept], rows[kept]
        return result

    def _search_flat(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        if self.rows < self._storage.rows:
            mask = np.zeros(self._storage.rows, np.bool_)
            mask[: self.rows] = True if allowed is None else allowed
            allowed = mask
        return self._storage.search(queries, k, allowed=allowed)

    def _parameters_for_all(self, effort: Effort, k: int) -> Any:
        """Those of searches among all rows, kept: FAISS only reads them, and making them takes as long as a quick search's overhead altogether."""
        kept = self._kept.get((effort, k))
        if kept is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            kept = self._kept[effort, k] = self._parameters(effort, k, None)
        return kept

    def _parameters(self, effort: Effort, k: int, chosen: Any) -> Any:
        default = default_effort(self.type)
        return _parameters(self._index, Effort(effort.nprobe or default.nprobe, effort.ef_search or default.ef_search), k, chosen)

    def save(self, path: Path) -> FileRecord:
        """Record of the new file that holds the structure (of HNSW, the graph alone: its vectors are those of the storage).

        Raises:
            SettingsError: A flat index has no structure beside its vectors.
        """
        faiss = import_faiss()
        if self.type.family == "flat":
            raise SettingsError("a flat index has no structure to save: its vectors are all there is")
        if self._file is not None:
            return _place(self._file, path)
        with HashedFile(path) as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write), faiss.IO_FLAG_SKIP_STORAGE if self.type.family == "hnsw" else 0)
            return file.finish()


def _place(file: Path, path: Path) -> FileRecord:
    """Record of the file under its new name, once it is on the device; moved where that is possible, else copied."""
    if path.exists():
        raise FileExistsError(f"{path} exists")
    try:
        os.link(file, path)
    except OSError:
        shutil.copyfile(file, path)
    with path.open("r+b") as placed:
        os.fsync(placed.fileno())
        return FileRecord(os.fstat(placed.fileno()).st_size, hashlib.file_digest(placed, "sha256").hexdigest())


def _ordered(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Found:
    """Found, best first and equal scores by row, filled up to k columns with -1."""
    scores = np.where(rows < 0, np.float32(-np.inf), scores)
    order = np.lexsort((rows, -scores))
    if len(rows) == 1:  # a query asked alone: the general way takes longer than some searches
        scores, rows = scores[:, order[0]], rows[:, order[0]]
    else:
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    if rows.shape[1] == k:
        return Found(scores, rows)
    missing = ((0, 0), (0, k - rows.shape[1]))
    return Found(np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1))


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
        SettingsError: There is no row to index, FAISS cannot build the type, a vector is not finite, or there is no GPU for "cuda".
    """
    on_gpus = resolve_device(device) == "cuda" and kind.family == "ivf"
    count = storage.rows if rows is None else rows
    if not 0 <= count <= storage.rows:
        raise SettingsError(f"rows is {rows}, expected at most the {storage.rows:,} that are stored")
    if kind.family == "flat":
        return Structure(kind, count, storage, None)
    if not count:
        raise SettingsError(f"no vectors to build {kind.factory} from; an empty index is flat")
    with bounded_threads(threads):
        index = new_graph_index(storage.dimension, storage.store, kind.links) if kind.family == "hnsw" else new_index(kind, storage.dimension)
        with clustering_on_gpus(index) if on_gpus else nullcontext():
            train_index(index, kind, storage, rows=count, seed=seed)
        if kind.family == "ivf":
            quantizer = coarse_quantizer(index) if on_gpus else None
            return _build_lists(index, kind, storage, count, quantizer, on_rows, workdir)
        if kind.family == "hnsw":
            index.hnsw.rng = import_faiss().RandomGenerator(seed + 12345)
        try:
            _add(index, storage, count, on_rows)
        except RuntimeError as error:
            raise SettingsError(
                f"FAISS cannot add to an index {kind.factory!r} ({str(error)[-120:]}); choose flat, hnsw, ivf, ivfpq or another string"
            ) from error
    if kind.family == "hnsw":
        join_graph(index, storage)
    return Structure(kind, count, storage, index)


def _add(index: Any, storage: Storage, count: int, on_rows: Callable[[int], None] | None) -> None:
    done, numbered = 0, isinstance(index, import_faiss().IndexIDMap)  # which refuses vectors without a number
    for block in storage.blocks(max(1024, min(65536, _BLOCK_BYTES // (4 * storage.dimension)))):
        block = block[: count - done]
        if numbered:
            index.add_with_ids(block, np.arange(done, done + len(block)))
        else:
            index.add(block)
        done += len(block)
        if on_rows:
            on_rows(done)
        if done == count:
            return


def _build_lists(
    index: Any, kind: IndexType, storage: Storage, count: int, quantizer: Any, on_rows: Callable[[int], None] | None, workdir: Path | None
) -> Structure:
    """Lists in a temporary file, which is mapped; it goes with the structure, unless that is saved before."""
    descriptor, name = tempfile.mkstemp(suffix=".faiss", dir=workdir)
    os.close(descriptor)
    file = Path(name)
    try:
        write_lists(index, storage, file, rows=count, quantizer=quantizer, on_rows=on_rows)
        structure = Structure(kind, count, storage, map_lists(file), file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    weakref.finalize(structure, file.unlink, missing_ok=True)
    return structure


def open_structure(path: Path, kind: IndexType, storage: Storage, *, record: FileRecord | None) -> Structure:
    """The saved structure over all rows of the storage, memory-mapped where FAISS can; of a flat one, nothing is read.

    Raises:
        IndexFolderError: The file is missing, altered or not a structure of this type; no file can crash the process.
    """
    if kind.family == "flat":
        return Structure(kind, storage.rows, storage, None)
    if record is None:
        raise IndexFolderError(f"{path}: the index has no record of its {kind.factory} structure; build it again")
    return Structure(kind, storage.rows, storage, load_structure(path, kind, storage, record=record))
