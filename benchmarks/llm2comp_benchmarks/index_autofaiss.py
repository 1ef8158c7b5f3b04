"""Builds an index with autofaiss. Run as a script by the Python of an environment that has autofaiss, so it imports nothing of ours.

`python index_autofaiss.py '{"vectors": DIR, "output": DIR, "memory": "4G", "latency_ms": 10.0, "k": 10, "threads": 1}'` prints one JSON line.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["build"]


def build(vectors: str, output: str, memory: str, latency_ms: float, k: int, threads: int) -> dict[str, Any]:
    """What autofaiss chose and how long it took, for vectors in a folder of .npy files and the wishes memory and latency."""
    import autofaiss  # type: ignore[import-not-found,unused-ignore]  # of another environment
    import faiss

    faiss.omp_set_num_threads(threads)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    _, chosen = autofaiss.build_index(
        embeddings=vectors,
        index_path=str(folder / "knn.index"),
        index_infos_path=str(folder / "infos.json"),
        max_index_memory_usage=memory,
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
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {name: version(name) for name in ("autofaiss", "faiss-cpu", "numpy")},
        "it_measured": {name: value for name, value in infos.items() if "recall" in name or "latency" in name or "speed" in name},
    }


if __name__ == "__main__":
    print(json.dumps(build(**json.loads(sys.argv[1]))))  # noqa: T201  # the answer to the parent process
