"""A file's bytes without reading them: mapped, but for small files, so that an index of many small segments needs few open files."""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm2comp.errors import IndexFolderError

__all__ = ["Bytes", "limit_explained", "map_file"]

Bytes = mmap.mmap | bytes
"""Slices are bytes, and numpy and Arrow read it where it lies."""

_READ_UP_TO = 1 << 16
"""Bytes that are rather read than mapped: a mapping keeps a file open (Python holds its descriptor), and a process may open 1,024 (macOS: 256)."""


def map_file(path: Path) -> Bytes:
    """The bytes of the file, as they are now: it may be removed meanwhile.

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
    """Says in words that too many files are open."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise IndexFolderError(
            f"{error.filename}: {error.strerror}; an index opens several a segment: llm2comp index merge makes one of "
            "all, or raise the limit (ulimit -n)"
        ) from error
