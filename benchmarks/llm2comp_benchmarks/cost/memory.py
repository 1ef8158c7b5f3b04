"""Memory of a process, as the operating system counts it."""

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

__all__ = ["memory_of", "peak_bytes", "reset_peak"]

_FIELDS = ("VmRSS", "VmHWM", "RssAnon")


def peak_bytes() -> int:
    """Peak resident memory of this process since it began or since `reset_peak`, in bytes.

    Pages of mapped files count while they are resident.
    """
    if sys.platform.startswith("linux"):  # where ru_maxrss begins with that of the process it was forked from
        return memory_of("self")["VmHWM"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> int:
    """Resets the peak of `peak_bytes` where the system can (Linux); returns the memory in use now, in bytes."""
    if not sys.platform.startswith("linux"):
        return peak_bytes()
    with suppress(OSError):  # a container may forbid it: then the peak includes that of loading
        Path("/proc/self/clear_refs").write_text("5")
    return memory_of("self")["VmRSS"]


def memory_of(process: int | Literal["self"]) -> dict[str, int]:
    """Memory of a process in bytes, by Linux's names; empty once the process has ended.

    `VmRSS` is what it holds now, `VmHWM` its peak, `RssAnon` what it holds now without pages of mapped files.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(fields[name].split()[0]) for name in _FIELDS if name in fields}
