"""The indexes of a server: each open at its last commit, with queries encoded by the models' queues."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import LLM2CompError
from llm2comp.late_interaction import TextVectors
from llm2comp_indexes import (
    AddReport,
    DeleteReport,
    Hit,
    Index,
    SearchOptions,
    add_documents,
    delete_documents,
)
from llm2comp_indexes.format.manifest import manifest_state, read_manifest
from llm2comp_indexes.search.index import open_last_commit
from llm2comp_indexes.search.lookup import find_rows, read_vectors, select_rows
from llm2comp_serve.errors import RequestError
from llm2comp_serve.map import project
from llm2comp_serve.models import Model, Models
from llm2comp_serve.vectors import shorten

__all__ = ["Answer", "Indexes", "ServedIndex"]


class Answer(NamedTuple):
    """Hits of each query, and seconds of encoding and of searching."""

    hits: list[list[Hit]]
    encoding: float
    searching: float


class _QueueEncoder:
    """The model of an index, whose texts are encoded in one queue with those of all other requests.

    Its methods wait for the vectors, so they are called in threads only.

    Args:
        model: The model.
        dimension: Number of components that the index keeps of a vector.
    """

    def __init__(self, model: Model, dimension: int) -> None:
        self._model, self.dimension = model, dimension

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint."""
        return self._model.fingerprint

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, by whose tokens documents are split into chunks."""
        return self._model.model.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Longest chunk in tokens; memory tokens are not among them."""
        return self._model.max_length - self._model.model.memory_tokens

    @property
    def memory_tokens(self) -> int:
        """k, the memory tokens of a text."""
        return self._model.model.memory_tokens

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.dimension

    def encode_query(self, inputs: list[str], /, **_: Any) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of queries."""
        return self._encode(inputs, query=True)

    def encode_document(self, inputs: list[str], /, **_: Any) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of documents."""
        return self._encode(inputs, query=False)

    def encode_vectors(self, texts: list[str], *, task: Literal["query", "document"], **_: Any) -> TextVectors:
        """Vectors of texts, and those of their memory tokens, (texts, k, dimension), of unit length."""
        found = self._run(texts, query=task == "query", memory=True)
        memory = found[:, 1:, : self.dimension]
        lengths = np.maximum(np.linalg.norm(memory, axis=2, keepdims=True), np.finfo(np.float32).tiny)
        return TextVectors(shorten(found[:, 0], self.dimension), memory / lengths)

    def _encode(self, texts: list[str], *, query: bool) -> NDArray[np.float32]:
        return shorten(self._run(texts, query=query), self.dimension)

    def _run(self, texts: list[str], *, query: bool, memory: bool = False) -> NDArray[np.float32]:
        tokens = self._model.tokenize(texts, query=query, truncate=None if query else True)
        future = self._model.submit(tokens, memory=memory)
        try:
            return future.result()
        except Exception as error:
            raise RequestError(424, f"the model failed: {error}", code="model_failed") from error


