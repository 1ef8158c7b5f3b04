"""What the LlamaIndex and LangChain classes share: settings of an encoder, and the documents of an index as both frameworks want them."""

from llm2comp_adapters.retrieval import Mode, hit_metadata, open_to_ask
from llm2comp_adapters.text_encoder import BUNDLED, LOADED, TextEncoder, check_query, check_texts

__all__ = ["BUNDLED", "LOADED", "Mode", "TextEncoder", "check_query", "check_texts", "hit_metadata", "open_to_ask"]
