"""Peak memory of a process, for tests that measure it in a separate process."""

import resource
import sys
from pathlib import Path


def peak_mib() -> int:
    """Peak memory of this process in MiB, since it runs this program.

    `ru_maxrss` is no measure of it on Linux: a process starts with that of the one it was forked from, here that of all
    tests before.
    """
    if sys.platform.startswith("linux"):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1024)
