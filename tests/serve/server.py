"""Servers for tests: in a thread of this process, or as the command that users type."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_SECONDS = 120
"""Time for importing torch and loading a model on a busy machine."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None, key: str = ""
) -> Reply:
    """The answer to a request, whatever its status."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
        **(headers or {}),
    }
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            return Reply(response.status, _lower(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, _lower(error.headers), error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: "subprocess.Popen[str] | None" = None) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process is None or process.poll() is None, "the server has ended"
        try:
            if ask(f"{url}/ready").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} is not ready after {_SECONDS} s")


@contextmanager
def serving(app: Any, *, ready: bool = True) -> Iterator[str]:
    """The address of an application that a thread serves over a real socket."""
    import uvicorn

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        if ready:
            wait_until_ready(url)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def command(*arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    """The command `llm2comp` with these arguments, as a child process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "llm2comp", *map(str, arguments)]
    return subprocess.Popen(words, env=environment, text=True, **options)


@contextmanager
def serving_command(*arguments: str | Path, log: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address and the process of `llm2comp serve`, ready, whose stderr goes to a file."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as stderr, command("serve", "--port", str(port), *arguments, stderr=stderr) as process:
        try:
            wait_until_ready(url, process)
            yield url, process
        finally:
            if process.poll() is None:
                process.terminate()
