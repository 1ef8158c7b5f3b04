"""What the systems of an encoding benchmark share: how they are opened, and the jobs of those that encode texts."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp_benchmarks.cost.devices import device_memory_peak, start_memory
from llm2comp_benchmarks.cost.models import PARTS
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.text_kinds import text_name

__all__ = ["WARM_UP", "Encode", "Setup", "encoding_jobs", "peak"]

WARM_UP = 64
"""Number of texts that a system encodes before the rounds."""

_QUERIES = 200  # of a round

Encode = Callable[[list[str]], Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """How a system is opened; see `open_system`."""

    folder: Path
    count: int | None
    precision: str
    batch_size: int | None
    device: str
    threads: int

    def part(self, name: str) -> Path:
        """A part of the prepared folder; see `models.PARTS`."""
        return self.folder / PARTS[name]

    def texts(self, kind: str) -> list[str]:
        """Texts of a kind of `text_kinds`."""
        texts: list[str] = json.loads((self.folder / f"{text_name(kind)}.json").read_text(encoding="utf-8"))
        return texts[: self.count]


def encoding_jobs(setup: Setup, encode: Encode, query: Encode | None) -> Mapping[str, Job]:
    """The jobs of a system that turns texts into vectors.

    Args:
        setup: How it was opened.
        encode: Encodes texts.
        query: Encodes a list of one query; None: the system is for many texts at a time.
    """
    vectors: list[Any] = []

    def warm_up(kind: str = "document") -> dict[str, Any]:
        encode(setup.texts(kind)[:WARM_UP])
        return {"loaded_bytes": start_memory(setup.device)}

    def encode_all(kind: str = "document") -> dict[str, Any]:
        texts = setup.texts(kind)
        vectors.clear()
        start = time.perf_counter()
        vectors.append(encode(texts))
        answer = {"seconds": time.perf_counter() - start, "texts": len(texts)}
        return answer if query is None or kind != "short" else answer | _time_queries(query, texts[:_QUERIES])

    def save(file: str) -> dict[str, Any]:
        np.save(file, np.asarray(vectors[-1], dtype=np.float32))
        return {}

    return {"warm_up": warm_up, "round": encode_all, "save": save, "peak": lambda: peak(setup.device)}


def _time_queries(query: Encode, texts: list[str]) -> dict[str, Any]:
    """Seconds of each text, encoded as a query by itself; the first of them once more before."""
    query(texts[:1])
    seconds = []
    for text in texts:
        start = time.perf_counter()
        query([text])
        seconds.append(time.perf_counter() - start)
    return {"query_seconds": seconds}


def peak(device: str) -> dict[str, Any]:
    """Answer of the job `peak`."""
    return {"peak_bytes": device_memory_peak(device)}
