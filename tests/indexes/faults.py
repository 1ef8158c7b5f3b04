"""Changes of an index in separate processes, killed or out of disk space at a moment that the test chooses.

Run as a program it is a server: it imports everything once, and forks a child for each order (a JSON line on stdin). In
the child every call that changes the disk passes a gate, which counts, and kills the process or fails when its turn has
come.
"""

import builtins
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from llm2comp.corpus.documents import Document
from tests.paths import ROOT
from tests.word_encoder import WordEncoder

_WRITES = {"write", "pwrite", "mkdir", "fsync"}  # what fails on a full device


@dataclass(frozen=True)
class Fault:
    """When and how a child fails.

    Kinds: `kill` before the `at`-th change of the disk, `half` within it, `full` (disk) from it on, `stop` (as by
    Ctrl-C) before it. With `after`, the child is killed from outside after that many seconds.
    """

    kind: str = "none"
    at: int = 0
    after: float | None = None


class Outcome(NamedTuple):
    """How a child ended.

    Attributes:
        code: Exit code; negative: the signal.
        error: Message of the error raised.
        gates: Number of gates passed.
        encoded: Texts encoded.
        result: What the change returned.
    """

    code: int
    error: str
    gates: int
    encoded: list[str]
    result: Any


class FaultServer:
    """Runs changes in child processes; a context manager."""

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "indexes")]),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.indexes.faults"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, task: str, folder: Path, fault: Fault = Fault(), **arguments: Any) -> Outcome:
        """Runs a task of `_change` on the folder in a child process."""
        assert self._process.stdin
        assert self._process.stdout
        record = folder.with_name(folder.name + ".record")
        record.unlink(missing_ok=True)
        order = {
            "task": task,
            "folder": str(folder),
            "fault": asdict(fault),
            "record": str(record),
            "arguments": arguments,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        entries = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        record.unlink(missing_ok=True)
        merged = {name: value for entry in entries for name, value in entry.items()}
        return Outcome(
            code,
            merged.get("error", ""),
            merged.get("gates", 0),
            [entry["text"] for entry in entries if "text" in entry],
            merged.get("result"),
        )


class _Record:
    """Lines about a child for its server, written without passing a gate."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, **entry: Any) -> None:
        os.write(self._descriptor, json.dumps(entry, default=str).encode() + b"\n")


class _Gate:
    """Counts changes of the disk and fails at the chosen one."""

    def __init__(self, fault: Fault) -> None:
        self.passed = 0
        self._fault, self._lock = fault, threading.Lock()

    def enter(self, name: str, begin: Callable[[], object] = lambda: None) -> None:
        """Called before a change; `begin` does half of it."""
        fault = self._fault
        if fault.kind == "full" and name not in _WRITES:
            return
        with self._lock:
            self.passed += 1
            due = self.passed == fault.at
            if fault.kind == "kill" and due:
                os.kill(os.getpid(), signal.SIGKILL)
            if fault.kind == "half" and due:
                begin()
                os.kill(os.getpid(), signal.SIGKILL)
            if fault.kind == "stop" and due:
                raise KeyboardInterrupt
            if fault.kind == "full" and self.passed >= fault.at:
                if due:
                    begin()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _install(gate: _Gate) -> None:
    """Puts the gate before every call that changes the disk."""
    real_open = io.open

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            gate.enter("write", lambda: io.FileIO.write(self, bytes(data)[: len(data) // 2]))
            return super().write(data) or 0

        def truncate(self, size: int | None = None) -> int:
            gate.enter("truncate")
            return super().truncate(size)

    def gated_open(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: Any = None,
        errors: Any = None,
        newline: Any = None,
        **rest: Any,
    ) -> Any:
        if not set(mode) & set("wxa+"):
            return real_open(file, mode, buffering, encoding, errors, newline, **rest)
        gate.enter("open")
        raw = Raw(file, mode.replace("b", "").replace("t", ""), **rest)
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    io.open = builtins.open = gated_open  # type: ignore[assignment]  # of the overloads, what our code calls
    for name in ("replace", "rename", "unlink", "mkdir", "rmdir", "pwrite", "link"):
        setattr(os, name, _gated(gate, name, getattr(os, name)))
    os.fsync = _gated(gate, "fsync", lambda descriptor: None)  # what is written outlives its process as it is


def _gated(gate: _Gate, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def through(*arguments: Any, **keywords: Any) -> Any:
        gate.enter(name)
        return call(*arguments, **keywords)

    return through


class _RecordingEncoder(WordEncoder):
    """Records each document it encodes."""

    def __init__(self, record: _Record) -> None:
        super().__init__()
        self._record = record

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> Any:
        for text in inputs:
            self._record.add(text=text)
        return super().encode_document(inputs)


def _change(task: str, folder: Path, record: _Record, arguments: dict[str, Any]) -> Any:
    from llm2comp_indexes import (
        IndexOptions,
        add_documents,
        build_index,
        delete_documents,
        merge_index,
        rebuild_index,
        sync_index,
    )
    from llm2comp_indexes.builder import blocks as row_blocks
    from llm2comp_indexes.change import compare, living_rows, vectors

    for module, name, value in (
        (row_blocks, "BLOCK", 3),
        (compare, "IDS_AT_ONCE", 4),
        (living_rows, "_BLOCK", 3),
        (vectors, "_BLOCK", 3),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)
    encoder = _RecordingEncoder(record)
    if task == "build":
        options = IndexOptions(**arguments.pop("options", {}))
        return build_index([arguments.pop("corpus")], folder, model=encoder, options=options, **arguments).documents
    if task == "add":
        return add_documents(folder, [arguments["corpus"]], model=encoder)[:3]
    if task == "sync":
        report = sync_index(folder, model=encoder)
        return [*report[:4], len(report.vanished)]
    if task == "upsert":
        documents = [Document(name, "", text) for name, text in arguments["texts"].items()]
        return vectors.upsert_vectors(folder, documents, WordEncoder().encode_document([*arguments["texts"].values()]))
    if task == "rebuild":
        return rebuild_index(folder, model=encoder, options=IndexOptions(**arguments["options"]))[:3]
    if task == "delete":
        return delete_documents(folder, arguments["ids"])
    changed = IndexOptions(**arguments["options"]) if "options" in arguments else None
    return merge_index(folder, options=changed)[:2]


def _live(order: dict[str, Any]) -> None:
    """Runs in the child."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    record, gate = _Record(order["record"]), _Gate(Fault(**order["fault"]))
    _install(gate)
    try:
        record.add(result=_change(order["task"], Path(order["folder"]), record, order["arguments"]))
    except BaseException as error:
        record.add(error=f"{type(error).__name__}: {error}", gates=gate.passed)
        os._exit(1)
    record.add(gates=gate.passed)
    os._exit(0)


def _warm_up() -> None:
    """Imports everything that a child needs."""
    import faiss

    from llm2comp_indexes import IndexOptions, build_index, delete_documents, merge_index

    faiss.omp_set_num_threads(1)
    with TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.jsonl")
        corpus.write_text(
            "".join(json.dumps({"_id": str(row), "text": f"text {row}", "year": row}) + "\n" for row in range(20))
        )
        build_index([corpus], Path(folder, "idx"), model=WordEncoder(), options=IndexOptions("hnsw", hybrid=True))
        delete_documents(Path(folder, "idx"), ["3"])
        merge_index(Path(folder, "idx"))


def _serve() -> None:
    _warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        if not (child := os.fork()):
            _live(order)
        if order["fault"]["after"] is not None:
            time.sleep(order["fault"]["after"])
            os.kill(
                child, signal.SIGKILL
            )  # an ended child keeps its id until it is waited for, so this is never another process
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
