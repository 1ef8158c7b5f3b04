"""Vectors of the memory tokens of a segment's rows in one file: written as a stream, mapped when opened.

A header of 64 bytes (mark, kind, vectors of a row, dimension, rows) is followed by the codes of the rows, k vectors
each:

- `int8`: component x 127, rounded to the nearest and clipped to [-127, 127], a signed byte that stands for code / 127.
- `binary`: a bit a component, set if it is 0 or more, the first component in the highest bit; each vector fills whole
  bytes. A bit stands for +1 or -1 over the root of the dimension, so that vectors have unit length.

Queries are not rounded. Vectors read from the file have the codes that are in it, so that rows can be copied by either.
"""

import hashlib
import os
import struct
from pathlib import Path
from typing import NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError
from llm2comp.late_interaction import maxsim
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.mapping import map_file
from llm2comp_indexes.format.vectors import highest, lowest
from llm2comp_indexes.options import MemoryKind

__all__ = ["MemoryForm", "MemoryVectors", "MemoryWriter", "memory_bytes", "open_memory", "to_codes"]

_HEADER = struct.Struct("<8s8sIIQ32x")
_MARK = b"l2cmem01"


class MemoryForm(NamedTuple):
    """How the vectors of memory tokens are stored.

    Attributes:
        kind: `int8` or `binary`.
        tokens: k, the number of vectors of a row.
        dimension: Length of a vector.
    """

    kind: MemoryKind
    tokens: int
    dimension: int

    @property
    def row_bytes(self) -> int:
        """Size of the codes of a row in bytes."""
        return self.tokens * (self.dimension if self.kind == "int8" else -(-self.dimension // 8))


def memory_bytes(rows: int, form: MemoryForm) -> int:
    """Exact size in bytes of a file of `rows` rows."""
    return _HEADER.size + rows * form.row_bytes


def to_codes(vectors: NDArray[np.float32], form: MemoryForm) -> NDArray[np.uint8]:
    """Codes (rows, bytes of a row) of vectors (rows, k, dimension).

    Raises:
        IndexFolderError: The vectors have another shape, or a component that is not finite.
    """
    if vectors.shape[1:] != form[1:] or vectors.ndim != 3:
        raise IndexFolderError(
            f"vectors of memory tokens of shape {vectors.shape}, expected (rows, {form.tokens}, {form.dimension})"
        )
    if not np.isfinite(vectors).all():
        raise IndexFolderError(
            "the model gave a vector of a memory token that is not finite; load it with dtype float32, or check its "
            "weights"
        )
    if form.kind == "int8":
        codes = np.clip(np.rint(vectors * np.float32(127)), -127, 127).astype(np.int8).view(np.uint8)
    else:
        codes = np.packbits(vectors >= 0, axis=2)
    return np.ascontiguousarray(codes.reshape(len(vectors), form.row_bytes))


def from_codes(codes: NDArray[np.uint8], form: MemoryForm) -> NDArray[np.float32]:
    """Vectors (rows, k, dimension) that codes (rows, bytes of a row) stand for."""
    shaped = codes.reshape(len(codes), form.tokens, -1)
    if form.kind == "int8":
        return cast("NDArray[np.float32]", shaped.view(np.int8).astype(np.float32) / np.float32(127))
    signs = np.unpackbits(shaped, axis=2, count=form.dimension).astype(np.float32) * 2 - 1
    return cast("NDArray[np.float32]", signs / np.sqrt(np.float32(form.dimension)))


def _header(rows: int, form: MemoryForm) -> bytes:
    return _HEADER.pack(_MARK, form.kind.encode(), form.tokens, form.dimension, rows)


class MemoryWriter:
    """Writes codes of rows to a file as a stream: memory does not grow with their number."""

    def __init__(self, path: Path, form: MemoryForm, *, rows: int = 0) -> None:
        """Starts a new file, or continues one that a killed build left.

        Args:
            path: The file.
            form: Kind, k and dimension.
            rows: Number of rows to keep of the existing file; the rest is cut off. 0: a new file.

        Raises:
            IndexFolderError: The existing file holds fewer rows.
        """
        self.rows = rows
        self._path, self._form = path, form
        end = memory_bytes(rows, form)
        if rows and (not path.is_file() or path.stat().st_size < end):
            raise IndexFolderError(
                f"{path}: holds fewer than the {rows:,} rows that were written; remove the unfinished build and start "
                "again"
            )
        self._file = path.open("r+b" if rows else "wb")
        self._file.truncate(end)
        self._file.seek(0)
        self._file.write(bytes(_HEADER.size))  # zeros, so that no reader accepts the file before `finish`
        self._file.seek(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, codes: NDArray[np.uint8]) -> None:
        """Appends codes (rows, bytes of a row)."""
        assert codes.shape[1:] == (self._form.row_bytes,)
        self._file.write(codes.tobytes())
        self.rows += len(codes)

    def sync(self) -> None:
        """Flushes what was appended to the device."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> FileRecord:
        """Record of the file, after its header and its last byte are on the device."""
        self._file.seek(0)
        self._file.write(_header(self.rows, self._form))
        self.sync()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return FileRecord(memory_bytes(self.rows, self._form), digest.hexdigest())


def open_memory(path: Path, form: MemoryForm, *, rows: int) -> "MemoryVectors":
    """The mapped vectors of the file.

    Size and header are checked. Its contents are not hashed, which `verify_index` does; any bytes are valid codes.

    Raises:
        IndexFolderError: The file is missing, or its size or header is not that of `rows` rows of this form.
    """
    try:
        content = map_file(path)
    except OSError as error:
        raise IndexFolderError(f"{path}: {error.strerror or error}; build the index again") from error
    if len(content) != memory_bytes(rows, form) or content[: _HEADER.size] != _header(rows, form):
        raise IndexFolderError(
            f"{path}: not {rows:,} rows of {form.tokens} vectors of dimension {form.dimension} as {form.kind}; the "
            "file was cut or altered: build the index again"
        )
    codes: NDArray[np.uint8] = np.frombuffer(content, np.uint8, rows * form.row_bytes, _HEADER.size)
    return MemoryVectors(codes.reshape(rows, form.row_bytes), form)


class MemoryVectors:
    """The memory-mapped vectors of a segment, as `open_memory` returns them. Threads may read and search it at once."""

    def __init__(self, codes: NDArray[np.uint8], form: MemoryForm) -> None:
        self.form = form
        self._codes = codes

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes (rows, bytes of a row) of the rows.

        Raises:
            IndexError: A row is not in the file.
        """
        last = len(self._codes) - 1
        if lowest(rows) < 0 or highest(rows) > last:
            raise IndexError(f"rows from {lowest(rows)} to {highest(rows)}, expected within 0 and {last}")
        return self._codes.take(rows, axis=0)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored vectors of the rows, (rows, k, dimension)."""
        return from_codes(self.codes(rows), self.form)

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """MaxSim of the query's vectors (k, dimension) with those of the rows, float32 (rows,)."""
        return maxsim(query[None], self.read(rows)).ravel()
