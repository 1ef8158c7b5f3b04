"""What an evaluated model must be able to do, and its vectors made ready for comparison."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.protocols import Encoder, check_vectors
from llm2comp_benchmarks.metrics import Run

__all__ = ["Searcher", "check_kinds", "document_vectors", "query_vectors"]

Vectors = NDArray[np.float32]


def query_vectors(model: Encoder, texts: list[str], batch_size: int, *, cosine: bool | None = None) -> Vectors:
    """Vectors (n, dim) of queries whose inner product is the model's own similarity (see `document_vectors`)."""
    vectors = model.encode_query(texts, batch_size=batch_size, show_progress_bar=False)
    return _comparable(model, check_vectors(vectors, texts), cosine)


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
    vectors = model.encode_document(texts, batch_size=batch_size, show_progress_bar=False)
    return _comparable(model, check_vectors(vectors, texts), cosine)


def _comparable(model: Encoder, vectors: Vectors, cosine: bool | None) -> Vectors:
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
