"""The indexes of a server: each open at its last commit, with queries encoded by the models' queues."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes import (
    AddReport,
    DeleteReport,
    Hit,
    Index,
    SearchOptions,
    add_documents,
    delete_documents,
    open_index,
)
from llm2comp_indexes.search.lookup import find_rows, read_vectors, select_rows
from llm2comp_serve.errors import RequestError
from llm2comp_serve.map import project
from llm2comp_serve.models import Model, Models
from llm2comp_serve.vectors import shorten

__all__ = ["Answer", "Indexes", "ServedIndex"]

_MANIFEST = "manifest.json"


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
        self._model, self._dimension = model, dimension
        self._spent = threading.local()

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

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def encode_query(self, inputs: list[str], /, **_: Any) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of queries."""
        return self._encode(inputs, query=True)

    def encode_document(self, inputs: list[str], /, **_: Any) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of documents."""
        return self._encode(inputs, query=False)

    def take_seconds(self) -> float:
        """Seconds that this thread has waited for vectors since the last call."""
        seconds: float = getattr(self._spent, "seconds", 0.0)
        self._spent.seconds = 0.0
        return seconds

    def _encode(self, texts: list[str], *, query: bool) -> NDArray[np.float32]:
        start = time.perf_counter()
        tokens = self._model.tokenize(texts, query=query, truncate=None if query else True)
        future = self._model.submit(tokens)
        try:
            vectors = future.result()
        except Exception as error:
            raise RequestError(424, f"the model failed: {error}", code="model_failed") from error
        self._spent.seconds = getattr(self._spent, "seconds", 0.0) + time.perf_counter() - start
        return shorten(vectors, self._dimension)


class ServedIndex:
    """An index under a name; searches see the last commit.

    Args:
        name: What requests call it.
        folder: Folder of the index.
        models: The models of the server, to which that of the index is added.

    Raises:
        LLM2CompError: The index or its model cannot be opened.
    """

    def __init__(self, name: str, folder: Path, models: Models) -> None:
        self.name, self.folder = name, folder
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        with open_index(folder) as index:
            self.model = models.of_index(index.manifest, str(folder))
            self._encoder = _QueueEncoder(self.model, index.manifest.dimension)
        self._state: tuple[int, ...] = ()
        self._index = self._open()

    def current(self) -> Index:
        """The index at its last commit. One that was opened before goes on until its searches are done."""
        with self._opening:
            try:
                changed = self._stat() != self._state
            except OSError:  # moved away: what is open goes on
                changed = False
            if changed:
                self._index = self._open()
            return self._index

    def search(self, queries: Sequence[str], k: int, options: SearchOptions) -> Answer:
        """The k best hits of each query.

        Raises:
            LLM2CompError: As `Index.search`.
        """
        start = time.perf_counter()
        self._encoder.take_seconds()
        hits = self.current().search(queries, k, options=options)
        encoding = self._encoder.take_seconds()
        return Answer(hits, encoding, time.perf_counter() - start - encoding)

    def read(self, identifier: str) -> list[Hit]:
        """The document of an id, or its chunks in order; empty if there is none."""
        index = self.current()
        [rows] = find_rows(index, [identifier])
        return [index.fetch(row, 0.0) for row in rows]

    def facts(self, *, writable: bool) -> dict[str, Any]:
        """Name, model, size and fields of the index, as JSON."""
        manifest = self.current().manifest
        return {
            "name": self.name,
            "documents": manifest.documents,
            "rows": manifest.rows,
            "dimension": manifest.dimension,
            "model": self.model.name,
            "modes": ["dense", "bm25", "hybrid"] if manifest.options.hybrid else ["dense"],
            "commit": manifest.commit,
            "writable": writable,
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
        """
        with self._writing:
            return add_documents(self.folder, documents, model=self._encoder, source="http")

    def delete(self, identifiers: list[str]) -> DeleteReport:
        """Deletes documents, in one commit.

        Raises:
            LLM2CompError: As `delete_documents`.
        """
        with self._writing:
            return delete_documents(self.folder, identifiers)

    def _stat(self) -> tuple[int, ...]:
        """What differs between two commits: a commit is a new file in the place of the manifest."""
        status = (self.folder / _MANIFEST).stat()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _open(self) -> Index:
        state = self._stat()  # before the index is opened: a commit in between is seen next time
        index = open_index(self.folder, model=self._encoder)
        self._state = state
        return index


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
