"""Vectors with fewer components."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["shorten"]


def shorten(vectors: NDArray[np.float32], dimension: int, *, normalize: bool = True) -> NDArray[np.float32]:
    """The first components of vectors (texts, any number), (texts, dimension), of unit length again."""
    if vectors.shape[1] <= dimension:
        return vectors
    first = np.ascontiguousarray(vectors[:, :dimension])
    if normalize:
        first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return first
