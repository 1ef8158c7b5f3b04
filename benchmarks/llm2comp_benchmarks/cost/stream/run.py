"""Memory over time while `llm2comp index build` encodes a long stream of short texts, and what it encodes again after it was killed on the way.

`python -m llm2comp_benchmarks.cost.stream.run WORKDIR benchmarks/results/stream-1000000.json 1000000` measures it:
sentences of the documentation of Python's standard library, with a number behind each so that no two are the same. A
shape behind it, such as 64x1x64, makes a model of random weights encode them in place of the bundled one: memory does
not depend on what the weights are.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryFile
from typing import Any

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.cost.models import PARTS, prepare
from llm2comp_benchmarks.cost.worker import THREAD_VARIABLES, found_packages, memory_of
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["Watched", "measure_stream", "peaks_by_phase", "short_sentences", "thinned", "watch_build", "write_stream"]

_WORDS = range(3, 8)  # of a sentence
_CHARACTERS = 40
_POINTS = 100  # of the curve of a run that are kept
_FEWEST_BLOCKS = 8  # of a stream: both runs need some
_EVERY_SECONDS = 1.0
_POLL_SECONDS = 0.05
_SAMPLE = 20_000  # texts whose tokens are counted


@dataclass(slots=True)
class Watched:
    """A build, seen from outside: at `seconds` so many `texts` were in finished blocks, and the process held so many bytes.

    `resident` counts pages of mapped files, which are the system's to take back; `anonymous` does not.
    """

    seconds: list[float] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    since_block: float = 0.0
    report: dict[str, Any] | None = None

    def add(self, seconds: float, texts: int, status: dict[str, int]) -> None:
        """One more point."""
        self.seconds.append(round(seconds, 1))
        self.texts.append(texts)
        self.resident.append(status["VmRSS"])
        self.anonymous.append(status["RssAnon"])

    def samples(self) -> dict[str, list[Any]]:
        """At most 100 of the points, with the largest of what lies between."""
        most = {name: thinned(getattr(self, name), _POINTS, max) for name in ("resident", "anonymous")}
        return {"seconds": thinned(self.seconds, _POINTS, max), "texts": thinned(self.texts, _POINTS, max), **most}


def thinned(values: list[Any], most: int, pick: Callable[[list[Any]], Any]) -> list[Any]:
    """At most so many values, each picked from one of as many stretches of about equal length."""
    edges = (
        [len(values) * number // most for number in range(most + 1)]
        if len(values) > most
        else list(range(len(values) + 1))
    )
    return [pick(values[start:end]) for start, end in zip(edges, edges[1:], strict=False)]


def short_sentences(corpus: str) -> list[str]:
    """Sentences of three to seven words from a corpus, each once."""
    from llm2comp.corpus.read import read_corpus

    found: dict[str, None] = {}
    for document in read_corpus(corpus, on_error="skip"):
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", document.content):
            words = sentence.split()
            if (
                len(words) in _WORDS
                and len(sentence) <= _CHARACTERS
                and all(word.isascii() for word in words)
                and sum(map(str.isalpha, words)) >= len(words) - 1
            ):
                found[" ".join(words)] = None
    if not found:
        raise LLM2CompError(f"{corpus}: no sentence of {_WORDS.start} to {_WORDS.stop - 1} words in it")
    return list(found)


def write_stream(file: Path, corpus: str, count: int) -> list[str]:
    """Writes so many different texts as a corpus, and gives the first of them."""
    first = []
    with file.open("w", encoding="utf-8") as target:
        for number, sentence in enumerate(islice(cycle(short_sentences(corpus)), count)):
            text = f"{sentence} {number}"
            target.write(json.dumps({"_id": str(number), "text": text}) + "\n")
            if number < _SAMPLE:
                first.append(text)
    return first


def watch_build(
    corpus: Path,
    output: Path,
    *,
    block: int,
    model: str | None = None,
    threads: int = 1,
    kill_at: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Watched:
    """Runs `llm2comp index build` to its end, or kills it (SIGKILL) in the middle of the block behind `kill_at` finished texts.

    Raises:
        LLM2CompError: It failed; the message has its last words.
    """
    chosen = ["--model", model] if model else []
    command = [
        sys.executable,
        "-m",
        "llm2comp",
        "index",
        "build",
        str(corpus),
        "-o",
        str(output),
        "--type",
        "flat",
        "--json",
        *chosen,
    ]
    watched, start = Watched(), time.perf_counter()
    with TemporaryFile("w+") as answer, TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, **{name: str(threads) for name in THREAD_VARIABLES}},
            stdout=answer,
            stderr=errors,
        )
        for texts in _follow(process, output, block, start, watched, tell):
            if kill_at is not None and texts >= kill_at:
                time.sleep(_half_a_block(watched, block))
                watched.since_block = time.perf_counter() - start - watched.seconds[-1]
                process.send_signal(signal.SIGKILL)
                process.wait()
                return watched
        errors.seek(0)
        if process.wait():
            raise LLM2CompError(
                f"index build: failed: {(errors.read().strip().splitlines() or ['no message'])[-1][:400]}"
            )
        answer.seek(0)
        watched.report = json.loads(answer.read())
    return watched


def _follow(
    process: "subprocess.Popen[str] | subprocess.Popen[bytes]",
    output: Path,
    block: int,
    start: float,
    watched: Watched,
    tell: Callable[[str], None],
) -> Iterator[int]:
    """Texts in finished blocks whenever there are more, while points are added every second."""
    seen, due = -1, 0.0
    while process.poll() is None:
        now, texts = time.perf_counter() - start, block * _finished_blocks(output)
        status = memory_of(process.pid)
        if "RssAnon" in status and (now >= due or texts > seen):
            watched.add(now, texts, status)
            due = now + _EVERY_SECONDS
        if texts > seen:
            if texts // (50 * block) > seen // (50 * block):
                tell(
                    f"{texts:,} texts in {now:.0f} s, {watched.resident[-1] / 1e6:,.0f} MB"
                    if watched.resident
                    else f"{texts:,} texts"
                )
            seen = texts
            yield texts
        time.sleep(_POLL_SECONDS)


def _half_a_block(watched: Watched, block: int) -> float:
    """Seconds that half a block took of late."""
    texts, seconds = watched.texts[-20:], watched.seconds[-20:]
    return 0.5 * block * (seconds[-1] - seconds[0]) / max(block, texts[-1] - texts[0])


def _finished_blocks(output: Path) -> int:
    """Blocks that are on the device, as the journal of the one segment says; 0 before it and after the commit."""
    try:
        return sum(max(0, journal.read_bytes().count(b"\n") - 1) for journal in output.glob("segments/*/journal.jsonl"))
    except OSError:
        return 0


def measure_stream(
    workdir: Path,
    texts: int,
    *,
    shape: str | None = None,
    corpus: str = "python-docs:",
    threads: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The record: memory over time of a build that is killed half-way and of the same command again, and what that one still had to encode.

    Raises:
        SettingsError: Too few texts.
        LLM2CompError: A build failed.
    """
    import llm2comp
    from llm2comp_indexes import verify_index
    from llm2comp_indexes.builder.blocks import BLOCK

    if texts < _FEWEST_BLOCKS * BLOCK:
        raise SettingsError(
            f"{texts:,} texts, expected at least {_FEWEST_BLOCKS * BLOCK:,}, which are {_FEWEST_BLOCKS} blocks"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    file, output, start = workdir / "stream.jsonl", workdir / "stream-index", time.perf_counter()
    sample = write_stream(file, corpus, texts)
    model, described = _make_model(workdir / "stream-model", shape) if shape else (None, "the bundled one")
    encoder = llm2comp.load(model).encoder
    lengths = [len(ids) + encoder.memory_tokens for ids in encoder.token_ids(sample)]
    shutil.rmtree(output, ignore_errors=True)
    killed = watch_build(file, output, model=model, block=BLOCK, threads=threads, kill_at=texts // 2, tell=tell)
    finished = BLOCK * _finished_blocks(output)
    tell(f"killed with {finished:,} texts in finished blocks")
    resumed = watch_build(file, output, model=model, block=BLOCK, threads=threads, tell=tell)
    assert resumed.report is not None
    verify_index(output)
    facts = {
        "texts": texts,
        "model": described,
        "corpus": corpus,
        "tokens_of_a_text": {"mean": round(mean(lengths), 2), "most": max(lengths)},
        "block": BLOCK,
        "threads": threads,
    }
    record = result_record(
        [], {**facts, "command": "llm2comp index build stream.jsonl -o INDEX --type flat --json"}, threads=threads
    )
    record["versions"] |= found_packages()
    samples = {"killed": killed.samples(), "resumed": resumed.samples()}
    runs = {name: _part(watched, samples[name]) for name, watched in (("killed", killed), ("resumed", resumed))}
    parts = {**runs, "restart": _restart(killed, resumed, texts, finished, BLOCK)}
    shutil.rmtree(output)
    shutil.rmtree(workdir / "stream-model", ignore_errors=True)
    file.unlink()
    return {**parts, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}, "samples": samples}


def _make_model(folder: Path, shape: str) -> tuple[str, dict[str, Any]]:
    """A model of random weights, and what it is."""
    shutil.rmtree(folder, ignore_errors=True)
    facts: dict[str, Any] = prepare(str(folder), shape=shape, plain=False)["model"]
    return str(folder / PARTS["ours"]), facts


def _part(watched: Watched, samples: dict[str, list[Any]]) -> dict[str, Any]:
    """What was seen of a run, and what it said of itself."""
    told = (
        {name: watched.report[name] for name in ("documents", "encoded", "encode_seconds", "seconds")}
        if watched.report
        else {}
    )
    return {"peak_bytes": peaks_by_phase(samples), "wall_seconds": watched.seconds[-1], **told}


def peaks_by_phase(samples: dict[str, list[Any]]) -> dict[str, dict[str, int]]:
    """Peaks of a run's curve: in both halves of the encoding, without what came before the first block and after the last, and in all."""
    texts = samples["texts"]
    encoding = [number for number, count in enumerate(texts) if texts[0] < count < max(texts)]
    half = len(encoding) // 2
    phases = {"encoding_first_half": encoding[:half], "encoding_second_half": encoding[half:], "all": range(len(texts))}
    return {
        phase: {name: max(samples[name][number] for number in numbers) for name in ("resident", "anonymous")}
        for phase, numbers in phases.items()
    }


def _restart(killed: Watched, resumed: Watched, texts: int, finished: int, block: int) -> dict[str, Any]:
    """What the kill cost: texts of finished blocks that were encoded again, and the time spent on the block under way beside what a block takes."""
    assert resumed.report is not None
    again = finished + resumed.report["encoded"] - texts
    seconds = {
        "seconds_in_the_block": round(killed.since_block, 2),
        "seconds_a_block": round(2 * _half_a_block(killed, block), 2),
    }
    return {
        "finished_before_the_kill": finished,
        "encoded_after_it": resumed.report["encoded"],
        "finished_but_encoded_again": again,
        **seconds,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # run by hand: says how far it is


def main() -> None:
    """Measures in the folder named first, writes the file named second, with as many texts as the third says, and with a model of the shape given last."""
    workdir, file, texts, *shape = sys.argv[1:]
    write_record(file, measure_stream(Path(workdir), int(texts), shape=shape[0] if shape else None, tell=_say))


if __name__ == "__main__":
    main()
