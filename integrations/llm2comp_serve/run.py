"""Runs a server until it is told to stop: `llm2comp serve`."""

import errno
import ipaddress
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from llm2comp import keep_freed_memory
from llm2comp.atomic import write_file
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_serve.app import create_app
from llm2comp_serve.settings import ServeSettings

__all__ = ["application", "is_loopback", "run"]

_SETTINGS = "LLM2COMP_SERVE"
_THREADS = "LLM2COMP_SERVE_THREADS"
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_WORKERS = "LLM2COMP_SERVE_WORKERS"
_FAILURE = "failure"


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(settings: ServeSettings, *, host: str, port: int, workers: int = 1, grace: int = 30) -> None:
    """Serves until SIGTERM or SIGINT; then finishes the requests that are under way.

    Args:
        settings: Settings of the server.
        host: Address to listen on.
        port: Port to listen on.
        workers: Number of processes, each with models and queues of its own; they divide the processor's threads.
        grace: Seconds that requests under way may take in the end.

    Raises:
        SettingsError: Nothing can listen there.
        LLM2CompError: A model or an index cannot be loaded.
    """
    common: dict[str, Any] = {
        "host": host,
        "port": port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": grace,
    }
    _check_free(host, port)
    if workers == 1:
        _run_one(create_app(settings), common)
        return
    folder = tempfile.mkdtemp(prefix="llm2comp-metrics-")
    shared = {
        _SETTINGS: json.dumps(_to_json(settings)),
        _THREADS: str(max(1, torch.get_num_threads() // workers)),
        _METRICS: folder,
        _WORKERS: str(workers),
    }
    os.environ.update(shared)
    try:
        uvicorn.run("llm2comp_serve.run:application", factory=True, workers=workers, **common)
        if (failure := Path(folder, _FAILURE)).exists():
            raise LLM2CompError(failure.read_text("utf-8"))
    finally:
        for name in shared:
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


def _run_one(app: FastAPI, common: dict[str, Any]) -> None:
    """Serves in this process.

    Raises:
        LLM2CompError: A model or an index cannot be loaded; the server has ended then.
    """
    server = uvicorn.Server(uvicorn.Config(app, **common))
    service = app.state.service
    service.on_failure = lambda error: setattr(server, "should_exit", True)
    with suppress(KeyboardInterrupt):
        server.run()
    if service.failure:
        raise service.failure


def application() -> FastAPI:
    """The application of a worker process, with the settings that its parent left in the environment."""
    torch.set_num_threads(int(os.environ[_THREADS]))
    keep_freed_memory()
    configure_log()
    app = create_app(_from_json(json.loads(os.environ[_SETTINGS])))
    service, folder, workers = app.state.service, Path(os.environ[_METRICS]), int(os.environ[_WORKERS])
    service.on_ready = (folder / f"{os.getpid()}.ready").touch
    service.others_ready = lambda: _ready_workers(folder) >= workers
    log_failure = service.on_failure

    def end_or_log(error: Exception) -> None:
        """Ends the whole server, unless other workers serve and this one was to replace one that died."""
        if not isinstance(error, LLM2CompError) or _ready_workers(folder):
            log_failure(error)
        if not _ready_workers(folder):
            write_file(folder / _FAILURE, [str(error)], draft=f"{os.getpid()}.part")
            os.kill(os.getppid(), signal.SIGTERM)

    service.on_failure = end_or_log
    return app


def _ready_workers(folder: Path) -> int:
    return sum(_lives(int(path.stem)) for path in folder.glob("*.ready"))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def configure_log() -> None:
    """One JSON line on stderr for each request, and for what uvicorn and the library say."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("llm2comp", "llm2comp_indexes", "llm2comp_serve", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)


class _JsonLines(logging.Formatter):
    """A log record as one line of JSON; the message of a request is JSON already."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        if record.name == "llm2comp_serve.access":
            return f'{{"time":"{moment}",{message[1:]}'
        facts = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "message": message}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts)


def _check_free(host: str, port: int) -> None:
    """Checks that the address can be listened on, before a model is loaded.

    Raises:
        SettingsError: It cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise SettingsError(
            f"--host is {host!r}, expected a name or an address of this machine, such as 127.0.0.1 or ::1"
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            other = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
            raise SettingsError(
                f"cannot listen on {host}, port {port}: {error.strerror}; give another {other}"
            ) from error


def _to_json(settings: ServeSettings) -> dict[str, Any]:
    values = asdict(settings)
    values["indexes"] = {name: str(folder) for name, folder in settings.indexes.items()}
    values["writable"] = sorted(settings.writable)
    return values


def _from_json(values: dict[str, Any]) -> ServeSettings:
    values["indexes"] = {name: Path(folder) for name, folder in values["indexes"].items()}
    for name in ("models", "api_keys", "cors_origins"):
        values[name] = tuple(values[name])
    return ServeSettings(**{**values, "writable": frozenset(values["writable"])})
