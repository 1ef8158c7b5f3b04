"""LangChain classes: embeddings, a retriever and a vector store over an index on disk, answers from memory tokens.

Imports `llm2comp_adapters` and what lies below it, and langchain-core.
"""

from llm2comp.optional import optional_import

optional_import("langchain_core", extra="langchain", needed_by="langchain_llm2comp", error_type=ImportError)

from langchain_llm2comp.answerer import LLM2CompAnswerer
from langchain_llm2comp.embeddings import LLM2CompEmbeddings
from langchain_llm2comp.retriever import LLM2CompRetriever
from langchain_llm2comp.vector_store import LLM2CompVectorStore

__all__ = ["LLM2CompAnswerer", "LLM2CompEmbeddings", "LLM2CompRetriever", "LLM2CompVectorStore"]
