"""Separate Python processes of tests: their output and their peak memory."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT


def run_python(*arguments: object, timeout: float = 900) -> str:
    """Output of a Python process with these arguments and one thread; an error unless it ends with code 0."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "indexes")]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=timeout)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"ended with {done.returncode} after {last}: {done.stderr[-3000:]}"
    return done.stdout


def peak_mib() -> int:
    """Peak memory of this process in MiB, since it runs this program.

    `ru_maxrss` is no measure of it on Linux: a process starts with that of the one it was forked from, here that of all
    tests before.
    """
    if sys.platform.startswith("linux"):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1024)
