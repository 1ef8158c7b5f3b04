"""Encoding on a cluster of Ray beside one process: the start apart, memory, and a forecast that is computed."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm2comp_benchmarks.cost.checks import check_at_least
from llm2comp_benchmarks.cost.memory import memory_of, peak_bytes
from llm2comp_benchmarks.cost.processes import answer_once, module_command, run_process
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.results.record import result_record

__all__ = ["ClusterBenchmark", "forecast", "run_cluster_benchmark"]

PLAIN = "one process"
"""What the clusters are compared with: the same corpus and threads, without Ray."""
_FORECAST_DOCUMENTS = 100_000_000
_FORECAST_WORKERS = (8, 64)
_SAMPLE_SECONDS = 0.25
_MODULE = "llm2comp_benchmarks.cost.cluster"


@dataclass(frozen=True, slots=True)
class ClusterBenchmark:
    """What is measured.

    Attributes:
        documents: Number of documents of the corpus.
        words: Number of words in each.
        model: Name or folder of the model.
        actors: Numbers of actors, each a system of its own.
        threads: Threads that all processes of a system have together.
        rounds: Rounds in each of which every system encodes the corpus once.
        price: Price of a worker for an hour, for the forecast.
    """

    documents: int = 100_000
    words: int = 24
    model: str = "llm2comp-tiny"
    actors: tuple[int, ...] = (1, 2)
    threads: int = 2
    rounds: int = 3
    price: float = 0.05

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("documents", "words", "threads", "rounds"), 1))


def run_cluster_benchmark(
    settings: ClusterBenchmark, *, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The record of a run: an entry for each system, its overhead beside one process, and the forecast.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A process failed, or Ray is not installed.
    """
    begin = time.perf_counter()
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="llm2comp-bench-") as folder:
        corpus = Path(folder, "corpus.jsonl")
        _write_corpus(corpus, settings)
        systems = {PLAIN: 0, **{_name(actors): actors for actors in settings.actors}}
        for number, name in in_turn(list(systems), settings.rounds):
            tell(f"round {number + 1} of {settings.rounds}: {name}")
            output = Path(folder, "out")
            command = module_command(
                _MODULE,
                "encode",
                corpus=str(corpus),
                output=str(output),
                model=settings.model,
                actors=systems[name],
            )
            runs.setdefault(name, []).append(run_process(name, command, settings.threads))
            shutil.rmtree(output)
        tell("read the corpus alone")
        reading = run_process("reading", module_command(_MODULE, "read", corpus=str(corpus)), 1)
    entries = {name: _entry(measured, runs[PLAIN], settings.documents) for name, measured in runs.items()}
    record = result_record([], {**asdict(settings), "actors": list(settings.actors)}, threads=settings.threads)
    computed = {
        _name(actors): forecast(entries[_name(actors)], actors, reading["documents_per_second"], settings.price)
        for actors in settings.actors
    }
    spent = {"all": round(time.perf_counter() - begin, 1)}
    return {**entries, "reading": reading, "forecast": computed, **record, "seconds": spent}


def _name(actors: int) -> str:
    return f"ray, {actors} actor{'s' * (actors != 1)}"


def _write_corpus(file: Path, settings: ClusterBenchmark) -> None:
    """Different texts of so many words of the documentation of the standard library."""
    from llm2comp.corpus.read import read_corpus

    words = [word for document in read_corpus("python-docs:", on_error="skip") for word in document.content.split()]
    with file.open("w", encoding="utf-8") as target:
        for number in range(settings.documents):
            first = number * settings.words % (len(words) - settings.words)
            text = f"{' '.join(words[first : first + settings.words])} {number}"
            target.write(json.dumps({"_id": str(number), "text": text}) + "\n")


def _entry(runs: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]], documents: int) -> dict[str, Any]:
    """Rates, the overhead over one process round by round, and the highest memory."""
    encoding = [run["encode_seconds"] for run in runs]
    before = [run["encode_seconds"] for run in plain]
    return {
        "documents_per_second": RoundStats.of([documents / seconds for seconds in encoding]).to_json(),
        "seconds_of_encoding": RoundStats.of(encoding).to_json(),
        "seconds_of_start": RoundStats.of([run["start_seconds"] for run in runs]).to_json(),
        "seconds_of_joining": RoundStats.of([run["join_seconds"] for run in runs]).to_json(),
        "seconds_ratio": RoundStats.ratio(encoding, before).to_json(),
        "spilled_bytes": max(run["spilled"] or 0 for run in runs),
        "driver_bytes": max(run["driver_bytes"] for run in runs),
        "actor_bytes": max(run["actor_bytes"] for run in runs),
        "all_bytes": max(run["all_bytes"] for run in runs),
        "bytes_per_document": runs[0]["bytes"] / documents,
    }


