"""Late interaction: texts as several vectors each, the vectors of their memory tokens, compared by MaxSim."""

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm2comp.errors import SettingsError

__all__ = ["TextVectors", "maxsim"]

_PRODUCTS_AT_ONCE = 1 << 22


class TextVectors(NamedTuple):
    """Vectors of texts, from one pass of the model.

    Attributes:
        pooled: The vector of each text, float32 (texts, dim), as `encode_document` or `encode_query` returns it.
        memory: The vectors of its memory tokens, float32 (texts, k, dim), each of unit length.
    """

    pooled: NDArray[np.float32]
    memory: NDArray[np.float32]


def maxsim(queries: ArrayLike, documents: ArrayLike) -> NDArray[np.float32]:
    """Scores of documents for queries, float32 (queries, documents).

    A score is the sum, over the vectors of the query, of the greatest inner product with a vector of the document. Of
    unit vectors it is at most the number of vectors of the query. Sums are in double precision, so that a score does
    not depend on the other texts and equal documents have equal scores.

    Args:
        queries: (queries, vectors of each, dim).
        documents: (documents, vectors of each, dim); their number may be another than that of the queries.

    Raises:
        SettingsError: An array has no three axes or no numbers, the dimensions differ, or a text has no vectors.

    Source: ColBERT, Khattab and Zaharia, SIGIR 2020, equation 3.

    Examples:
        >>> import numpy as np
        >>> query = np.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> maxsim(query, np.array([[[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [1.0, 0.0]]])).tolist()
        [[1.7999999523162842, 1.0]]
    """
    asked, stored = _to_array(queries), _to_array(documents)
    if asked.ndim != 3 or stored.ndim != 3 or asked.shape[2] != stored.shape[2]:
        raise SettingsError(
            f"queries of shape {asked.shape} and documents of shape {stored.shape}, expected (texts, vectors, "
            "dim) with one dim"
        )
    if not asked.shape[1] or not stored.shape[1]:
        raise SettingsError(f"texts of {asked.shape[1]} and {stored.shape[1]} vectors, expected at least one each")
    flat = asked.reshape(-1, asked.shape[2]).astype(np.float64).T  # (dim, queries * vectors)
    scores = np.empty((len(asked), len(stored)), np.float32)
    at_once = max(1, _PRODUCTS_AT_ONCE // max(1, flat.shape[1] * stored.shape[1], stored.shape[1] * len(flat)))
    for first in range(0, len(stored), at_once):
        block = stored[first : first + at_once].astype(np.float64)
        products = (block.reshape(-1, block.shape[2]) @ flat).reshape(*block.shape[:2], *asked.shape[:2])
        scores[:, first : first + at_once] = products.max(1).sum(2).T  # max over the document's vectors
    return cast("NDArray[np.float32]", scores)


def _to_array(vectors: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(vectors)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"texts must have one number of vectors of one dimension each ({error})") from error
    if array.dtype.kind not in "fiu":
        raise SettingsError(f"vectors are of {array.dtype}, expected numbers")
    return array
