"""Processes that each hold one system of a benchmark: systems take turns, each with its own time and memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.cost.processes import Job, last_line, thread_limits

__all__ = ["Worker", "serve"]


class Worker:
    """A process that does one job at a time; it ends with the `with` block that it was opened in.

    Attributes:
        name: The system's name, for messages.
        opened: The object that the process sent when it was ready.

    Raises:
        LLM2CompError: The process could not start; the message has its last line of standard error.
    """

    def __init__(self, name: str, command: Sequence[str], *, threads: int) -> None:
        self.name = name
        self._errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed with the worker
        self._process = subprocess.Popen(
            list(command),
            env={**os.environ, **thread_limits(threads)},
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
        """The result of a job.

        Raises:
            LLM2CompError: The process ended instead; the message has its last line of standard error.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended; _answer says why
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
        raise LLM2CompError(f"{self.name}: failed: {last_line(self._errors.read(), f'ended with status {status}')}")


def serve(open_system: Callable[[], tuple[dict[str, Any], Mapping[str, Job]]]) -> None:
    """The other side of a `Worker`: opens a system, sends its facts, and does jobs until its input ends.

    What libraries print meanwhile goes to standard error.

    Args:
        open_system: Opens the system; returns the facts that become `Worker.opened`, and its jobs by name.
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
