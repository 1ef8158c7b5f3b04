"""LangChain's own standard tests of a vector store, unmodified."""

from pathlib import Path

import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_tests.integration_tests import VectorStoreIntegrationTests

from langchain_llm2comp import LLM2CompVectorStore


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> LLM2CompVectorStore:
        return LLM2CompVectorStore(tmp_path / "idx", self.get_embeddings())
