"""IVF indexes in one FAISS file, written from a stream of vectors, and checked before FAISS maps it.

The file is the one that FAISS would write: a head (transform, centroids, quantizer); then, after the word `ilar`, the
sizes of the lists; then for each list its codes and its ids. Once every vector is assigned to a list, the sizes and so
all positions are known, and the lists are filled block by block: memory holds a block of vectors, never a list.
"""

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss, ivf_of, read_faiss_file
from llm2comp_indexes.format.vectors import Storage, flat_header
from llm2comp_indexes.structures.hnsw_file import Malformed, check_graph
from llm2comp_indexes.structures.types import IndexType, new_index

__all__ = ["check_lists_file", "map_lists", "write_lists"]

_LISTS = struct.Struct("<4sQQ4sQ")  # "ilar", lists, bytes of a code, "full", lists
_EMPTY_LISTS = struct.Struct("<4sQQ4sQ")  # "ilar", lists, bytes of a code, "sprs", 0
_BLOCK_BYTES = 32 << 20


def write_lists(
    index: Any,
    storage: Storage,
    path: Path,
    *,
    rows: int,
    quantizer: Any = None,
    on_rows: Callable[[int], None] | None = None,
) -> None:
    """Writes the file of an IVF index that holds the first `rows` vectors of the storage; ids are row numbers.

    Args:
        index: The index, trained and empty.
        storage: The vectors.
        path: The new file.
        rows: Number of vectors.
        quantizer: Finds the list of a vector; None: that of the index.
        on_rows: Called with the number of rows written so far.

    Raises:
        SettingsError: A vector has a component that is not finite.
    """
    inner = ivf_of(index)
    with tempfile.TemporaryFile(dir=path.parent) as assigned, path.open("wb") as file:
        sizes = np.zeros(inner.nlist, np.int64)
        for first, vectors in _blocks(index, storage, rows):
            lists = (quantizer or inner.quantizer).search(vectors, 1)[1][:, 0]
            if lists.min() < 0:
                raise SettingsError(
                    f"{storage.path}: a vector of rows {first:,} to {first + len(vectors) - 1:,} is not finite; leave "
                    "it out and build again"
                )
            sizes += np.bincount(lists, minlength=inner.nlist)
            assigned.write(lists.astype(np.int32).tobytes())
        head = (
            _head(index, rows)
            + _LISTS.pack(b"ilar", inner.nlist, inner.code_size, b"full", inner.nlist)
            + sizes.astype("<u8").tobytes()
        )
        file.write(head)
        file.truncate(len(head) + rows * (inner.code_size + 8))
        file.flush()
        assigned.seek(0)
        filler = _Filler(file.fileno(), len(head), sizes, int(inner.code_size))
        for first, vectors in _blocks(index, storage, rows):
            lists = np.frombuffer(assigned.read(4 * len(vectors)), np.int32).astype(np.int64)
            filler.add(lists, _encode(inner, vectors, lists), first)
            if on_rows:
                on_rows(first + len(vectors))


