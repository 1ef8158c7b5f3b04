"""The encoder without a server, in a process of its own: full batches, and one query at a time."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2comp_benchmarks.cost.models import PARTS
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.text_kinds import text_name
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["open_encoder"]


def open_encoder(folder: str, dtype: str, threads: int) -> tuple[dict[str, Any], Mapping[str, Job]]:
    """The jobs of a process that has loaded our model: `encode` and `queries`."""
    import torch

    import llm2comp

    torch.set_num_threads(threads)
    llm2comp.keep_freed_memory()
    model = llm2comp.load(str(Path(folder) / PARTS["ours"]), device="cpu", dtype=dtype)

    def texts_of(kind: str) -> list[str]:
        texts: list[str] = json.loads((Path(folder) / f"{text_name(kind)}.json").read_text(encoding="utf-8"))
        return texts

    def encode(kind: str) -> dict[str, Any]:
        """All texts of a kind at once."""
        texts, start, cpu = texts_of(kind), time.perf_counter(), time.process_time()
        model.encode(texts, show_progress_bar=False)
        seconds = time.perf_counter() - start
        return {"texts": len(texts), "seconds": seconds, "cpu_seconds": time.process_time() - cpu}

    def queries(kind: str, seconds: float) -> dict[str, Any]:
        """The texts of a kind as queries, one at a time, for some seconds."""
        latencies: list[float] = []
        texts, begin, cpu = texts_of(kind), time.perf_counter(), time.process_time()
        while (start := time.perf_counter()) < begin + seconds:
            model.encode_query(texts[len(latencies) % len(texts)], show_progress_bar=False)
            latencies.append(time.perf_counter() - start)
        took = time.perf_counter() - begin
        return {"latencies": latencies, "seconds": took, "cpu_seconds": time.process_time() - cpu}

    return {}, {"encode": encode, "queries": queries}


if __name__ == "__main__":
    serve(lambda: open_encoder(**json.loads(sys.argv[1])))
