"""The benchmark of servers: the clients' load, ratios and latencies, the table, and a run with real servers."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.cost.serve.contest import BARE, ENCODE, OURS, QUERY, UNBATCHED, Case, Contest
from llm2comp_benchmarks.cost.serve.load import http_request, measure_load
from llm2comp_benchmarks.cost.serve.run import ServeBenchmark
from llm2comp_benchmarks.cost.serve.tables import format_serving

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """Answers requests over a socket; remembers their bodies and how many a connection had under way at most."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.bodies: list[bytes] = []
        self.waiting_bytes = 0
        self.connections: list[asyncio.Task[None] | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(asyncio.current_task())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                await self._answer(writer)
                self.waiting_bytes = max(self.waiting_bytes, len(reader._buffer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _slowly_in_pieces(writer: asyncio.StreamWriter) -> None:
    for piece in (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 6\r\n\r\nabc", b"def"):
        await asyncio.sleep(0.01)
        writer.write(piece)
        await writer.drain()


async def _with_an_error(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")


async def _load(answer: Answer, requests: list[bytes], clients: int, seconds: float) -> tuple[Any, _Server]:
    server = _Server(answer)
    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        try:
            return await measure_load(port, requests, clients, seconds), server
        finally:
            await asyncio.sleep(0.01)
            await asyncio.gather(*filter(None, server.connections))


def test_each_client_waits_for_its_answer_and_all_answers_are_counted() -> None:
    requests = [http_request([f"text {number}"]) for number in range(6)]
    load, server = asyncio.run(_load(_slowly_in_pieces, requests, 3, 0.25))
    assert len(load.latencies) == len(server.bodies) >= 6
    assert server.waiting_bytes == 0
    assert min(load.latencies) >= 0.03
    assert load.seconds >= 0.25
    first_of_each = {json.loads(body)["input"] for body in server.bodies[:3]}
    assert first_of_each == {"text 0", "text 2", "text 4"}


def test_an_answer_with_another_status_ends_the_load() -> None:
    with pytest.raises(LLM2CompError, match="429 Too Many Requests"):
        asyncio.run(_load(_with_an_error, [http_request(["text"])], 2, 0.2))


async def _by_hanging_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_a_lost_request_ends_the_load() -> None:
    with pytest.raises(LLM2CompError, match="closed the connection"):
        asyncio.run(_load(_by_hanging_up, [http_request(["text"])], 2, 0.2))


class _Worker:
    """A process with fixed answers."""

    def __init__(self, **answers: Any) -> None:
        self.opened = {"port": answers.pop("port", 0)}
        self._answers = answers

    def ask(self, job: str, **arguments: Any) -> Any:
        answer = self._answers[job]
        return answer(**arguments) if callable(answer) else dict(answer)


LATENCIES = {1: [0.012] * 9 + [0.1], 2: [0.03] * 10, 3: [0.001] * 10}


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    servers = {
        name: _Worker(port=port, usage={"cpu_seconds": 1.0})
        for port, name in enumerate((OURS, UNBATCHED, BARE), start=1)
    }

    def load(port: int, texts: str, size: int, clients: int, seconds: float) -> dict[str, Any]:
        assert texts == str(tmp_path / "short-texts.json")
        return {"latencies": LATENCIES[port], "seconds": sum(LATENCIES[port]), "cpu_seconds": 0.2}

    queries = {"latencies": [0.009] * 5, "seconds": 0.045, "cpu_seconds": 0.01}
    encoder = _Worker(encode={"texts": 100, "seconds": 0.5, "cpu_seconds": 0.4}, queries=queries)
    return Contest(tmp_path, servers, encoder, _Worker(load=load), seconds=1.0)


def test_ratios_are_of_texts_a_second_and_of_latencies(contest: Contest) -> None:
    case = contest.measure(Case("short", size=1, clients=1), 2, lambda line: None)
    ratios = case["ratios"]
    ours, unbatched = 10 / 0.208, 10 / 0.3
    assert ratios[UNBATCHED]["speed"]["median"] == pytest.approx(ours / unbatched)
    assert ratios[UNBATCHED]["p95"]["median"] == pytest.approx(0.0604 / 0.03)  # between the last two of ten
    assert ratios[ENCODE]["speed"]["median"] == pytest.approx(ours / 200)
    assert ratios[f"{QUERY} + {BARE}"]["p50"]["median"] == pytest.approx(0.012 / (0.009 + 0.001))
    assert case["systems"][OURS]["latency_ms"]["requests"] == 20
    assert case["systems"][OURS]["clients_cpu_ms_per_text"] == pytest.approx(20)


def test_a_request_of_several_texts_counts_them(contest: Contest) -> None:
    case = contest.measure(Case("short", size=16, clients=8), 1, lambda line: None)
    assert case["systems"][OURS]["texts_per_second"]["median"] == pytest.approx(160 / 0.208)
    assert QUERY not in case["systems"]


def test_the_table_shows_every_ratio(contest: Contest) -> None:
    record = {"cases": [contest.measure(Case("short", size, 1), 1, lambda line: None) for size in (1, 16)]}
    lines = [line.split() for line in format_serving(record).splitlines()]
    assert ["short", "1", "1", "llm2comp-unbatched", "1.44x", "1.44-1.44", "2.01x"] in lines
    assert ["short", "encode_query", "+", "bare", "FastAPI", "1.20x", "1.20-1.20"] in lines
    assert ["short", "16", "1", "encode", "200", "-", "-", "-", "4.000", "-"] in lines


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clients": ()}, "clients is empty"),
        ({"clients": (0,)}, "clients holds 0"),
        ({"sizes": (512,)}, "sizes holds 512, more than the 256 texts of limit"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"peers": ("infinity",)}, "there is no infinity"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ServeBenchmark(tmp_path, **wrong)


@pytest.mark.slow
def test_a_run_with_real_servers(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    file = tmp_path / "serve.json"
    options = {"--texts": "short", "--limit": 32, "--clients": "1 4", "--rounds": 1, "--seconds": 0.2, "--threads": 1}
    words = [str(word) for option in options.items() for word in option]
    run = CliRunner().invoke(app, ["bench", "serve", *words, "--json", str(file)])
    assert run.exit_code == 0, run.output
    record = json.loads(file.read_text())
    assert [(case["size"], case["clients"]) for case in record["cases"]] == [(1, 1), (1, 4), (16, 1), (16, 4)]
    for case in record["cases"]:
        assert {OURS, UNBATCHED, BARE, ENCODE, "sentence-transformers"} <= case["systems"].keys()
    assert {"versions", "hardware", "commit", "settings", "seconds"} <= record.keys()
    assert "uvicorn" in record["versions"]
