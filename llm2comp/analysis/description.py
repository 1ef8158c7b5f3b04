"""Figures of a model on texts: those of `vectors` for any encoder, and of the memory tokens for LLM2Comp models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from llm2comp.analysis.vectors import VectorFigures, alignment, analyze_vectors, memory_similarity, singular_values
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp

__all__ = ["Description", "DocumentEncoder", "describe", "describe_embeddings", "mean_off_diagonal"]

_Floats = NDArray[np.floating[Any]]


class DocumentEncoder(Protocol):
    """An encoder of documents: a SentenceTransformer, or anything with its `encode_document`."""

    def encode_document(self, *args: Any, **kwargs: Any) -> Any:
        """Vectors, (texts, dim)."""


@dataclass(frozen=True)
class Description:
    """How a model spreads texts over its space.

    Attributes:
        figures: Figures of its document vectors.
        spectrum: Singular values of the centred vectors, largest first.
        spectrum_uncentred: Singular values of the vectors as they are.
        similarity: Mean cosines between a text's memory tokens, (k, k); None for a model without memory tokens.
        alignment: Alignment of positive pairs; None without pairs.
        vectors: The document vectors, (texts, dim), where they are kept.
    """

    figures: VectorFigures
    spectrum: NDArray[np.float64]
    spectrum_uncentred: NDArray[np.float64]
    similarity: NDArray[np.float64] | None
    alignment: float | None
    vectors: NDArray[np.floating[Any]] | None = None

    def numbers(self) -> dict[str, Any]:
        """The figures by name, as JSON values, without the spectra."""
        numbers: dict[str, Any] = self.figures._asdict()
        if self.alignment is not None:
            numbers["alignment"] = self.alignment
        if self.similarity is not None:
            numbers["memory_tokens"] = len(self.similarity)
            numbers["memory_similarity"] = self.similarity.tolist()
            numbers["memory_similarity_mean"] = mean_off_diagonal(self.similarity)
        return numbers


def describe_embeddings(
    model: DocumentEncoder, texts: Sequence[str], *, pairs: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Effective dimension, uniformity, anisotropy and memory-token similarity of a model, as numbers by name.

    Args:
        model: An LLM2Comp model, or any encoder, which has no numbers of memory tokens.
        texts: At least two texts.
        pairs: (query, positive) texts for `alignment`, which is left out without them.

    Returns:
        The fields of `VectorFigures`; `alignment`; `memory_tokens` (k), `memory_similarity` (k lists of k cosines) and
        `memory_similarity_mean` (of different tokens; None if k is 1).

    Raises:
        SettingsError: If there are fewer than two texts, or a vector is not finite.

    Examples:
        >>> import llm2comp
        >>> numbers = describe_embeddings(llm2comp.load(), ["a cat", "two dogs", "the sea"])
        >>> numbers["dimension"], numbers["memory_tokens"]
        (256, 8)
    """
    return describe(model, texts, pairs=pairs).numbers()


def describe(
    model: DocumentEncoder,
    texts: Sequence[str],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    progress: bool = False,
    keep_vectors: bool = False,
) -> Description:
    """The figures of `describe_embeddings`, with spectra and arrays.

    `progress` shows sentence-transformers' progress bar; `keep_vectors` keeps the document vectors.
    """
    if len(texts) < 2:
        raise SettingsError(f"{len(texts)} text{'s' if len(texts) != 1 else ''} to analyse; give at least 2")
    vectors, similarity = _encode(model, list(texts), progress)
    return Description(
        figures=analyze_vectors(vectors),
        spectrum=singular_values(vectors, centred=True),
        spectrum_uncentred=singular_values(vectors, centred=False),
        similarity=similarity,
        alignment=_alignment(model, pairs) if pairs else None,
        vectors=vectors if keep_vectors else None,
    )


def mean_off_diagonal(matrix: _Floats) -> float | None:
    """Mean of the entries off the diagonal; None for a matrix of one entry."""
    tokens = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (tokens * (tokens - 1))) if tokens > 1 else None


def _encode(model: DocumentEncoder, texts: list[str], progress: bool) -> tuple[_Floats, NDArray[np.float64] | None]:
    """Document vectors and memory similarity, from one pass over the texts."""
    if not isinstance(model, LLM2Comp):
        bar: dict[str, bool] = {"show_progress_bar": progress} if isinstance(model, SentenceTransformer) else {}
        return np.asarray(model.encode_document(texts, **bar), dtype=np.float32), None
    rows: Any = model.encode_document(texts, output_value=None, show_progress_bar=progress)
    vectors, memory = (
        np.stack([row[name].float().cpu().numpy() for row in rows])
        for name in ("sentence_embedding", "token_embeddings")
    )
    return vectors, memory_similarity(memory)


def _alignment(model: Any, pairs: Sequence[tuple[str, str]]) -> float:
    if not hasattr(model, "encode_query"):
        raise SettingsError(f"alignment needs a model that encodes queries, which {type(model).__name__} does not")
    queries, positives = (list(side) for side in zip(*pairs, strict=True))
    return alignment(np.asarray(model.encode_query(queries)), np.asarray(model.encode_document(positives)))
