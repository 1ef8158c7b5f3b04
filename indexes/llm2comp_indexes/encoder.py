"""The model of an index: what it must be able to do, how it is loaded, and its vectors of rows."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import llm2comp
from llm2comp import protocols
from llm2comp.bundled_models import bundled_name, find_bundled
from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError
from llm2comp.protocols import check_vectors

__all__ = ["Encoder", "RowEncoder", "encode", "load_encoder"]


class Encoder(protocols.Encoder, Protocol):
    """The part of `llm2comp.LLM2Comp` that an index uses; any object with these members will do.

    An index passes no `batch_size`.
    """

    @property
    def fingerprint(self) -> str:
        """A string that changes whenever the vectors do."""

    def get_embedding_dimension(self) -> int | None:
        """Length of a vector."""


def load_encoder(model: str | Path | Encoder | None) -> tuple[Encoder, str | None]:
    """The model, and the name to load it by again.

    The name is that of a bundled model, the absolute path of a folder, or a Hub id; None for any other model that was
    given as an object.
    """
    if model is not None and not isinstance(model, str | Path):
        return model, find_bundled(model.fingerprint)
    encoder: Encoder = llm2comp.load(model)
    if model is None:
        return encoder, find_bundled(encoder.fingerprint)
    if (name := bundled_name(model)) is not None:
        return encoder, name
    place = Path(str(model))
    return encoder, str(place.resolve() if place.exists() else model)


def encode(method: Callable[..., Any], texts: list[str], dimension: int) -> NDArray[np.float32]:
    """Vectors (texts, dimension) by the method, `encode_document` or `encode_query` of a model, checked.

    Raises:
        IndexFolderError: The vectors have another shape, or are not finite.
    """
    vectors = method(texts, show_progress_bar=False)
    return check_vectors(vectors, texts, dimension=dimension, error=IndexFolderError)


class RowEncoder:
    """Encodes rows, and counts rows and time.

    Attributes:
        dimension: Length of a vector.
        seconds: Seconds spent in encoding so far.
        rows: Number of rows encoded so far.

    Args:
        encoder: The model.
        text: Gives the text that is encoded for a row; None: its title and text.

    Raises:
        IndexFolderError: The model does not state its dimension.
    """

    def __init__(self, encoder: Encoder, text: Callable[[Document], str] | None = None) -> None:
        dimension = encoder.get_embedding_dimension()
        if dimension is None:
            raise IndexFolderError(
                "the model does not state the dimension of its vectors; give one whose get_embedding_dimension() is a "
                "number"
            )
        self.dimension = dimension
        self.seconds = 0.0
        self.rows = 0
        self._encoder, self._text = encoder, text or (lambda row: row.content)

    def __call__(self, rows: Sequence[Document]) -> NDArray[np.float32]:
        """Vectors (rows, dimension)."""
        start = time.perf_counter()
        vectors = encode(self._encoder.encode_document, list(map(self._text, rows)), self.dimension)
        self.seconds += time.perf_counter() - start
        self.rows += len(rows)
        return vectors
