"""Random vectors: the score that a system gets by chance."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomVectors"]


class RandomVectors:
    """A random unit vector for each text: equal texts have equal vectors, different texts unrelated ones.

    Directions are uniform on the sphere. The generator is NumPy's `RandomState`, whose numbers do not change between
    versions.
    """

    system = "random"
    label = "random"
    revision = "sha256"
    similarity_fn_name = "cosine"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        return {
            "system": self.system,
            "parameters": {"distribution": "uniform on the sphere, seeded with the SHA-256 of the text"},
        }

    def get_embedding_dimension(self) -> int:
        """Dimension of a vector."""
        return self.dimension

    def encode(
        self,
        inputs: list[str],
        /,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        prompt: str | None = None,
    ) -> NDArray[np.float32]:
        """Vectors (n, dimension) of n texts, each with the prompt before it."""
        vectors = np.empty((len(inputs), self.dimension), np.float32)
        for row, text in enumerate(inputs):
            digest = hashlib.sha256(((prompt or "") + text).encode("utf-8", "surrogatepass")).digest()
            vector = np.random.RandomState(np.frombuffer(digest, np.dtype("<u4"))).standard_normal(self.dimension)
            vectors[row] = vector / np.linalg.norm(vector)
        return vectors

    encode_query = encode
    encode_document = encode
