"""Size and time of a file, by which a file that was read before is recognised without being read again."""

import time
from os import stat_result
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple, Protocol

from llm2comp.errors import CorpusError

__all__ = ["FileCheck", "Stamp", "find_stamp", "stamp_of"]

_SETTLED_NS = 2_000_000_000
"""Nanoseconds after a change in which another one may leave the time as it is: file systems round up to 2 seconds."""


class Stamp(NamedTuple):
    """Size of a file in bytes, and the time of its last change in nanoseconds."""

    size: int
    modified: int


class FileCheck(Protocol):
    """Tells a reader which files need not be read, and is told which could not be.

    Attributes:
        unchanged: Number of files so far that were not read.
    """

    unchanged: int

    def is_unchanged(self, identifier: str, path: Path) -> bool:
        """Whether the document of this id was made of the file as it is now; the file is then not read."""

    def note_failed(self, identifier: str) -> None:
        """Notes that the file of the document of this id is there, but could not be read."""


def stamp_of(status: stat_result) -> Stamp | None:
    """The stamp of a file read just now; None if it may change once more and keep its stamp, or has none."""
    if not S_ISREG(status.st_mode) or status.st_mtime_ns <= 0:
        return None
    if time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def find_stamp(path: Path) -> Stamp | None:
    """The stamp of the file as it is now; None if it has none."""
    try:
        return stamp_of(path.stat())
    except (OSError, CorpusError):
        return None
