"""Random vectors: what a score is worth that any system gets by chance."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomVectors"]


class RandomVectors:
    """A unit vector for each text in a direction that depends on nothing but the text: equal texts are equal, all others unrelated.

    Directions are uniform on the sphere. The generator is NumPy's `RandomState`, whose numbers no later version
    changes.
    """

    system = "random"
    label = "random"
    revision = "sha256"
    similarity_fn_name = "cosine"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension

    @property
    def settings(self) -> dict[str, Any]:
        """What a result file says of it beside its name."""
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
        """Vectors (n, dimension) of n texts, the prompt before each."""
        vectors = np.empty((len(inputs), self.dimension), np.float32)
        for row, text in enumerate(inputs):
            digest = hashlib.sha256(((prompt or "") + text).encode("utf-8", "surrogatepass")).digest()
            vector = np.random.RandomState(np.frombuffer(digest, np.dtype("<u4"))).standard_normal(self.dimension)
            vectors[row] = vector / np.linalg.norm(vector)
        return vectors

    encode_query = encode
    encode_document = encode
