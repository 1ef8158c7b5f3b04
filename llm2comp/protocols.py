"""What indexes and benchmarks require of a model, and the check of the vectors that it returns."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import LLM2CompError

__all__ = ["Encoder", "check_vectors"]


class Encoder(Protocol):
    """A model with the two methods of sentence-transformers: one of this package, of theirs, or a stand-in."""

    def encode_query(self, inputs: list[str], /, *, batch_size: int = ..., show_progress_bar: bool | None = ...) -> Any:
        """Vectors (texts, dimension) of queries, encoded with the model's query instruction if it has one."""

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = ..., show_progress_bar: bool | None = ...
    ) -> Any:
        """Vectors (texts, dimension) of documents."""


def check_vectors(
    vectors: Any, texts: Sequence[str], *, dimension: int | None = None, error: type[LLM2CompError] = LLM2CompError
) -> NDArray[np.float32]:
    """The vectors (texts, dimension) that a model returned for the texts, as a contiguous array.

    Args:
        vectors: Anything that NumPy makes an array of.
        texts: The texts encoded.
        dimension: Expected length of a vector; None: any.
        error: Class of the error raised.

    Raises:
        LLM2CompError: The vectors have another shape, or one of them is not finite.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(texts) or dimension not in (None, array.shape[1]):
        expected = f"({len(texts)}, {'dimension' if dimension is None else dimension})"
        raise error(f"the model gave vectors of shape {array.shape}, expected {expected}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise error(
            f"the model gave a vector that is not finite for the text {texts[int(np.argmin(finite))][:60]!r}; load it "
            "with dtype float32, or check its weights"
        )
    return array
