"""What the LlamaIndex and LangChain classes share: settings of an encoder, and the documents of an index as both frameworks want them."""

from llm2comp_adapters.retrieval import Mode, hit_metadata, open_with_model
from llm2comp_adapters.text_encoder import BUNDLED, LOADED, TextEncoder

__all__ = ["BUNDLED", "LOADED", "Mode", "TextEncoder", "hit_metadata", "open_with_model"]
