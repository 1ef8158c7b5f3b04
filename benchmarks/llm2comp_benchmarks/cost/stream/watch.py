"""An index build watched from outside: finished texts and memory over time, until it ends or is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.cost.memory import memory_of
from llm2comp_benchmarks.cost.processes import last_line, thread_limits

__all__ = ["WatchedBuild", "finished_blocks", "half_a_block", "thinned", "watch_build"]

_POINTS = 100  # of a curve that are kept
_EVERY_SECONDS = 1.0
_POLL_SECONDS = 0.05
_RECENT = 20  # points that the speed of a build is estimated from


@dataclass(slots=True)
class WatchedBuild:
    """The curve of a build: at each of `seconds`, texts in finished blocks and bytes that the process held.

    `resident` counts pages of mapped files, which the system can take back; `anonymous` does not.

    Attributes:
        seconds: Since the start.
        texts: In finished blocks.
        resident: Bytes held, pages of mapped files among them.
        anonymous: Bytes held, without them.
        since_block: Seconds between the last point and the kill.
        report: What the build printed, if it was not killed.
    """

    seconds: list[float] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    since_block: float = 0.0
    report: dict[str, Any] | None = None

    def add(self, seconds: float, texts: int, status: dict[str, int]) -> None:
        """Adds a point; `status` is what `memory_of` says of the process."""
        self.seconds.append(round(seconds, 1))
        self.texts.append(texts)
        self.resident.append(status["VmRSS"])
        self.anonymous.append(status["RssAnon"])

    def samples(self) -> dict[str, list[Any]]:
        """At most 100 points, each the maximum of a stretch of the curve."""
        return {
            name: thinned(getattr(self, name), _POINTS, max) for name in ("seconds", "texts", "resident", "anonymous")
        }


def thinned(values: list[Any], most: int, pick: Callable[[list[Any]], Any]) -> list[Any]:
    """At most `most` values, each picked from one of as many stretches of about equal length."""
    stretches = min(len(values), most)
    edges = [len(values) * number // stretches for number in range(stretches + 1)] if values else []
    return [pick(values[start:end]) for start, end in zip(edges, edges[1:], strict=False)]


def watch_build(
    corpus: Path,
    output: Path,
    *,
    block: int,
    model: str | None = None,
    threads: int = 1,
    kill_at: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> WatchedBuild:
    """Runs `llm2comp index build` to its end, or kills it (SIGKILL) in the middle of a block.

    Args:
        corpus: What is indexed.
        output: The index.
        block: Texts in a block of the builder.
        model: Folder of the model; None: the bundled one.
        threads: Limit of the build's threads.
        kill_at: Finished texts after which the build is killed in the middle of the next block; None: never.
        tell: Called with a line every 50 blocks.

    Raises:
        LLM2CompError: The build failed; the message has its last line of standard error.
    """
    command = [sys.executable, "-m", "llm2comp", "index", "build", str(corpus), "-o", str(output)]
    command += ["--type", "flat", "--json", *(["--model", model] if model else [])]
    watched, start = WatchedBuild(), time.perf_counter()
    with TemporaryFile("w+") as answer, TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env={**os.environ, **thread_limits(threads)}, stdout=answer, stderr=errors)
        for texts in _follow(process, output, block, start, watched, tell):
            if kill_at is not None and texts >= kill_at:
                time.sleep(half_a_block(watched, block))
                watched.since_block = time.perf_counter() - start - watched.seconds[-1]
                process.send_signal(signal.SIGKILL)
                process.wait()
                return watched
        errors.seek(0)
        if process.wait():
            raise LLM2CompError(f"index build: failed: {last_line(errors.read(), 'no message')}")
        answer.seek(0)
        watched.report = json.loads(answer.read())
    return watched


def _follow(
    process: "subprocess.Popen[str] | subprocess.Popen[bytes]",
    output: Path,
    block: int,
    start: float,
    watched: WatchedBuild,
    tell: Callable[[str], None],
) -> Iterator[int]:
    """Texts in finished blocks whenever there are more; meanwhile adds a point every second."""
    seen, due = -1, 0.0
    while process.poll() is None:
        now, texts = time.perf_counter() - start, block * finished_blocks(output)
        status = memory_of(process.pid)
        if "RssAnon" in status and (now >= due or texts > seen):
            watched.add(now, texts, status)
            due = now + _EVERY_SECONDS
        if texts > seen:
            if texts // (50 * block) > seen // (50 * block):
                memory = f" in {now:.0f} s, {watched.resident[-1] / 1e6:,.0f} MB" if watched.resident else ""
                tell(f"{texts:,} texts{memory}")
            seen = texts
            yield texts
        time.sleep(_POLL_SECONDS)


def half_a_block(watched: WatchedBuild, block: int) -> float:
    """Seconds that half a block took, estimated from the last 20 points."""
    texts, seconds = watched.texts[-_RECENT:], watched.seconds[-_RECENT:]
    return 0.5 * block * (seconds[-1] - seconds[0]) / max(block, texts[-1] - texts[0])


def finished_blocks(output: Path) -> int:
    """Blocks on the device, by the journal of the one segment; 0 before there is one and after the commit."""
    try:
        return sum(max(0, journal.read_bytes().count(b"\n") - 1) for journal in output.glob("segments/*/journal.jsonl"))
    except OSError:
        return 0
