"""Our indexes beside plain FAISS and autofaiss on the same vectors: size, build time, recall, latency, memory.

Each part runs in a process of its own.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm2comp_benchmarks.cost.checks import check_at_least, check_peer
from llm2comp_benchmarks.cost.index.ratios import ratios_of
from llm2comp_benchmarks.cost.processes import module_command, run_process
from llm2comp_benchmarks.cost.versions import index_versions
from llm2comp_benchmarks.results.record import result_record

__all__ = ["JOBS", "IndexBenchmark", "effort_parameters", "prepare_vectors", "run_benchmark", "same_training"]

JOBS = "llm2comp_benchmarks.cost.index.jobs"
"""The module of the child processes."""

_PLAIN = "plain FAISS"
_EQUAL = "auto at equal latency"
_EQUAL_RECALL = "auto asked for as much"
_CHUNK_TOKENS = 256
_PEER = Path(__file__).with_name("peer_autofaiss.py")


@dataclass(frozen=True, slots=True)
class IndexBenchmark:
    """What is measured.

    Attributes:
        workdir: Folder for vectors and indexes. Vectors found there are used again; indexes are removed once measured.
        corpus: Encoded for its vectors; None: synthetic vectors.
        model: Encodes the corpus; None: the bundled one.
        rows: Number of synthetic vectors.
        dimension: Of the synthetic vectors.
        types: Each built by us and by plain FAISS with the same factory string.
        memory: Target in bytes for our `auto` and for autofaiss.
        latency_ms: Target for a query in milliseconds, for the same two.
        recall: Target for our `auto` and types; autofaiss has none.
        k: Answers a query.
        queries: Number of queries that recall and latency are measured with.
        rounds: Times each query is searched; the least time counts.
        threads: Of FAISS and of BLAS, in every process.
        peer_python: Python of an environment with autofaiss; None: left out.
        reading: Number of documents that are read and cut in each format; 0: left out.
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
    reading: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("rows", "dimension", "k", "queries", "rounds", "threads"), 1))
        check_peer(self.peer_python, "autofaiss")

    @property
    def targets(self) -> dict[str, Any]:
        """The fields of `llm2comp_indexes.Targets`."""
        return {"memory": self.memory, "latency_ms": self.latency_ms, "recall": self.recall, "k": self.k}


