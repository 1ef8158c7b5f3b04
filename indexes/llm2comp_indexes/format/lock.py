"""The writer's lock of an index folder, which ends with its process, and a file that names its owner."""

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
"""Names of the files of a lock. They are not removed when it is released."""


@contextmanager
def sole_writer(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Holds the writer's lock of the index folder. The system releases it when the process ends, even if killed.

    Args:
        folder: Folder of the index.
        wait: Seconds to wait for another writer to finish.

    Raises:
        IndexFolderError: Another process holds it (the message has its id), or the file system cannot lock files.
    """
    lock = filelock.FileLock(folder / _LOCK, timeout=wait, poll_interval=_SECONDS_BETWEEN_TRIES / 10)
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
    """Writes the owner's process id and host. The file is always new, since a link could lead out of the index."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
    finally:
        os.close(descriptor)


def _owner(folder: Path) -> str:
    """The process that holds the lock, for messages: its id, and its host if that is another."""
    owner = "another process"
    for _ in range(_TRIES):
        with suppress(OSError, ValueError, OverflowError):
            identifier, _, host = (folder / _OWNER).read_text(errors="replace")[:300].partition(" ")
            if host.strip() not in ("", platform.node()):
                return f"process {int(identifier)} on {host.strip()}"
            if _lives(int(identifier)):
                return f"process {int(identifier)}"
            owner = (
                f"process {int(identifier)} (not visible from here: it runs in a container, or it ended and a process "
                "that it started goes on)"
            )
        time.sleep(_SECONDS_BETWEEN_TRIES)  # the owner may hold the lock without having written its id yet
    return owner


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere os.kill(…, 0) would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True
