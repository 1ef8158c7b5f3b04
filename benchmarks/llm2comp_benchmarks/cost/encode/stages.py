"""Where the time of our encoding goes: by stage, from strings to a file of vectors, and by operation of PyTorch."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["measure_operations", "measure_stages", "one_thread", "slowest_stage"]

_OPERATIONS = 12


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block PyTorch has one thread, so that no passes run side by side.

    Stages that overlap would add up to more than the whole, and the profiler sees the operations of one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_stages(
    model: Any,
    texts: list[str],
    file: Path,
    encode: Callable[[list[str]], Any],
    finish: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Seconds spent in each stage, measured in a run of its own beside the compared rounds.

    - `tokenise`: strings to ids.
    - `pack`: sorting within a batch, embedding, packing, gathering memory states.
    - `forward`: the backbone's layers.
    - `pool`: pooling and scaling.
    - `rest`: the remainder of `encode`, such as sorting the texts and collecting vectors. Stages that run at the same
      time add up to more than `encode`; then it is 0.
    - `write`: float32 vectors into a file, with fsync.
    - `encode`: everything but `write`.

    Args:
        model: An LLM2Comp model.
        texts: What is encoded.
        file: Where the vectors are written.
        encode: Encodes texts with the model.
        finish: Waits for a GPU, so that its work counts for the stage that caused it.
    """
    encoder, busy = model.encoder, _Busy(finish)
    later = [module for module in model if module is not encoder]
    watched = [
        (encoder, "preprocess"),
        (encoder, "token_ids"),
        (encoder, "forward"),
        (encoder.backbone, "encode"),
        *((module, "forward") for module in later),
    ]
    names = ["preprocess", "token_ids", "states", "forward", *("pool" for _ in later)]
    with ExitStack() as stack:
        for (holder, method), name in zip(watched, names, strict=True):
            stack.enter_context(busy.watch(holder, method, name))
        start = time.perf_counter()
        vectors = encode(texts)
        whole = time.perf_counter() - start
    start = time.perf_counter()
    with file.open("wb") as target:
        np.save(target, np.asarray(vectors, dtype=np.float32))
        target.flush()
        os.fsync(target.fileno())
    written = time.perf_counter() - start
    seconds = busy.seconds
    pack = max(0.0, seconds["preprocess"] - seconds["token_ids"]) + max(0.0, seconds["states"] - seconds["forward"])
    stages = {"tokenise": seconds["token_ids"], "pack": pack, "forward": seconds["forward"], "pool": seconds["pool"]}
    return {"encode": whole, **stages, "rest": max(0.0, whole - sum(stages.values())), "write": written}


def slowest_stage(stages: dict[str, float]) -> str:
    """The stage that took longest, `encode` left out."""
    return max((name for name in stages if name != "encode"), key=stages.__getitem__)


def measure_operations(run: Callable[[], Any], device: str = "cpu") -> dict[str, Any]:
    """`operations`: PyTorch's names of the 12 that took most, each with its share of the time of all operations.

    The time of an operation leaves out the operations it calls. On a GPU the operations are kernels, and `busy` is
    the share of the elapsed time in which one ran; the rest the GPU spent waiting.
    """
    gpu = torch.device(device).type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        start = time.perf_counter()
        run()
        whole = time.perf_counter() - start
    times = {
        event.key: event.self_device_time_total if gpu else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    total = sum(times.values())
    most = sorted(times, key=times.__getitem__, reverse=True)[:_OPERATIONS]
    operations = {name: round(times[name] / total, 4) for name in most}
    return {"operations": operations, **({"busy": round(total / 1e6 / whole, 4)} if gpu else {})}


class _Busy:
    """Seconds spent in methods, by the name of a stage; a method that runs in two threads at once counts twice."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, holder: Any, method: str, name: str) -> Iterator[None]:
        """Adds the time of calls of an object's method to the stage `name`."""
        original = getattr(holder, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                result = original(*args, **kwargs)
                self._finish()
                return result
            finally:
                with self._lock:
                    self.seconds[name] += time.perf_counter() - start

        setattr(holder, method, timed)
        try:
            yield
        finally:
            delattr(holder, method)
