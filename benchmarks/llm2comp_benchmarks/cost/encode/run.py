"""Encoding beside sentence-transformers, bare transformers and llm2vec on the same texts.

Measured are texts a second, the share of the matmul rate, memory, and cosines to the peer's vectors.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm2comp_benchmarks.cost.devices import precisions
from llm2comp_benchmarks.cost.encode.contest import Contest
from llm2comp_benchmarks.cost.encode.peer_llama_cpp import llama_cpp_command, llama_cpp_version
from llm2comp_benchmarks.cost.encode.peers import check_engines, engine_settings, engine_systems
from llm2comp_benchmarks.cost.encode.settings import EncodeBenchmark
from llm2comp_benchmarks.cost.encode.stages import slowest_stage
from llm2comp_benchmarks.cost.models import PARTS, run_model_job
from llm2comp_benchmarks.cost.processes import module_command, run_process
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record

__all__ = ["EncodeBenchmark", "run_encode_benchmark"]

_OURS, _OURS_DEFAULT_MALLOC = "llm2comp", "llm2comp-default-malloc"
"""Ours with `llm2comp.keep_freed_memory` called and, on CPUs, without."""

_OURS_OPENVINO = "llm2comp-openvino"
"""Ours with OpenVINO as the engine, beside OpenVINO as a peer."""

_PATHS = ("workdir", "model", "peer_llm2vec", "node_modules")  # that say nothing elsewhere
_JOBS = "llm2comp_benchmarks.cost.encode.jobs"
_LLM2VEC = Path(__file__).with_name("peer_llm2vec.py")
_LLM2VEC_TEXTS, _LLM2VEC_BATCH, _LLM2VEC_VOCABULARY = 512, 32, 32_000

Tell = Callable[[str], None]


def run_encode_benchmark(settings: EncodeBenchmark, *, tell: Tell = lambda line: None) -> dict[str, Any]:
    """The record of a run: `ratios` of ours to each peer, an entry for each system, and what the numbers rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed, or a peer is missing; the latter is found before anything is measured.
    """
    start = time.perf_counter()
    described = {name: value for name, value in asdict(settings).items() if name not in _PATHS}
    record: dict[str, Any] = {"ratios": {}}
    versions = _versions_of_peers(settings)
    texts = settings.workdir / "encode-texts.json"
    try:
        settings.workdir.mkdir(parents=True, exist_ok=True)
        _draw_texts(settings, texts, tell)
        if settings.peer_llm2vec is not None:
            described["llm2vec"] = _compare_with_llm2vec(settings, texts, record, tell)
        described |= _compare_with_peers(settings, texts, record, tell)
    finally:
        texts.unlink(missing_ok=True)
    record |= result_record([], described, threads=settings.threads)
    record["versions"] |= versions
    return {**record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _versions_of_peers(settings: EncodeBenchmark) -> dict[str, str]:
    """Versions of what the peers need, which is found here to be installed."""
    versions = check_engines(settings.peers)
    if "llama.cpp" in settings.peers:
        versions["node-llama-cpp"] = llama_cpp_version(settings.node_modules)
    return versions | _versions_beside_llm2vec(settings)


def _versions_beside_llm2vec(settings: EncodeBenchmark) -> dict[str, str]:
    """Versions of llm2vec and of what its environment has beside it; empty without that peer."""
    if settings.peer_llm2vec is None:
        return {}
    command = [str(settings.peer_llm2vec), "-I", str(_LLM2VEC)]
    versions = run_process("open llm2vec", command, settings.threads)
    return {name if name == "llm2vec" else f"{name} beside llm2vec": version for name, version in versions.items()}


def _draw_texts(settings: EncodeBenchmark, file: Path, tell: Tell) -> None:
    tell("draw texts")
    arguments = {"corpora": settings.corpora, "limit": settings.limit, "seed": settings.seed}
    run_model_job("draw texts", "draw", settings.threads, file=str(file), **arguments)


def _compare_with_peers(settings: EncodeBenchmark, texts: Path, record: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Adds entries and ratios of the systems on the chosen model; returns facts about model and texts."""
    formats = precisions(settings.precision, settings.device)
    model = {
        "texts": str(texts),
        "model": settings.model,
        "shape": settings.shape,
        "seed": settings.seed,
        "kinds": settings.kinds,
        "plain": bool(settings.peers),
        "dtype": "float32" if settings.device == "cpu" else formats[0],
    }
    systems = _systems(settings, formats)
    with _opened(settings, "main", model, systems, tell) as contest:
        for kind in settings.kinds:
            _measure_texts(_of_kind(contest, kind), formats, settings.rounds, record, tell)
        return {**contest.facts, "engines": engine_settings(systems, settings.threads)}


