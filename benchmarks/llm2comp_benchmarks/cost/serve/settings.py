"""What a benchmark of servers measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.checks import check_at_least, check_names, check_precision
from llm2comp_benchmarks.cost.text_kinds import TEXT_KINDS

__all__ = ["PEERS", "ServeBenchmark"]

PEERS = ("sentence-transformers",)
"""Servers that ours is compared with, beside itself without batching."""


@dataclass(frozen=True, slots=True)
class ServeBenchmark:
    """What is measured.

    Attributes:
        workdir: Folder for models and texts, which are removed at the end.
        model: Name or folder of a model; None: the bundled one.
        corpora: Sources whose documents texts are made of.
        limit: Number of documents, drawn at random from all.
        kinds: Kinds of texts, some of `text_kinds.TEXT_KINDS`.
        clients: Numbers of clients; each sends its next request when it has the last answer.
        sizes: Numbers of texts in a request.
        peers: Some of `PEERS`.
        precision: Of all systems; `auto`: bfloat16 where the processor multiplies it, else float32.
        threads: Of the model in every process.
        rounds: In each of which every system has the same load once.
        seconds: In which the clients send requests in a round; the answers to all are waited for.
        seed: Of the draw.
    """

    workdir: Path
    model: str | None = None
    corpora: tuple[str, ...] = ("python-docs:all",)
    limit: int = 256
    kinds: tuple[str, ...] = ("short", "document")
    clients: tuple[int, ...] = (1, 8, 32, 128)
    sizes: tuple[int, ...] = (1, 16)
    peers: tuple[str, ...] = PEERS
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 2
    rounds: int = 3
    seconds: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("limit", "threads", "rounds"), 1))
        check_names("kinds", self.kinds, TEXT_KINDS)
        check_names("peers", self.peers, PEERS)
        check_precision(self.precision)
        for name in ("kinds", "clients", "sizes"):
            if not getattr(self, name):
                raise SettingsError(f"{name} is empty; give at least one")
        for name in ("clients", "sizes"):
            if min(getattr(self, name)) < 1:
                raise SettingsError(f"{name} holds {min(getattr(self, name))}, expected at least 1")
        if max(self.sizes) > self.limit:
            raise SettingsError(f"sizes holds {max(self.sizes)}, more than the {self.limit} texts of limit")
        if self.seconds <= 0:
            raise SettingsError(f"seconds is {self.seconds}, expected more than 0")
