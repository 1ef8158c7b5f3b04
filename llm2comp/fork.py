"""Native threads in forked processes: they do not survive a fork, and work shared with them would wait forever.

OpenMP, under PyTorch and FAISS, keeps its threads between parallel regions. A forked process has a record of them and
none of the threads. Restricted to one thread, a library never looks for the others. `llm2comp` imports this module
first, so that libraries are restricted that the process used before it.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable

__all__ = ["is_forked", "never_free", "run_after_fork"]

_SET_THREADS = {"torch": "set_num_threads", "faiss": "omp_set_num_threads"}
_forked = False


def is_forked() -> bool:
    """Whether this process was forked with Python running; one that was started anew (spawn) was not."""
    return _forked


def run_after_fork(work: Callable[[], object]) -> None:
    """Has every process forked from now on call `work` first, where the system forks."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which never forks
        os.register_at_fork(after_in_child=work)


def never_free(value: object) -> None:
    """Keeps a value as long as the process lives, and when it ends.

    For a forked process, in which freeing what the parent's threads work on would wait for these threads.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _use_one_thread() -> None:
    """Restricts the libraries that the parent had imported, whose threads it may have started."""
    global _forked
    _forked = True
    for name, function in _SET_THREADS.items():
        set_threads = getattr(sys.modules.get(name), function, None)  # None while another thread imports it
        if set_threads is not None:
            set_threads(1)


def _was_forked() -> bool:
    """Whether the process was forked before this module was imported, as far as Python shows it.

    It notes the number of its main thread at its start, and in 3.11 keeps that of the parent's.
    """
    tasks = "/proc/self/task"  # of Linux: a folder for each thread of this process
    return os.path.isdir(tasks) and not os.path.isdir(f"{tasks}/{threading.main_thread().native_id}")


run_after_fork(_use_one_thread)
if _was_forked():
    _use_one_thread()
