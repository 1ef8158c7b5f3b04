"""`LLM2CompSynthesizer`: answers of a frozen language model from the memory tokens of the nodes, not their texts."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.mock import MockLLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer

if TYPE_CHECKING:  # imports torch
    from llm2comp.reading import CompressedReader

__all__ = ["LLM2CompSynthesizer"]


class LLM2CompSynthesizer(BaseSynthesizer):
    """Response synthesizer whose language model reads k memory tokens for each node in place of its text.

    Args:
        reader: Compresses the nodes and answers; its template takes the place of LlamaIndex's prompts.
        callback_manager: LlamaIndex's.

    Examples:
        >>> from llama_index.core.query_engine import RetrieverQueryEngine
        >>> from llm2comp.reading import CompressedReader
        >>> reader = CompressedReader.load("runs/compression/model")  # doctest: +SKIP
        >>> engine = RetrieverQueryEngine(retriever, LLM2CompSynthesizer(reader))  # doctest: +SKIP
    """

    def __init__(self, reader: "CompressedReader", *, callback_manager: CallbackManager | None = None) -> None:
        super().__init__(llm=MockLLM(), callback_manager=callback_manager)  # without one, LlamaIndex asks for OpenAI's
        self.reader = reader

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> str:
        """The reader's answer to a question from the texts of nodes, the best one first.

        Raises:
            SettingsError: The memory tokens of so many nodes are longer than the reader's longest input.
        """
        return self.reader.answer(query_str, list(text_chunks)).text

    async def aget_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> str:
        """As `get_response`, computed in a thread."""
        return await asyncio.to_thread(self.get_response, query_str, text_chunks, **response_kwargs)

    def _get_prompts(self) -> PromptDictType:
        """None: the reader's template is no prompt of LlamaIndex."""
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if prompts:
            raise ValueError(
                f"{type(self).__name__} has no prompts to update ({', '.join(prompts)}): give the reader a template"
            )