def _blocks(index: Any, storage: Storage, rows: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks of vectors after the transform, each with the number of its first row."""
    first = 0
    for block in storage.blocks(max(1024, min(262144, _BLOCK_BYTES // (4 * storage.dimension)))):
        block = block[: rows - first]
        if not len(block):
            return
        count = len(block)
        for transform in _transforms(index):
            block = transform.apply(block)
        yield first, np.ascontiguousarray(block, np.float32)
        first += count


def _transforms(index: Any) -> list[Any]:
    faiss = import_faiss()
    return (
        [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        if hasattr(index, "chain")
        else []
    )


def _encode(inner: Any, vectors: NDArray[np.float32], lists: NDArray[np.int64]) -> NDArray[np.uint8]:
    pointer = import_faiss().swig_ptr
    codes = np.empty((len(vectors), inner.code_size), np.uint8)
    inner.encode_vectors(len(vectors), pointer(vectors), pointer(lists), pointer(codes))
    return codes


class _Filler:
    """Writes codes and ids to their places in the file; each list is filled in the order of its rows."""

    def __init__(self, descriptor: int, start: int, sizes: NDArray[np.int64], code_size: int) -> None:
        self._descriptor, self._code_size = descriptor, code_size
        # Position of the next code and of the next id of each list, (lists,)
        self._codes = start + (code_size + 8) * np.concatenate(([0], np.cumsum(sizes)[:-1]))
        self._ids = self._codes + code_size * sizes

    def add(self, lists: NDArray[np.int64], codes: NDArray[np.uint8], first: int) -> None:
        order = np.argsort(lists, kind="stable")
        codes, ids = codes[order], (order + first).astype("<i8")
        names, starts = np.unique(lists[order], return_index=True)
        counts = np.diff(starts, append=len(order))
        code_bytes, id_bytes = codes.reshape(-1).data, ids.view(np.uint8).data
        places = zip(
            starts.tolist(), counts.tolist(), self._codes[names].tolist(), self._ids[names].tolist(), strict=True
        )
        for start, count, code_place, id_place in places:
            _write_at(
                self._descriptor, code_bytes[start * self._code_size : (start + count) * self._code_size], code_place
            )
            _write_at(self._descriptor, id_bytes[start * 8 : (start + count) * 8], id_place)
        self._codes[names] += counts * self._code_size
        self._ids[names] += counts * 8


def _write_at(descriptor: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def _head(index: Any, rows: int) -> bytes:
    """The bytes that FAISS writes for the index before its lists, with `rows` as its count."""
    faiss = import_faiss()
    inner = ivf_of(index)
    before = index.ntotal, inner.ntotal, inner.nprobe
    index.ntotal = inner.ntotal = rows
    inner.nprobe = 1  # every search states its own
    try:
        content = bytes(faiss.serialize_index(index).tobytes())
    finally:
        index.ntotal, inner.ntotal, inner.nprobe = before
    end = len(content) - _EMPTY_LISTS.size
    if content[end:] != _EMPTY_LISTS.pack(b"ilar", inner.nlist, inner.code_size, b"sprs", 0):
        raise RuntimeError(f"FAISS {faiss.__version__} writes empty lists in another way than known; report this")
    return content[:end]


def map_lists(path: Path) -> Any:
    """The FAISS index in the file, with mapped lists.

    Prefetching is off: FAISS would start up to 32 threads in every search to read the probed lists ahead. They take
    half a millisecond if the lists are in memory already, several times the search itself, and concurrent searches
    would share their state without a lock.
    """
    faiss = import_faiss()
    index = read_faiss_file(path, faiss.IO_FLAG_MMAP)
    faiss.downcast_InvertedLists(ivf_of(index).invlists).prefetch_nthread = 0
    return index


class _Template(NamedTuple):
    """The head of a file before and after its centroids; `free` marks bytes of learned numbers, which may differ."""

    before: bytes
    before_free: NDArray[np.bool_]
    after: bytes
    after_free: NDArray[np.bool_]


def check_lists_file(content: NDArray[np.uint8], kind: IndexType, *, rows: int, dimension: int) -> None:
    """Raises Malformed unless the bytes are an IVF file of this type with `rows` rows.

    Bytes that may differ cannot make FAISS read outside the file or allocate memory: floating-point numbers, codes
    (every bit pattern is valid), ids (compared with the number of rows in search results), and the sizes of the lists,
    which must add up to the rows and to the size of the file.
    """
    empty = new_index(kind, dimension)
    inner = ivf_of(empty)
    template = _template(kind, dimension, rows)
    end = _compare(content, 0, template.before, template.before_free)
    if kind.ivf.links:
        end = check_graph(content, end, import_faiss().downcast_index(inner.quantizer), kind.ivf.lists)
    header = flat_header(kind.ivf.lists, inner.d)
    end = _compare(content, end, header, np.zeros(len(header), np.bool_)) + 4 * kind.ivf.lists * inner.d
    end = _compare(content, end, template.after, template.after_free)
    lists = _LISTS.pack(b"ilar", inner.nlist, inner.code_size, b"full", inner.nlist)
    end = _compare(content, end, lists, np.zeros(len(lists), np.bool_))
    sizes = content[end : end + 8 * inner.nlist]
    if len(sizes) != 8 * inner.nlist or (sizes.view("<u8") > rows).any() or sizes.view("<u8").sum() != rows:
        raise Malformed("its lists don't hold as many vectors as they should")
    if len(content) != end + len(sizes) + rows * (inner.code_size + 8):
        raise Malformed("its lists don't fill the file")


def _compare(content: NDArray[np.uint8], start: int, expected: bytes, free: NDArray[np.bool_]) -> int:
    actual, template = content[start : start + len(expected)], np.frombuffer(expected, np.uint8)
    if len(actual) != len(template) or ((actual != template) & ~free).any():
        raise Malformed("its head is that of another index")
    return start + len(expected)


def _template(kind: IndexType, dimension: int, rows: int) -> _Template:
    """The head, with a mask of all learned numbers: the bytes in which two heads with other numbers differ."""
    zeros, ones = (_untrained_head(kind, dimension, rows, pattern) for pattern in (0, 0xFFFFFFFF))
    free = [np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8) for a, b in zip(zeros, ones, strict=True)]
    return _Template(zeros[0], free[0], zeros[1], free[1])


def _numbers(pattern: int, count: int) -> NDArray[np.float32]:
    return np.full(count, pattern, np.uint32).view(np.float32)


def _untrained_head(kind: IndexType, dimension: int, rows: int, pattern: int) -> tuple[bytes, bytes]:
    """The head before and after the centroids, with the bit pattern in place of every learned number."""
    faiss = import_faiss()
    index = new_index(kind, dimension)
    inner = ivf_of(index)
    for transform in _transforms(index):
        faiss.copy_array_to_vector(_numbers(pattern, transform.d_in * transform.d_out), transform.A)
        transform.is_trained = True
        if kind.ivf.transform in ("PCA", "PCAR"):
            faiss.copy_array_to_vector(_numbers(pattern, transform.d_out), transform.b)
            for vector, count in (
                (transform.mean, transform.d_in),
                (transform.eigenvalues, transform.d_in),
                (transform.PCAMat, transform.d_in**2),
            ):
                faiss.copy_array_to_vector(_numbers(pattern, count), vector)
    if kind.ivf.parts:
        faiss.copy_array_to_vector(_numbers(pattern, inner.pq.centroids.size()), inner.pq.centroids)
    elif kind.ivf.codes in ("SQ4", "SQ6", "SQ8"):
        faiss.copy_array_to_vector(_numbers(pattern, 2 * inner.d), inner.sq.trained)
    index.is_trained = inner.is_trained = True
    head = _head(index, rows)
    centroids = faiss.serialize_index(faiss.downcast_index(inner.quantizer)).tobytes()
    before, match, after = head.partition(centroids)
    if not match:
        raise RuntimeError(f"FAISS {faiss.__version__} writes centroids in another way than known; report this")
    return before, after
