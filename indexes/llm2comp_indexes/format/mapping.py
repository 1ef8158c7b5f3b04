"""Files mapped into memory instead of read.

Small files are read: a mapping keeps its file open, and an index of many small segments would need many open files.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm2comp.errors import IndexFolderError

__all__ = ["Bytes", "limit_explained", "map_file"]

Bytes = mmap.mmap | bytes
"""Content of a file: slices are bytes, and numpy and Arrow use it without a copy."""

_READ_UP_TO = 1 << 16
"""Size in bytes up to which files are read. Python holds a descriptor for each mapping, of 1,024 (macOS: 256)."""


def map_file(path: Path) -> Bytes:
    """The bytes of the file. They stay readable if it is removed later.

    Raises:
        IndexFolderError: The process has too many files open.
        OSError: It is missing, or cannot be read.
    """
    with limit_explained(), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= _READ_UP_TO:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def limit_explained() -> Iterator[None]:
    """Turns the system's limit on open files into an IndexFolderError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise IndexFolderError(
            f"{error.filename}: {error.strerror}; an index opens several files a segment: merge its segments "
            "(llm2comp index merge) or raise the limit (ulimit -n)"
        ) from error
