"""The first documents of a ranking ordered by MaxSim over memory tokens, as `llm2comp search --rescore maxsim` does."""

import tempfile
from collections.abc import Iterable
from typing import IO, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.late_interaction import maxsim
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.systems.hybrid import Hybrid
from llm2comp_benchmarks.tasks.exact_search import exact_search
from llm2comp_indexes.encoder import count_memory_tokens
from llm2comp_indexes.search.options import SearchOptions

__all__ = ["Rescored"]


class Rescored:
    """A model's ranking, or its hybrid with BM25's, whose first documents are ordered by MaxSim of memory tokens.

    Every text is encoded once. Vectors of memory tokens are not rounded; meanwhile a temporary file holds those of all
    documents, 4 x k x dim bytes each.

    Args:
        encoder: The model.
        candidates: Number of documents of a query that are ordered; no other is ranked.
        hybrid: How the rankings by vectors and by words are fused that the candidates are the first of; None: vectors
            alone.

    Raises:
        SettingsError: The model has no memory tokens, or a number is out of its range.
    """

    system = "maxsim"

    def __init__(self, encoder: Any, candidates: int = 100, hybrid: SearchOptions | None = None) -> None:
        self.candidates = candidates
        SearchOptions(rescore="maxsim", candidates=candidates)  # checks them
        count_memory_tokens(encoder)
        self.encoder = encoder
        self._hybrid = None if hybrid is None else Hybrid(encoder, hybrid)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        first = {"of": "vectors"} if self._hybrid is None else {"of": "hybrid", **self._hybrid.settings["parameters"]}
        return {"system": self.system, "parameters": {"rescore": "maxsim", "candidates": self.candidates, **first}}

    def search(self, documents: Iterable[Document], queries: dict[str, str], *, k: int) -> Run:
        """The k best of the candidates of every query."""
        with tempfile.TemporaryFile(prefix="llm2comp-maxsim-") as file:
            encoder = _MemoryKept(self.encoder, file)
            listed = list(documents)
            if self._hybrid is None:
                first = exact_search(encoder, listed, queries, k=self.candidates)
            else:
                first = Hybrid(encoder, self._hybrid.options).search(listed, queries, k=self.candidates)
            return _by_maxsim(first, {document.id: row for row, document in enumerate(listed)}, encoder, k)

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NoReturn:
        """Raises an error: the scores are of no single vectors.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError("rescore maxsim ranks documents and gives no vectors: give it retrieval tasks only")

    encode_document = encode_query


class _MemoryKept:
    """The vectors of a model, from passes whose vectors of memory tokens are kept, those of documents in a file."""

    def __init__(self, encoder: Any, file: IO[bytes]) -> None:
        self.similarity_fn_name = getattr(encoder, "similarity_fn_name", None)
        self.queries: NDArray[np.float32]
        self._encoder, self._file = encoder, file
        self._shape: tuple[int, ...] = (0, 0)  # of a document's: (k, dim)

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        """Vectors of queries."""
        found = self._encoder.encode_vectors(inputs, task="query", batch_size=batch_size)
        self.queries = found.memory
        return cast("NDArray[np.float32]", found.pooled)

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        """Vectors of the next documents."""
        found = self._encoder.encode_vectors(inputs, batch_size=batch_size)
        self._shape = found.memory.shape[1:]
        self._file.write(np.ascontiguousarray(found.memory, np.float32).data)
        return cast("NDArray[np.float32]", found.pooled)

    def documents(self) -> NDArray[np.float32]:
        """Vectors of the memory tokens of all documents so far, (documents, k, dim), mapped."""
        self._file.flush()
        return np.memmap(self._file, np.float32, "r").reshape(-1, *self._shape)


def _by_maxsim(first: Run, rows: dict[str, int], encoder: _MemoryKept, k: int) -> Run:
    """The k best by MaxSim of each query's candidates.

    Args:
        first: The candidates.
        rows: Row of each document, by id.
        encoder: Has encoded queries, in the order of `first`, and documents.
        k: Number of documents.
    """
    run: Run = {}
    memory = encoder.documents() if rows else np.empty((0, 1, 1), np.float32)
    for (query, candidates), asked in zip(first.items(), encoder.queries, strict=True):
        chosen = memory[np.array([rows[name] for name in candidates], np.int64)]
        scores: list[float] = maxsim(asked[None], chosen).ravel().tolist() if candidates else []
        ranked = sorted(zip(candidates, scores, strict=True), key=lambda pair: -pair[1])
        run[query] = dict(ranked[:k])
    return run
