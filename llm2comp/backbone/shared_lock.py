"""A lock that many threads hold together, or one thread alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from llm2comp.fork import run_after_fork

__all__ = ["SharedLock"]

_locks: "WeakSet[SharedLock]" = WeakSet()


class SharedLock:
    """A readers–writer lock; a thread that waits to hold it alone goes before those that come later. Not reentrant.

    In a forked process it is held by the thread that forked, if that held it, and not by threads that are not there.
    A copy is a new lock, held by nobody.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing: list[int] = []  # identifiers of threads
        self._waiting = 0
        self._alone: int | None = None
        _locks.add(self)

    def __reduce__(self) -> tuple[type["SharedLock"], tuple[()]]:
        return SharedLock, ()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Holds the lock with any number of other threads, and with none that holds it alone."""
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not (self._alone or self._waiting))
            self._sharing.append(thread)
        try:
            yield
        finally:
            with self._changed:
                self._sharing.remove(thread)
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the lock while no other thread does."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not (self._alone or self._sharing))
                self._alone = threading.get_ident()
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = None
                self._changed.notify_all()

    def _keep_this_thread(self) -> None:
        """Forgets the threads that a fork left behind."""
        thread = threading.get_ident()
        self._changed = threading.Condition()
        self._sharing = [holder for holder in self._sharing if holder == thread]
        self._waiting = 0
        self._alone = thread if self._alone == thread else None


def _keep_this_thread() -> None:
    for lock in _locks:
        lock._keep_this_thread()


run_after_fork(_keep_this_thread)
