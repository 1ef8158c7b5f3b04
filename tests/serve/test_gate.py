"""Keys, limits of bodies, the state of the server, its numbers and its log."""

import json
import logging
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from fastapi import FastAPI

from llm2comp_serve import ServeSettings, create_app
from tests.serve.server import ask, serving

_LOADED: dict[str, Any] = {"models": ("llm2comp-tiny",), "dtype": "float32", "engine": "torch", "device": "cpu"}


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """Address of a server with two keys."""
    app = create_app(
        ServeSettings(**_LOADED, api_keys=("first-key", "second-key"), cors_origins=("https://a.example",))
    )
    with serving(app) as url:
        yield url


def _raw(url: str, data: bytes, *, seconds: float = 30.0) -> bytes:
    """What comes back when these bytes are sent and no more."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/page.css", "/page.js"])
def test_state_and_page_need_no_key(locked: str, path: str) -> None:
    assert ask(locked + path).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/embeddings"),
        ("POST", "/"),
        ("POST", "/embed"),
        ("GET", "/info"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/v1/indexes"),
        ("GET", "//health"),
        ("GET", "/health/"),
        ("GET", "/nothing"),
        ("PUT", "/v1/indexes/corpus/documents"),
        ("POST", "/mcp"),
    ],
)
def test_all_else_needs_one(locked: str, method: str, path: str) -> None:
    for key in ("", "first", "first-key2", "FIRST-KEY", "first-keyé"):
        headers = {"Authorization": f"Bearer {key}".encode().decode("latin-1")} if key else {}
        reply = ask(locked + path, {} if method != "GET" else None, method=method, headers=headers)
        assert reply.status == 401, (path, key)
        assert reply.headers["www-authenticate"] == "Bearer"
    for key in ("first-key", "second-key"):
        assert ask(locked + path, {} if method != "GET" else None, method=method, key=key).status != 401


def test_a_missing_key_has_the_shape_that_clients_expect(locked: str) -> None:
    error = ask(f"{locked}/v1/models").json["error"]
    assert error["type"] == "authentication_error"
    assert error["code"] == "invalid_api_key"
    assert "Authorization: Bearer KEY" in error["message"]
    assert isinstance(ask(f"{locked}/info").json["error"], str)
    basic = {"Authorization": "Basic first-key"}
    assert ask(f"{locked}/v1/models", headers=basic).status == 401


def test_pages_of_named_origins_only_may_call(locked: str) -> None:
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    allowed = ask(f"{locked}/v1/embeddings", method="OPTIONS", headers=preflight)
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    other = {**preflight, "Origin": "https://b.example"}
    assert "access-control-allow-origin" not in ask(f"{locked}/v1/embeddings", method="OPTIONS", headers=other).headers


def test_no_page_may_call_by_default(url: str) -> None:
    reply = ask(f"{url}/health", headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in reply.headers


def test_bodies_have_a_most_of_bytes(url: str) -> None:
    reply = ask(f"{url}/v1/embeddings", b'{"input": "%s"}' % (b"a" * (1 << 20)))
    assert reply.status == 413
    assert reply.json["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/nowhere"])
def test_a_client_that_sends_slowly_and_whole_reads_the_refusal(url: str, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n".encode()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(head)
        for _ in range(8):
            connection.sendall(b" " * (1 << 20))
            time.sleep(0.05)
        status = connection.recv(65536).split(b"\r\n")[0]
    assert status.startswith(b"HTTP/1.1 413 "), status


def test_a_refusal_does_not_ask_for_the_body(url: str) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8388608\r\n\r\n"
    answer = _raw(url, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_the_most_holds_for_bodies_that_hide_their_length(url: str) -> None:
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = _raw(url, head + chunk * 17)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert b"connection: close" in answer.lower()


def test_a_body_that_does_not_arrive_is_given_up(url: str) -> None:
    start = time.monotonic()
    answer = _raw(url, b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:200]
    assert time.monotonic() - start < 15
    assert ask(f"{url}/v1/embeddings", {"input": "a"}).status == 200


def test_half_a_body_and_gone_harms_nobody(url: str) -> None:
    parts = urlsplit(url)
    for _ in range(20):
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    assert ask(f"{url}/v1/embeddings", {"input": "a"}).status == 200


def test_a_client_that_goes_away_gets_no_batch(app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [model, *_] = app.state.service.models
    entered, go, sizes = threading.Event(), threading.Event(), []
    encode = model.batcher._encode

    def slow(ids: Any) -> Any:
        sizes.append(len(ids))
        entered.set()
        assert go.wait(30)
        return encode(ids)

    monkeypatch.setattr(model.batcher, "_encode", slow)
    first = threading.Thread(target=ask, args=(f"{url}/v1/embeddings", {"input": "a"}))
    first.start()
    assert entered.wait(30)
    parts, body = urlsplit(url), json.dumps({"input": ["b"] * 50}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(head.encode() + body)
        _until(lambda: model.batcher.waiting_tokens > 0)
    _until(lambda: all(job.future.cancelled() for job in model.batcher._jobs))
    go.set()
    first.join()
    assert ask(f"{url}/v1/embeddings", {"input": "c"}).status == 200
    assert sizes == [1, 1]


def _until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_failed_batch_is_424_in_both_shapes(app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [model, *_] = app.state.service.models

    def fail(ids: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.batcher, "_encode", fail)
        reply = ask(f"{url}/v1/embeddings", {"input": "a"})
        assert (reply.status, reply.json["error"]["code"]) == (424, "model_failed")
        assert reply.json["error"]["message"] == "the model failed: out of memory"
        reply = ask(f"{url}/embed", {"inputs": "a"})
        assert (reply.status, reply.json["error_type"]) == (424, "Backend")
        assert ask(f"{url}/v1/search", {"index": "corpus", "query": "a"}).status == 424
    assert ask(f"{url}/v1/embeddings", {"input": "a"}).status == 200


def test_a_full_queue_is_429_with_retry_after(app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [model, *_] = app.state.service.models
    monkeypatch.setattr(model.batcher, "_queue_tokens", 1)
    monkeypatch.setattr(model.batcher, "_waiting", 20_000)
    for path, body in (
        ("/v1/embeddings", {"input": "a"}),
        ("/embed", {"inputs": "a"}),
        ("/v1/search", {"index": "corpus", "query": "a"}),
    ):
        reply = ask(url + path, body)
        assert reply.status == 429, reply.body
        assert int(reply.headers["retry-after"]) >= 1
    assert ask(f"{url}/embed", {"inputs": "a"}).json["error_type"] == "Overloaded"


def test_what_nobody_foresaw_is_500_with_a_traceback_in_the_log_only(
    app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("secret")

    [model, *_] = app.state.service.models
    monkeypatch.setattr(type(model), "tokenize", fail)
    reply = ask(f"{url}/v1/embeddings", {"input": "a"})
    assert reply.status == 500
    assert reply.json["error"]["type"] == "server_error"
    assert b"secret" not in reply.body
    assert any(record.exc_info and "KeyError" in str(record.exc_info) for record in caplog.records)


def test_requests_wait_outside_while_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import llm2comp

    go, load = threading.Event(), llm2comp.load

    def slow(*arguments: Any, **options: Any) -> Any:
        assert go.wait(60)
        return load(*arguments, **options)

    monkeypatch.setattr(llm2comp, "load", slow)
    with serving(create_app(ServeSettings(**_LOADED)), ready=False) as url:
        assert ask(f"{url}/health").json == {"status": "ok"}
        ready = ask(f"{url}/ready")
        assert (ready.status, ready.json) == (503, {"status": "loading"})
        for path, body in (
            ("/v1/embeddings", {"input": "a"}),
            ("/embed", {"inputs": "a"}),
            ("/v1/search", {"query": "a"}),
        ):
            reply = ask(url + path, body)
            assert reply.status == 503
            assert reply.headers["retry-after"] == "2"
        assert ask(f"{url}/v1/models").status == 503
        go.set()
        end = time.monotonic() + 60
        while ask(f"{url}/ready").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert ask(f"{url}/v1/embeddings", {"input": "a"}).status == 200


def test_a_model_that_cannot_be_loaded_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with serving(create_app(ServeSettings(models=("./not-there",))), ready=False) as url:
        end = time.monotonic() + 60
        while ask(f"{url}/health").status != 503:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert ask(f"{url}/ready").json == {"status": "failed"}
        reply = ask(f"{url}/v1/embeddings", {"input": "a"})
        assert reply.status == 503
        assert "not-there" in reply.json["error"]["message"]
    assert any("not-there" in record.getMessage() for record in caplog.records)


def test_mounted_in_another_application(locked: str) -> None:
    outer = FastAPI()
    outer.mount("/embeddings", create_app(ServeSettings(**_LOADED, api_keys=("key",))))
    with serving(outer, ready=False) as url:
        end = time.monotonic() + 60
        while ask(f"{url}/embeddings/ready").status != 200:  # the first request loads the models
            assert time.monotonic() < end
            time.sleep(0.05)
        reply = ask(f"{url}/embeddings/v1/embeddings", {"input": "a"}, key="key")
        assert len(reply.json["data"][0]["embedding"]) == 256
        assert ask(f"{url}/embeddings/embed", {"inputs": 7}, key="key").status == 422
        assert ask(f"{url}/embeddings/v1/embeddings", {"input": 7}, key="key").status == 400
        assert isinstance(ask(f"{url}/embeddings/embed", {"inputs": "a"}).json["error"], str)


def test_the_page_of_a_mounted_application_finds_its_files() -> None:
    outer = FastAPI()
    outer.mount("/embeddings", create_app(ServeSettings(**_LOADED)))
    with serving(outer, ready=False) as url, urllib.request.urlopen(f"{url}/embeddings") as page:
        assert page.url == f"{url}/embeddings/"
        assert ask(urllib.parse.urljoin(page.url, "page.js")).status == 200


def test_tools_that_a_mounted_application_does_not_run(index_dir: Path) -> None:
    outer = FastAPI()
    outer.mount("/tools", create_app(ServeSettings(indexes={"corpus": index_dir})))
    with serving(outer, ready=False) as url:
        reply = ask(f"{url}/tools/mcp", {})
    assert reply.status == 503
    assert "lifespan=app.router.lifespan_context" in reply.json["error"]["message"]


def _numbers(url: str) -> dict[str, float]:
    text = ask(f"{url}/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^(llm2comp_\S+) (\S+)$", text, re.MULTILINE)}


def test_metrics_count_requests_texts_and_tokens(url: str) -> None:
    before = _numbers(url)
    tokens = ask(f"{url}/v1/embeddings", {"input": ["a text", "another"]}).json["usage"]["total_tokens"]
    ask(f"{url}/v1/embeddings", {"input": []})
    ask(f"{url}/nothing/at/all")
    after = _numbers(url)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown('llm2comp_requests_total{route="/v1/embeddings",status="200"}') == 1
    assert grown('llm2comp_requests_total{route="/v1/embeddings",status="400"}') == 1
    assert grown('llm2comp_requests_total{route="other",status="404"}') == 1
    assert grown('llm2comp_texts_total{model="llm2comp-tiny"}') == 2
    assert grown('llm2comp_tokens_total{model="llm2comp-tiny"}') > tokens
    assert grown('llm2comp_batch_texts_count{model="llm2comp-tiny"}') == 1
    assert grown('llm2comp_batch_texts_sum{model="llm2comp-tiny"}') == 2
    assert grown('llm2comp_model_seconds_sum{model="llm2comp-tiny"}') > 0
    assert grown('llm2comp_request_seconds_count{route="/v1/embeddings"}') == 2
    assert after['llm2comp_queue_tokens{model="llm2comp-tiny"}'] == 0


def test_the_log_has_a_line_of_json_a_request_without_its_texts(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llm2comp_serve.access"):
        ask(f"{url}/v1/embeddings", {"input": ["confidential words", "others"]})
        ask(f"{url}/v1/search", {"index": "corpus", "query": "confidential question"})
        ask(f"{url}/v1/embeddings?secret=confidential", {"input": 7})
        end = time.monotonic() + 10
        while len(_access(caplog)) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    lines = _access(caplog)
    facts = json.loads(lines[0])
    assert facts["method"] == "POST"
    assert facts["path"] == "/v1/embeddings"
    assert facts["status"] == 200
    assert facts["texts"] == 2
    assert facts["tokens"] > 2
    assert facts["milliseconds"] > 0
    assert len(lines) == 3
    assert "confidential" not in caplog.text


def _access(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "llm2comp_serve.access"]


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
def test_supervisors_may_ask_for_the_head_only(url: str, path: str) -> None:
    reply = ask(url + path, method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
