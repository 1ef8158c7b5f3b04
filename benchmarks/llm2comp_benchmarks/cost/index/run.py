"""Indexes of ours beside plain FAISS and autofaiss on the same vectors: size, build time, recall, latency, memory; each part in a process of its own."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.index.ratios import ratios_of
from llm2comp_benchmarks.cost.worker import found_packages, run_process
from llm2comp_benchmarks.results.record import result_record

__all__ = ["IndexBenchmark", "effort_parameters", "run_benchmark", "same_training", "set_name"]


_PLAIN = "plain FAISS"
_EQUAL = "auto at equal latency"
_ASKED = "auto asked for as much"
_PEER = Path(__file__).with_name("peer_autofaiss.py")


@dataclass(frozen=True, slots=True)
class IndexBenchmark:
    """What is measured.

    Attributes:
        workdir: For vectors and indexes. Vectors found there are used again; indexes are removed after they were
            measured.
        corpus: Encoded for its vectors; None: synthetic vectors.
        model: That encodes the corpus; None: the bundled one.
        rows: Synthetic vectors.
        dimension: Of the synthetic vectors.
        types: Each built by us and by plain FAISS with the same factory string.
        memory: Bytes, the target given to our `auto` and to autofaiss.
        latency_ms: Milliseconds for a query, likewise.
        recall: The target given to our `auto` and types; autofaiss has none.
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
            raise SettingsError(
                f"{self.peer_python}: no such program; give the Python of an environment with autofaiss: bin/python "
                "in it"
            )

    @property
    def targets(self) -> dict[str, Any]:
        """As fields of `llm2comp_indexes.Targets`."""
        return {"memory": self.memory, "latency_ms": self.latency_ms, "recall": self.recall, "k": self.k}


