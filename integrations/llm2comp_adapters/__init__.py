"""Shared base of the LlamaIndex and LangChain classes: encoder settings, and hits as documents of either framework.

Imports `llm2comp_indexes` and the core; no framework.
"""

from llm2comp_adapters.embedding_name import name_embedding
from llm2comp_adapters.retrieval import Mode, hit_metadata, open_and_check
from llm2comp_adapters.store import Candidates, DocumentStore, Filter, make_document
from llm2comp_adapters.text_encoder import BUNDLED, LOADED, TextEncoder, check_query, check_texts

__all__ = [
    "BUNDLED",
    "LOADED",
    "Candidates",
    "DocumentStore",
    "Filter",
    "Mode",
    "TextEncoder",
    "check_query",
    "check_texts",
    "hit_metadata",
    "make_document",
    "name_embedding",
    "open_and_check",
]
