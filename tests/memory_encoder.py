"""A stand-in for a model with memory tokens: every token of a text is the text without some of its words."""

import numpy as np
from numpy.typing import NDArray

from llm2comp.late_interaction import TextVectors
from tests.word_encoder import WordEncoder


class MemoryWordEncoder(WordEncoder):
    """Encodes a text as `WordEncoder`; memory token i is the text of every k-th word, from the i-th on.

    Attributes:
        passes: Number of calls of `encode_vectors`.
    """

    def __init__(self, dimension: int = 32, fingerprint: str = "memory", memory_tokens: int = 3) -> None:
        super().__init__(dimension, f"{fingerprint}-{memory_tokens}")
        self.memory_tokens = memory_tokens
        self.passes = 0

    def encode_vectors(
        self, texts: list[str], *, task: str = "document", batch_size: int = 32, show_progress_bar: bool = False
    ) -> TextVectors:
        self.passes += 1
        pooled = self.encode_document(texts) if task == "document" else self.encode_query(texts)
        return TextVectors(pooled, self.memory_of(texts))

    def memory_of(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors (texts, k, dimension) of the memory tokens."""
        parts = [" ".join(text.split()[i :: self.memory_tokens]) for text in texts for i in range(self.memory_tokens)]
        return self.encode_query(parts).reshape(len(texts), self.memory_tokens, self.dimension)
