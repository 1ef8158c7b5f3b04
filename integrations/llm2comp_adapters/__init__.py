"""Shared base of the LlamaIndex and LangChain classes: encoder settings, hits, servers as models and indexes.

Imports `llm2comp_indexes` and the core; no framework.
"""

from llm2comp_adapters.embedding_name import loaded_model, name_embedding
from llm2comp_adapters.remote import RemoteIndex
from llm2comp_adapters.retrieval import (
    Mode,
    check_folder,
    check_store,
    check_url,
    hit_metadata,
    open_and_check,
    open_store_and_check,
)
from llm2comp_adapters.server import Server
from llm2comp_adapters.store import Candidates, DocumentStore, Filter, make_document
from llm2comp_adapters.text_encoder import BUNDLED, LOADED, TextEncoder, check_query, check_texts

__all__ = [
    "BUNDLED",
    "LOADED",
    "Candidates",
    "DocumentStore",
    "Filter",
    "Mode",
    "RemoteIndex",
    "Server",
    "TextEncoder",
    "check_folder",
    "check_query",
    "check_store",
    "check_texts",
    "check_url",
    "hit_metadata",
    "loaded_model",
    "make_document",
    "name_embedding",
    "open_and_check",
    "open_store_and_check",
]