def forecast(
    entry: Mapping[str, Any], actors: int, read_rate: float, price: float, documents: int = _FORECAST_DOCUMENTS
) -> dict[str, Any]:
    """Hours, cost and the next bottleneck of a large corpus, computed from what was measured.

    No such run was made. Encoding is divided by the workers, each of which is taken to be as fast as one of the actors
    measured. Reading is one task, as of a single file; joining is one process.

    Args:
        entry: What was measured with so many actors.
        actors: Their number.
        read_rate: Documents that one task reads in a second.
        price: Price of a worker for an hour.
        documents: Number of documents.
    """
    rate = entry["documents_per_second"]["median"] / actors
    measured = entry["documents_per_second"]["median"] * entry["seconds_of_encoding"]["median"]
    join = documents * entry["seconds_of_joining"]["median"] / measured / 3600
    read = documents / read_rate / 3600
    computed: dict[str, Any] = {"computed": True, "documents": documents, "price_per_worker_hour": price}
    for workers in _FORECAST_WORKERS:
        encode = documents / (rate * workers) / 3600
        hours = max(encode, read) + join
        computed[f"{workers} workers"] = {
            "hours": hours,
            "hours_of_encoding": encode,
            "hours_of_reading_one_file": read,
            "hours_of_joining": join,
            "cost_per_million": (max(encode, read) * workers + join) * price * 1e6 / documents,
            "network_bytes_per_second": rate * workers * entry["bytes_per_document"],
            "longest_after_encoding": "joining" if join >= read else "reading, if the corpus is one file",
        }
    return computed


def encode(corpus: str, output: str, model: str, actors: int) -> dict[str, Any]:
    """Seconds and memory of one encoding, on a cluster of this machine or, with 0 actors, in this process."""
    from llm2comp_indexes import ClusterOptions, EncoderOptions, encode_on_ray, encode_shard

    options = EncoderOptions(dtype="float32")
    with _watched() as peaks:
        if actors:
            made = encode_on_ray(corpus, output, cluster=ClusterOptions(actors=actors), model=model, encoder=options)
            start, join, spilled = made.start_seconds, made.join_seconds, made.spilled
            seconds, size = made.seconds - start, made.bytes
        else:
            plain = encode_shard(corpus, output, model=model, encoder=options)
            seconds, size, start, join, spilled = plain.seconds, plain.bytes, 0.0, 0.0, 0
    return {
        "encode_seconds": seconds,
        "start_seconds": start,
        "join_seconds": join,
        "spilled": spilled,
        "bytes": size,
        "driver_bytes": peak_bytes(),
        **peaks,
    }


def read(corpus: str) -> dict[str, Any]:
    """Documents that one task reads in a second."""
    from llm2comp.corpus.table_format import TableFormat
    from llm2comp_indexes.builder.corpora import find_sources
    from llm2comp_indexes.distributed.blocks import Reading, cut_into_tasks, read_task

    layout = TableFormat()
    reading = Reading([corpus], find_sources([corpus], layout=layout), "raise", layout)
    begin, documents = time.perf_counter(), 0
    for task in cut_into_tasks(reading):
        for block in read_task(task, reading, 1 << 16):
            block.to_row()
            documents += len(block.documents)
    return {"documents_per_second": documents / (time.perf_counter() - begin)}


@contextmanager
def _watched() -> Iterator[dict[str, int]]:
    """Peaks, filled while the block runs: of the largest actor, and of all processes below this one together."""
    peaks, ended = {"actor_bytes": 0, "all_bytes": 0}, threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            held = {process: memory_of(process).get("RssAnon", 0) for process in _below("self")}
            encoding = [size for process, size in held.items() if _is_actor(process)]
            peaks["actor_bytes"] = max(peaks["actor_bytes"], *encoding, 0)
            peaks["all_bytes"] = max(peaks["all_bytes"], sum(held.values()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def _below(process: int | str) -> Iterator[int]:
    """Processes that the process started, and that these started, where the system lists them (Linux)."""
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = list(map(int, task.read_text().split()))
        except OSError:
            continue
        for child in children:
            yield child
            yield from _below(child)


def _is_actor(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::MapWorker")
    except OSError:
        return False


if __name__ == "__main__":
    answer_once({"encode": encode, "read": read})
