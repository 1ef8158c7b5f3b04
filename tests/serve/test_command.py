"""`llm2comp serve` as users start it: one process or several, until SIGTERM; what it refuses."""

import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp import LLM2Comp
from llm2comp.cli import main
from llm2comp.cli.serve import _keys
from tests.serve.conftest import TEXTS
from tests.serve.server import ask, free_port, serving_command

_EXACT = ("--dtype", "float32", "--engine", "torch")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Exit status and stderr of the command in this process."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["llm2comp", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), capsys.readouterr().err

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in ("llm2comp_serve", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_host_that_others_reach_needs_a_key(run: Any, host: str) -> None:
    status, stderr = run("serve", "--host", host)
    assert status == 2
    assert "--api-key-file" in " ".join(stderr.replace("│", " ").split())


def test_a_file_without_keys(run: Any, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n \n")
    status, stderr = run("serve", "--api-key-file", tmp_path / "keys")
    assert status == 2
    assert "holds no key" in stderr
    status, stderr = run("serve", "--api-key-file", tmp_path / "nothing")
    assert status == 2
    assert "cannot be read" in stderr


def test_comments_and_blank_lines_are_not_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes("\ufefffirst\r\n\r\n# of the second client\r\n  second  \r\n".encode())
    assert _keys(path) == ("first", "second")


def test_a_line_of_more_than_a_key(run: Any, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first\nsecond # of Ann\n")
    status, stderr = run("serve", "--api-key-file", tmp_path / "keys")
    assert status == 2
    assert "line 2" in stderr


def test_a_port_in_use(run: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, stderr = run("serve", "--port", str(other.getsockname()[1]))
    assert status == 1
    assert "give another --port" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("[::1]", "expected a name or an address of this machine"),
        ("no-such-host.invalid", "expected a name or an address of this machine"),
        ("192.0.2.1", "give another --host"),
    ],
)
def test_a_host_that_is_not_this_machine(run: Any, host: str, message: str) -> None:
    status, stderr = run("serve", "--no-auth", "--host", host, "--port", str(free_port()))
    assert status == 1
    assert message in stderr
    assert "Traceback" not in stderr


def test_a_model_that_is_not_there(run: Any, tmp_path: Path) -> None:
    status, stderr = run("serve", "--port", str(free_port()), "--model", tmp_path / "nothing")
    assert status == 1
    assert str(tmp_path / "nothing") in stderr
    assert "Traceback" not in stderr


def test_a_model_that_none_of_two_processes_can_load(run: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    status, stderr = run("serve", "--port", str(free_port()), "--workers", "2", "--model", tmp_path / "nothing")
    assert status == 1
    assert str(tmp_path / "nothing") in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert time.monotonic() - start < 60


def test_an_index_that_is_not_there(run: Any, tmp_path: Path) -> None:
    status, stderr = run("serve", "--port", str(free_port()), "--index", f"docs={tmp_path / 'nothing'}")
    assert status == 1
    assert "nothing" in stderr
    assert "Traceback" not in stderr


def test_sigterm_finishes_what_is_under_way(tmp_path: Path, bundled: LLM2Comp) -> None:
    replies: list[Any] = []
    texts = [f"{place} {'word ' * 300}" for place in range(100)]
    with serving_command(*_EXACT, log=tmp_path / "log") as (url, process):
        client = threading.Thread(target=lambda: replies.append(ask(f"{url}/v1/embeddings", {"input": texts})))
        client.start()
        while b'queue_tokens{model="llm2comp-tiny"} 0.0' in ask(f"{url}/metrics").body and not replies:
            time.sleep(0.01)
        assert not replies  # under way, not done
        process.send_signal(signal.SIGTERM)
        client.join(60)
        process.wait(60)
    assert [reply.status for reply in replies] == [200]
    vectors = np.array([row["embedding"] for row in replies[0].json["data"]])
    np.testing.assert_allclose(vectors[[0, 99]], bundled.encode_document([texts[0], texts[99]]), atol=1e-5)
    assert process.returncode in (0, 128 + signal.SIGTERM)
    log = (tmp_path / "log").read_text().splitlines()
    assert "Traceback" not in "".join(log)
    lines = [json.loads(line) for line in log]  # all of it is JSON
    [request] = [line for line in lines if line.get("path") == "/v1/embeddings"]
    assert (request["status"], request["texts"]) == (200, 100)
    assert request["time"].endswith("Z")


def test_two_processes_and_their_summed_numbers(tmp_path: Path, bundled: LLM2Comp) -> None:
    expected = bundled.encode_document(TEXTS)
    with serving_command("--workers", "2", *_EXACT, log=tmp_path / "log") as (url, process):
        assert {ask(f"{url}/v1/models").status for _ in range(20)} == {200}  # ready: every process is
        for _ in range(12):
            rows = ask(f"{url}/v1/embeddings", {"input": TEXTS}).json["data"]
            np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)
        for _ in range(3):  # whichever process answers
            numbers = ask(f"{url}/metrics").body.decode()
            assert 'llm2comp_texts_total{model="llm2comp-tiny"} 36.0' in numbers
            assert 'llm2comp_requests_total{route="/v1/embeddings",status="200"} 12.0' in numbers
        process.terminate()
        process.wait(60)
    assert "Traceback" not in (tmp_path / "log").read_text()
