"""Rescoring by MaxSim in the retrievers and vector stores of both frameworks: the order of the index, or one error."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain")
pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.embeddings.llm2comp import LLM2CompEmbedding
from llama_index.embeddings.llm2comp import LLM2CompRetriever as LlamaRetriever
from llama_index.embeddings.llm2comp import LLM2CompVectorStore as LlamaStore

from langchain_llm2comp import LLM2CompEmbeddings, LLM2CompVectorStore
from langchain_llm2comp import LLM2CompRetriever as LangchainRetriever
from llm2comp.errors import SettingsError
from llm2comp_indexes import Hit, IndexOptions, SearchOptions, build_index, open_index

if TYPE_CHECKING:
    from llm2comp import LLM2Comp

QUESTION = "why does bread rise?"
RESCORED = SearchOptions(rescore="maxsim", candidates=4)
NONE_STORED = "holds no vectors of memory tokens to rescore by"


@pytest.fixture(scope="module")
def memory_dir(corpus: Path, bundled: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "memory.index"
    build_index([corpus], folder, model=bundled, options=IndexOptions(memory_vectors="int8"))
    return folder


@pytest.fixture(scope="module")
def expected(memory_dir: Path, bundled: "LLM2Comp") -> list[Hit]:
    return open_index(memory_dir, model=bundled).search([QUESTION], 3, options=RESCORED)[0]


def check(found: list[tuple[str, Any]], expected: list[Hit]) -> None:
    assert [name for name, _ in found] == [hit.id for hit in expected]
    assert [score for _, score in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)


def test_langchain_retriever(memory_dir: Path, index_dir: Path, bundled: "LLM2Comp", expected: list[Hit]) -> None:
    found = LangchainRetriever(memory_dir, k=3, model=bundled, options=RESCORED).invoke(QUESTION)
    check([(str(document.id), document.metadata["relevance_score"]) for document in found], expected)
    with pytest.raises(ValueError, match=NONE_STORED):  # pydantic's, which says so
        LangchainRetriever(index_dir, model=bundled, options=RESCORED)


def test_llama_index_retriever(memory_dir: Path, index_dir: Path, bundled: "LLM2Comp", expected: list[Hit]) -> None:
    retriever = LlamaRetriever(memory_dir, 3, model=bundled, options=RESCORED)
    check([(node.node_id, node.score) for node in retriever.retrieve(QUESTION)], expected)
    with pytest.raises(SettingsError, match=NONE_STORED):
        LlamaRetriever(index_dir, model=bundled, options=RESCORED)


def test_a_vector_chooses_candidates_and_the_question_orders_them(
    memory_dir: Path, bundled: "LLM2Comp", expected: list[Hit]
) -> None:
    retriever = LlamaRetriever(memory_dir, 3, model=bundled, options=RESCORED)
    vector = bundled.encode_query(QUESTION).tolist()
    nodes = retriever.retrieve(QueryBundle(QUESTION, embedding=vector))
    check([(node.node_id, node.score) for node in nodes], expected)
    with pytest.raises(SettingsError, match="compares the question's text, and the query brings a vector alone"):
        retriever.retrieve(QueryBundle("", embedding=vector))


def test_langchain_store(memory_dir: Path, index_dir: Path, bundled: "LLM2Comp", expected: list[Hit]) -> None:
    store = LLM2CompVectorStore(memory_dir, LLM2CompEmbeddings(model=bundled))
    found = store.similarity_search_with_score(QUESTION, k=3, options=RESCORED)
    check([(str(document.id), score) for document, score in found], expected)
    retriever = store.as_retriever(search_kwargs={"k": 3, "options": RESCORED})
    assert [document.id for document in retriever.invoke(QUESTION)] == [hit.id for hit in expected]
    plain = LLM2CompVectorStore(index_dir, LLM2CompEmbeddings(model=bundled))
    with pytest.raises(SettingsError, match=NONE_STORED):
        plain.similarity_search(QUESTION, options=RESCORED)


def test_llama_index_store(memory_dir: Path, index_dir: Path, bundled: "LLM2Comp", expected: list[Hit]) -> None:
    embedding = LLM2CompEmbedding(model=bundled)
    store, fields = LlamaStore(memory_dir, embedding), {"rescore": "maxsim", "candidates": 4}
    query = VectorStoreQuery(query_str=QUESTION, similarity_top_k=3)
    found = store.query(query, **fields)
    assert found.ids is not None
    assert found.similarities is not None
    check(list(zip(found.ids, found.similarities, strict=True)), expected)
    whole = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    retriever = whole.as_retriever(similarity_top_k=3, vector_store_kwargs=fields)
    check([(node.node_id, node.score) for node in retriever.retrieve(QUESTION)], expected)
    with pytest.raises(SettingsError, match=NONE_STORED):
        LlamaStore(index_dir, embedding).query(query, **fields)
    vector = VectorStoreQuery(query_embedding=embedding.get_query_embedding(QUESTION))
    with pytest.raises(SettingsError, match="compares the text of the query, and there is none"):
        store.query(vector, rescore="maxsim")
    for other in (
        VectorStoreQuery(query_str=QUESTION, mode=VectorStoreQueryMode.MMR),
        VectorStoreQuery(query_str=QUESTION, node_ids=["bread"]),
    ):
        with pytest.raises(SettingsError, match="neither mode mmr nor node_ids"):
            store.query(other, rescore="maxsim")
