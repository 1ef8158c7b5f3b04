"""What an index asks of a model, and the checks on what the model gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import llm2comp
from llm2comp.errors import IndexFolderError

__all__ = ["Encoder", "encode", "load_encoder"]


class Encoder(Protocol):
    """The part of `llm2comp.LLM2Comp` that an index uses; any object with these members will do."""

    @property
    def fingerprint(self) -> str:
        """A string that changes whenever the vectors do."""

    def get_embedding_dimension(self) -> int | None:
        """Length of a vector."""

    def encode_document(self, inputs: list[str], /, *, show_progress_bar: bool) -> Any:
        """Vectors (texts, dimension) of documents."""

    def encode_query(self, inputs: list[str], /, *, show_progress_bar: bool) -> Any:
        """Vectors (texts, dimension) of queries."""


def load_encoder(model: str | Path | Encoder | None) -> tuple[Encoder, str | None]:
    """The model and the name to load it by again: None stands for the bundled one, and for one given as an object."""
    if model is None:
        return llm2comp.load(), None
    if isinstance(model, str | Path):
        return llm2comp.load(model), str(Path(model).resolve() if Path(model).exists() else model)
    return model, None


def encode(method: Callable[..., Any], texts: list[str], dimension: int) -> NDArray[np.float32]:
    """Vectors (texts, dimension) by `encode_document` or `encode_query`, checked.

    Raises:
        IndexFolderError: The vectors have another shape, or are not finite.
    """
    vectors = np.ascontiguousarray(method(texts, show_progress_bar=False), dtype=np.float32)
    if vectors.shape != (len(texts), dimension):
        raise IndexFolderError(f"the model gave vectors of shape {vectors.shape}, expected ({len(texts)}, {dimension})")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        text = texts[int(np.argmin(finite))]
        raise IndexFolderError(f"the model gave a vector that is not finite for the text {text[:60]!r}; load it with dtype float32, or check its weights")
    return vectors
