"""`LLM2CompAnswerer`: a runnable that answers from the memory tokens of documents, not their texts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig

from llm2comp.errors import SettingsError

if TYPE_CHECKING:  # imports torch
    from llm2comp.reading import CompressedReader

__all__ = ["LLM2CompAnswerer"]


class LLM2CompAnswerer(Runnable[Mapping[str, Any], str]):
    """Runnable from `{"question": str, "context": documents}` to an answer; each document costs k tokens of the reader.

    Args:
        reader: Compresses the documents and answers.

    Examples:
        >>> from langchain_core.runnables import RunnablePassthrough
        >>> from llm2comp.reading import CompressedReader
        >>> reader = CompressedReader.load("runs/compression/model")  # doctest: +SKIP
        >>> asked = {"context": retriever, "question": RunnablePassthrough()}  # doctest: +SKIP
        >>> chain = asked | LLM2CompAnswerer(reader)  # doctest: +SKIP
    """

    def __init__(self, reader: "CompressedReader") -> None:
        self.reader = reader

    def invoke(self, input: Mapping[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """The reader's answer to `question` from the documents or texts of `context`, the best one first.

        Raises:
            SettingsError: A field is missing, `context` is no list of documents or texts, or their memory tokens are
                longer than the reader's longest input.
        """
        return self._call_with_config(self._answer, input, config)

    def _answer(self, given: Mapping[str, Any]) -> str:
        if not isinstance(given, Mapping) or not {"question", "context"} <= given.keys():
            raise SettingsError('LLM2CompAnswerer takes {"question": …, "context": …}, the context a list of documents')
        return self.reader.answer(given["question"], _texts(given["context"])).text


def _texts(context: Any) -> list[str]:
    if isinstance(context, Sequence) and not isinstance(context, str):
        texts = [item.page_content if isinstance(item, Document) else item for item in context]
        if all(isinstance(text, str) for text in texts):
            return texts
    raise SettingsError(f"context is {type(context).__name__}; give a list of documents or texts")
