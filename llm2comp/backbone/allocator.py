"""What the C library does with freed memory: by default glibc returns it to the system, which costs time on CPUs.

Every layer of a forward pass frees some megabytes that the next layer allocates again. glibc returns them to the
system, which hands them out again page by page, zeroed at first touch: up to a sixth of the time of encoding with a
small model. Imports no torch, so that a command can call it before anything else.
"""

import ctypes
import os
import platform

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from glibc's malloc.h."""

_KEPT_BYTES = 128 * 2**20
"""Freed memory at the top of a heap that is kept."""

_LARGEST_BLOCK = 32 * 2**20
"""Larger blocks, such as weights, are still returned to the system when they are freed; glibc takes no larger value."""


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory for its next forward passes, and reports whether it does.

    Worth 7 to 19 % of the speed of encoding on CPUs with glibc (Linux); elsewhere, and on GPUs, it changes nothing.
    Call it once, at the start of a program that encodes or trains. Each thread in which passes run, one for each core
    up to eight, keeps up to 128 MiB; the setting holds until the process ends. The commands of llm2comp call it; the
    library never does by itself, because the setting belongs to the whole process.

    Do not call it in a server that encodes in many threads of its own: glibc gives each thread a heap, and each of them
    would keep as much.

    Returns:
        True if glibc took the setting. False with another C library, or where the environment already sets these
        thresholds (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`), which then stand.

    Examples:
        >>> import llm2comp
        >>> kept = llm2comp.keep_freed_memory()
        >>> model = llm2comp.load()
    """
    if platform.libc_ver()[0] != "glibc" or _set_by_environment():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def _set_by_environment() -> bool:
    """Whether the user configured malloc through the environment."""
    thresholds = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return any(os.environ.get(name) for name in thresholds) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
