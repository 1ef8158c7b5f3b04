"""LangChain classes: `LLM2CompEmbeddings`, and `LLM2CompRetriever` over an index on disk.

Imports `llm2comp_adapters` and what lies below it, and langchain-core.
"""

from importlib import import_module

try:
    import_module("langchain_core")
except ModuleNotFoundError as error:
    raise ImportError(
        "langchain_llm2comp needs LangChain, which is not installed: pip install 'llm2comp[langchain]'"
    ) from error

from langchain_llm2comp.embeddings import LLM2CompEmbeddings
from langchain_llm2comp.retriever import LLM2CompRetriever

__all__ = ["LLM2CompEmbeddings", "LLM2CompRetriever"]
