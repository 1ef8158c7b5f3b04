"""What an evaluated model must be able to do, and its vectors made ready for comparison."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.metrics import Run

__all__ = ["Encoder", "Searcher", "check_kinds", "document_vectors", "query_vectors"]

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Any model with the two methods of sentence-transformers: ours, theirs, or a stand-in."""

    def encode_query(self, inputs: list[str], /, *, batch_size: int = ..., show_progress_bar: bool | None = ...) -> Any:
        """Vectors (n, dim) of n queries, with whatever instruction the model wants before a query."""

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = ..., show_progress_bar: bool | None = ...
    ) -> Any:
        """Vectors (n, dim) of n documents."""


def query_vectors(model: Encoder, texts: list[str], batch_size: int, *, cosine: bool | None = None) -> Vectors:
    """Vectors (n, dim) of queries whose inner product is the model's own similarity (see `document_vectors`)."""
    return _comparable(
        model, model.encode_query(texts, batch_size=batch_size, show_progress_bar=False), len(texts), cosine
    )


def document_vectors(model: Encoder, texts: list[str], batch_size: int, *, cosine: bool | None = None) -> Vectors:
    """Vectors (n, dim) of documents whose inner product is the model's own similarity.

    Args:
        model: The encoder.
        texts: n texts.
        batch_size: Texts in one pass of the model.
        cosine: Bring every vector to unit length. None: as the model says in `similarity_fn_name`; all but "dot" are
            cosine.

    Raises:
        LLM2CompError: The model returned another number of vectors, or one that is not finite.
    """
    return _comparable(
        model, model.encode_document(texts, batch_size=batch_size, show_progress_bar=False), len(texts), cosine
    )


def _comparable(model: Encoder, encoded: Any, count: int, cosine: bool | None) -> Vectors:
    vectors: Vectors = np.asarray(encoded, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count:
        raise LLM2CompError(
            f"the model turned {count} texts into an array of shape {vectors.shape}; expected ({count}, dimension)"
        )
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise LLM2CompError(
            f"the model gave a vector that is not finite, for the text {bad + 1} of {count}; try another dtype or model"
        )
    if cosine is None:
        cosine = getattr(model, "similarity_fn_name", None) != "dot"
    if not cosine:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32, copy=False)


@runtime_checkable
class Searcher(Protocol):
    """A system that ranks documents without a vector of each."""

    def search(self, documents: Iterable[Document], queries: dict[str, str], *, k: int) -> Run:
        """Up to k documents of every query, by id, with scores; documents that do not match at all are left out."""


def check_kinds(model: Encoder | Searcher, others: Iterable[str]) -> None:
    """Raise before the work starts if a system that only ranks documents is to do something else.

    Args:
        model: The system.
        others: Names of the tasks that are no retrieval.

    Raises:
        SettingsError: There are such tasks, and the system has no vectors.
    """
    names = list(others)
    if names and isinstance(model, Searcher):
        what = getattr(model, "system", type(model).__name__)
        raise SettingsError(
            f"{what} ranks documents and has no vectors: it cannot do {', '.join(names)}; give it retrieval tasks only"
        )
