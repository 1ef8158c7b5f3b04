"""Builds an index with autofaiss.

The Python of an environment with autofaiss runs this file, so it imports nothing of ours: `python peer_autofaiss.py
'{"vectors": DIR, "output": DIR, "memory": 4000000000, "latency_ms": 10.0, "k": 10, "threads": 1}'` prints one JSON
line. Without an argument it prints versions.
"""

import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["build", "versions"]


def versions() -> dict[str, str]:
    """Versions of autofaiss and of what its numbers depend on.

    Imports autofaiss, which fails beside a pyarrow that needs a later numpy than autofaiss pins.
    """
    import autofaiss  # type: ignore[import-not-found,unused-ignore]  # noqa: F401  # of another environment

    return {name: version(name) for name in ("autofaiss", "faiss-cpu", "numpy")}


def build(vectors: str, output: str, memory: int, latency_ms: float, k: int, threads: int) -> dict[str, Any]:
    """What autofaiss chose, and the time, size and peak memory of its build.

    Args:
        vectors: Folder of .npy files.
        output: Folder of the index.
        memory: Target for the index in memory, in bytes.
        latency_ms: Target for a query, in milliseconds.
        k: Number of results per query.
        threads: Number of FAISS threads.
    """
    import autofaiss  # type: ignore[import-not-found,unused-ignore]
    import faiss

    faiss.omp_set_num_threads(threads)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    _, chosen = autofaiss.build_index(
        embeddings=vectors,
        index_path=str(folder / "knn.index"),
        index_infos_path=str(folder / "infos.json"),
        max_index_memory_usage=f"{memory}B",  # its "4G" would be 4 GiB
        current_memory_available=f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')}B",
        max_index_query_time_ms=latency_ms,
        min_nearest_neighbors_to_retrieve=k,
        metric_type="ip",
        nb_cores=threads,
        verbose=30,
    )
    seconds = time.perf_counter() - start
    infos = json.loads((folder / "infos.json").read_text(encoding="utf-8"))
    return {
        "type": infos["index_key"],
        "parameters": infos["index_param"],
        "build_seconds": seconds,
        "bytes": (folder / "knn.index").stat().st_size,
        "peak_bytes": _peak(),
        "versions": versions(),
        "it_measured": {
            name: value for name, value in infos.items() if "recall" in name or "latency" in name or "speed" in name
        },
    }


def _peak() -> int:
    """As `memory.peak_bytes`."""
    if sys.platform.startswith("linux"):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(status["VmHWM"].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    answer = build(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else versions()
    print(json.dumps(answer))  # noqa: T201  # the answer to the parent process
