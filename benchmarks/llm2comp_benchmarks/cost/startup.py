"""Cold starts: new processes that import torch, import llm2comp or run a command, beside one that imports torch."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

from llm2comp.corpus.read import read_corpus
from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.cost.checks import check_at_least
from llm2comp_benchmarks.cost.processes import last_line, thread_limits
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.results.record import result_record

__all__ = ["TORCH", "StartupBenchmark", "measure_starts", "run_startup_benchmark"]

TORCH = "import torch"
"""The start that all others are compared with."""

_QUESTION = "How do I split a path?"


@dataclass(frozen=True, slots=True)
class StartupBenchmark:
    """What is measured.

    Attributes:
        documents: Documents of the standard library in the index that is searched.
        threads: In every process.
        rounds: In each of which every process starts once; one more round before them is not counted.
    """

    documents: int = 300
    threads: int = 1
    rounds: int = 5

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("documents", "threads", "rounds"), 1))


class Start(NamedTuple):
    """Seconds from the start of a process to its end, and seconds of processors that it took."""

    seconds: float
    cpu_seconds: float


def run_startup_benchmark(
    settings: StartupBenchmark, *, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The record of a run: an entry for each process, its ratio to importing torch, and what the numbers rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A process failed.
    """
    start = time.perf_counter()
    with TemporaryDirectory(prefix="llm2comp-startup-") as folder:
        tell("build the index")
        index = _build_index(Path(folder), settings)
        starts = measure_starts(_commands(index), settings.rounds, threads=settings.threads, tell=tell)
    entries = {name: _entry(measured, starts[TORCH]) for name, measured in starts.items()}
    record = result_record([], asdict(settings), threads=settings.threads)
    return {**entries, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def measure_starts(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    threads: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Start]]:
    """The starts of each command in every round, after a first round that fills the caches of the system.

    Raises:
        LLM2CompError: A process failed; the message has its last line of standard error.
    """
    starts: dict[str, list[Start]] = {name: [] for name in commands}
    for number, name in in_turn(list(commands), rounds + 1):
        tell(f"round {number} of {rounds}: {name}")
        start = _run(name, commands[name], threads)
        if number:
            starts[name].append(start)
    return starts


def _run(name: str, command: Sequence[str], threads: int) -> Start:
    environment = {**os.environ, **thread_limits(threads)}
    with TemporaryFile("w+", errors="replace") as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode:
            raise LLM2CompError(f"{name}: failed: {last_line(errors.read(), f'status {process.returncode}')}")
    return Start(seconds, usage.ru_utime + usage.ru_stime)


def _commands(index: str) -> dict[str, list[str]]:
    """Command lines by name: Python, the imports, and the commands of llm2comp."""
    code = ("import torch", "import llm2comp", "import llm2comp; llm2comp.load()")
    words = {
        "llm2comp --help": ["--help"],
        "llm2comp index info": ["index", "info", index],
        "llm2comp search --mode bm25": ["search", index, _QUESTION, "--mode", "bm25"],
        "llm2comp search": ["search", index, _QUESTION],
    }
    return {
        "python": [sys.executable, "-c", "pass"],
        **{line: [sys.executable, "-c", line] for line in code},
        **{name: [sys.executable, "-m", "llm2comp", *arguments] for name, arguments in words.items()},
    }


def _build_index(folder: Path, settings: StartupBenchmark) -> str:
    """A hybrid index of the first documents of the standard library, by the bundled model."""
    corpus, index = folder / "corpus.jsonl", str(folder / "index")
    documents = islice(read_corpus("python-docs:", on_error="skip"), settings.documents)
    rows = ({"_id": document.id, "title": document.title, "text": document.text} for document in documents)
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "llm2comp", "index", "build", str(corpus), "-o", index, "--hybrid"]
    _run("build the index", command, settings.threads)
    return index


def _entry(measured: Sequence[Start], torch: Sequence[Start]) -> dict[str, Any]:
    """Seconds and CPU seconds, both over those of importing torch (`ratio`), and what is beyond these (`beyond`)."""
    entry: dict[str, Any] = {}
    for field in Start._fields:
        ours, theirs = ([getattr(start, field) for start in starts] for starts in (measured, torch))
        beyond = [one - other for one, other in zip(ours, theirs, strict=True)]
        stats = {"": RoundStats.of(ours), "_ratio": RoundStats.ratio(ours, theirs), "_beyond": RoundStats.of(beyond)}
        entry |= {f"{field}{suffix}": values.to_json() for suffix, values in stats.items()}
    return entry
