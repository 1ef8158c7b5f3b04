"""Native threads in forked processes: they do not survive a fork, and work shared with them would wait forever.

OpenMP, under PyTorch and FAISS, keeps its threads between parallel regions. A forked process has a record of them and
none of the threads. Restricted to one thread, a library never looks for the others.
"""

import ctypes
import os
from collections.abc import Callable

__all__ = ["is_forked", "never_free", "run_after_fork", "use_one_thread_after_fork"]

_forked = False


def is_forked() -> bool:
    """Whether this process was forked after this module was imported; one that was started anew (spawn) was not."""
    return _forked


def use_one_thread_after_fork(set_threads: Callable[[int], object]) -> None:
    """Has every process forked from now on call `set_threads(1)` first, where the system forks.

    Args:
        set_threads: Sets the number of threads of a library for the calling thread, such as `torch.set_num_threads`.
    """
    run_after_fork(lambda: set_threads(1))


def run_after_fork(work: Callable[[], object]) -> None:
    """Has every process forked from now on call `work` first, where the system forks."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which never forks
        os.register_at_fork(after_in_child=work)


def never_free(value: object) -> None:
    """Keeps a value as long as the process lives, and when it ends.

    For a forked process, in which freeing what the parent's threads work on would wait for these threads.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _note_fork() -> None:
    global _forked
    _forked = True


run_after_fork(_note_fork)
