"""How the memory of an index build grows with the corpus, from 100,000 to a million synthetic documents.

`python -m llm2comp_benchmarks.cost.index.memory WORKDIR benchmarks/results/index-memory.json` measures builds of
`index build corpus.jsonl --vectors …`; vectors are kept in WORKDIR, where `llm2comp bench index --workdir WORKDIR
--rows 1000000` finds them too.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2comp.atomic import write_output
from llm2comp_benchmarks.cost.index.run import JOBS, IndexBenchmark, prepare_vectors
from llm2comp_benchmarks.cost.processes import module_command, thread_limits, watch_process
from llm2comp_benchmarks.cost.versions import index_versions
from llm2comp_benchmarks.results.record import result_record

__all__ = ["measure_memory"]


def measure_memory(
    workdir: Path,
    *,
    rows: tuple[int, int] = (100_000, 1_000_000),
    types: Sequence[str] = ("flat", "ivf"),
    threads: int = 1,
) -> dict[str, Any]:
    """The record: for each type peak memory in bytes of the builds, and `growth`, the larger minus the smaller.

    Args:
        workdir: Folder for vectors, which are kept, and indexes, which are removed.
        rows: Numbers of documents, the smaller first.
        types: Index types.
        threads: In every process.
    """
    start = time.perf_counter()
    entries: dict[str, dict[str, Any]] = {kind: {} for kind in types}
    for count in rows:
        settings = IndexBenchmark(workdir, rows=count, threads=threads)
        vectors = prepare_vectors(settings)["folder"]
        for kind in types:
            entries[kind][str(count)] = _watch_build(vectors, kind, workdir / "indexes" / "memory", threads)
    for entry in entries.values():
        small, large = (entry[str(count)] for count in rows)
        entry["growth"] = {name: large[name] - small[name] for name in small}
    described = {"rows": list(rows), "dimension": settings.dimension, "threads": threads}
    record = result_record([], described, threads=threads)
    record["versions"] |= index_versions()
    return {**entries, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _watch_build(vectors: str, kind: str, output: Path, threads: int) -> dict[str, int]:
    shutil.rmtree(output, ignore_errors=True)
    options = {"options": {"type": kind}, "targets": {}}
    command = module_command(JOBS, "build_ours", vectors=vectors, output=str(output), **options)
    peaks = watch_process(command, thread_limits(threads))
    shutil.rmtree(output)
    return peaks


def main() -> None:
    """Measures; arguments: the working folder and the result file."""
    record = measure_memory(Path(sys.argv[1]))
    write_output(sys.argv[2], [json.dumps(record, indent=2), "\n"])


if __name__ == "__main__":
    main()
