"""The model of an index: what it must be able to do, how it is loaded, and its vectors of rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import llm2comp
from llm2comp import protocols
from llm2comp.bundled_models import DEFAULT_MODEL, bundled_name, find_bundled
from llm2comp.corpus.documents import Document
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp.protocols import check_vectors

__all__ = ["Encoder", "RowEncoder", "encode", "load_encoder", "options_of"]

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
    model: str | Path | Encoder | None, options: EncoderOptions | None = None
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


class RowEncoder:
    """Encodes rows, and counts rows and time.

    Attributes:
        dimension: Length of a vector.
        seconds: Seconds spent in encoding so far.
        rows: Number of rows encoded so far.

    Args:
        encoder: The model.
        text: Gives the text that is encoded for a row; None: its title and text.
        batch_size: Number of texts in a batch; None: as the model has it.

    Raises:
        IndexFolderError: The model does not state its dimension.
    """

    def __init__(
        self, encoder: Encoder, text: Callable[[Document], str] | None = None, *, batch_size: int | None = None
    ) -> None:
        dimension = encoder.get_embedding_dimension()
        if dimension is None:
            raise IndexFolderError(
                "the model does not state the dimension of its vectors; give one whose get_embedding_dimension() is a "
                "number"
            )
        self.dimension = dimension
        self.seconds = 0.0
        self.rows = 0
        self._encoder, self._text, self._batch_size = encoder, text or (lambda row: row.content), batch_size

    def __call__(self, rows: Sequence[Document]) -> NDArray[np.float32]:
        """Vectors (rows, dimension)."""
        start = time.perf_counter()
        vectors = encode(self._encoder.encode_document, list(map(self._text, rows)), self.dimension, self._batch_size)
        self.seconds += time.perf_counter() - start
        self.rows += len(rows)
        return vectors
