"""Whether a model belongs to an index and can be pickled, and whether a commit is the one that was seen before."""

import hashlib
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import llm2comp
from llm2comp.errors import IndexFolderError, SettingsError, one_line, quote_path
from llm2comp_indexes.encoder import Encoder, count_memory_tokens
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.search.segment import OpenSegment

__all__ = [
    "check_lexical",
    "check_memory",
    "check_model",
    "check_pickles",
    "check_vectors",
    "commit_digest",
    "report_left_out",
]

_logger = logging.getLogger(__name__)


def check_model(encoder: Encoder, manifest: Manifest, folder: Path) -> Encoder:
    """The model, if its vectors are those of the index.

    Raises:
        IndexFolderError: Dimension, truncation or fingerprint is another one.
    """
    actual, expected = encoder.fingerprint, manifest.fingerprint
    dimension = encoder.get_embedding_dimension()
    truncated = manifest.encoder.truncate_dim
    if truncated and dimension and dimension > truncated:
        raise IndexFolderError(
            f"{folder}: holds the first {truncated} components of its vectors, the model gives {dimension}: load it "
            f"with truncate_dim={truncated}, or give its name"
        )
    if manifest.dimension not in (0, dimension):
        raise IndexFolderError(
            f"{folder}: holds vectors of dimension {manifest.dimension}, the model gives {dimension}; name the model "
            "it was built with (--model), or go over to this one: llm2comp index rebuild "
            f"{quote_path(folder)} --model MODEL"
        )
    if expected and actual != expected:
        raise IndexFolderError(
            f"{folder}: built with {manifest.model or 'another model'} (fingerprint {expected[:12]}), not with this "
            f"model (fingerprint {actual[:12]}); name the one it was built with (--model), or build the index again: "
            f"llm2comp index rebuild {quote_path(folder)} --model MODEL"
        )
    return encoder


def check_memory(manifest: Manifest, folder: Path, encoder: Encoder | None = None) -> None:
    """Checks that the index stores vectors of memory tokens, and that the model, if it is given, has as many.

    Raises:
        SettingsError: It stores none, or the model has no memory tokens, or another number.
    """
    if manifest.options.memory_vectors is None:
        raise SettingsError(
            f"{folder}: holds no vectors of memory tokens to rescore by; store them with `llm2comp index rebuild "
            f"{quote_path(folder)} --memory-vectors int8`, or build with --memory-vectors int8"
        )
    if encoder is not None and (tokens := count_memory_tokens(encoder)) != manifest.memory_tokens:
        raise SettingsError(
            f"{folder}: holds the vectors of {manifest.memory_tokens} memory tokens a row, the model has {tokens}; "
            "name the model it was built with (--model)"
        )


def check_lexical(manifest: Manifest, segments: Sequence[OpenSegment], folder: Path) -> None:
    """Checks that the index has a BM25 index.

    Raises:
        SettingsError: It has none.
    """
    if not manifest.options.hybrid or not all(segment.lexical for segment in segments):
        raise SettingsError(
            f"{folder}: holds no BM25 index; add one with `llm2comp index merge {quote_path(folder)} "
            "--hybrid`, build with --hybrid (IndexOptions(hybrid=True)), or search with mode dense"
        )


def check_pickles(model: str | Encoder | None) -> None:
    """Checks that some pickler takes the model.

    Raises:
        TypeError: It is an object that none takes, such as one with a lock or an open file.
    """
    try:
        pickle.Pickler(_Nowhere()).dump(None if isinstance(model, llm2comp.LLM2Comp) else model)
    except (AttributeError, pickle.PicklingError):
        pass  # a class within a function, which cloudpickle takes; pickle's own message names it
    except Exception as error:
        raise TypeError(
            f"this index was opened with a model that cannot be pickled ({one_line(error)}); open it with the name or "
            "folder of the model instead, which is loaded again where it is needed"
        ) from error


def check_vectors(vectors: NDArray[np.float32], dimension: int, queries: int | None = None) -> None:
    """Checks that vectors of queries are finite, of the dimension of the index (0 for any), and one for each query.

    Raises:
        IndexFolderError: They are of another shape, or not finite.
    """
    if vectors.ndim != 2 or dimension not in (0, vectors.shape[1]) or queries not in (None, len(vectors)):
        expected = f"({'queries' if queries is None else queries}, {dimension or 'dimension'})"
        raise IndexFolderError(f"query vectors of shape {vectors.shape}, expected {expected}")
    if not np.isfinite(vectors).all():
        raise IndexFolderError("query vectors are not all finite numbers")


def report_left_out(manifest: Manifest, target: str) -> None:
    """Logs a warning if the index stores vectors of memory tokens, which the target does not hold."""
    if manifest.options.memory_vectors is not None:
        _logger.warning(
            "the vectors of memory tokens (%s) stay in the index; %s holds one vector a row",
            manifest.options.memory_vectors,
            target,
        )


def commit_digest(manifest: Manifest) -> str:
    """A hash that differs between any two commits."""
    return hashlib.sha256(repr(manifest).encode()).hexdigest()


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)