@dataclass(slots=True)
class _Run:
    """One run of the benchmark, and what it has measured so far."""

    settings: IndexBenchmark
    tell: Callable[[str], None]
    vectors: str = ""
    store_vectors_seconds: float = 0.0
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def job(self, what: str, name: str, **arguments: Any) -> dict[str, Any]:
        """What the job `name` of `jobs` gives; `what` says in words what it does."""
        self.tell(what)
        command = [sys.executable, "-m", "llm2comp_benchmarks.cost.index.jobs", name, json.dumps(arguments)]
        return run_process(what, command, self.settings.threads)

    def build_ours(self, kind: str, folder: Path, **targets: Any) -> dict[str, Any]:
        options, asked = {"type": kind}, self.settings.targets | targets
        built = self.job(
            f"build llm2comp {kind}",
            "build_ours",
            vectors=self.vectors,
            output=str(folder),
            options=options,
            targets=asked,
        )
        return {**built, "store_vectors_seconds": self.store_vectors_seconds}

    def folder(self, name: str) -> Path:
        """A folder for an index; what an earlier run left there is removed."""
        folder = self.settings.workdir / "indexes" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder


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
    if settings.peer_python is not None:  # found out now rather than after an hour
        run_process("open autofaiss", [str(settings.peer_python), str(_PEER)], settings.threads)
    asked = {name: getattr(settings, name) for name in ("corpus", "model", "rows", "dimension", "queries", "seed")}
    prepared = run.job(
        "prepare vectors", "prepare", folder=str(settings.workdir / "sets" / set_name(settings)), **asked
    )
    run.vectors = prepared.pop("folder")
    stored = run.job(
        "store vectors without documents", "store_vectors", vectors=run.vectors, output=str(run.folder("bare"))
    )
    run.store_vectors_seconds = stored["seconds"]
    ratios = {}
    for kind in settings.types:
        ratios[kind] = _compare_with_faiss(run, kind, prepared)
    if settings.peer_python is not None:
        ratios |= _compare_with_autofaiss(run)
    record = result_record([], {"vectors": prepared, **_described(settings)}, threads=settings.threads)
    record["versions"] |= found_packages() | run.versions
    return {**run.entries, "ratios": ratios, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def set_name(settings: IndexBenchmark) -> str:
    """Folder of the vectors of these settings, within `sets` of the working directory."""
    source = (
        settings.corpus.replace(":", "-").strip("-").replace("/", "_")
        if settings.corpus
        else f"synthetic-{settings.rows}-{settings.dimension}"
    )
    return f"{source}-queries{settings.queries}-seed{settings.seed}"


def _described(settings: IndexBenchmark) -> dict[str, Any]:
    """The settings that numbers depend on: no folders of this machine."""
    kept = asdict(settings)
    for name in ("workdir", "peer_python", "rows", "dimension", "queries", "corpus"):
        del kept[name]
    return kept


def _compare_with_faiss(run: _Run, kind: str, prepared: dict[str, Any]) -> dict[str, float]:
    ours_folder, plain_folder = run.folder("ours"), run.folder("plain")
    ours = run.build_ours(kind, ours_folder)
    training = same_training(ours["type"], prepared["rows"], prepared["dimension"])
    plain = run.job(
        f"build {_PLAIN} {ours['type']}", "build_faiss", vectors=run.vectors, output=str(plain_folder), **training
    )
    plain["parameters"] = effort_parameters(ours["effort"])
    file = plain_folder / "faiss.index"
    names = f"llm2comp {kind}", f"{_PLAIN} {kind}"
    measured = _compare(
        run,
        {names[0]: {"folder": str(ours_folder)}},
        {names[1]: {"file": str(file), "parameters": plain["parameters"]}},
    )
    run.entries[names[0]] = ours | measured[names[0]] | _open_ours(run, ours_folder)
    run.entries[names[1]] = plain | measured[names[1]] | _open_faiss(run, file)
    return ratios_of(*(run.entries[name] for name in names))


def _compare_with_autofaiss(run: _Run) -> dict[str, dict[str, float]]:
    """Our `auto` with the effort it was tuned to, and with one that takes as long as autofaiss's choice.

    Where that still finds less, it is built once more, asked for the recall that autofaiss reached, and again given as
    long.
    """
    settings = run.settings
    peer_folder = run.folder("peer")
    built = {"auto": run.build_ours("auto", run.folder("auto"))}
    asked: dict[str, Any] = {
        "vectors": str(Path(run.vectors) / "vectors"),
        "output": str(peer_folder),
        "memory": settings.memory,
    }
    asked |= {"latency_ms": settings.latency_ms, "k": settings.k, "threads": settings.threads}
    run.tell("build autofaiss")
    peer = run_process("build autofaiss", [str(settings.peer_python), str(_PEER), json.dumps(asked)], settings.threads)
    run.versions["autofaiss"] = peer["versions"]["autofaiss"]
    file = peer_folder / "knn.index"
    plain = {"file": str(file), "parameters": peer["parameters"]}
    searches = {
        "auto": {"folder": str(settings.workdir / "indexes" / "auto")},
        _EQUAL: _at_equal_latency(run, "auto", plain),
    }
    measured = _compare(run, searches, {"autofaiss": plain})
    if measured[_EQUAL]["recall"] < measured["autofaiss"]["recall"]:
        built["asked"] = run.build_ours("auto", run.folder("asked"), recall=measured["autofaiss"]["recall"])
        searches[_ASKED] = _at_equal_latency(run, "asked", plain)
        measured = _compare(run, searches, {"autofaiss": plain})
    opened = {name: _open_ours(run, settings.workdir / "indexes" / name) for name in built}
    for name, search in searches.items():
        index = Path(search["folder"]).name
        run.entries[f"llm2comp {name}"] = (
            built[index] | {"effort": search.get("effort", built[index]["effort"])} | measured[name] | opened[index]
        )
    run.entries["autofaiss"] = peer | measured["autofaiss"] | _open_faiss(run, file)
    return {name: ratios_of(run.entries[f"llm2comp {name}"], run.entries["autofaiss"]) for name in searches}


def _at_equal_latency(run: _Run, name: str, plain: dict[str, Any]) -> dict[str, Any]:
    """How the index of this name is searched so that a query takes as long as with the other one."""
    folder = str(run.settings.workdir / "indexes" / name)
    effort = run.job(
        "find the effort of equal latency",
        "equal_effort",
        vectors=run.vectors,
        folder=folder,
        plain=plain,
        k=run.settings.k,
    )
    return {"folder": folder, "effort": effort}


def _compare(run: _Run, ours: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    what = f"search {', '.join([*ours, *plain])}"
    return run.job(
        what, "compare", vectors=run.vectors, ours=ours, plain=plain, k=run.settings.k, rounds=run.settings.rounds
    )


def _open_ours(run: _Run, folder: Path) -> dict[str, Any]:
    """How it opens; it is removed then."""
    opened = run.job("open llm2comp", "open_ours", folder=str(folder), vectors=run.vectors)
    shutil.rmtree(folder)
    return opened


def _open_faiss(run: _Run, file: Path) -> dict[str, Any]:
    opened = run.job(
        f"open {'autofaiss' if file.name == 'knn.index' else _PLAIN}", "open_faiss", file=str(file), vectors=run.vectors
    )
    shutil.rmtree(file.parent)
    return opened


def same_training(factory: str, rows: int, dimension: int) -> dict[str, Any]:
    """How ours is trained and built, as arguments of `build_faiss`."""
    from llm2comp_indexes.structures.train import sample_size
    from llm2comp_indexes.structures.types import IndexType

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
