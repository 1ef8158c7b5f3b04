"""What a server counts, as Prometheus reads it."""

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters and histograms of one server; several may live in a process.

    With several worker processes (`PROMETHEUS_MULTIPROC_DIR` is set) the numbers are those of all together.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        prefix = "llm2comp"
        self.requests = Counter("requests", "Requests.", ["route", "status"], namespace=prefix, registry=registry)
        self.request_seconds = Histogram(
            "request_seconds", "Seconds of a request.", ["route"], namespace=prefix, buckets=_SECONDS, registry=registry
        )
        self._texts = Counter("texts", "Texts encoded.", ["model"], namespace=prefix, registry=registry)
        self._tokens = Counter(
            "tokens", "Tokens encoded, memory tokens included.", ["model"], namespace=prefix, registry=registry
        )
        self._batch_texts = Histogram(
            "batch_texts", "Texts of a batch.", ["model"], namespace=prefix, buckets=_TEXTS, registry=registry
        )
        self._queue_seconds = Histogram(
            "queue_seconds",
            "Seconds that the oldest text of a batch has waited.",
            ["model"],
            namespace=prefix,
            buckets=_SECONDS,
            registry=registry,
        )
        self._model_seconds = Histogram(
            "model_seconds",
            "Seconds of encoding a batch.",
            ["model"],
            namespace=prefix,
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue = Gauge(
            "queue_tokens",
            "Tokens that wait.",
            ["model"],
            namespace=prefix,
            registry=registry,
            multiprocess_mode="livesum",
        )

    def batch_watcher(self, model: str) -> Callable[[int, int, float, float], None]:
        """What a batcher calls after each batch."""
        texts, tokens = self._texts.labels(model), self._tokens.labels(model)
        sizes = self._batch_texts.labels(model)
        waiting, encoding = self._queue_seconds.labels(model), self._model_seconds.labels(model)

        def watch(count: int, token_count: int, waited: float, encoded: float) -> None:
            texts.inc(count)
            tokens.inc(token_count)
            sizes.observe(count)
            waiting.observe(waited)
            encoding.observe(encoded)

        return watch

    def watch_queue(self, model: str, waiting_tokens: Callable[[], int]) -> None:
        """Shows what the function returns as the length of the model's queue."""
        if not _several_processes():
            self._queue.labels(model).set_function(waiting_tokens)

    def text(self) -> bytes:
        """All numbers, in Prometheus' text format."""
        if not _several_processes():
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _several_processes() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ
