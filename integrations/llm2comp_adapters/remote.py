"""Models and indexes of a server, with the methods that the classes of the frameworks use of loaded ones."""

import base64
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import ServerError, SettingsError
from llm2comp.truncation import add_truncated
from llm2comp_adapters.retrieval import Mode
from llm2comp_adapters.server import Server
from llm2comp_indexes import Effort, Hit, SearchOptions

__all__ = ["RemoteEncoder", "RemoteIndex"]

_logger = logging.getLogger(__name__)


class ServedModel(NamedTuple):
    """A model of a server."""

    name: str
    dimension: int
    fingerprint: str


class RemoteEncoder:
    """A model of a server, with the methods of a loaded one.

    Args:
        server: The server.
        name: Name of the model; None: the server's first one.

    Raises:
        ServerError: The server cannot be reached, or has no model of this name.
    """

    def __init__(self, server: Server, name: str | None = None) -> None:
        info = server.json("/info")
        try:
            self._most_texts = int(info["max_client_batch_size"])
            self._most_tokens = int(info["max_input_length"])
            models = {
                row["name"]: ServedModel(row["name"], row["dimension"], row["fingerprint"])
                for row in info["served_models"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{server.url} does not answer as llm2comp serve does; check the address") from error
        chosen = next(iter(models)) if name is None else name
        if chosen not in models:
            raise ServerError(f"{server.url} has no model {chosen!r}; served are: {', '.join(models)}")
        self._server, self._model = server, models[chosen]

    @property
    def name(self) -> str:
        """Name of the model on the server."""
        return self._model.name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model; it was checked at the last request."""
        return self._model.fingerprint

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self._model.dimension

    def encode_query(self, inputs: str | Sequence[str], /, **options: Any) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of queries; of one text its vector."""
        return self._encode(inputs, "query", **options)

    def encode_document(self, inputs: str | Sequence[str], /, **options: Any) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of documents; of one text its vector."""
        return self._encode(inputs, "document", **options)

    def _encode(
        self,
        inputs: str | Sequence[str],
        input_type: str,
        *,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        batch_size: int = 64,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        body: dict[str, Any] = {"model": self.name, "input_type": input_type, "encoding_format": "base64"}
        body |= {"instruction": prompt, "dimensions": truncate_dim, "allow_empty": True}
        step, parts, truncated = min(batch_size, self._most_texts), [], 0
        for start in _steps(len(texts), step, show=bool(show_progress_bar)):
            response = self._server.call("/v1/embeddings", {**body, "input": texts[start : start + step]})
            parts.append(self._vectors(response))
            truncated += int(response.headers.get("X-Truncated-Texts", 0))
        if not add_truncated(len(texts), truncated, self._most_tokens) and truncated:
            _logger.warning(
                "%d of %d texts were cut to their first %d tokens", truncated, len(texts), self._most_tokens
            )
        vectors = np.concatenate([np.empty((0, truncate_dim or self._model.dimension), np.float32), *parts])
        return vectors[0] if isinstance(inputs, str) else vectors

    def _vectors(self, response: Any) -> NDArray[np.float32]:
        fingerprint = response.headers.get("X-Model-Fingerprint", self.fingerprint)
        if fingerprint != self.fingerprint:
            raise ServerError(
                f"{self._server.url} serves another model as {self.name!r} than when this object was made, and vectors "
                "of two models do not mix: make it again"
            )
        rows = self._server.parse(response)["data"]
        return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])


class RemoteIndex:
    """An index of a server, at its last commit.

    Args:
        server: The server.
        name: Name of the index; None: the server's only one.
        mode: Search by vectors, by words, or by both.
        options: Fusion, weights, whether chunks or documents are ranked, and whether the first hits are rescored.
        allow_unknown_fields: Whether a filter may name a field that no document has.

    Raises:
        SettingsError: The options set what a server decides: effort or threads.
    """

    def __init__(
        self,
        server: Server,
        name: str | None,
        mode: Mode,
        options: SearchOptions,
        *,
        allow_unknown_fields: bool = False,
    ) -> None:
        if options.effort != Effort() or options.threads is not None:
            raise SettingsError("options has effort or threads, which a server decides: leave them out with url")
        self._server = server
        group: Literal["document"] | None = "document" if options.by == "document" else None
        self._body: dict[str, Any] = {"index": name, "mode": mode, "group": group}
        if mode == "hybrid":
            self._body |= {"fusion": options.fusion, "weights": options.weights}
        if options.rescore is not None:
            self._body |= {"rescore": options.rescore, "candidates": options.candidates}
        self._body |= {"allow_empty": True, "allow_unknown_fields": allow_unknown_fields}

    def search(self, query: str, k: int, where: str | None) -> list[Hit]:
        """The k best hits of a question among the documents that match the filter.

        Raises:
            ServerError: The server cannot be reached, has no such index, or the index cannot be searched like this.
        """
        rows = self._server.json("/v1/search", {**self._body, "query": query, "k": k, "where": where})
        try:
            return [Hit(**row) for row in rows]
        except TypeError as error:
            reason = f"{self._server.url} does not answer as llm2comp serve does; check the address"
            raise ServerError(reason) from error


def _steps(count: int, step: int, *, show: bool) -> Iterable[int]:
    starts = range(0, count, step)
    if not show:
        return starts
    from tqdm.auto import tqdm

    bar: Iterable[int] = tqdm(starts, desc="Requests")
    return bar
