"""All vectors of a segment in one flat FAISS file: written as a stream, mapped when opened, searched exactly.

A short header is followed by the codes of the vectors, plain numbers:

- `float32`: as given.
- `float16`: rounded to the nearest, ties to even (numpy's rounding).
- `int8`: component x 127, rounded to the nearest and clipped to [-127, 127], stored as a byte with 128 added. It is the
  FAISS "8 bits, uniform" scalar quantizer with a fixed range, which decodes code c as (c - 128) / 127 and compares in
  floating point, with any dimension and on any machine (its "8 bits, direct, signed" rounds the *query* to integers too
  where the dimension is a multiple of 32).
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.faiss_module import import_faiss, read_faiss_file
from llm2comp_indexes.format.files import FileRecord, check_size
from llm2comp_indexes.options import STORES, Store

__all__ = [
    "Neighbors",
    "Selection",
    "Storage",
    "StorageWriter",
    "flat_header",
    "highest",
    "join_graph",
    "lowest",
    "new_graph_index",
    "open_storage",
    "row_bytes",
    "selector",
    "storage_bytes",
]


_COMPONENT_BYTES: dict[Store, int] = {"float32": 4, "float16": 2, "int8": 1}
_READ_BYTES = 1 << 20
_SCORED_AT_ONCE = 8192
_EXTRA = 16
"""Rows fetched beyond k, so that equal scores at the end of the list are noticed."""


class Neighbors(NamedTuple):
    """Results of a search, best first; equal scores are ordered by row.

    Attributes:
        scores: Inner products, float32 (queries, k); -inf where nothing was found.
        rows: Row numbers, int64 (queries, k); -1 where nothing was found.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


def lowest(rows: NDArray[np.int64]) -> int:
    """The lowest row number; 0 for none. For ten numbers it takes half the time of `min`."""
    return rows.item(rows.argmin()) if rows.size else 0


def highest(rows: NDArray[np.int64]) -> int:
    """The highest row number; -1 for none."""
    return rows.item(rows.argmax()) if rows.size else -1


def row_bytes(dimension: int, store: Store) -> int:
    """Size of a stored vector in bytes."""
    return dimension * _COMPONENT_BYTES[store]


def storage_bytes(rows: int, dimension: int, store: Store) -> int:
    """Exact size in bytes of a file of `rows` vectors."""
    return len(_empty_header(dimension, store)) + rows * row_bytes(dimension, store)


def new_storage_index(dimension: int, store: Store) -> Any:
    """An empty FAISS index in memory, of the type that a file of this store holds."""
    faiss = import_faiss()
    if store == "float32":
        return faiss.IndexFlatIP(dimension)
    if store == "float16":
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT)
    fix_int8_range(index)
    return index


def new_graph_index(dimension: int, store: Store, links: int) -> Any:
    """An empty HNSW index in memory over vectors stored as in a file of this store."""
    faiss = import_faiss()
    if store == "float32":
        index = faiss.IndexHNSWFlat(dimension, links, faiss.METRIC_INNER_PRODUCT)
    else:
        quantizer = faiss.ScalarQuantizer.QT_fp16 if store == "float16" else faiss.ScalarQuantizer.QT_8bit_uniform
        index = faiss.IndexHNSWSQ(dimension, quantizer, links, faiss.METRIC_INNER_PRODUCT)
        if store == "int8":
            fix_int8_range(faiss.downcast_index(index.storage))
        index.is_trained = True
    index.hnsw.efConstruction = 6 * links
    return index


def join_graph(graph: Any, storage: "Storage") -> None:
    """Lets the HNSW index use the vectors of the storage, which must live as long; each frees only its part."""
    graph.storage, graph.own_fields = storage.index, False
    storage.index.thisown = True  # the assignment cleared it, and the mapping would stay until the process ends


def fix_int8_range(index: Any) -> None:
    """Sets the range of an untrained 8-bit uniform index so that code c stands for (c - 128) / 127."""
    faiss = import_faiss()
    # FAISS decodes c as low + (c + 0.5) / 255 * width.
    faiss.copy_array_to_vector(np.array([-128.5 / 127, 255 / 127], dtype=np.float32), index.sq.trained)
    index.is_trained = True


@cache
def _empty_header(dimension: int, store: Store) -> bytes:
    return cast(bytes, import_faiss().serialize_index(new_storage_index(dimension, store)).tobytes())


def _header(rows: int, dimension: int, store: Store) -> bytes:
    """The file's first bytes: those of an empty FAISS index with the counts of rows and codes filled in.

    Codes are counted in floats for float32, in bytes otherwise.
    """
    codes = rows * dimension if store == "float32" else rows * row_bytes(dimension, store)
    empty = _empty_header(dimension, store)
    return empty[:8] + struct.pack("<q", rows) + empty[16:-8] + struct.pack("<Q", codes)


def flat_header(rows: int, dimension: int) -> bytes:
    """The first bytes of a flat float32 FAISS file of `rows` vectors."""
    return _header(rows, dimension, "float32")


def _to_codes(vectors: NDArray[np.float32], store: Store) -> NDArray[Any]:
    if store == "float32":
        return np.ascontiguousarray(vectors, dtype="<f4")
    if store == "float16":
        return vectors.astype("<f2")
    return cast("NDArray[Any]", (np.clip(np.rint(vectors * np.float32(127)), -127, 127) + 128).astype(np.uint8))


def _from_codes(codes: NDArray[np.uint8], store: Store) -> NDArray[np.float32]:
    """Vectors (n, dimension) from codes (n, bytes of a row)."""
    if store == "float32":
        return codes.view("<f4")
    if store == "float16":
        return codes.view("<f2").astype(np.float32)
    return cast("NDArray[np.float32]", (codes.astype(np.float32) - np.float32(128)) / np.float32(127))


class StorageWriter:
    """Writes vectors to a storage file as a stream: memory does not grow with their number."""

    def __init__(self, path: Path, dimension: int, store: Store, *, rows: int = 0) -> None:
        """Starts a new file, or continues one that a killed build left.

        Args:
            path: The file.
            dimension: Length of a vector.
            store: Precision of the stored vectors.
            rows: Number of vectors to keep of the existing file; the rest is cut off. 0: a new file.

        Raises:
            SettingsError: `store` is not one of `STORES`, or `dimension` is below 1.
            IndexFolderError: The existing file holds fewer vectors.
        """
        if store not in STORES:
            raise SettingsError(f"store is {store!r}, expected one of {', '.join(STORES)}")
        if dimension < 1:
            raise SettingsError(f"dimension is {dimension}, expected at least 1")
        self.rows = rows
        self._path, self._dimension, self._store = path, dimension, store
        end = storage_bytes(rows, dimension, store)
        if rows and (not path.is_file() or path.stat().st_size < end):
            raise IndexFolderError(
                f"{path}: holds fewer than the {rows:,} vectors that were written; remove the unfinished build and "
                "start again"
            )
        self._file = path.open("r+b" if rows else "wb")
        self._file.truncate(end)  # a header of zeros, so that no reader accepts the file before `finish`
        self._file.seek(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Appends unit vectors, float32 (n, dimension).

        Raises:
            SettingsError: They have another shape, or a component that is not finite; nothing was written.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._dimension:
            raise SettingsError(f"vectors of shape {vectors.shape}, expected (n, {self._dimension})")
        if not np.isfinite(vectors).all():
            first = self.rows + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise SettingsError(
                f"vector {first:,} (counting from 0) has a component that is not finite; leave it out, or encode its "
                "document again"
            )
        self._file.write(_to_codes(vectors, self._store).tobytes())
        self.rows += len(vectors)

    def sync(self) -> None:
        """Flushes what was appended to the device."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> FileRecord:
        """Record of the file, after its header and its last byte are on the device.

        The file is read once for its hash, since the count in its header is known only now.
        """
        self._file.seek(0)
        self._file.write(_header(self.rows, self._dimension, self._store))
        self.sync()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return FileRecord(storage_bytes(self.rows, self._dimension, self._store), digest.hexdigest())


def open_storage(path: Path, *, rows: int, dimension: int, store: Store) -> "Storage":
    """The mapped vectors of the file.

    Size and header are checked. Its contents are not hashed, which `verify_index` does; any bytes are valid numbers.

    Raises:
        IndexFolderError: Its size or header is not that of `rows` vectors of this dimension and store.
    """
    if store not in STORES or dimension < 1 or rows < 0:
        raise IndexFolderError(
            f"{path}: {rows} vectors of dimension {dimension} stored as {store!r} cannot be; the index was altered: "
            "build it again"
        )
    check_size(path, FileRecord(storage_bytes(rows, dimension, store), ""))
    expected = _header(rows, dimension, store)
    with path.open("rb") as file:
        header = file.read(len(expected))
    if header != expected:
        raise IndexFolderError(
            f"{path}: its header is not that of {rows:,} vectors of dimension {dimension} stored as {store}; build "
            "the index again"
        )
    return Storage(path, rows, dimension, store)


class Storage:
    """The memory-mapped vectors of a segment, as `open_storage` returns them. Threads may read and search it at once.

    Attributes:
        index: The mapped FAISS index (inner product). Never call its `add`: FAISS ends the process.
    """

    def __init__(self, path: Path, rows: int, dimension: int, store: Store) -> None:
        self.path, self.rows, self.dimension, self.store = path, rows, dimension, store
        faiss = import_faiss()
        self._start, self._width = len(_empty_header(dimension, store)), row_bytes(dimension, store)
        if rows:
            self.index: Any = read_faiss_file(path, faiss.IO_FLAG_MMAP_IFC)
            codes = self.index.codes  # of FAISS's mapping, which lives as long as `index`; never written
            self._codes: NDArray[np.uint8] = faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(rows, self._width)
        else:
            self.index = new_storage_index(dimension, store)
            self._codes = np.empty((0, self._width), np.uint8)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored vectors of the rows, float32 (rows, dimension).

        Raises:
            IndexError: A row is not in [0, rows).
        """
        if lowest(rows) < 0 or highest(rows) >= self.rows:
            raise IndexError(f"rows from {lowest(rows)} to {highest(rows)}, expected within 0 and {self.rows - 1}")
        return _from_codes(self._codes.take(rows, axis=0), self.store)

    def fetch(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `read`, but reads the file instead of its mapping.

        Of a large sample only the vectors stay in memory, not the pages around them.
        """
        codes = np.empty((len(rows), self._width), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for code, row in zip(codes, rows.tolist(), strict=True):
                file.seek(self._start + row * self._width)
                if not 0 <= row < self.rows or file.readinto(code.data) != self._width:
                    raise IndexError(f"row {row}, expected within 0 and {self.rows - 1}")
        return _from_codes(codes, self.store)

    def blocks(self, size: int = 65536) -> Iterator[NDArray[np.float32]]:
        """All vectors in order, float32 (up to `size`, dimension) at a time.

        The file is read, not mapped: memory is that of one block.
        """
        with self.path.open("rb") as file:
            file.seek(self._start)
            for first in range(0, self.rows, size):
                count = min(size, self.rows - first)
                codes = np.fromfile(file, np.uint8, count * self._width)
                if len(codes) != count * self._width:
                    raise IndexFolderError(f"{self.path}: ends within its vectors; build the index again")
                yield _from_codes(codes.reshape(count, self._width), self.store)

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products of the query (dimension,) with the stored vectors of the rows, float32 (rows,).

        Summed in double precision: a vector's score does not depend on the other rows, so equal vectors have equal
        scores.
        """
        wide = query.astype(np.float64)  # `dot` gives the same bits as `@` in half the time for ten rows
        if len(rows) <= _SCORED_AT_ONCE:
            return cast("NDArray[np.float32]", self.read(rows).astype(np.float64).dot(wide).astype(np.float32))
        exact = np.empty(len(rows), np.float32)
        for first in range(0, len(rows), _SCORED_AT_ONCE):
            exact[first : first + _SCORED_AT_ONCE] = (
                self.read(rows[first : first + _SCORED_AT_ONCE]).astype(np.float64).dot(wide)
            )
        return exact

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Neighbors:
        """The exact k best rows for each query: all vectors are compared.

        Args:
            queries: Unit vectors, float32 (queries, dimension).
            k: Rows per query. Where there are fewer, or fewer are allowed, the rest is -1 with a score of -inf.
            allowed: Mask of the rows that may be returned, (rows,); None: all.
        """
        results = Neighbors(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        if not self.rows or not len(queries):
            return results
        faiss = import_faiss()
        bitmap = selector(allowed, self.rows)
        parameters = faiss.SearchParameters(sel=bitmap.selector) if bitmap else None
        rough, candidates = self.index.search(
            np.ascontiguousarray(queries, np.float32), min(k + _EXTRA, self.rows), params=parameters
        )
        for query, row_scores, rows, scores_out, rows_out in zip(queries, rough, candidates, *results, strict=True):
            scores, best = self._order(query, rows[rows >= 0])
            # FAISS drops equal scores at random. Where the last of its list may equal the k-th exact score, all rows
            # that may are compared.
            if (
                len(best) > k
                and len(best) < self.rows
                and rows[-1] >= 0
                and row_scores[-1] >= scores[k - 1] - (slack := self._slack(query))
            ):
                _, _, near = self.index.range_search(query[None], float(scores[k - 1] - slack), params=parameters)
                scores, best = self._order(query, near)
            scores_out[: len(best)], rows_out[: len(best)] = scores[:k], best[:k]
        return results

    def _order(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> Neighbors:
        scores = self.scores(query, rows)
        order = np.lexsort((rows, -scores))
        return Neighbors(scores[order], rows[order])

    def _slack(self, query: NDArray[np.float32]) -> float:
        """Upper bound of the error of a score summed in single precision."""
        return float(np.sqrt(self.dimension) * 2**-22 * max(1.0, float(np.linalg.norm(query))))


class Selection(NamedTuple):
    """A FAISS selector, and the bits that it points to, which must live as long."""

    selector: Any
    bits: NDArray[np.uint8]


def selector(allowed: NDArray[np.bool_] | None, rows: int) -> Selection | None:
    """The FAISS selector of the allowed rows, (rows,); None where all are allowed.

    Raises:
        SettingsError: The mask has another length.
    """
    if allowed is None:
        return None
    if allowed.shape != (rows,):
        raise SettingsError(f"a mask of shape {allowed.shape}, expected ({rows},): one truth value for each row")
    bits = np.packbits(allowed, bitorder="little")
    return Selection(import_faiss().IDSelectorBitmap(bits), bits)