@dataclass(slots=True)
class _Run:
    """A run of the benchmark, and its measurements so far."""

    settings: IndexBenchmark
    tell: Callable[[str], None]
    vectors: str = ""
    store_vectors_seconds: float = 0.0
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def job(self, title: str, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of the job `name` of `jobs`; `title` names it in messages."""
        self.tell(title)
        return run_process(title, module_command(JOBS, name, **arguments), self.settings.threads)

    def build_ours(self, kind: str, folder: Path, **targets: Any) -> dict[str, Any]:
        """Our index of a type, built for the targets of the settings or for other ones."""
        built = self.job(
            f"build llm2comp {kind}",
            "build_ours",
            vectors=self.vectors,
            output=str(folder),
            options={"type": kind},
            targets=self.settings.targets | targets,
        )
        return {**built, "store_vectors_seconds": self.store_vectors_seconds}

    def folder(self, name: str) -> Path:
        """The folder of an index; removes what an earlier run left there."""
        folder = _index_folder(self, name)
        shutil.rmtree(folder, ignore_errors=True)
        return folder


def run_benchmark(settings: IndexBenchmark, *, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The record of a run: an entry for each index, `ratios` of ours to others of the same type, and the settings.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed.
    """
    start = time.perf_counter()
    run = _Run(settings, tell)
    if settings.peer_python is not None:  # a missing package shows now rather than after an hour
        run_process("open autofaiss", [str(settings.peer_python), str(_PEER)], settings.threads)
    prepared = prepare_vectors(settings, tell)
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
    if settings.reading:
        run.entries["reading"] = _read_formats(run)
    record = result_record([], {"vectors": prepared, **_described(settings)}, threads=settings.threads)
    record["versions"] |= index_versions() | run.versions
    return {**run.entries, "ratios": ratios, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def prepare_vectors(settings: IndexBenchmark, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Makes the vectors of the settings in `sets` of the working folder, or finds them there.

    Returns:
        The fields of `data.VectorSet`.
    """
    title = "prepare vectors"
    tell(title)
    chosen = {name: getattr(settings, name) for name in ("corpus", "model", "rows", "dimension", "queries", "seed")}
    command = module_command(JOBS, "prepare", folder=str(settings.workdir / "sets" / _set_name(settings)), **chosen)
    return run_process(title, command, settings.threads)


def _set_name(settings: IndexBenchmark) -> str:
    """Name of the folder of these settings' vectors."""
    source = f"synthetic-{settings.rows}-{settings.dimension}"
    if settings.corpus:
        source = settings.corpus.replace(":", "-").strip("-").replace("/", "_")
    return f"{source}-queries{settings.queries}-seed{settings.seed}"


def _described(settings: IndexBenchmark) -> dict[str, Any]:
    """The settings that numbers depend on, without folders of this machine."""
    left_out = ("workdir", "peer_python", "rows", "dimension", "queries", "corpus")
    return {name: value for name, value in asdict(settings).items() if name not in left_out}


def _compare_with_faiss(run: _Run, kind: str, prepared: dict[str, Any]) -> dict[str, float]:
    """Builds and searches our index and the plain one of its type; returns their ratios."""
    ours_folder, plain_folder = run.folder("ours"), run.folder("plain")
    ours = run.build_ours(kind, ours_folder)
    training = same_training(ours["type"], prepared["rows"], prepared["dimension"])
    title = f"build {_PLAIN} {ours['type']}"
    plain = run.job(title, "build_faiss", vectors=run.vectors, output=str(plain_folder), **training)
    plain["parameters"] = effort_parameters(ours["effort"])
    file = plain_folder / "faiss.index"
    ours_name, plain_name = f"llm2comp {kind}", f"{_PLAIN} {kind}"
    searches = {ours_name: {"folder": str(ours_folder)}}
    measured = _compare(run, searches, {plain_name: {"file": str(file), "parameters": plain["parameters"]}})
    run.entries[ours_name] = ours | measured[ours_name] | _open_ours(run, ours_folder)
    run.entries[plain_name] = plain | measured[plain_name] | _open_faiss(run, file)
    return ratios_of(run.entries[ours_name], run.entries[plain_name])


def _compare_with_autofaiss(run: _Run) -> dict[str, dict[str, float]]:
    """Our `auto` at its tuned effort, and at one that takes as long as autofaiss's choice; returns both ratios.

    Where the latter still has less recall, `auto` is built once more for the recall of autofaiss, and compared at equal
    latency again.
    """
    peer_folder = run.folder("peer")
    built = {"auto": run.build_ours("auto", run.folder("auto"))}
    peer = _build_autofaiss(run, peer_folder)
    file = peer_folder / "knn.index"
    plain = {"file": str(file), "parameters": peer["parameters"]}
    searches = {"auto": {"folder": str(_index_folder(run, "auto"))}, _EQUAL: _at_equal_latency(run, "auto", plain)}
    measured = _compare(run, searches, {"autofaiss": plain})
    if measured[_EQUAL]["recall"] < measured["autofaiss"]["recall"]:
        built["asked"] = run.build_ours("auto", run.folder("asked"), recall=measured["autofaiss"]["recall"])
        searches[_EQUAL_RECALL] = _at_equal_latency(run, "asked", plain)
        measured = _compare(run, searches, {"autofaiss": plain})
    opened = {name: _open_ours(run, _index_folder(run, name)) for name in built}
    for name, search in searches.items():
        index = Path(search["folder"]).name
        effort = {"effort": search.get("effort", built[index]["effort"])}
        run.entries[f"llm2comp {name}"] = built[index] | effort | measured[name] | opened[index]
    run.entries["autofaiss"] = peer | measured["autofaiss"] | _open_faiss(run, file)
    return {name: ratios_of(run.entries[f"llm2comp {name}"], run.entries["autofaiss"]) for name in searches}


def _read_formats(run: _Run) -> dict[str, Any]:
    """Documents per second, by format and by what is done."""
    settings, folder = run.settings, run.folder("reading")
    rates = run.job(
        "read and cut documents",
        "read_formats",
        folder=str(folder),
        corpus=settings.corpus or "python-docs:",
        documents=settings.reading,
        model=settings.model,
        chunk_tokens=_CHUNK_TOKENS,
        rounds=settings.rounds,
    )
    shutil.rmtree(folder)
    return rates


def _build_autofaiss(run: _Run, folder: Path) -> dict[str, Any]:
    settings, title = run.settings, "build autofaiss"
    arguments = {
        "vectors": str(Path(run.vectors) / "vectors"),
        "output": str(folder),
        "memory": settings.memory,
        "latency_ms": settings.latency_ms,
        "k": settings.k,
        "threads": settings.threads,
    }
    run.tell(title)
    built = run_process(title, [str(settings.peer_python), str(_PEER), json.dumps(arguments)], settings.threads)
    run.versions["autofaiss"] = built["versions"]["autofaiss"]
    return built


def _index_folder(run: _Run, name: str) -> Path:
    return run.settings.workdir / "indexes" / name


def _at_equal_latency(run: _Run, name: str, plain: dict[str, Any]) -> dict[str, Any]:
    """Our index of this name, and the effort at which a query takes as long as with the other index."""
    folder, title = str(_index_folder(run, name)), "find the effort of equal latency"
    effort = run.job(title, "equal_effort", vectors=run.vectors, folder=folder, plain=plain, k=run.settings.k)
    return {"folder": folder, "effort": effort}


def _compare(run: _Run, ours: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    title, settings = f"search {', '.join([*ours, *plain])}", run.settings
    return run.job(title, "compare", vectors=run.vectors, ours=ours, plain=plain, k=settings.k, rounds=settings.rounds)


def _open_ours(run: _Run, folder: Path) -> dict[str, Any]:
    """Opens our index in a new process, then removes it."""
    opened = run.job("open llm2comp", "open_ours", folder=str(folder), vectors=run.vectors)
    shutil.rmtree(folder)
    return opened


def _open_faiss(run: _Run, file: Path) -> dict[str, Any]:
    """Opens the other index in a new process, then removes it."""
    opened = run.job(
        f"open {'autofaiss' if file.name == 'knn.index' else _PLAIN}", "open_faiss", file=str(file), vectors=run.vectors
    )
    shutil.rmtree(file.parent)
    return opened


def same_training(factory: str, rows: int, dimension: int) -> dict[str, Any]:
    """Training and building as ours, as arguments of `build_faiss`."""
    from llm2comp_indexes.structures.train import sample_size
    from llm2comp_indexes.structures.types import IndexType

    kind = IndexType(factory)
    return {
        "factory": factory,
        "trained_on": sample_size(kind, rows=rows, dimension=dimension),
        "ef_construction": 6 * kind.links if kind.family == "hnsw" else None,
    }


def effort_parameters(effort: dict[str, int | None]) -> str | None:
    """An effort as FAISS writes it, such as `nprobe=16`; None where there is none."""
    named = {"nprobe": effort["nprobe"], "efSearch": effort["ef_search"]}
    return ",".join(f"{name}={value}" for name, value in named.items() if value) or None
