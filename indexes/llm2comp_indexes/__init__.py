"""FAISS indexes on disk: build one from corpora, open it, search it, verify it."""

from llm2comp_indexes.build import BuildReport, build_index
from llm2comp_indexes.encoder import Encoder
from llm2comp_indexes.search import Hit, Index, open_index
from llm2comp_indexes.verify import verify_index

__all__ = ["BuildReport", "Encoder", "Hit", "Index", "build_index", "open_index", "verify_index"]
