"""`LLM2CompEmbedding`: an llm2comp model as LlamaIndex's embedding model."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding

from llm2comp.truncation import count_truncated
from llm2comp_adapters import TextEncoder, check_texts

__all__ = ["LLM2CompEmbedding"]

_logger = logging.getLogger(__name__)


class LLM2CompEmbedding(TextEncoder, BaseEmbedding):
    """Embedding model: the bundled one, one from a folder or the Hub, or a loaded one.

    By default, queries get the instruction that the model was saved with, and texts none. Texts are encoded unaltered.
    The asynchronous methods compute in a thread.

    Examples:
        >>> from llama_index.embeddings.llm2comp import LLM2CompEmbedding
        >>> embedding = LLM2CompEmbedding()
        >>> len(embedding.get_query_embedding("How do I split a path?"))
        256
    """

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialized form."""
        return "LLM2CompEmbedding"

    def get_query_embedding(self, query: str) -> Embedding:
        """The vector of a query."""
        return BaseEmbedding.get_query_embedding(self._for_queries(), query)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """The vector of a query, computed in a thread."""
        return await BaseEmbedding.aget_query_embedding(self._for_queries(), query)

    def get_text_embedding_batch(
        self, texts: Sequence[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Vectors of texts, in their order.

        Raises:
            TypeError: One of them is not a string; the message names its position. Nothing has been computed then.
        """
        checked = check_texts(texts)
        with count_truncated() as count:
            vectors = super().get_text_embedding_batch(checked, show_progress or self.show_progress, **kwargs)
        if count.cut:
            _logger.warning("%d of %d texts were cut to their first %d tokens", count.cut, count.texts, count.tokens)
        return vectors

    async def aget_text_embedding_batch(
        self, texts: Sequence[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """As `get_text_embedding_batch`, in one thread, because concurrent batches would compete for the same cores."""
        return await asyncio.to_thread(self.get_text_embedding_batch, texts, show_progress, **kwargs)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._encode_query(query)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._encode_query, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._encode_texts([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._encode_texts(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._encode_texts, texts)

    def _for_queries(self) -> Self:
        """This object without its embeddings cache, in which a query and a text with the same words share a key."""
        return self if self.embeddings_cache is None else self.model_copy(update={"embeddings_cache": None})
