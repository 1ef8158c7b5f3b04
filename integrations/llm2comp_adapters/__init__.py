"""Shared base of the LlamaIndex and LangChain classes: encoder settings, and hits as documents of either framework.

Imports `llm2comp_indexes` and the core; no framework.
"""

from llm2comp_adapters.retrieval import Mode, hit_metadata, open_and_check
from llm2comp_adapters.text_encoder import BUNDLED, LOADED, TextEncoder, check_query, check_texts

__all__ = ["BUNDLED", "LOADED", "Mode", "TextEncoder", "check_query", "check_texts", "hit_metadata", "open_and_check"]
