"""The model of an index: what it must be able to do, how it is loaded, and its vectors of rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import llm2comp
from llm2comp import protocols
from llm2comp.bundled_models import DEFAULT_MODEL, bundled_name, find_bundled
from llm2comp.corpus.documents import Document
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp.protocols import check_vectors
from llm2comp_indexes.progress import Phase, Progress, silent

__all__ = [
    "Encoder",
    "RowEncoder",
    "RowVectors",
    "count_memory_tokens",
    "encode",
    "encode_memory",
    "load_encoder",
    "options_of",
]

_LOADED_WITH = ("device", "dtype", "engine", "max_length", "truncate_dim")


class Encoder(protocols.Encoder, Protocol):
    """The part of `llm2comp.LLM2Comp` that an index uses; any object with these members will do.

    An index passes no `batch_size` unless it was given one.
    """

    @property
    def fingerprint(self) -> str:
        """A string that changes whenever the vectors do."""

    def get_embedding_dimension(self) -> int | None:
        """Length of a vector."""


def load_encoder(
    model: str | Path | Encoder | None, options: EncoderOptions | None = None, progress: Progress = silent
) -> tuple[Encoder, str | None]:
    """The model, and the name to load it by again.

    The name is that of a bundled model, the absolute path of a folder, or a Hub id; None for any other model that was
    given as an object.

    Raises:
        SettingsError: Options are given for a model that is an object, or they do not fit the model.
    """
    chosen = options or EncoderOptions()
    if model is not None and not isinstance(model, str | Path):
        if chosen.to_json() or chosen.device:
            raise SettingsError(
                f"{chosen.describe() or f'device {chosen.device}'} is given with a model that is loaded already: load "
                "it with that (llm2comp.load), or give its name"
            )
        return model, find_bundled(model.fingerprint)
    given = {name: value for name in _LOADED_WITH if (value := getattr(chosen, name)) is not None}
    progress(Phase.LOADING, 0)
    encoder: Encoder = llm2comp.load(model, **given)
    if model is None:
        return encoder, DEFAULT_MODEL if chosen.max_length else find_bundled(encoder.fingerprint)
    if (name := bundled_name(model)) is not None:
        return encoder, name
    place = Path(str(model))
    return encoder, str(place.resolve() if place.exists() else model)


def options_of(encoder: Encoder, options: EncoderOptions | None) -> EncoderOptions:
    """The options that an index records: those given, and the truncation that a model given as an object has."""
    chosen = options or EncoderOptions()
    truncation = getattr(encoder, "truncate_dim", None)
    return replace(chosen.recorded, truncate_dim=truncation if isinstance(truncation, int) else None)


def encode(
    method: Callable[..., Any], texts: list[str], dimension: int, batch_size: int | None = None
) -> NDArray[np.float32]:
    """Vectors (texts, dimension) by the method, `encode_document` or `encode_query` of a model, checked.

    Raises:
        IndexFolderError: The vectors have another shape, or are not finite.
    """
    sizes = {} if batch_size is None else {"batch_size": batch_size}
    vectors = method(texts, show_progress_bar=False, **sizes)
    return check_vectors(vectors, texts, dimension=dimension, error=IndexFolderError)


def count_memory_tokens(encoder: Any) -> int:
    """K of a model that gives the vectors of its memory tokens.

    Raises:
        SettingsError: It has none, or does not give their vectors.
    """
    tokens = getattr(encoder, "memory_tokens", None)
    if not isinstance(tokens, int) or not callable(getattr(encoder, "encode_vectors", None)):
        raise SettingsError(
            f"the model ({type(encoder).__name__}) has no memory tokens, whose vectors are to be stored or compared; "
            "take a model of llm2comp, or leave memory_vectors and rescore out"
        )
    return tokens


class RowVectors(NamedTuple):
    """Vectors of rows.

    Attributes:
        vectors: (rows, dimension).
        memory: Those of their memory tokens, (rows, k, dimension), if they were asked for.
    """

    vectors: NDArray[np.float32]
    memory: NDArray[np.float32] | None = None


def encode_memory(
    encoder: Any, texts: list[str], dimension: int, *, task: str, batch_size: int | None = None
) -> RowVectors:
    """Vectors of the texts and of their memory tokens, from one pass of a model that has them, checked.

    Raises:
        IndexFolderError: The vectors have another shape, or are not finite.
        SettingsError: The model has no memory tokens.
    """
    tokens = count_memory_tokens(encoder)
    sizes = {} if batch_size is None else {"batch_size": batch_size}
    pooled, memory = encoder.encode_vectors(texts, task=task, show_progress_bar=False, **sizes)
    vectors = check_vectors(pooled, texts, dimension=dimension, error=IndexFolderError)
    whole = check_vectors(
        np.reshape(memory, (len(texts), -1)), texts, dimension=tokens * dimension, error=IndexFolderError
    )
    return RowVectors(vectors, whole.reshape(len(texts), tokens, dimension))


class RowEncoder:
    """Encodes rows, and counts rows and time.

    Attributes:
        dimension: Length of a vector.
        memory_tokens: k, if the vectors of memory tokens are wanted; else 0.
        seconds: Seconds spent in encoding so far.
        rows: Number of rows encoded so far.

    Args:
        encoder: The model.
        text: Gives the text that is encoded for a row; None: its title and text.
        batch_size: Number of texts in a batch; None: as the model has it.
        memory: Whether the vectors of memory tokens are wanted too.

    Raises:
        IndexFolderError: The model does not state its dimension.
        SettingsError: It has no memory tokens, and their vectors are wanted.
    """

    def __init__(
        self,
        encoder: Encoder,
        text: Callable[[Document], str] | None = None,
        *,
        batch_size: int | None = None,
        memory: bool = False,
    ) -> None:
        dimension = encoder.get_embedding_dimension()
        if dimension is None:
            raise IndexFolderError(
                "the model does not state the dimension of its vectors; give one whose get_embedding_dimension() is a "
                "number"
            )
        self.dimension = dimension
        self.memory_tokens = count_memory_tokens(encoder) if memory else 0
        self.seconds = 0.0
        self.rows = 0
        self._encoder, self._text, self._batch_size = encoder, text or (lambda row: row.content), batch_size

    def __call__(self, rows: Sequence[Document]) -> RowVectors:
        """Vectors of the rows."""
        start, texts, size = time.perf_counter(), list(map(self._text, rows)), self._batch_size
        if self.memory_tokens:
            vectors = encode_memory(self._encoder, texts, self.dimension, task="document", batch_size=size)
        else:
            vectors = RowVectors(encode(self._encoder.encode_document, texts, self.dimension, size))
        self.seconds += time.perf_counter() - start
        self.rows += len(rows)
        return vectors
