"""Builds search structures over the stored vectors of a segment."""

import tempfile
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import bounded_threads, import_faiss
from llm2comp_indexes.format.vectors import Storage, join_graph, new_graph_index
from llm2comp_indexes.structures.gpu import (
    build_graph,
    can_build_graph,
    clustering_on_gpus,
    coarse_quantizer,
    resolve_device,
)
from llm2comp_indexes.structures.ivf_file import map_lists, write_lists
from llm2comp_indexes.structures.structure import Structure
from llm2comp_indexes.structures.train import train_index
from llm2comp_indexes.structures.types import IndexType, new_index

__all__ = ["build_structure"]

_BLOCK_BYTES = 32 << 20


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
        kind: Type of the structure.
        storage: The vectors.
        rows: Number of vectors to use, from the first; None for all.
        device: "cpu", "cuda" or "auto" (CUDA if FAISS sees a GPU).
        threads: Number of FAISS threads; None for all cores.
        seed: Seed of the training sample and of k-means; with one thread, the same seed gives the same index.
        on_rows: Called with the number of rows added so far.
        workdir: Folder for temporary files; None for the system's.

    Raises:
        SettingsError: There is no row to index, FAISS cannot build the type, a vector is not finite, or there is no GPU
            for "cuda".
    """
    on_gpus = resolve_device(device) == "cuda"
    count = storage.rows if rows is None else rows
    if not 0 <= count <= storage.rows:
        raise SettingsError(f"rows is {rows}, expected at most the {storage.rows:,} that are stored")
    if kind.family == "flat":
        return Structure(kind, count, storage, None)
    if not count:
        raise SettingsError(f"no vectors to build {kind.factory} from; an empty index is flat")
    with bounded_threads(threads):
        if kind.family == "ivf":
            return _build_lists(kind, storage, count, seed, on_gpus, on_rows, workdir)
        if kind.family == "hnsw":
            return _build_graph(kind, storage, count, seed, on_gpus, on_rows)
        index = new_index(kind, storage.dimension)
        train_index(index, kind, storage, rows=count, seed=seed)
        _add(index, kind, storage, count, on_rows)
        return Structure(kind, count, storage, index)


def _build_graph(
    kind: IndexType, storage: Storage, count: int, seed: int, on_gpus: bool, on_rows: Callable[[int], None] | None
) -> Structure:
    index = new_graph_index(storage.dimension, storage.store, kind.links)
    if on_gpus and can_build_graph(kind, count):
        build_graph(index, storage, rows=count)
    else:
        index.hnsw.rng = import_faiss().RandomGenerator(seed + 12345)
        _add(index, kind, storage, count, on_rows)
    join_graph(index, storage)
    return Structure(kind, count, storage, index)


def _add(index: Any, kind: IndexType, storage: Storage, count: int, on_rows: Callable[[int], None] | None) -> None:
    done, numbered = 0, isinstance(index, import_faiss().IndexIDMap)  # an IndexIDMap refuses vectors without an id
    for block in storage.blocks(max(1024, min(65536, _BLOCK_BYTES // (4 * storage.dimension)))):
        block = block[: count - done]
        try:
            if numbered:
                index.add_with_ids(block, np.arange(done, done + len(block)))
            else:
                index.add(block)
        except RuntimeError as error:
            raise SettingsError(
                f"FAISS cannot add to an index {kind.factory!r} ({str(error)[-120:]}); choose flat, hnsw, ivf, ivfpq "
                "or another string"
            ) from error
        done += len(block)
        if on_rows:
            on_rows(done)
        if done == count:
            return


def _build_lists(
    kind: IndexType,
    storage: Storage,
    count: int,
    seed: int,
    on_gpus: bool,
    on_rows: Callable[[int], None] | None,
    workdir: Path | None,
) -> Structure:
    """Writes the lists to a temporary file and maps it. The file is removed with the structure unless that is saved."""
    index = new_index(kind, storage.dimension)
    with clustering_on_gpus(index) if on_gpus else nullcontext():
        train_index(index, kind, storage, rows=count, seed=seed)
    quantizer = coarse_quantizer(index) if on_gpus else None
    file = (workdir or Path(tempfile.gettempdir())) / f"lists-{uuid4().hex}.faiss"
    file.touch(exist_ok=False)  # it becomes a file of the index; one by mkstemp could be read by nobody else
    try:
        write_lists(index, storage, file, rows=count, quantizer=quantizer, on_rows=on_rows)
        structure = Structure(kind, count, storage, map_lists(file), file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    weakref.finalize(structure, file.unlink, missing_ok=True)
    return structure
