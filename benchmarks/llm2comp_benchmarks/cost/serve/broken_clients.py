"""Clients that do wrong: what a server must bear without harm to the others."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from llm2comp_benchmarks.cost.serve.load import http_request

__all__ = ["BROKEN_CLIENTS", "misbehave"]

_MILLION = 1_000_000
_SLOW_BYTES, _SLOW_SECONDS, _SLOW_READS = 64, 0.05, 40
_ANSWER_SECONDS = 60.0

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Sequence[str]], Awaitable[str]]
"""Sends to a server and returns what came of it: a status, or what the client did."""


async def _half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> str:
    request = http_request(texts[:1])
    writer.write(request[: -len(texts[0]) // 2])
    await writer.drain()
    await asyncio.sleep(1)
    return "hung up"


async def _gone_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> str:
    writer.write(http_request(texts))
    await writer.drain()
    return "hung up"


async def _slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> str:
    for _ in range(4):  # several answers, more than the buffers of the connection hold
        writer.write(http_request(texts))
    await writer.drain()
    for _ in range(_SLOW_READS):
        await asyncio.wait_for(reader.read(_SLOW_BYTES), _ANSWER_SECONDS)
        await asyncio.sleep(_SLOW_SECONDS)
    return "hung up"


async def _million_texts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> str:
    writer.write(http_request(["a"] * _MILLION))
    return await _status(reader)


async def _no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> str:
    writer.write(b"\x16\x03\x01\x02\x00 this is not HTTP\r\n\r\n")
    return await _status(reader)


async def _no_json(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> str:
    body = json.dumps({"input": texts}).encode()[:-1]
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    return await _status(reader)


async def _status(reader: asyncio.StreamReader) -> str:
    line = await asyncio.wait_for(reader.readline(), _ANSWER_SECONDS)
    return line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else "closed"


BROKEN_CLIENTS: dict[str, Client] = {
    "half a body": _half_a_body,
    "gone at once": _gone_at_once,
    "slow reader": _slow_reader,
    "a million texts": _million_texts,
    "no HTTP": _no_http,
    "no JSON": _no_json,
}
"""Clients by name."""


async def misbehave(name: str, port: int, texts: Sequence[str], until: Callable[[], bool]) -> Counter[str]:
    """What came of a broken client's connections, one after another until a time, and how often.

    Args:
        name: A name in `BROKEN_CLIENTS`.
        port: Port of the server on this machine.
        texts: Texts of a request.
        until: Whether to end.
    """
    outcomes: Counter[str] = Counter()
    while not until():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                outcomes[await BROKEN_CLIENTS[name](reader, writer, texts)] += 1
            finally:
                writer.transport.abort()
        except OSError as error:
            outcomes[type(error).__name__] += 1
        await asyncio.sleep(0.2)
    return outcomes
