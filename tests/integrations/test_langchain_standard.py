"""LangChain's own standard tests, unmodified."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_llm2comp import LLM2CompEmbeddings, LLM2CompRetriever


class TestEmbeddings(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[LLM2CompEmbeddings]:
        return LLM2CompEmbeddings


class TestEmbeddingsAtWork(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[LLM2CompEmbeddings]:
        return LLM2CompEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"device": "cpu", "query_instruction": "find: ", "embed_batch_size": 2}


class _OverAnIndex:
    """Settings of the standard tests of a retriever; `folder` is set before each test."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _index(self, index_dir: Path) -> None:
        type(self).folder = index_dir

    @property
    def retriever_constructor(self) -> type[LLM2CompRetriever]:
        return LLM2CompRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index_dir": self.folder}

    @property
    def retriever_query_example(self) -> str:
        return "why does bread rise?"


class TestRetriever(_OverAnIndex, RetrieversIntegrationTests):
    pass


class TestRetrieverByWordsAndByTheOtherName(_OverAnIndex, RetrieversIntegrationTests):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index_dir": self.folder, "mode": "hybrid"}

    @property
    def num_results_arg_name(self) -> str:
        return "similarity_top_k"
