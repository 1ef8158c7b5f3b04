"""The parts of an index benchmark that each run in a process of their own, with their own time and memory."""

import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp_benchmarks.cost.index.data import VectorSet, encode_corpus, open_set, write_synthetic
from llm2comp_benchmarks.cost.index.reading import measure_reading
from llm2comp_benchmarks.cost.index.search import compare_searches, find_equal_effort
from llm2comp_benchmarks.cost.memory import peak_bytes
from llm2comp_benchmarks.cost.processes import Job, answer_once

__all__ = ["JOBS", "build_faiss", "build_ours", "equal_effort", "open_faiss", "open_ours", "store_vectors"]

_BLOCK = 8192  # vectors added at once
_PROBES = 100  # queries after opening, before memory is read
_FEW = 20  # queries, where a build's recall does not matter


def prepare(
    folder: str, corpus: str | None, model: str | None, rows: int, dimension: int, queries: int, seed: int
) -> dict[str, Any]:
    """The set of vectors in the folder, made unless an earlier run with the same model left it there."""
    target = Path(folder)
    content = open_set(target)
    if corpus is not None:
        import llm2comp

        loaded = llm2comp.load(model) if model else llm2comp.load()
        if content is None or content.fingerprint != loaded.fingerprint:
            content = encode_corpus(target, corpus, loaded, queries=queries, seed=seed)
    elif content is None:
        content = write_synthetic(target, rows, dimension, queries=queries, seed=seed)
    return {**asdict(content), "folder": str(content.folder)}


def _opened(folder: str) -> VectorSet:
    content = open_set(Path(folder))
    assert content is not None, f"{folder}: no vectors were prepared there"
    return content


def build_ours(vectors: str, output: str, options: dict[str, Any], targets: dict[str, Any]) -> dict[str, Any]:
    """Builds an index as `index build documents.jsonl --vectors … --ids … --queries …` does; returns its numbers.

    `build_seconds` is the whole time; `phases` has its parts: `write` (read, write, hash, sync and commit documents and
    vectors), `choose`, `structure` (train, fill, save), `measure` (the recall-latency curve).
    """
    from llm2comp_indexes import IndexOptions, Targets
    from llm2comp_indexes.builder.from_vectors import VectorFiles, build_from_vectors
    from llm2comp_indexes.format.manifest import read_manifest
    from llm2comp_indexes.format.segment import Names

    source = _opened(vectors)
    files = VectorFiles([source.vectors], ids=source.folder / "ids.txt", queries=source.folder / "tuning.npy")
    index_options = IndexOptions(**options, targets=Targets(**targets))
    start = time.perf_counter()
    report = build_from_vectors(
        files, output, corpora=[source.folder / "documents.jsonl"], options=index_options, device="cpu"
    ).measured
    seconds = time.perf_counter() - start
    phases = {name: duration for name, duration in report.seconds.items() if name in ("choose", "structure", "measure")}
    [segment] = read_manifest(Path(output)).segments
    sizes = {name: record.bytes for name, record in segment.files.items()}
    return {
        "type": segment.type,
        "effort": asdict(report.point.effort),
        "build_seconds": seconds,
        "phases": {"write": seconds - sum(phases.values()), **phases},
        "bytes": sum(sizes.values()),
        "vector_bytes": sizes[Names.VECTORS] + sizes.get(Names.STRUCTURE, 0),
        "estimated_memory": report.memory,
        "peak_bytes": peak_bytes(),
        "met": report.met,
        "promised_recall": report.point.recall,
        "reason": report.reason,
    }


def store_vectors(vectors: str, output: str) -> dict[str, Any]:
    """Seconds to store vectors and ids alone: the part of a build that depends on neither type nor documents."""
    from llm2comp_indexes import IndexOptions
    from llm2comp_indexes.builder.from_vectors import VectorFiles, build_from_vectors

    source, target = _opened(vectors), Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    few = target.with_name(f"{target.name}.npy")
    np.save(few, source.load("tuning")[:_FEW])
    start = time.perf_counter()
    report = build_from_vectors(
        VectorFiles([source.vectors], ids=source.folder / "ids.txt", queries=few),
        output,
        options=IndexOptions(type="flat"),
    )
    seconds = time.perf_counter() - start - report.measured.seconds["measure"]
    shutil.rmtree(target)
    few.unlink()
    return {"seconds": seconds}


