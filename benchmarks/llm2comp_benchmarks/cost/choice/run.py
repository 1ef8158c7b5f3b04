"""Several models on the same texts, in turn: speed, latency, load time and memory of each beside the first."""

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp_benchmarks.cost.checks import check_at_least
from llm2comp_benchmarks.cost.choice.minilm import MINILM, make_minilm
from llm2comp_benchmarks.cost.devices import precisions
from llm2comp_benchmarks.cost.processes import module_command
from llm2comp_benchmarks.cost.text_kinds import texts_of_kind
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record

__all__ = ["ChoiceBenchmark", "run_choice_benchmark"]

_JOBS = "llm2comp_benchmarks.cost.choice.jobs"
_LONG_WORDS = 350
_KINDS = ("short", "long")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ChoiceBenchmark:
    """What is measured.

    Attributes:
        workdir: Folder for texts and the model of random weights.
        models: Names or folders of models, in the best precision of the processor; the others stand beside the first.
        corpora: Corpora that texts are drawn from.
        short: Number of texts of 4 to 16 words.
        long: Number of texts of 350 words.
        threads: Of every process.
        rounds: In each of which every model encodes all texts once.
        seed: Of the texts.
    """

    workdir: Path
    models: tuple[str, ...] = ("llm2comp-small", "llm2comp-tiny")
    corpora: tuple[str, ...] = ("python-docs:all",)
    short: int = 10_000
    long: int = 1_000
    threads: int = 2
    rounds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("short", "long", "threads", "rounds"), 1))


def run_choice_benchmark(settings: ChoiceBenchmark, *, tell: Tell = lambda line: None) -> dict[str, Any]:
    """The record of a run: an entry for each model, with its ratios to the first, and what the numbers rest on.

    Beside the models runs an encoder of MiniLM's shape (`make_minilm`) by sentence-transformers, in float32 as it comes
    and in the best precision.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A corpus or a model cannot be read.
    """
    start = time.perf_counter()
    tell("texts, and a model of MiniLM's shape")
    settings.workdir.mkdir(parents=True, exist_ok=True)
    texts = _write_texts(settings)
    best = precisions("auto", "cpu")[-1]
    systems = {f"{Path(name).name} {best}": (name, best, False) for name in settings.models}
    plain = str(settings.workdir / "minilm" / "model")
    systems |= {f"{MINILM} {precision}": (plain, precision, True) for precision in dict.fromkeys(("float32", best))}
    with ExitStack() as stack:
        workers = {}
        for name, (model, precision, is_plain) in systems.items():
            tell(f"open {name}")
            command = module_command(_JOBS, model=model, texts=str(texts), precision=precision, plain=is_plain)
            workers[name] = stack.enter_context(Worker(name, command, threads=settings.threads))
        entries = _measure(workers, settings, tell)
    described = {name: value for name, value in asdict(settings).items() if name != "workdir"}
    record = result_record([], described, threads=settings.threads)
    return {**entries, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _write_texts(settings: ChoiceBenchmark) -> Path:
    """Writes the texts of each kind, and the model whose word pieces are learned from the documents."""
    from llm2comp.corpus.read import read_corpus

    documents = [
        text for text in (doc.content for doc in chain.from_iterable(map(read_corpus, settings.corpora))) if text
    ]
    random.Random(settings.seed).shuffle(documents)
    make_minilm(settings.workdir / "minilm", documents, seed=settings.seed)
    no_limit: Callable[[list[str]], list[int]] = lambda texts: [0] * len(texts)  # noqa: E731  # words are the limit
    made = {
        kind: texts_of_kind(kind, documents, no_limit, max_length=_LONG_WORDS, seed=settings.seed)[:count]
        for kind, count in zip(_KINDS, (settings.short, settings.long), strict=True)
    }
    file = settings.workdir / "texts.json"
    file.write_text(json.dumps(made), encoding="utf-8")
    return file


def _measure(workers: dict[str, Worker], settings: ChoiceBenchmark, tell: Tell) -> dict[str, Any]:
    """An entry for each model: what it did in all rounds, and its ratios to the first model."""
    seconds: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in _KINDS} for name in workers}
    queries: dict[str, list[float]] = {name: [] for name in workers}
    for number, name in in_turn(list(workers), settings.rounds):
        tell(f"round {number + 1} of {settings.rounds}: {name}")
        for kind in _KINDS:
            seconds[name][kind].append(workers[name].ask("encode", kind=kind)["seconds"])
        queries[name] += workers[name].ask("queries")["seconds"]
    counts = {"short": settings.short, "long": settings.long}
    entries = {name: _entry(worker, seconds[name], queries[name], counts) for name, worker in workers.items()}
    first = next(iter(workers))
    for name, entry in entries.items():
        entry["beside"] = first
        entry["speed"] = {
            kind: RoundStats.ratio(seconds[first][kind], seconds[name][kind]).to_json() for kind in _KINDS
        }
        entry["query_speed"] = entries[first]["query_ms"]["p50"] / entry["query_ms"]["p50"]
    return entries


def _entry(
    worker: Worker, seconds: dict[str, list[float]], queries: list[float], counts: dict[str, int]
) -> dict[str, Any]:
    p50, p99 = np.percentile(1e3 * np.array(queries), [50, 99])
    return {
        **worker.opened,
        "peak_bytes": worker.ask("peak")["bytes"],
        "texts_per_second": {
            kind: RoundStats.of([counts[kind] / one for one in times]).to_json() for kind, times in seconds.items()
        },
        "query_ms": {"p50": float(p50), "p99": float(p99)},
    }
