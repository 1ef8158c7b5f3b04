"""What the routes of a server share: its settings, models and metrics, and the way from texts to vectors."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from llm2comp.errors import LLM2CompError
from llm2comp_serve.errors import RequestError
from llm2comp_serve.handover import Handover
from llm2comp_serve.indexes import Indexes
from llm2comp_serve.metrics import Metrics
from llm2comp_serve.models import Model, Models, Tokens
from llm2comp_serve.settings import ServeSettings
from llm2comp_serve.vectors import shorten

__all__ = ["Embedded", "Service", "check_texts", "service_of"]

_logger = logging.getLogger(__name__)
_LOOP_CHARACTERS = 20_000
"""Texts with more characters are tokenised in a thread, so that other requests go on."""


class Embedded(NamedTuple):
    """Vectors (texts, dimension), and the tokens that they were made of."""

    vectors: NDArray[np.float32]
    tokens: int
    truncated: int


class Service:
    """A server's state. Models are loaded by `start`, in a thread of its own; until then it is not `ready`.

    Attributes:
        settings: Settings of the server.
        metrics: What is counted.
        models: The models.
        indexes: The indexes.
        ready: Whether models and indexes are loaded.
        failure: Why loading failed.
        on_failure: Called then; by default the log says so, and the server goes on, not ready.
        on_ready: Called when models and indexes are loaded.
        others_ready: Whether the other processes of the server have loaded theirs.
        tools_run: Whether the tools for assistants can be called over HTTP.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.indexes = Indexes()
        self.ready = False
        self.failure: Exception | None = None
        self.on_failure: Callable[[Exception], None] = _log_failure
        self.on_ready: Callable[[], None] = lambda: None
        self.others_ready: Callable[[], bool] = lambda: True
        self.tools_run = False
        self._results: Handover | None = None
        self._starting = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Begins to load models and indexes, unless that has begun."""
        with self._starting:
            if not self._started:
                self._started = True
                threading.Thread(target=self._load, name="llm2comp-loading", daemon=True).start()

    def load(self) -> None:
        """Loads the models and opens the indexes.

        Raises:
            LLM2CompError: A model cannot be loaded, or an index not be opened.
        """
        for name in self.settings.models:
            self.models.load(name)
        for name, folder in self.settings.indexes.items():
            self.indexes.open(name, folder, self.models)
        self.ready = True
        self.on_ready()

    def _load(self) -> None:
        try:
            self.load()
        except Exception as error:
            self.failure = error
            self.on_failure(error)

    def close(self) -> None:
        """Encodes what is waiting, and ends all threads."""
        self.ready = False
        self.models.close()

    def find(self, name: str | None) -> tuple[Model, bool]:
        """The model that a request names, and whether its texts are queries by that name; None is the first model.

        Raises:
            RequestError: The models are not loaded yet (status 503), or there is none of this name (404).
        """
        self.check_ready()
        return self.models.find(name)

    def check_ready(self) -> None:
        """Checks that models and indexes are loaded.

        Raises:
            RequestError: They are not (status 503).
        """
        if not self.ready:
            self.start()
            reason = f"the models cannot be loaded: {self.failure}" if self.failure else "the models are being loaded"
            raise RequestError(503, reason, code="not_ready", headers={"Retry-After": "2"})

    async def embed(
        self,
        request: Request,
        model: Model,
        texts: Sequence[str],
        *,
        query: bool = False,
        truncate: bool | None = None,
        dimensions: int | None = None,
        instruction: str | None = None,
    ) -> Embedded:
        """Vectors of the texts of a request; shortened ones have unit length again.

        Raises:
            RequestError: The texts or dimensions cannot be served, the queue is full (status 429), or the model failed
                (424).
            asyncio.CancelledError: The client has gone.
        """
        if dimensions is not None and not 1 <= dimensions <= model.dimension:
            raise RequestError(
                400, f"dimensions is {dimensions}, expected 1 to {model.dimension}", parameter="dimensions"
            )
        tokens = await _tokenize(model, texts, query=query, truncate=truncate, instruction=instruction)
        scope = request.scope.setdefault("llm2comp", {})
        scope.update(texts=len(texts), tokens=tokens.total)
        vectors = await self._result(request, model.submit(tokens))
        if dimensions is not None:
            vectors = shorten(vectors, dimensions, normalize=model.model.normalize)
        return Embedded(vectors, tokens.total, tokens.truncated)

    async def _result(self, request: Request, future: "Future[NDArray[np.float32]]") -> NDArray[np.float32]:
        """The result, unless the client goes away before: then the work is taken from the queue."""
        waiter = self._handover().when_done(future)
        watcher = asyncio.ensure_future(_cancel_when_gone(request, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if watcher.done():
                raise RequestError(499, "the client has gone") from None
            raise
        finally:
            watcher.cancel()
            future.cancel()  # which does nothing to one that is done
        try:
            return future.result()
        except Exception as error:
            raise RequestError(424, f"the model failed: {error}", code="model_failed") from error

    def _handover(self) -> Handover:
        loop = asyncio.get_running_loop()
        if self._results is None or self._results.loop is not loop:
            self._results = Handover(loop)
        return self._results


def _log_failure(error: Exception) -> None:
    _logger.error("not ready: %s", error, exc_info=None if isinstance(error, LLM2CompError) else error)


def service_of(request: Request) -> Service:
    """The service that a request has come to."""
    service: Service = request.app.state.service
    return service


def check_texts(texts: Sequence[str], service: Service, parameter: str, *, allow_empty: bool = False) -> None:
    """Checks the number of texts and, unless that is allowed, that none is empty.

    Raises:
        RequestError: There are none (status 400), too many (413), or one is empty (400).
    """
    if not texts:
        raise RequestError(400, f"{parameter} is empty: give at least one text", parameter=parameter)
    if len(texts) > service.settings.max_texts:
        raise RequestError(
            413,
            f"{len(texts)} texts in one request; at most {service.settings.max_texts} are taken: send several requests",
            parameter=parameter,
        )
    for place, text in enumerate(texts):
        if not (text or allow_empty):
            raise RequestError(400, f"text {place} of {parameter} is empty", parameter=parameter)


async def _tokenize(model: Model, texts: Sequence[str], **options: Any) -> Tokens:
    if sum(map(len, texts)) <= _LOOP_CHARACTERS:
        return model.tokenize(texts, **options)
    return await asyncio.to_thread(model.tokenize, texts, **options)


async def _cancel_when_gone(request: Request, waiter: "asyncio.Future[None]") -> None:
    """Cancels the waiter when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    waiter.cancel()
