"""A server at its limit for a long time: no request lost, no wrong vector, no growing memory, whatever others send.

`python -m llm2comp_benchmarks.cost.serve.endurance benchmarks/results/endurance-tiny.json 600` measures ten minutes.
"""

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp_benchmarks.cost.checks import check_at_least
from llm2comp_benchmarks.cost.models import PARTS, run_model_job
from llm2comp_benchmarks.cost.processes import module_command
from llm2comp_benchmarks.cost.serve.broken_clients import BROKEN_CLIENTS, misbehave
from llm2comp_benchmarks.cost.serve.load import http_request
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["Endurance", "measure_endurance", "memory_growth"]

_LEAST_COSINE = 0.9999  # float32; batches of other texts change the last digits
_EVERY_SECONDS = 1.0
_WARM_UP = 0.2  # of the time
_POINTS = 200  # of the curve of memory that are kept


@dataclass(frozen=True, slots=True)
class Endurance:
    """What is measured.

    Attributes:
        seconds: Time under load.
        clients: Number of clients that send requests of 1 to `size` texts.
        size: Most texts of a request.
        limit: Number of documents that texts are made of.
        threads: Of the model in the server.
        seed: Of the texts of a request.
    """

    seconds: float = 600.0
    clients: int = 48
    size: int = 16
    limit: int = 200
    threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("seconds", "clients", "size", "limit", "threads"), 1))


@dataclass(slots=True)
class _Clients:
    """What the clients saw together.

    Attributes:
        sent: Requests.
        answered: Requests with an answer of status 200 and as many vectors as texts.
        texts: Texts of these.
        wrong: Vectors that are not those of the encoder.
        failures: Other answers and lost connections.
        latencies: Seconds of each answered request.
    """

    sent: int = 0
    answered: int = 0
    texts: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Counts, and percentiles of the latency in milliseconds."""
        p50, p99, most = 1e3 * np.percentile(self.latencies, [50, 99, 100]) if self.latencies else (0.0, 0.0, 0.0)
        counts = {"sent": self.sent, "answered": self.answered, "texts": self.texts, "wrong": self.wrong}
        latency = {"p50": float(p50), "p99": float(p99), "most": float(most)}
        return {**counts, "failures": self.failures[:20], "latency_ms": latency}


def measure_endurance(settings: Endurance, *, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The record: what clients saw, what came of broken ones, and the server's memory over time.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: The server has ended.
    """
    start = time.perf_counter()
    with TemporaryDirectory(prefix="llm2comp-endurance-") as workdir:
        tell("make the model, the texts and their vectors")
        folder, texts, vectors = _prepare(Path(workdir), settings)
        arguments = {"system": "llm2comp", "folder": str(folder), "dtype": "float32", "threads": settings.threads}
        command = module_command("llm2comp_benchmarks.cost.serve.servers", **arguments)
        with Worker("llm2comp serve", command, threads=settings.threads) as server:
            tell(f"{settings.seconds:.0f} s of load")
            parts = asyncio.run(_load(settings, server, texts, vectors, tell))
    record = result_record([], asdict(settings), threads=settings.threads)
    return {**parts, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _prepare(workdir: Path, settings: Endurance) -> tuple[Path, list[str], NDArray[np.float32]]:
    """Folder of the model, texts, and their vectors by the encoder without a server."""
    import llm2comp

    folder, drawn = workdir / "model", str(workdir / "texts.json")
    draw = {"corpora": ["python-docs:all"], "limit": settings.limit, "seed": settings.seed}
    run_model_job("draw texts", "draw", settings.threads, file=drawn, **draw)
    kinds = ("short", "document")
    run_model_job(
        "make the model", "prepare", settings.threads, folder=str(folder), texts=drawn, kinds=kinds, plain=False
    )
    texts = [text for name in ("short-texts", "texts") for text in json.loads((folder / f"{name}.json").read_text())]
    model = llm2comp.load(str(folder / PARTS["ours"]), device="cpu", dtype="float32")
    vectors: NDArray[np.float32] = model.encode(texts, show_progress_bar=False)
    return folder, texts, vectors


async def _load(
    settings: Endurance, server: Worker, texts: list[str], vectors: NDArray[np.float32], tell: Callable[[str], None]
) -> dict[str, Any]:
    port, end, seen = server.opened["port"], time.perf_counter() + settings.seconds, _Clients()

    def is_over() -> bool:
        return time.perf_counter() >= end

    clients = [_client(port, settings, number, texts, vectors, seen, is_over) for number in range(settings.clients)]
    broken = [misbehave(name, port, texts[-settings.size :], is_over) for name in BROKEN_CLIENTS]
    running = asyncio.gather(asyncio.gather(*clients), asyncio.gather(*broken))
    resident: list[int] = []
    while not running.done():
        usage = await asyncio.to_thread(server.ask, "usage")
        resident.append(usage["resident"])
        if len(resident) % 60 == 0:
            tell(f"{seen.answered:,} answers, {len(seen.failures)} failures, {resident[-1] / 1e6:,.0f} MB")
        await asyncio.wait([running], timeout=_EVERY_SECONDS)
    _, outcomes = await running
    return {
        "clients": seen.to_json(),
        "broken_clients": {name: dict(count) for name, count in zip(BROKEN_CLIENTS, outcomes, strict=True)},
        "memory": {"growth": memory_growth(resident), "resident": resident[:: max(1, len(resident) // _POINTS)]},
    }


async def _client(
    port: int,
    settings: Endurance,
    number: int,
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    seen: _Clients,
    is_over: Callable[[], bool],
) -> None:
    """Sends requests of texts drawn at random on one connection, and compares each answer."""
    generator = random.Random(1000 * settings.seed + number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    while not is_over():
        rows = generator.choices(range(len(texts)), k=generator.randint(1, settings.size))
        start = time.perf_counter()
        seen.sent += 1
        try:
            writer.write(http_request([texts[row] for row in rows]))
            status, body = await _answer(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.failures.append(f"{type(error).__name__}: {error}")
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
            continue
        if status != 200:
            seen.failures.append(f"{status}: {body[:200].decode(errors='replace')}")
            continue
        seen.latencies.append(time.perf_counter() - start)
        _check(json.loads(body), vectors[rows], seen)
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    return int(head.split(b" ")[1]), await reader.readexactly(length)


def _check(answer: dict[str, Any], expected: NDArray[np.float32], seen: _Clients) -> None:
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer["data"]]
    if len(rows) != len(expected):
        seen.failures.append(f"{len(rows)} vectors of {len(expected)} texts")
        return
    cosines = np.sum(np.stack(rows) * expected, axis=1)
    seen.answered += 1
    seen.texts += len(rows)
    seen.wrong += int(np.sum(~(cosines >= _LEAST_COSINE)))


def memory_growth(resident: Sequence[int]) -> float:
    """Growth of memory after warm-up: the median of the last tenth over that of the tenth after a fifth, minus 1.

    Args:
        resident: Memory at regular times.
    """
    tenth, warm = max(1, len(resident) // 10), int(_WARM_UP * len(resident))
    return median(resident[-tenth:]) / median(resident[warm : warm + tenth]) - 1


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # progress of a command run by hand


def main() -> None:
    """Measures endurance; arguments: the result file, the seconds, and the model's threads (2 if not given)."""
    file, seconds, *threads = sys.argv[1:]
    options = {"threads": int(threads[0])} if threads else {}
    record = measure_endurance(Endurance(seconds=float(seconds), **options), tell=_tell)
    write_record(file, record)
    _tell(json.dumps({name: record[name] for name in ("clients", "broken_clients")}))
    _tell(f"memory grew by {record['memory']['growth']:.1%}")


if __name__ == "__main__":
    main()
