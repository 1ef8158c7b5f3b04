"""Indexes of ours beside plain FAISS and autofaiss on the same vectors: size, build time, recall, latency, memory; each part in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.results import result_record

__all__ = ["IndexBenchmark", "effort_parameters", "format_record", "ratios_of", "run_benchmark", "run_process", "same_training"]

_PLAIN = "plain FAISS"
_PACKAGES = ("faiss-cpu", "faiss-gpu", "pyarrow")


@dataclass(frozen=True, slots=True)
class IndexBenchmark:
    """What is measured.

    Attributes:
        workdir: For vectors and indexes. Vectors found there are used again; indexes are removed after they were measured.
        corpus: Encoded for its vectors; None: synthetic vectors.
        model: That encodes the corpus; None: the bundled one.
        rows: Synthetic vectors.
        dimension: Of the synthetic vectors.
        types: Each built by us and by plain FAISS with the same factory string.
        memory: Bytes, the wish given to our `auto` and to autofaiss.
        latency_ms: Milliseconds for a query, likewise.
        recall: The wish given to our `auto` and types; autofaiss has none.
        k: Answers a query.
        queries: That recall and latency are measured with.
        rounds: Times each query is asked; the least time counts.
        threads: Of FAISS and of BLAS, in every process.
        peer_python: Python of an environment that has autofaiss; None: it is left out.
        seed: Of synthetic vectors, and of the choice of queries.
    """

    workdir: Path
    corpus: str | None = None
    model: str | None = None
    rows: int = 100_000
    dimension: int = 256
    types: tuple[str, ...] = ("flat", "hnsw", "ivf")
    memory: int = 4_000_000_000
    latency_ms: float = 10.0
    recall: float = 0.95
    k: int = 10
    queries: int = 1000
    rounds: int = 3
    threads: int = 1
    peer_python: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rows", "dimension", "k", "queries", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.peer_python is not None and not shutil.which(self.peer_python):
            raise SettingsError(f"{self.peer_python}: no such program; give the Python of an environment with autofaiss: bin/python in it")

    @property
    def wishes(self) -> dict[str, Any]:
        """As fields of `llm2comp_indexes.Wishes`."""
        return {"memory": self.memory, "latency_ms": self.latency_ms, "recall": self.recall, "k": self.k}


@dataclass(slots=True)
class _Run:
    """One run of the benchmark, and what it has measured so far."""

    settings: IndexBenchmark
    tell: Callable[[str], None]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def job(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.tell(f"{name.replace('_', ' ')} {arguments.get('factory') or arguments.get('options', {}).get('type', '')}".strip())
        command = [sys.executable, "-m", "llm2comp_benchmarks.index_jobs", name, json.dumps(arguments)]
        return run_process(command, self.settings.threads)

    def folder(self, name: str) -> Path:
        """A folder for an index; what an earlier run left there is removed."""
        folder = self.settings.workdir / "indexes" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder


def run_process(command: list[str], threads: int) -> dict[str, Any]:
    """What the process prints as its last line, in JSON.

    Raises:
        LLM2CompError: It failed; the message has its last words.
    """
    bounds = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, env={**os.environ, **bounds}, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        raise LLM2CompError(f"{Path(command[0]).name} {' '.join(command[1:4])[:120]} failed: {words[:400]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def run_benchmark(settings: IndexBenchmark, *, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The record of a run: an entry for each index, `ratios` of ours to the other of the same type, and what the numbers rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed.
    """
    start = time.perf_counter()
    run = _Run(settings, tell)
    name = settings.corpus.replace(":", "-").strip("-").replace("/", "_") if settings.corpus else f"synthetic-{settings.rows}-{settings.dimension}"
    prepared = run.job(
        "prepare",
        folder=str(settings.workdir / "sets" / name),
        **{field: getattr(settings, field) for field in ("corpus", "model", "rows", "dimension", "queries", "seed")},
    )
    vectors = prepared.pop("folder")
    ratios = {}
    for kind in settings.types:
        ratios[kind] = _compare_with_faiss(run, kind, vectors, prepared)
    if settings.peer_python is not None:
        ratios["auto"] = _compare_with_autofaiss(run, vectors)
    record = result_record([], {"vectors": prepared, **_described(settings)})
    record["versions"] |= {package: found for package in _PACKAGES if (found := _version(package))} | run.versions
    record["hardware"]["threads"] = settings.threads
    return {**run.entries, "ratios": ratios, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _described(settings: IndexBenchmark) -> dict[str, Any]:
    """The settings that numbers depend on: no folders of this machine."""
    kept = asdict(settings)
    for name in ("workdir", "peer_python", "rows", "dimension", "queries", "corpus"):
        del kept[name]
    return kept


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _compare_with_faiss(run: _Run, kind: str, vectors: str, prepared: dict[str, Any]) -> dict[str, float]:
    ours_folder, plain_folder = run.folder("ours"), run.folder("plain")
    ours = run.job("build_ours", vectors=vectors, output=str(ours_folder), options={"type": kind}, wishes=run.settings.wishes)
    plain = run.job("build_faiss", vectors=vectors, output=str(plain_folder), **same_training(ours["type"], prepared["rows"], prepared["dimension"]))
    plain["parameters"] = effort_parameters(ours["effort"])
    return _measure(run, vectors, (f"llm2comp {kind}", ours, ours_folder), (f"{_PLAIN} {kind}", plain, plain_folder / "faiss.index"))


def _compare_with_autofaiss(run: _Run, vectors: str) -> dict[str, float]:
    settings = run.settings
    ours_folder, peer_folder = run.folder("ours"), run.folder("peer")
    ours = run.job("build_ours", vectors=vectors, output=str(ours_folder), options={"type": "auto"}, wishes=settings.wishes)
    run.tell("build autofaiss")
    asked: dict[str, Any] = {"vectors": str(Path(vectors) / "vectors"), "output": str(peer_folder), "memory": f"{settings.memory / 1e6:.0f}MB"}
    asked |= {"latency_ms": settings.latency_ms, "k": settings.k, "threads": settings.threads}
    script = Path(__file__).with_name("index_autofaiss.py")
    peer = run_process([str(settings.peer_python), str(script), json.dumps(asked)], settings.threads)
    run.versions["autofaiss"] = peer["versions"]["autofaiss"]
    return _measure(run, vectors, ("llm2comp auto", ours, ours_folder), ("autofaiss", peer, peer_folder / "knn.index"))


def _measure(run: _Run, vectors: str, ours: tuple[str, dict[str, Any], Path], other: tuple[str, dict[str, Any], Path]) -> dict[str, float]:
    """Adds recall, latency and opening to both, keeps them as entries, removes the indexes; their ratios."""
    our_name, our_entry, our_folder = ours
    name, entry, file = other
    plain = {name: {"file": str(file), "parameters": entry.get("parameters")}}
    compared = run.job("compare", vectors=vectors, ours={our_name: str(our_folder)}, plain=plain, k=run.settings.k, rounds=run.settings.rounds)
    our_entry |= compared[our_name] | run.job("open_ours", folder=str(our_folder), vectors=vectors)
    entry |= compared[name] | run.job("open_faiss", file=str(file), vectors=vectors)
    run.entries |= {our_name: our_entry, name: entry}
    shutil.rmtree(our_folder)
    shutil.rmtree(file.parent)
    return ratios_of(our_entry, entry)


def same_training(factory: str, rows: int, dimension: int) -> dict[str, Any]:
    """How ours is trained and built, as arguments of `build_faiss`."""
    from llm2comp_indexes.index_types import IndexType
    from llm2comp_indexes.training import sample_size

    kind = IndexType(factory)
    return {
        "factory": factory,
        "trained_on": sample_size(kind, rows=rows, dimension=dimension),
        "ef_construction": 6 * kind.links if kind.family == "hnsw" else None,
    }


def effort_parameters(effort: dict[str, int | None]) -> str | None:
    """An effort in FAISS's words."""
    named = {"nprobe": effort["nprobe"], "efSearch": effort["ef_search"]}
    return ",".join(f"{name}={value}" for name, value in named.items() if value) or None


def ratios_of(ours: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Ours over the other's; below 1 is in our favour, but for `recall_gain`, which is ours minus the other's.

    `pipeline` is our build without choosing a type and measuring recall, which the others don't do; `structure` is training, adding and saving alone;
    `search_bare` is our search with documents over the other's search without.
    """
    phases = ours["phases"]
    pipeline = ours["build_seconds"] - phases.get("choose", 0.0) - phases["measure"] - phases.get("queries", 0.0)
    return {
        "recall_gain": ours["recall"] - other["recall"],
        "build": ours["build_seconds"] / other["build_seconds"],
        "pipeline": pipeline / other["build_seconds"],
        "structure": phases.get("structure", 0.0) / other["build_seconds"],
        "build_peak": ours["peak_bytes"] / other["peak_bytes"],
        "vector_bytes": ours["vector_bytes"] / other["bytes"],
        "search": ours["median_ms"] / other["median_ms"],
        "search_with_documents": ours["median_ms_with_documents"] / other["median_ms_with_documents"],
        "search_bare": ours["median_ms_with_documents"] / other["median_ms"],
        "search_p99": ours["p99_ms"] / other["p99_ms"],
        "search_peak": ours["search_peak_bytes"] / other["search_peak_bytes"],
        "open": ours["open_seconds"] / other["open_seconds"],
    }


def format_record(record: dict[str, Any]) -> str:
    """The record as an aligned table, a line an index, and the ratios below."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "recall": lambda entry: f"{entry['recall']:.4f}",
        "ms": lambda entry: f"{entry['median_ms']:.3f}",
        "p99 ms": lambda entry: f"{entry['p99_ms']:.3f}",
        "+docs ms": lambda entry: f"{entry['median_ms_with_documents']:.3f}",
        "build s": lambda entry: f"{entry['build_seconds']:.1f}",
        "disk MB": lambda entry: f"{entry['bytes'] / 1e6:.1f}",
        "peak MB": lambda entry: f"{entry['peak_bytes'] / 1e6:.0f}",
        "open s": lambda entry: f"{entry['open_seconds']:.3f}",
        "type": lambda entry: str(entry["type"]),
    }
    entries = {name: entry for name, entry in record.items() if isinstance(entry, dict) and "median_ms" in entry}
    rows = [["index", *columns], *([name, *(show(entry) for show in columns.values())] for name, entry in entries.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows]
    lines += [f"{kind}: {', '.join(map(_tell_ratio, ratios, ratios.values()))}" for kind, ratios in record["ratios"].items()]
    return "\n".join(lines)


def _tell_ratio(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {value:+.4f}" if name == "recall_gain" else f"{name.replace('_', ' ')} {value:.2f}"
