"""Forward passes side by side on the cores of a CPU, each on few threads of PyTorch.

Threads that share one pass wait for one another at the end of every operation. Passes that have a core each do not, and
they share one copy of the weights.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from llm2comp.fork import run_after_fork

__all__ = ["MOST_PASSES", "passes_at_once", "passes_beside", "run_passes"]

MOST_PASSES = 8
"""Passes that run side by side at most, so that their memory does not grow with the number of cores."""

_T = TypeVar("_T")
_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_worker = threading.local()


def passes_at_once(device: torch.device) -> int:
    """Number of passes that run side by side on a device: one for each of PyTorch's threads, up to `MOST_PASSES`."""
    return min(torch.get_num_threads(), MOST_PASSES) if device.type == "cpu" else 1


def passes_beside() -> int:
    """Number of passes that run side by side in the pool of the calling thread, this one included; 1 outside of one."""
    return getattr(_worker, "passes", 1)


def run_passes(passes: Sequence[Callable[[], _T]], at_once: int) -> list[_T]:
    """Results of forward passes without gradients, in order.

    Args:
        passes: Called once each, in this order, in threads that have the calling thread's inference mode and autocast.
        at_once: Number of passes that run side by side; they divide the calling thread's threads of PyTorch.

    Raises:
        Exception: Of the first pass that failed; passes that have not begun are then left out.
    """
    if at_once == 1 or len(passes) == 1:
        return [run() for run in passes]
    pool = _pool(at_once, max(1, torch.get_num_threads() // at_once))
    modes = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run_alike(run: Callable[[], _T]) -> _T:
        inference, autocast, dtype = modes
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
            return run()

    futures = [pool.submit(run_alike, run) for run in passes]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()


def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """The process's pool of `workers` threads with `threads` threads of PyTorch each."""
    with _lock:
        if (workers, threads) not in _pools:
            _pools[workers, threads] = _new_pool(workers, threads)
        return _pools[workers, threads]


def _new_pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """A pool whose threads have begun.

    PyTorch's setting holds for the thread that calls it, and for threads that ask for it the first time later; so it
    is set in each worker, after it has been asked for there, and then set back for others.
    """

    def set_threads() -> None:
        torch.get_num_threads()
        torch.set_num_threads(threads)
        _worker.passes = workers

    before, begun = torch.get_num_threads(), threading.Barrier(workers + 1)
    pool = ThreadPoolExecutor(workers, "llm2comp-pass", set_threads)
    for _ in range(workers):
        pool.submit(begun.wait)
    begun.wait()
    torch.set_num_threads(before)
    return pool


def _forget_pools() -> None:
    """Leaves the threads behind that a fork did not copy."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


run_after_fork(_forget_pools)
