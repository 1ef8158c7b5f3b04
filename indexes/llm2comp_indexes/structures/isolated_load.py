"""Program that loads and searches an untrusted FAISS file, so that a crash ends this process and not its caller."""

import json
import sys
from contextlib import suppress
from importlib import import_module

__all__ = ["main"]

_PROGRAM_BYTES = 4 << 30
"""Address space of Python, numpy and FAISS without an index, threads included."""


def main(task: str) -> None:
    """Loads and searches the index on standard input; `task` is its shape (JSON).

    A bad file ends in an exception or a signal.
    """
    expected = json.loads(task)
    with suppress(ImportError):  # Windows has no such limit
        import resource

        limit = _PROGRAM_BYTES + 4 * expected["bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import numpy as np

    faiss = import_module("faiss")
    faiss.omp_set_num_threads(1)
    faiss.set_deserialization_vector_byte_limit(max(1 << 20, 2 * expected["bytes"]))
    with open(0, "rb") as file:
        index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
        if file.tell() != expected["bytes"]:
            raise ValueError("bytes after the index")
    if (
        (index.d, index.ntotal) != (expected["dimension"], expected["rows"])
        or index.metric_type != faiss.METRIC_INNER_PRODUCT
        or not index.is_trained
    ):
        raise ValueError("another dimension, count or metric")
    queries = np.random.default_rng(0).standard_normal((32, index.d), dtype=np.float32)
    everything = faiss.IDSelectorBitmap(np.full((index.ntotal + 7) // 8, 255, np.uint8))
    with suppress(RuntimeError):  # not every type takes a selector
        index.search(queries, 10, params=faiss.SearchParameters(sel=everything))
    _, rows = index.search(queries, min(100, index.ntotal))
    if rows.min() < -1 or rows.max() >= index.ntotal:
        raise ValueError("rows beyond the last")


if __name__ == "__main__":
    main(sys.argv[1])