class ServedIndex:
    """An index under a name; searches see the last commit.

    Args:
        name: What requests call it.
        folder: Folder of the index.
        models: The models of the server, to which that of the index is added.

    Attributes:
        writer: The only thread that changes the index. Changes wait here for one another, not in the threads that all
            requests share.

    Raises:
        LLM2CompError: The index or its model cannot be opened.
    """

    def __init__(self, name: str, folder: Path, models: Models) -> None:
        self.name, self.folder = name, folder
        self.writer = ThreadPoolExecutor(1, thread_name_prefix=f"llm2comp-writing-{name}")
        self._opening = threading.Lock()
        self._models = models
        manifest = read_manifest(folder)
        self.model = models.of_index(manifest, str(folder))
        self._encoder = _QueueEncoder(self.model, manifest.dimension)
        self._state = manifest_state(folder)  # before the index is opened: a commit in between is seen next time
        self._index = open_last_commit(folder, self._encoder)

    def current(self) -> Index:
        """The index at its last commit. One that was opened before goes on until its searches are done.

        Raises:
            RequestError: The commit is damaged (status 500), or of a model that the server has not loaded (503).
        """
        with self._opening:
            state = manifest_state(self.folder)
            if state not in (None, self._state):  # None: moved away, and what is open goes on
                try:
                    self._open_again()
                except LLM2CompError as error:
                    raise RequestError(500, str(error), code="index_unavailable") from error
                self._state = state
            return self._index

    def _open_again(self) -> None:
        manifest = read_manifest(self.folder)
        model, encoder = self.model, self._encoder
        if (manifest.fingerprint, manifest.dimension) != (self._index.manifest.fingerprint, encoder.dimension):
            loaded = next((model for model in self._models if model.fingerprint == manifest.fingerprint), None)
            if loaded is None:
                reason = f"{self.name} was built again with a model that this server has not loaded: restart the server"
                raise RequestError(503, reason, code="index_unavailable")
            model, encoder = loaded, _QueueEncoder(loaded, manifest.dimension)
        # files that both commits have stay open
        self._index = open_last_commit(self.folder, encoder, known=self._index.segments)
        self.model, self._encoder = model, encoder

    def search(self, queries: Sequence[str], k: int, options: SearchOptions) -> Answer:
        """The k best hits of each query.

        Raises:
            LLM2CompError: As `Index.search`.
        """
        start, index = time.perf_counter(), self.current()
        hits = index.search(queries, k, options=options)
        encoding = index.encode_seconds
        return Answer(hits, encoding, time.perf_counter() - start - encoding)

    def read(self, identifier: str) -> list[Hit]:
        """The document of an id, or its chunks in order; empty if there is none."""
        index = self.current()
        [rows] = find_rows(index, [identifier])
        return [index.fetch(row, 0.0) for row in rows]

    def facts(self, *, writable: bool) -> dict[str, Any]:
        """Name, model and size of the index, as JSON; `problem` is why its last commit cannot be searched."""
        problem = {}
        try:
            manifest = self.current().manifest
        except RequestError as error:
            problem = {"problem": str(error)}
            manifest = self._index.manifest
        return {
            "name": self.name,
            "documents": manifest.documents,
            "rows": manifest.rows,
            "dimension": manifest.dimension,
            "model": self.model.name,
            "modes": ["dense", "bm25", "hybrid"] if manifest.options.hybrid else ["dense"],
            "memory_vectors": manifest.options.memory_vectors,
            "language": manifest.options.language,
            "commit": manifest.commit,
            "writable": writable,
            **problem,
        }

    def map(self, identifiers: Sequence[str], sample: int) -> dict[str, list[tuple[float, float, str]]]:
        """Points of hits, in the order of their ids, and of a sample of all rows: x, y and title."""
        index = self.current()
        rows = select_rows(index)
        chosen = [int(row) for row in rows[:: max(1, len(rows) // sample)][:sample]]
        hits = [row for identifier in identifiers if (row := _row_of(index, identifier)) is not None]
        points = project(read_vectors(index, chosen), read_vectors(index, hits))
        return {
            name: [
                (float(x), float(y), (hit := index.fetch(row, 0.0)).title or hit.id)
                for (x, y), row in zip(places, listed, strict=True)
            ]
            for name, places, listed in zip(("sample", "hits"), points, (chosen, hits), strict=True)
        }

    def add(self, documents: list[dict[str, Any]]) -> AddReport:
        """Adds or replaces documents, in one commit.

        Raises:
            LLM2CompError: As `add_documents`.
            RequestError: As `current`.
        """
        self.current()  # whose model encodes the documents
        return add_documents(self.folder, documents, model=self._encoder, source="http")

    def delete(self, identifiers: list[str]) -> DeleteReport:
        """Deletes documents, in one commit.

        Raises:
            LLM2CompError: As `delete_documents`.
        """
        return delete_documents(self.folder, identifiers)


def _row_of(index: Index, identifier: str) -> int | None:
    """The row of a document, or of the chunk `DOCUMENT#N`."""
    document = identifier.rpartition("#")[0]
    for name in filter(None, (document, identifier)):
        [rows] = find_rows(index, [name])
        for row in rows:
            if index.fetch(row, 0.0).id == identifier:
                return row
    return None


class Indexes:
    """The indexes by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, ServedIndex] = {}

    def __iter__(self) -> Iterator[ServedIndex]:
        return iter(self._by_name.values())

    def open(self, name: str, folder: Path, models: Models) -> None:
        """Opens an index under a name.

        Raises:
            LLM2CompError: As `ServedIndex`.
        """
        self._by_name[name] = ServedIndex(name, folder, models)

    def find(self, name: str | None) -> ServedIndex:
        """The index that a request names; None is the only one.

        Raises:
            RequestError: There is none of this name, or several where none is named (status 404).
        """
        if name is None and len(self._by_name) == 1:
            return next(iter(self._by_name.values()))
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "none"
            reason = "name the index to search" if name is None else f"there is no index {name!r} here"
            raise RequestError(404, f"{reason}; served are: {known}", parameter="index", code="index_not_found")
        return self._by_name[name]
