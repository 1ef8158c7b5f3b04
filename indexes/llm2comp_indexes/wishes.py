"""What a user asks of an index: memory, latency, recall. The words in which such numbers are told live here too."""

import math
from dataclasses import dataclass

from llm2comp.errors import SettingsError

__all__ = ["DEFAULT_LATENCY_MS", "Wishes", "tell_bytes", "tell_latency", "tell_ms"]

DEFAULT_LATENCY_MS = 10.0
"""Milliseconds for one query where no latency is asked for: about what a small model takes to encode the question itself."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an index should keep to.

    Attributes:
        memory: Most bytes that searching may hold in memory; None: no limit. Never exceeded.
        latency_ms: Most milliseconds for one query, asked alone (median); None: DEFAULT_LATENCY_MS.
        recall: Least share of the k best rows to be found, 0 to 1.
        k: Answers per query that recall is counted over.
    """

    memory: int | None = None
    latency_ms: float | None = None
    recall: float = 0.95
    k: int = 10

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 1:
            raise SettingsError(f"memory is {self.memory} bytes, expected at least 1 (or nothing, for no limit)")
        if self.latency_ms is not None and not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise SettingsError(f"latency is {self.latency_ms} ms, expected more than 0")
        if not 0 < self.recall <= 1:
            raise SettingsError(f"recall is {self.recall}, expected more than 0 and at most 1 (0.95: 95 of 100 true neighbours are found)")
        if self.k < 1:
            raise SettingsError(f"k is {self.k}, expected at least 1")

    @property
    def latency(self) -> float:
        """Milliseconds allowed for one query: the wish, or the default."""
        return DEFAULT_LATENCY_MS if self.latency_ms is None else self.latency_ms

    def allows(self, memory: int) -> bool:
        """Whether so many bytes keep to the wish."""
        return self.memory is None or memory <= self.memory


def tell_bytes(count: float) -> str:
    """The number for people, with two to four digits: 512 bytes, 1.31 GB, 64 MB (decimal units)."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def tell_ms(milliseconds: float) -> str:
    """The duration for people: 0.41 ms, 12 ms, 1,240 ms."""
    return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:,.0f} ms"


def tell_latency(wishes: Wishes) -> str:
    """The latency asked for, for people: at most 10 ms (the default)."""
    return f"at most {tell_ms(wishes.latency)}" + (" (the default)" if wishes.latency_ms is None else "")
