"""One writer at a time: a lock on the index folder that goes with its process, and beside it the owner's process id."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from llm2comp.errors import IndexFolderError

__all__ = ["LOCK_FILES", "sole_writer"]

_LOCK = "LOCK"
_OWNER = "LOCK.pid"
LOCK_FILES = frozenset({_LOCK, _OWNER})
"""Names of the files of a lock; they stay behind, unlocked."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the writer's lock of the index folder. The system frees it when its process ends, however that is.

    Raises:
        IndexFolderError: Another process holds it; the message has its id.
    """
    lock = filelock.FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise IndexFolderError(f"{folder}: being written by process {_owner(folder)}; wait for it, or stop it and run this again") from error
    try:
        (folder / _OWNER).write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return f"{int((folder / _OWNER).read_text()[:20])}"
    except (OSError, ValueError):
        return "(unknown)"
