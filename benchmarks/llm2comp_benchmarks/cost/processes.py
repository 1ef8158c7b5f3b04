"""Parts of a benchmark in processes of their own: their command lines, their threads, their answers, their memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from tempfile import TemporaryFile
from typing import Any

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.cost.memory import memory_of

__all__ = ["Job", "answer_once", "last_line", "module_command", "run_process", "thread_limits", "watch_process"]

Job = Callable[..., dict[str, Any]]
"""A function of a child process: JSON keywords in, a JSON object out."""

_POLL_SECONDS = 0.02
_MESSAGE_CHARACTERS = 400
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def module_command(module: str, *words: str, **arguments: Any) -> list[str]:
    """The command line of a module of ours, run by this Python: words, then the keywords as one JSON object."""
    return [sys.executable, "-m", module, *words, json.dumps(arguments)]


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that limit a process to a number of threads."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def last_line(text: str, otherwise: str) -> str:
    """The last line of what a process wrote to standard error, at most 400 characters; `otherwise` if it wrote none."""
    return (text.strip().splitlines() or [otherwise])[-1][:_MESSAGE_CHARACTERS]


def run_process(title: str, command: list[str], threads: int) -> dict[str, Any]:
    """The JSON object that a process prints as its last line.

    Args:
        title: What the process does, for the error message.
        command: Its command line.
        threads: Limit of its threads.

    Raises:
        LLM2CompError: The process failed; the message has the title and its last line of standard error.
    """
    environment = {**os.environ, **thread_limits(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise LLM2CompError(f"{title}: failed: {last_line(done.stderr, f'ended with status {done.returncode}')}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def answer_once(jobs: Mapping[str, Job]) -> None:
    """The other side of `run_process`: does the job `sys.argv[1]` with keywords `sys.argv[2]` and prints the result."""
    print(json.dumps(jobs[sys.argv[1]](**json.loads(sys.argv[2]))))  # noqa: T201  # the answer to the parent process


def watch_process(command: list[str], environment: dict[str, str]) -> dict[str, int]:
    """Peak memory of a process, in bytes: `resident`, counted by the kernel, and `anonymous`, read every 20 ms.

    `resident` includes pages of mapped files, which the system can take back: an index larger than memory can be built
    and searched. `anonymous` leaves them out: it is what a build needs.

    Args:
        command: Its command line.
        environment: Variables beyond those of this process.

    Raises:
        LLM2CompError: The process failed; the message has its last line of standard error.
    """
    peaks = {"VmHWM": 0, "RssAnon": 0}
    with TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            memory = memory_of(process.pid)
            peaks = {name: max(peak, memory.get(name, 0)) for name, peak in peaks.items()}
            time.sleep(_POLL_SECONDS)
        errors.seek(0)
        message = last_line(errors.read(), "no message")
    if process.returncode:
        raise LLM2CompError(f"{' '.join(command[1:4])[:80]}: failed: {message}")
    return {"resident": peaks["VmHWM"], "anonymous": peaks["RssAnon"]}
