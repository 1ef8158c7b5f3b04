"""LlamaIndex classes: an embedding model, a retriever and a vector store over an index on disk, a synthesizer.

Imports `llm2comp_adapters` and what lies below it, and llama-index-core.
"""

from llm2comp.optional import optional_import

optional_import(
    "llama_index.core", extra="llama-index", needed_by="llama_index.embeddings.llm2comp", error_type=ImportError
)

from llama_index.embeddings.llm2comp.embedding import LLM2CompEmbedding
from llama_index.embeddings.llm2comp.retriever import LLM2CompRetriever
from llama_index.embeddings.llm2comp.synthesizer import LLM2CompSynthesizer
from llama_index.embeddings.llm2comp.vector_store import LLM2CompVectorStore

__all__ = ["LLM2CompEmbedding", "LLM2CompRetriever", "LLM2CompSynthesizer", "LLM2CompVectorStore"]