def build_faiss(
    vectors: str, output: str, factory: str, trained_on: int, ef_construction: int | None
) -> dict[str, Any]:
    """Builds an index of the same type by plain FAISS: map vectors, train on a random sample, add in blocks, write.

    The training sample has as many rows as ours, and a graph is built with as much effort; everything else is FAISS's
    default.
    """
    import faiss

    source = _opened(vectors)
    start = time.perf_counter()
    mapped = source.map_vectors()
    index: Any = faiss.index_factory(source.dimension, factory, faiss.METRIC_INNER_PRODUCT)
    if ef_construction:
        index.hnsw.efConstruction = ef_construction
    marks = [time.perf_counter()]
    if not index.is_trained:
        sample = np.array(
            mapped[np.sort(np.random.default_rng(0).choice(len(mapped), min(trained_on, len(mapped)), replace=False))]
        )
        index.train(sample)
        del sample
    marks.append(time.perf_counter())
    for first in range(0, len(mapped), _BLOCK):
        index.add(np.ascontiguousarray(mapped[first : first + _BLOCK]))
    marks.append(time.perf_counter())
    Path(output).mkdir(parents=True, exist_ok=True)
    file = Path(output) / "faiss.index"
    faiss.write_index(index, str(file))
    marks.append(time.perf_counter())
    phases = dict(zip(("train", "add", "write"), np.diff(marks).tolist(), strict=True))
    return {
        "type": factory,
        "build_seconds": marks[-1] - start,
        "phases": phases,
        "bytes": file.stat().st_size,
        "peak_bytes": peak_bytes(),
    }


def open_ours(folder: str, vectors: str) -> dict[str, Any]:
    """Seconds to open the index and to its first answer; peak memory after 100 more queries."""
    from llm2comp_indexes import open_index
    from llm2comp_indexes.faiss_module import import_faiss

    import_faiss()
    queries = _opened(vectors).load("queries")
    start = time.perf_counter()
    index = open_index(folder)
    opened = time.perf_counter() - start
    index.search_vectors(queries[:1], 10)
    first = time.perf_counter() - start
    for query in queries[:_PROBES]:
        index.search_vectors(query[None], 10)
    return {"open_seconds": opened, "first_answer_seconds": first, "search_peak_bytes": peak_bytes()}


def open_faiss(file: str, vectors: str) -> dict[str, Any]:
    """As `open_ours`, for an index of plain FAISS or autofaiss."""
    import faiss

    queries = _opened(vectors).load("queries")
    start = time.perf_counter()
    index = faiss.read_index(file)
    opened = time.perf_counter() - start
    index.search(queries[:1], 10)
    first = time.perf_counter() - start
    for query in queries[:_PROBES]:
        index.search(query[None], 10)
    return {"open_seconds": opened, "first_answer_seconds": first, "search_peak_bytes": peak_bytes()}


def compare(vectors: str, ours: dict[str, Any], plain: dict[str, Any], k: int, rounds: int) -> dict[str, Any]:
    """Recall and latency of several indexes, searched in turn; see `compare_searches`."""
    return compare_searches(_opened(vectors), ours, plain, k=k, rounds=rounds)


def equal_effort(vectors: str, folder: str, plain: dict[str, Any], k: int) -> dict[str, Any]:
    """The highest effort at which our index is no slower than the other one; see `find_equal_effort`."""
    return asdict(find_equal_effort(_opened(vectors), Path(folder), plain, k=k))


JOBS: dict[str, Job] = {
    "prepare": prepare,
    "store_vectors": store_vectors,
    "build_ours": build_ours,
    "build_faiss": build_faiss,
    "open_ours": open_ours,
    "open_faiss": open_faiss,
    "equal_effort": equal_effort,
    "compare": compare,
    "read_formats": measure_reading,
}
"""Jobs by name, for a child process."""


def main() -> None:
    """Does the job of the first argument with the JSON keywords of the second; prints its result as a JSON line."""
    from llm2comp_indexes.faiss_module import import_faiss

    import_faiss().omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    answer_once(JOBS)


if __name__ == "__main__":
    main()
