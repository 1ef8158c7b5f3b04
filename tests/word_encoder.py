"""A stand-in for a model, to test mechanics: vectors from hashed words, computed at once and the same everywhere."""

import hashlib
from collections import Counter
from functools import cache

import numpy as np
from numpy.typing import NDArray

WORDS = "bread moon list rain prime harbour tides oven butter numbers sea field stone light".split()  # noqa: SIM905
"""Words for texts of random corpora."""


class WordEncoder:
    """Encodes a text as the sum of a fixed random vector for each word, scaled to unit length."""

    def __init__(self, dimension: int = 32, fingerprint: str = "words") -> None:
        self.dimension = dimension
        self.fingerprint = f"{fingerprint}-{dimension}"
        self.documents = 0

    def get_embedding_dimension(self) -> int:
        return self.dimension

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        self.documents += len(inputs)
        return self.encode_query(inputs)

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        vectors = np.zeros((len(inputs), self.dimension), dtype=np.float32)
        for row, text in enumerate(inputs):
            for word, count in Counter(["", *text.lower().split()]).items():
                vectors[row] += count * draw_vector(word, self.dimension)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


@cache
def draw_vector(word: str, dimension: int) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(dimension)
