"""Opens saved structures. FAISS trusts a file, so whatever could make it crash is checked first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, LLM2CompError
from llm2comp_indexes.faiss_module import import_faiss, read_faiss_file
from llm2comp_indexes.format.files import FileRecord, check_size
from llm2comp_indexes.format.vectors import Storage, join_graph, new_graph_index
from llm2comp_indexes.structures.hnsw_file import Malformed, check_graph_file
from llm2comp_indexes.structures.ivf_file import check_lists_file, map_lists
from llm2comp_indexes.structures.types import IndexType

__all__ = ["load_structure"]

_TRIAL_SECONDS = 300


def load_structure(path: Path, kind: IndexType, storage: Storage, *, record: FileRecord) -> Any:
    """The FAISS index in the file, mapped if FAISS can map it; an HNSW graph is joined with the vectors of the storage.

    HNSW and IVF files are compared with what this package would have written, except for floating-point numbers and
    codes; every link of a graph is checked. Any other type is first loaded and searched in a separate process, and
    refused if that crashes.

    Raises:
        IndexFolderError: The file is missing, cut, altered, or holds an index of another type.
    """
    check_size(path, record)
    content: NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if record.bytes else np.empty(0, np.uint8)
    faiss = import_faiss()
    try:
        if kind.family == "hnsw":
            check_graph_file(content, new_graph_index(storage.dimension, storage.store, kind.links), storage.rows)
        elif kind.family == "ivf":
            check_lists_file(content, kind, rows=storage.rows, dimension=storage.dimension)
        else:
            _try_in_process(path, storage, record.bytes)
    except (Malformed, LLM2CompError) as error:
        raise IndexFolderError(
            f"{path}: not the {kind.factory} index of {storage.rows:,} vectors that was written ({error}); build the "
            "index again"
        ) from error
    flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_STORAGE if kind.family == "hnsw" else 0
    try:
        index = map_lists(path) if kind.family == "ivf" else read_faiss_file(path, flags)
    except (RuntimeError, MemoryError) as error:
        raise IndexFolderError(f"{path}: FAISS cannot read it ({str(error)[-120:]}); build the index again") from error
    if kind.family == "hnsw":
        join_graph(index, storage)
    elif (index.d, index.ntotal) != (storage.dimension, storage.rows):
        raise IndexFolderError(
            f"{path}: {index.ntotal:,} vectors of {index.d} numbers, expected {storage.rows:,} of "
            f"{storage.dimension}; build the index again"
        )
    return index


def _try_in_process(path: Path, storage: Storage, size: int) -> None:
    """Raises Malformed unless a separate process with bounded memory can load and search the file."""
    task = json.dumps({"dimension": storage.dimension, "rows": storage.rows, "bytes": size})
    program = str(Path(__file__).with_name("isolated_load.py"))
    try:
        with path.open("rb") as file:  # handed over open: the process may decode names otherwise (-I)
            done = subprocess.run(
                [sys.executable, "-I", program, task],
                stdin=file,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TRIAL_SECONDS,
            )
    except subprocess.TimeoutExpired as error:
        raise Malformed(f"a trial search took over {_TRIAL_SECONDS} s") from error
    if done.returncode:
        last = done.stderr.strip().rsplit("\n", 1)[-1][-120:]
        raise Malformed(f"a trial search ended with code {done.returncode}: {last or 'no message'}")
