"""Where the rows of a segment came from: the source of each and, of files, size and time when they were read.

A file of numbers: of all rows the source (u32), then, if any row has a stamp, all sizes (u64) and all times (i64).
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.files.stamp import Stamp
from llm2comp_indexes.format.files import FileRecord, HashedFile

__all__ = ["ORIGIN_BYTES", "UNKNOWN", "Origin", "OriginWriter", "Origins", "read_origins", "write_origins"]

ORIGIN_BYTES = (4, 20)
"""Bytes of the file for each row: without stamps, and with them."""
UNKNOWN = (1 << 32) - 1
"""In place of a source: none is recorded."""
_BLOCK = 1 << 16
_NO_STAMP = Stamp(0, 0)


class Origin(NamedTuple):
    """Where a row came from.

    Attributes:
        source: Place of its source in the list of the manifest.
        stamp: Of the file that it was read from; None: it was no file of one document, or has to be read again.
    """

    source: int = UNKNOWN
    stamp: Stamp | None = None


@dataclass
class Origins:
    """Origins of all rows of a segment, each array (rows,).

    Attributes:
        sources: Place of the source in the list of the manifest, or UNKNOWN.
        sizes: Size of the file in bytes; 0 without a stamp.
        times: Time of the last change of the file in nanoseconds; 0 without a stamp.
    """

    sources: NDArray[np.uint32]
    sizes: NDArray[np.uint64]
    times: NDArray[np.int64]

    @classmethod
    def unknown(cls, rows: int) -> Self:
        """Origins of which nothing is recorded."""
        return cls(np.full(rows, UNKNOWN, np.uint32), np.zeros(rows, np.uint64), np.zeros(rows, np.int64))

    def __getitem__(self, row: int) -> Origin:
        stamp = Stamp(int(self.sizes[row]), int(self.times[row])) if self.times[row] else None
        return Origin(int(self.sources[row]), stamp)

    def set(self, rows: Sequence[int], origin: Origin) -> bool:
        """Records the origin of the rows of a document; whether it was another one."""
        if self[rows[0]] == origin:
            return False
        size, modified = origin.stamp or (0, 0)
        self.sources[rows], self.sizes[rows], self.times[rows] = origin.source, size, modified
        return True


class OriginWriter:
    """Collects the origins of the rows of a new segment: 4 bytes of memory a row, 20 if there are stamps."""

    def __init__(self) -> None:
        self._sources, self._sizes, self._times = array("I"), array("Q"), array("q")
        self._given = self._stamped = False

    def add(self, origins: Sequence[Origin], rows: int) -> None:
        """Appends the origins of the next rows; an empty list: nothing is recorded of them, as of unknown sources."""
        self._given = self._given or any(origin.source != UNKNOWN for origin in origins)
        self._sources.extend([origin.source for origin in origins] or [UNKNOWN] * rows)
        if not self._stamped and not any(origin.stamp for origin in origins):
            return
        self._stamped = True
        missing = len(self._sources) - rows - len(self._sizes)  # rows before the first stamp
        stamps = [origin.stamp or _NO_STAMP for origin in origins] or [_NO_STAMP] * rows
        self._sizes.extend([0] * missing + [stamp.size for stamp in stamps])
        self._times.extend([0] * missing + [stamp.modified for stamp in stamps])

    def write(self, path: Path) -> FileRecord | None:
        """Record of the new file; None if nothing is recorded."""
        if not self._given:
            return None
        origins = Origins.unknown(len(self._sources))
        origins.sources[:] = self._sources
        if self._stamped:
            origins.sizes[:], origins.times[:] = self._sizes, self._times
        return write_origins(path, origins)


def write_origins(path: Path, origins: Origins) -> FileRecord:
    """Record of the new file, which is on the device."""
    path.unlink(missing_ok=True)  # left by a killed run
    with HashedFile(path) as file:
        for block in _to_blocks(origins):
            file.write(block)
        return file.finish()


def _to_blocks(origins: Origins) -> Iterator[bytes]:
    columns: list[NDArray[np.generic]] = [origins.sources.astype("<u4")]
    if origins.times.any():
        columns += [origins.sizes.astype("<u8"), origins.times.astype("<i8")]
    for column in columns:
        for first in range(0, len(column), _BLOCK):
            yield column[first : first + _BLOCK].tobytes()


def read_origins(path: Path, rows: int) -> Origins:
    """The origins in a file of `ORIGIN_BYTES` a row, whose size was checked."""
    content = path.read_bytes()
    sources = np.frombuffer(content, "<u4", rows).astype(np.uint32)
    if len(content) == ORIGIN_BYTES[0] * rows:
        return Origins(sources, np.zeros(rows, np.uint64), np.zeros(rows, np.int64))
    sizes = np.frombuffer(content, "<u8", rows, 4 * rows).astype(np.uint64)
    return Origins(sources, sizes, np.frombuffer(content, "<i8", rows, 12 * rows).astype(np.int64))
