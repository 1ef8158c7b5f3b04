"""Embeddings in fewer bits: bfloat16, and integers of unit vectors that depend on nothing but the text."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm2comp.errors import SettingsError

__all__ = ["check_precision", "convert_embeddings", "converts_here", "empty_embeddings"]

_NUMPY_TYPES = {"float32": np.float32, "int8": np.int8, "binary": np.int8, "uint8": np.uint8, "ubinary": np.uint8}
_PRECISIONS = ("float32", "bfloat16", "int8", "uint8", "binary", "ubinary")
_SCALE = 127


def check_precision(precision: str) -> None:
    """Refuses a precision that is not known.

    Raises:
        SettingsError: If there is no such precision.
    """
    if precision not in _PRECISIONS:
        raise SettingsError(f"precision is {precision!r}; give one of {', '.join(_PRECISIONS)}")


def converts_here(precision: str, *, normalize: bool) -> bool:
    """Whether `convert_embeddings` makes this precision; SentenceTransformer makes the others.

    Its int8 and uint8 scale by the range of each batch, so vectors of unit length are converted here.
    """
    return precision == "bfloat16" or (precision in ("int8", "uint8") and normalize)


def convert_embeddings(embeddings: Tensor, precision: str, *, as_tensor: bool) -> Any:
    """Embeddings in bfloat16, or components of unit vectors times 127, rounded, as int8 (uint8: plus 128).

    Returns:
        A tensor for bfloat16 or `as_tensor`, else a numpy array; shaped as `embeddings`.
    """
    if precision == "bfloat16":
        return embeddings.to(torch.bfloat16)
    scaled = (embeddings * _SCALE).round()
    integers = scaled.to(torch.int8) if precision == "int8" else (scaled + _SCALE + 1).to(torch.uint8)
    return integers if as_tensor else integers.cpu().numpy()


def empty_embeddings(dimension: int, precision: str, *, as_tensor: bool) -> Any:
    """The embeddings of no texts, (0, dimension), or (0, dimension / 8) for a binary precision."""
    if precision == "bfloat16":
        return torch.zeros((0, dimension), dtype=torch.bfloat16)
    columns = -(-dimension // 8) if precision.endswith("binary") else dimension
    embeddings = np.zeros((0, columns), dtype=_NUMPY_TYPES[precision])
    return torch.from_numpy(embeddings) if as_tensor else embeddings
