"""The load of a server: clients on connections of their own, each sending its next request when it has the last answer.

The requests are bytes made beforehand, and answers are read no further than their length: the load shares the machine
with the server that it measures, and a client library would take more of it than the server.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["Load", "http_request", "measure_load", "open_load"]

_HEAD_END = b"\r\n\r\n"
_PATH = "/v1/embeddings"
_MESSAGE_BYTES = 300


class Load(NamedTuple):
    """What clients saw: seconds of each request, and seconds from the first request to the last answer."""

    latencies: list[float]
    seconds: float


class _Client(asyncio.Protocol):
    """A connection that sends the requests in turn until a time; `done` is then set."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._buffer = bytearray()
        self._size = 0  # of the answer, its head included; 0: not known yet
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send_until(self, end: float) -> None:
        """Sends the first request, and each next one when its answer is there, until the time `end`."""
        self._end = end
        self._send()

    def _send(self) -> None:
        self._start = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._size and not self._read_head():
            return
        if len(self._buffer) < self._size:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._start)
        self._buffer.clear()
        self._size = 0
        if now < self._end:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def _read_head(self) -> bool:
        """Whether the head of the answer is there; then its size is known."""
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).lower().split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
        if b" 200 " not in lines[0] + b" " or not lengths:
            self._fail(f"answered {bytes(self._buffer[:_MESSAGE_BYTES])!r}")
            return False
        self._size = end + len(_HEAD_END) + lengths[0]
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"closed the connection ({error})")

    def _fail(self, message: str) -> None:
        if not self.done.done():
            self.done.set_exception(LLM2CompError(f"the server {message}"))

    def close(self) -> None:
        """Ends the connection."""
        if not self.done.done():
            self.done.cancel()
        self._transport.close()


async def measure_load(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """The answers to requests that were sent within some seconds; all are waited for.

    Args:
        port: Port of the server on this machine.
        requests: Requests that each client sends in turn, starting with another one.
        clients: Number of connections.
        seconds: Time in which requests are sent.

    Raises:
        LLM2CompError: A request was not answered with status 200.
    """
    loop = asyncio.get_running_loop()
    opened: list[_Client] = []
    try:
        for number in range(clients):
            turns = _endless(requests, number * len(requests) // clients)
            _, client = await loop.create_connection(partial(_Client, turns), "127.0.0.1", port)
            opened.append(client)
        start = time.perf_counter()
        for client in opened:
            client.send_until(start + seconds)
        await asyncio.gather(*(client.done for client in opened))
        took = time.perf_counter() - start
    finally:
        for client in opened:
            client.close()
    return Load([latency for client in opened for latency in client.latencies], took)


def _endless(requests: Sequence[bytes], start: int) -> Iterator[bytes]:
    place = start
    while True:
        yield requests[place % len(requests)]
        place += 1


def http_request(texts: Sequence[str]) -> bytes:
    """A request for the vectors of texts, as the official OpenAI client asks: base64, one text as a string."""
    body = json.dumps({"input": texts[0] if len(texts) == 1 else texts, "model": None, "encoding_format": "base64"})
    head = f"POST {_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def open_load() -> tuple[dict[str, Any], Mapping[str, Job]]:
    """The jobs of a process that makes load: `load`."""

    def load(port: int, texts: str, size: int, clients: int, seconds: float) -> dict[str, Any]:
        """Load on a port with the texts of a file, `size` of them in a request."""
        every = json.loads(Path(texts).read_text(encoding="utf-8"))
        requests = [http_request(every[at : at + size]) for at in range(0, len(every) - size + 1, size)]
        cpu = time.process_time()
        load = asyncio.run(measure_load(port, requests, clients, seconds))
        return {**load._asdict(), "cpu_seconds": time.process_time() - cpu}

    return {}, {"load": load}


if __name__ == "__main__":
    serve(open_load)
