"""`llm2comp serve` under load, beside the encoder in process, itself without batching, and a plain server."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from llm2comp.backbone.hardware import inference_dtype
from llm2comp.optional import optional_import
from llm2comp_benchmarks.cost.models import run_model_job
from llm2comp_benchmarks.cost.processes import module_command
from llm2comp_benchmarks.cost.serve.contest import BARE, OURS, UNBATCHED, Case, Contest
from llm2comp_benchmarks.cost.serve.servers import FACTS
from llm2comp_benchmarks.cost.serve.settings import ServeBenchmark
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record

__all__ = ["ServeBenchmark", "run_serve_benchmark"]

_ROOM = "llm2comp_benchmarks.cost.serve"
_PACKAGES = ("fastapi", "starlette", "uvicorn", "httptools", "uvloop", "pydantic", "orjson", "tokenizers")
_WARM_UP = Case("", size=16, clients=8)
_WARM_UP_SECONDS = 0.5

Tell = Callable[[str], None]


def run_serve_benchmark(settings: ServeBenchmark, *, tell: Tell = lambda line: None) -> dict[str, Any]:
    """The record of a run: `cases`, each with ratios of ours and an entry for each system, and what they rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed, or FastAPI is not installed.
    """
    optional_import("fastapi", extra="serve", needed_by="llm2comp bench serve")
    start = time.perf_counter()
    cases = [Case(*parts) for parts in product(settings.kinds, settings.sizes, settings.clients)]
    with _prepared(settings, tell) as (folder, facts), _opened(settings, folder, tell) as contest:
        _warm_up(contest, settings, tell)
        measured = [contest.measure(case, settings.rounds, tell) for case in cases]
        resident = {name: server.ask("usage")["resident"] for name, server in contest.servers.items()}
    described = {name: value for name, value in asdict(settings).items() if name not in ("workdir", "model")}
    record = result_record([], {**described, "dtype": _dtype(settings), **facts}, threads=settings.threads)
    record["versions"] |= _versions()
    seconds = {"all": round(time.perf_counter() - start, 1)}
    return {"cases": measured, "resident_bytes": resident, **record, "seconds": seconds}


def _dtype(settings: ServeBenchmark) -> str:
    return str(inference_dtype(settings.precision, "cpu")).removeprefix("torch.")


@contextmanager
def _prepared(settings: ServeBenchmark, tell: Tell) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with the model, its plain export and the texts, which is removed afterwards, and facts about them."""
    settings.workdir.mkdir(parents=True, exist_ok=True)
    folder, drawn = settings.workdir / "serve-model", settings.workdir / "serve-texts.json"
    shutil.rmtree(folder, ignore_errors=True)
    tell("draw texts and make models")
    draw = {"corpora": settings.corpora, "limit": settings.limit, "seed": settings.seed}
    model = {"model": settings.model, "kinds": settings.kinds, "seed": settings.seed}
    try:
        run_model_job("draw texts", "draw", settings.threads, file=str(drawn), **draw)
        facts = run_model_job("make models", "prepare", settings.threads, folder=str(folder), texts=str(drawn), **model)
        (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        yield folder, facts
    finally:
        drawn.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(settings: ServeBenchmark, folder: Path, tell: Tell) -> Iterator[Contest]:
    """All systems, each in a process of its own."""
    common = {"folder": str(folder), "dtype": _dtype(settings), "threads": settings.threads}
    with ExitStack() as stack:

        def open_worker(name: str, module: str, **arguments: Any) -> Worker:
            tell(f"open {name}")
            command = module_command(f"{_ROOM}.{module}", **arguments)
            return stack.enter_context(Worker(name, command, threads=settings.threads))

        servers = {
            name: open_worker(name, "servers", system=name, **common)
            for name in (OURS, UNBATCHED, *settings.peers, BARE)
        }
        encoder, load = open_worker("the encoder", "encoder", **common), open_worker("the clients", "load")
        yield Contest(folder, servers, encoder, load, settings.seconds)


def _warm_up(contest: Contest, settings: ServeBenchmark, tell: Tell) -> None:
    for name in contest.servers:
        tell(f"warm up {name}")
        for kind in settings.kinds:
            contest.ask(name, _WARM_UP._replace(kind=kind, size=max(settings.sizes)), _WARM_UP_SECONDS)
    for kind in settings.kinds:
        contest.encoder.ask("encode", kind=kind)


def _versions() -> dict[str, str]:
    """Versions of what serves HTTP; of packages that are not installed none."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
