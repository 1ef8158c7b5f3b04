"""What becomes of freed memory on CPUs: on Linux with glibc, the process keeps up to 128 MiB of it.

Every layer of a forward pass frees some megabytes that the next one asks for again. By itself glibc hands them back to the system, which gives them
again page by page, zeroed, at first touch: a sixth of the time of encoding with a small model. The peak of memory stays what it is.
"""

import ctypes
import os
import platform
from collections.abc import Mapping
from functools import cache

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""

_KEPT = 128 * 2**20
_LARGEST = 32 * 2**20
"""Larger pieces, such as weights, go back to the system by themselves when freed. glibc takes no larger number."""


@cache
def keep_freed_memory() -> bool:
    """Tells glibc to keep up to 128 MiB of freed memory; the first call decides for the process.

    Returns:
        Whether it was told: not where another C library runs, nor where the environment sets these thresholds itself (`MALLOC_TRIM_THRESHOLD_`,
        `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
    """
    if platform.libc_ver()[0] != "glibc" or _set_by_user(os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))


def _set_by_user(environment: Mapping[str, str]) -> bool:
    own = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return any(environment.get(name) for name in own) or "glibc.malloc." in environment.get("GLIBC_TUNABLES", "")
