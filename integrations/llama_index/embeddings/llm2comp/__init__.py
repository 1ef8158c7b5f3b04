"""LlamaIndex classes: `LLM2CompEmbedding`, and `LLM2CompRetriever` over an index on disk.

Imports `llm2comp_adapters` and what lies below it, and llama-index-core.
"""

from importlib import import_module

try:
    import_module("llama_index.core")
except ModuleNotFoundError as error:
    raise ImportError(
        "llama_index.embeddings.llm2comp needs LlamaIndex, which is not installed: pip install 'llm2comp[llama-index]'"
    ) from error

from llama_index.embeddings.llm2comp.embedding import LLM2CompEmbedding
from llama_index.embeddings.llm2comp.retriever import LLM2CompRetriever

__all__ = ["LLM2CompEmbedding", "LLM2CompRetriever"]
