"""Runs Python code in a child process that a hang ends, with a traceback of where it stood."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_SECONDS = 240
"""Time for importing torch and loading a model on a busy machine."""

_FORKED_SECONDS = 30
_DEFINITIONS = f"""
import faulthandler, os, signal
if hasattr(signal, "alarm"):
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm({_SECONDS})

def in_fork(work):
    "What `work()` says in a forked process; False if it fails or takes over {_FORKED_SECONDS} seconds."
    child = os.fork()
    if not child:
        signal.alarm({_FORKED_SECONDS})
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0
"""


def run_python(
    code: str, *arguments: str | Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Standard output of the code, which must end with status 0 in time; it may use `in_fork`."""
    done = subprocess.run(
        [sys.executable, "-c", _DEFINITIONS + code, *map(os.fspath, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_SECONDS + 10,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
