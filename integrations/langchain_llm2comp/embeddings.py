"""`LLM2CompEmbeddings`: an llm2comp model as LangChain's embeddings."""

from langchain_core.embeddings import Embeddings

from llm2comp_adapters import TextEncoder

__all__ = ["LLM2CompEmbeddings"]


class LLM2CompEmbeddings(TextEncoder, Embeddings):
    """Embeddings by an llm2comp model: the bundled one, or one from a folder or the Hub, or a loaded one.

    Queries get the query instruction that the model was saved with, documents none, unless said otherwise. Texts are
    encoded as they are. The asynchronous methods, which come from LangChain, compute in a thread.

    Examples:
        >>> from langchain_llm2comp import LLM2CompEmbeddings
        >>> embeddings = LLM2CompEmbeddings()
        >>> len(embeddings.embed_query("How do I split a path?"))
        256
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in their order; no texts, no vectors.

        Raises:
            TypeError: Naming the position of what is not a string.
        """
        return self._encode_texts(texts, show_progress=self.show_progress)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query.

        Raises:
            TypeError: It is not a string.
        """
        return self._encode_query(text)
