"""`LLM2CompEmbeddings`: an llm2comp model as LangChain's embeddings."""

from langchain_core.embeddings import Embeddings

from llm2comp_adapters import TextEncoder

__all__ = ["LLM2CompEmbeddings"]


class LLM2CompEmbeddings(TextEncoder, Embeddings):
    """Embeddings from an llm2comp model: the bundled one, one from a folder or the Hub, or a loaded one.

    By default, queries get the instruction that the model was saved with, and documents none. Texts are encoded
    unaltered. The asynchronous methods, which are LangChain's, compute in a thread.

    Examples:
        >>> from langchain_llm2comp import LLM2CompEmbeddings
        >>> embeddings = LLM2CompEmbeddings()
        >>> len(embeddings.embed_query("How do I split a path?"))
        256
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in their order; an empty list for no texts.

        Raises:
            TypeError: One of them is not a string; the message names its position.
        """
        return self._encode_texts(texts, show_progress=self.show_progress)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query.

        Raises:
            TypeError: The query is not a string.
        """
        return self._encode_query(text)