def _of_kind(contest: Contest, kind: str) -> Contest:
    """The same systems on texts of a kind; ours with the default malloc on documents only."""
    workers = {
        name: worker
        for name, worker in contest.workers.items()
        if kind == "document" or not name.startswith(_OURS_DEFAULT_MALLOC)
    }
    return Contest(contest.folder, contest.facts, workers, kind)


def _measure_texts(
    contest: Contest, precisions: Sequence[str], rounds: int, record: dict[str, Any], tell: Tell
) -> None:
    """Adds entries and ratios of the systems on texts of one kind, the stages of ours, and least cosines."""
    _add(record, contest.measure(rounds, tell))
    cosines = contest.least_cosines()
    for precision in precisions:
        name = f"{_OURS} {precision}"
        label = contest.label(name)
        tell(f"stages of {label}")
        file = str(contest.folder / "stages.npy")
        record[label] |= contest.workers[name].ask("stages", file=file, kind=contest.kind)
        record[label]["slowest_stage"] = slowest_stage(record[label]["stages"])
    for label, cosine in cosines.items():
        record[label]["least_cosine"] = cosine


def _systems(settings: EncodeBenchmark, formats: Sequence[str]) -> list[tuple[str, str]]:
    """Systems and their precisions; sentence-transformers in float32 too on a CPU, as the reference of cosines."""
    systems = _our_systems(formats, settings.device, settings.peers)
    if "sentence-transformers" in settings.peers:
        reference = ("float32",) if settings.device == "cpu" else ()
        systems += [("sentence-transformers", precision) for precision in dict.fromkeys((*reference, *formats))]
    if "transformers" in settings.peers:
        systems += [("transformers", precision) for precision in formats]
    systems += engine_systems(settings.peers, formats)
    return systems + [("matmul", precision) for precision in formats]


def _our_systems(formats: Sequence[str], device: str, peers: Sequence[str]) -> list[tuple[str, str]]:
    names = [_OURS]
    if device == "cpu":
        names.append(_OURS_DEFAULT_MALLOC)
    if any(peer.startswith("openvino") for peer in peers):
        names.append(_OURS_OPENVINO)
    return [(name, precision) for name in names for precision in formats]


def _compare_with_llm2vec(settings: EncodeBenchmark, texts: Path, record: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The same on a language model that llm2vec can load; vectors differ by design, so there is no cosine."""
    model = {"shape": "15m", "vocabulary": _LLM2VEC_VOCABULARY, "seed": settings.seed}
    model |= {"texts": str(texts), "count": _LLM2VEC_TEXTS}
    systems = _our_systems(precisions(settings.precision, "cpu"), "cpu", ())
    with _opened(settings, "15m", model, systems, tell) as contest, ExitStack() as stack:
        tell("open llm2vec")
        worker = Worker("llm2vec", _llm2vec_command(settings, contest.folder), threads=settings.threads)
        contest.workers["llm2vec 15m float32"] = stack.enter_context(worker)
        _add(record, contest.measure(settings.rounds, tell))
        return {**contest.facts, "batch_size_of_llm2vec": _LLM2VEC_BATCH}


def _llm2vec_command(settings: EncodeBenchmark, folder: Path) -> list[str]:
    arguments = {
        "backbone": str(folder / PARTS["backbone"]),
        "texts": str(folder / PARTS["texts"]),
        "count": _LLM2VEC_TEXTS,
        "batch_size": _LLM2VEC_BATCH,
    }
    return [str(settings.peer_llm2vec), "-I", str(_LLM2VEC), json.dumps(arguments)]


def _add(record: dict[str, Any], measured: dict[str, Any]) -> None:
    """Adds the measured entries to the record, and the measured ratios to its ratios."""
    record["ratios"] |= measured.pop("ratios")
    record |= measured


@contextmanager
def _opened(
    settings: EncodeBenchmark, name: str, model: dict[str, Any], systems: Sequence[tuple[str, str]], tell: Tell
) -> Iterator[Contest]:
    """The systems (name, precision), each in a process, on a model and texts made for them and removed afterwards."""
    folder = settings.workdir / f"encode-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    suffix = "" if name == "main" else f" {name}"
    try:
        title = f"make models{suffix}"
        tell(title)
        facts = run_model_job(title, "prepare", settings.threads, folder=str(folder), **model)
        with ExitStack() as stack:
            workers = {}
            for system, kind in systems:
                label = f"{system}{suffix} {kind}"
                tell(f"open {label}")
                worker = Worker(label, _job_command(settings, folder, system, kind), threads=settings.threads)
                workers[label] = stack.enter_context(worker)
            yield Contest(folder, facts, workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _job_command(settings: EncodeBenchmark, folder: Path, system: str, precision: str) -> list[str]:
    if system == "llama.cpp":
        return llama_cpp_command(folder, settings.node_modules, precision, settings.kinds, settings.threads)
    options = {"batch_size": settings.batch_size, "device": settings.device, "threads": settings.threads}
    return module_command(_JOBS, system=system, folder=str(folder), precision=precision, **options)
