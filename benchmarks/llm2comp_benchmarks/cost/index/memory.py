"""How the memory of a build grows with the corpus: `index build corpus.jsonl --vectors …` of 100,000 and of a million synthetic documents.

`python -m llm2comp_benchmarks.cost.index.memory WORKDIR benchmarks/results/index-memory.json` measures it; vectors are
kept in WORKDIR, where `llm2comp bench index --workdir WORKDIR --rows 1000000` finds them too.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2comp.atomic import write_output
from llm2comp_benchmarks.cost.index.run import IndexBenchmark, set_name
from llm2comp_benchmarks.cost.worker import THREAD_VARIABLES, found_packages, run_process, watch_process
from llm2comp_benchmarks.results.record import result_record

__all__ = ["measure_memory"]

_JOB = [sys.executable, "-m", "llm2comp_benchmarks.cost.index.jobs"]


def measure_memory(
    workdir: Path,
    *,
    rows: tuple[int, int] = (100_000, 1_000_000),
    types: Sequence[str] = ("flat", "ivf"),
    threads: int = 1,
) -> dict[str, Any]:
    """The record: for each type the peaks of a build of so many documents, and `growth`, what the larger one takes beyond the smaller."""
    start = time.perf_counter()
    entries: dict[str, dict[str, Any]] = {kind: {} for kind in types}
    for count in rows:
        settings = IndexBenchmark(workdir, rows=count, threads=threads)
        folder = workdir / "sets" / set_name(settings)
        asked = {name: getattr(settings, name) for name in ("corpus", "model", "rows", "dimension", "queries", "seed")}
        run_process("prepare vectors", [*_JOB, "prepare", json.dumps({"folder": str(folder), **asked})], threads)
        for kind in types:
            entries[kind][str(count)] = _watch_build(folder, kind, workdir / "indexes" / "memory", threads)
    for entry in entries.values():
        small, large = (entry[str(count)] for count in rows)
        entry["growth"] = {name: large[name] - small[name] for name in small}
    record = result_record(
        [], {"rows": list(rows), "dimension": settings.dimension, "threads": threads}, threads=threads
    )
    record["versions"] |= found_packages()
    return {**entries, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _watch_build(vectors: Path, kind: str, output: Path, threads: int) -> dict[str, int]:
    shutil.rmtree(output, ignore_errors=True)
    arguments = {"vectors": str(vectors), "output": str(output), "options": {"type": kind}, "targets": {}}
    peaks = watch_process(
        [*_JOB, "build_ours", json.dumps(arguments)], {name: str(threads) for name in THREAD_VARIABLES}
    )
    shutil.rmtree(output)
    return peaks


def main() -> None:
    """Measures in the folder named first, writes the file named second."""
    record = measure_memory(Path(sys.argv[1]))
    write_output(sys.argv[2], [json.dumps(record, indent=2), "\n"])


if __name__ == "__main__":
    main()
