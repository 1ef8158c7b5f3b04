"""What becomes of freed memory on CPUs: on Linux with glibc, a process that encodes or trains in its main thread keeps up to 128 MiB of it.

Every layer of a forward pass frees some megabytes that the next one asks for again. By itself glibc hands them back to
the system, which gives them again page by page, zeroed, at first touch: up to a sixth of the time of encoding with a
small model. The peak of memory stays what it is. Other threads have heaps of their own, which would each keep as much,
in a server dozens of them; so the first pass in another thread ends it.
"""

import ctypes
import os
import platform
import threading

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""

_KEPT = 128 * 2**20
_LARGEST = 32 * 2**20
"""Larger pieces, such as weights, go back to the system by themselves when freed. glibc takes no larger number."""

_KEPT_BY_A_THREAD, _LARGEST_OF_A_THREAD = 8 * 2**20, 4 * 2**20
"""About what glibc arrives at by itself, which cannot be asked for again once it has been told something."""

_lock = threading.Lock()
_kept: bool | None = None
"""Whether glibc has been told to keep memory; None before the first pass. Once it is False, it stays so."""


def keep_freed_memory() -> bool:
    """Tells glibc before the first pass in the main thread to keep freed memory, and before the first one in another thread to keep none any more.

    Returns:
        Whether memory is kept: not where another C library runs, nor where the environment sets these thresholds itself
        (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
    """
    global _kept
    wanted = threading.current_thread() is threading.main_thread()
    if _kept is False or _kept is wanted:
        return _kept
    with _lock:
        if wanted:
            _kept = _kept is None and _set_limits(_LARGEST, _KEPT)
        else:
            if _kept:
                _set_limits(_LARGEST_OF_A_THREAD, _KEPT_BY_A_THREAD)
            _kept = False
        return _kept


def _set_limits(largest: int, kept: int) -> bool:
    """Whether it is glibc that runs, nobody else has told it anything, and it took what it was told."""
    own = any(os.environ.get(name) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"))
    if platform.libc_ver()[0] != "glibc" or own or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, largest)) and bool(mallopt(_M_TRIM_THRESHOLD, kept))
