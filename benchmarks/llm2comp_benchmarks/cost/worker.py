"""Processes that hold one system of a benchmark each: systems take turns, while time and memory of each are its own."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from llm2comp.errors import LLM2CompError

__all__ = [
    "THREAD_VARIABLES",
    "Job",
    "Worker",
    "found_packages",
    "memory_of",
    "peak_bytes",
    "reset_peak",
    "run_process",
    "serve",
    "watch_process",
]

_EVERY_SECONDS = 0.02
_PACKAGES = ("faiss-cpu", "faiss-gpu", "pyarrow")
_MEMORY_FIELDS = ("VmRSS", "VmHWM", "RssAnon")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables that bound the threads of a process."""

Job = Callable[..., dict[str, Any]]
"""JSON keywords in, a JSON object out."""


class Worker:
    """A process that answers one job at a time, and is ended with the `with` block it was opened in.

    Attributes:
        name: The system's, for messages.
        opened: What it said when it was ready.

    Raises:
        LLM2CompError: It could not start; the message has its last words.
    """

    def __init__(self, name: str, command: Sequence[str], *, threads: int) -> None:
        self.name = name
        bounds = {variable: str(threads) for variable in THREAD_VARIABLES}
        self._errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed with the worker
        self._process = subprocess.Popen(
            list(command),
            env={**os.environ, **bounds},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        try:
            self.opened = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        """What a job gives.

        Raises:
            LLM2CompError: The process ended instead.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; its last words say why
            self._process.stdin.write(json.dumps([job, arguments]) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self._process.wait()
        self._errors.seek(0)
        words = (self._errors.read().strip().splitlines() or [f"ended with status {status}"])[-1]
        raise LLM2CompError(f"{self.name}: failed: {words[:400]}")


def serve(open_system: Callable[[], tuple[dict[str, Any], Mapping[str, Job]]]) -> None:
    """The other side of a `Worker`: opens a system, says what it is, and does the jobs it is asked for until its input ends.

    What libraries print goes to standard error meanwhile.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        facts, jobs = open_system()
        answers.write(json.dumps(facts) + "\n")
        answers.flush()
        for line in sys.stdin:
            name, arguments = json.loads(line)
            answers.write(json.dumps(jobs[name](**arguments)) + "\n")
            answers.flush()


def peak_bytes() -> int:
    """Most memory that this process held since it began or `reset_peak`; pages of mapped files count while they are resident."""
    if sys.platform.startswith("linux"):  # where ru_maxrss begins with that of the process it was forked from
        return memory_of("self")["VmHWM"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> int:
    """Begins a new peak where the system can (Linux), so that what loading took does not count; memory held now, in bytes."""
    if not sys.platform.startswith("linux"):
        return peak_bytes()
    with suppress(OSError):  # a container may forbid it: then the peak is that of loading, too
        Path("/proc/self/clear_refs").write_text("5")
    return memory_of("self")["VmRSS"]


def memory_of(process: int | Literal["self"]) -> dict[str, int]:
    """Bytes that a process holds, by Linux's names: VmRSS now, VmHWM at most, RssAnon now without pages of mapped files; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(fields[name].split()[0]) for name in _MEMORY_FIELDS if name in fields}


def run_process(what: str, command: list[str], threads: int) -> dict[str, Any]:
    """What the process prints as its last line, in JSON.

    Raises:
        LLM2CompError: It failed; the message says at what, with its last words.
    """
    bounds = {name: str(threads) for name in THREAD_VARIABLES}
    done = subprocess.run(command, env={**os.environ, **bounds}, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        raise LLM2CompError(f"{what}: failed: {words[:400]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def found_packages() -> dict[str, str]:
    """Versions of what an index depends on, as far as it is installed."""
    return {
        distribution.name: distribution.version for distribution in distributions() if distribution.name in _PACKAGES
    }


def watch_process(command: list[str], environment: dict[str, str]) -> dict[str, int]:
    """Most bytes that the process held: `resident` in all, as the kernel counts; `anonymous`, without pages of mapped files, as seen every 20 ms.

    Pages of mapped files are the system's to take back: an index larger than memory can be built and searched.
    Anonymous ones are what a build needs.

    Raises:
        LLM2CompError: It failed; the message has its last words.
    """
    peaks = {"VmHWM": 0, "RssAnon": 0}
    with TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            held = memory_of(process.pid)
            peaks = {name: max(peak, held.get(name, 0)) for name, peak in peaks.items()}
            time.sleep(_EVERY_SECONDS)
        errors.seek(0)
        words = errors.read().strip().splitlines() or ["no message"]
    if process.returncode:
        raise LLM2CompError(f"{' '.join(command[1:4])[:80]}: failed: {words[-1][:400]}")
    return {"resident": peaks["VmHWM"], "anonymous": peaks["RssAnon"]}
