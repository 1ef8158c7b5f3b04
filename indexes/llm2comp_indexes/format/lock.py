"""One writer at a time: a lock on the index folder that goes with its process, and beside it who the owner is."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from llm2comp.errors import IndexFolderError

__all__ = ["LOCK_FILES", "sole_writer"]

_LOCK = "LOCK"
_OWNER = "LOCK.pid"
_TRIES = 20
_SECONDS_BETWEEN_TRIES = 0.05
LOCK_FILES = frozenset({_LOCK, _OWNER})
"""Names of the files of a lock; they stay behind, unlocked."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the writer's lock of the index folder. The system frees it when its process ends, however that is.

    Raises:
        IndexFolderError: Another process holds it, and the message has its id; or the file system cannot lock.
    """
    lock = filelock.FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise IndexFolderError(
            f"{folder}: being written by {_owner(folder)}; wait for it, or stop it and run this again"
        ) from error
    except NotImplementedError as error:
        raise IndexFolderError(
            f"{folder}: on a file system that cannot lock files, which writing an index needs; move it to another"
        ) from error
    try:
        _write_owner(folder / _OWNER)
        yield
    finally:
        lock.release()


def _write_owner(path: Path) -> None:
    """A new file always: a link of that name may lead out of the index."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
    finally:
        os.close(descriptor)


def _owner(folder: Path) -> str:
    """The process that holds the lock, by its id, and its host if that is another."""
    told = "another process"
    for _ in range(_TRIES):
        with suppress(OSError, ValueError, OverflowError):
            identifier, _, host = (folder / _OWNER).read_text(errors="replace")[:300].partition(" ")
            if host.strip() not in ("", platform.node()):
                return f"process {int(identifier)} on {host.strip()}"
            if _lives(int(identifier)):
                return f"process {int(identifier)}"
            told = f"process {int(identifier)} (not seen from here: it is in a container, or ended while one that it started goes on)"
        time.sleep(_SECONDS_BETWEEN_TRIES)  # the owner may have the lock, and not have told its id yet
    return told


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # there, asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
