"""Rows by document id: a mapped file of sorted 64-bit hashes and the row of each, 12 bytes a row."""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.format.mapping import map_file

__all__ = ["ID_BYTES", "IdTable", "IdTableWriter"]

ID_BYTES = 12
"""Bytes in the table for each row."""


def _hash(identifier: str) -> int:
    return int.from_bytes(blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class IdTableWriter:
    """Collects the document ids of rows in order, with 8 bytes of memory a row."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, identifiers: Iterable[str]) -> None:
        """Appends the document ids of the next rows."""
        self._hashes.extend(map(_hash, identifiers))

    def write(self, path: Path) -> FileRecord:
        """Record of the new file: all hashes ascending (u64), then the row of each (u32)."""
        hashes = np.frombuffer(self._hashes, np.uint64) if self._hashes else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        with HashedFile(path) as file:
            file.write(hashes[order].astype("<u8").tobytes())
            file.write(order.astype("<u4").tobytes())
            return file.finish()


class IdTable:
    """The mapped table. It finds rows whose id has the same hash: the caller must compare the id itself."""

    def __init__(self, path: Path, rows: int) -> None:
        content = map_file(path)
        if len(content) != ID_BYTES * rows:
            raise IndexFolderError(
                f"{path}: {len(content):,} bytes, expected {ID_BYTES * rows:,}; the file was cut or altered: build "
                "the index again"
            )
        self._hashes: NDArray[np.uint64] = np.frombuffer(content, "<u8", rows)
        self._rows: NDArray[np.uint32] = np.frombuffer(content, "<u4", rows, 8 * rows)

    def find(self, identifiers: Sequence[str]) -> list[NDArray[np.int64]]:
        """Rows that may have each id, ascending.

        Rows beyond the segment, which only an altered table has, are left out.
        """
        hashes = np.array([_hash(identifier) for identifier in identifiers], dtype=np.uint64)
        first, last = np.searchsorted(self._hashes, hashes, "left"), np.searchsorted(self._hashes, hashes, "right")
        if (last - first > 1).any():
            matches = (np.sort(self._rows[start:end].astype(np.int64)) for start, end in zip(first, last, strict=True))
            return [rows[rows < len(self._rows)] for rows in matches]
        # At most one row for each id: all of them at once takes a tenth of the time.
        owners = np.flatnonzero(last > first)
        rows = self._rows[first[owners]].astype(np.int64)
        owners, rows = owners[rows < len(self._rows)], rows[rows < len(self._rows)]
        ends = np.searchsorted(owners, np.arange(len(identifiers)), side="right").tolist()
        return [rows[start:end] for start, end in pairwise([0, *ends])]
