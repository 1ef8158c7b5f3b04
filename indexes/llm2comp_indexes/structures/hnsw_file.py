"""Checks of HNSW graphs in FAISS files before FAISS loads them: FAISS follows their numbers without checking any."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.faiss_module import import_faiss

__all__ = ["Malformed", "check_graph", "check_graph_file"]

_CHUNK = 1 << 22
_TAIL = struct.Struct("<5i")  # entry point, highest level, efConstruction, efSearch, an unused 1


class Malformed(Exception):
    """Bytes that this package would not have written; the message says which."""


def check_graph_file(content: NDArray[np.uint8], empty: Any, rows: int) -> None:
    """Raises Malformed unless the bytes are an HNSW index without storage and with a valid graph of `rows` rows.

    Args:
        content: The whole file.
        empty: An empty index of the expected kind.
        rows: Number of rows of the graph.
    """
    end = check_graph(content, 0, empty, rows)
    if content[end:].tobytes() != b"null":
        raise Malformed("the graph is not followed by an empty storage")


def check_graph(content: NDArray[np.uint8], start: int, empty: Any, rows: int) -> int:
    """End of the graph that starts at `start`, after checking it.

    FAISS stores, after a header: levels (one int32 per row), offsets (rows + 1), neighbors (int32), entry point and
    highest level.

    Raises:
        Malformed: A number is not what FAISS would have written, or leads outside the graph.
    """
    faiss = import_faiss()
    writer = faiss.VectorIOWriter()
    faiss.write_index(empty, writer, faiss.IO_FLAG_SKIP_STORAGE)
    template = faiss.vector_to_array(writer.data).tobytes()
    per_level = faiss.vector_to_array(empty.hnsw.cum_nneighbor_per_level).astype(np.int64)
    # The header ends before the levels; then follow no level, one offset, no neighbour, the tail and "null"
    header = template[: len(template) - (8 + 16 + 8 + _TAIL.size + 4)]
    header = header[:8] + struct.pack("<q", rows) + header[16:]
    if content[start : start + len(header)].tobytes() != header:
        raise Malformed("its header is another")
    levels, end = _vector(content, start + len(header), np.dtype("<i4"), rows)
    offsets, end = _vector(content, end, np.dtype("<u8"), rows + 1)
    if rows and (levels.min() < 1 or levels.max() >= len(per_level)):
        raise Malformed("a level is out of bounds")
    ends = np.concatenate(([0], np.cumsum(per_level[levels])))
    if not np.array_equal(offsets, ends):
        raise Malformed("its offsets don't follow from its levels")
    neighbours, end = _vector(content, end, np.dtype("<i4"), int(ends[-1]))
    tail = content[end : end + _TAIL.size].tobytes()
    _check_tail(tail, template[-4 - _TAIL.size : -4], levels)
    _check_neighbours(neighbours, levels, ends, per_level)
    return end + _TAIL.size


def _vector(content: NDArray[np.uint8], start: int, kind: "np.dtype[Any]", count: int) -> tuple[NDArray[Any], int]:
    """The numbers of a vector that is preceded by its length, and its end."""
    end = start + 8 + count * kind.itemsize
    if end > len(content) or content[start : start + 8].tobytes() != struct.pack("<Q", count):
        raise Malformed("a list of numbers in it has another length")
    return content[start + 8 : end].view(kind), end


def _check_tail(tail: bytes, expected: bytes, levels: NDArray[np.int32]) -> None:
    if len(tail) != len(expected) or tail[8:] != expected[8:]:
        raise Malformed("its settings are others")
    entry, highest, *_ = _TAIL.unpack(tail)
    if not len(levels):
        if (entry, highest) != (-1, -1):
            raise Malformed("it has an entry point and no rows")
    elif not 0 <= entry < len(levels) or highest != levels[entry] - 1 or highest != levels.max() - 1:
        raise Malformed("its entry point is not on its highest level")


def _check_neighbours(
    neighbours: NDArray[np.int32], levels: NDArray[np.int32], offsets: NDArray[np.int64], per_level: NDArray[np.int64]
) -> None:
    for first in range(0, len(neighbours), _CHUNK):
        chunk = neighbours[first : first + _CHUNK]
        if chunk.min() < -1 or chunk.max() >= len(levels):
            raise Malformed("a neighbour is no row")
    for level in range(1, int(levels.max(initial=0))):
        slots = np.arange(per_level[level], per_level[level + 1])
        nodes = np.flatnonzero(levels > level)
        for first in range(0, len(nodes), _CHUNK // max(1, len(slots))):
            linked = neighbours[offsets[nodes[first : first + _CHUNK // max(1, len(slots))], None] + slots]
            if (levels[linked[linked >= 0]] <= level).any():
                raise Malformed("a neighbour does not reach the level it is linked on")
