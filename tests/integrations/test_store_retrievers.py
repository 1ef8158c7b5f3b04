"""LLM2CompRetriever(store=…) of both frameworks: what the index answers, from a table of a database."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llm2comp import LLM2Comp
from llm2comp.errors import SettingsError, StoreError
from llm2comp_indexes import SearchOptions, push_index
from tests.integrations.conftest import QUESTIONS

pytest.importorskip("lancedb", reason="no LanceDB: pip install 'llm2comp[lancedb]'")
pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
pytest.importorskip("langchain_core", reason="needs the extra langchain")

from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from llama_index.embeddings import llm2comp as for_llama_index

import langchain_llm2comp

WHERE = 'year >= 2005 and lang in ("en", "de")'


@pytest.fixture(scope="module")
def store(index_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"lancedb://{tmp_path_factory.mktemp('lance')}?table=docs"
    push_index(index_dir, url)
    return url


@pytest.mark.parametrize("where", [None, WHERE])
def test_langchain(store: str, index_dir: Path, bundled: LLM2Comp, where: str | None) -> None:
    own = langchain_llm2comp.LLM2CompRetriever(index_dir, k=4, where=where, model=bundled)
    stored = langchain_llm2comp.LLM2CompRetriever(store=store, k=4, where=where, model=bundled)
    for question in QUESTIONS:
        expected, documents = own.invoke(question), stored.invoke(question)
        assert [(document.id, document.page_content) for document in documents] == [
            (document.id, document.page_content) for document in expected
        ]
        scores = [document.metadata.pop("relevance_score") for document in documents]
        assert scores == pytest.approx([document.metadata.pop("relevance_score") for document in expected], abs=1e-5)
        assert [document.metadata for document in documents] == [_without_none(row.metadata) for row in expected]
    assert len(stored.invoke(QUESTIONS[0], k=2, where="year == 2020")) == 2
    with pytest.raises(SettingsError, match='did you mean "year"'):
        stored.invoke(QUESTIONS[0], where="yeer > 2")


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if value is not None}


@pytest.mark.parametrize("filters", [None, WHERE, MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])])
def test_llama_index(store: str, index_dir: Path, bundled: LLM2Comp, filters: Any) -> None:
    own = for_llama_index.LLM2CompRetriever(index_dir, 4, filters=filters, model=bundled)
    stored = for_llama_index.LLM2CompRetriever(similarity_top_k=4, filters=filters, model=bundled, store=store)
    vector = bundled.encode_query(QUESTIONS[1]).tolist()
    hyde = QueryBundle("?", custom_embedding_strs=["a train", "nine o'clock"])
    for question in (*QUESTIONS, QueryBundle("?", embedding=vector), hyde):
        nodes, expected = stored.retrieve(question), own.retrieve(question)
        assert [(node.node_id, node.text) for node in nodes] == [(node.node_id, node.text) for node in expected]
        assert [node.score for node in nodes] == pytest.approx([node.score for node in expected], abs=1e-5)


def test_a_filter_on_a_field_that_no_row_has_is_logged(
    store: str, bundled: LLM2Comp, caplog: pytest.LogCaptureFixture
) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="yeer", value=1)])
    assert not for_llama_index.LLM2CompRetriever(store=store, filters=filters, model=bundled).retrieve("bread")
    assert 'no document has the field "yeer"' in caplog.text


def test_copies_and_pickles(store: str, bundled: LLM2Comp) -> None:
    first = langchain_llm2comp.LLM2CompRetriever(store=store, k=2, model=bundled)
    expected = first.invoke(QUESTIONS[0])
    assert copy.deepcopy(first).invoke(QUESTIONS[0]) == expected
    second = for_llama_index.LLM2CompRetriever(store=store, similarity_top_k=2)
    again = pickle.loads(pickle.dumps(second))
    assert [node.node_id for node in again.retrieve(QUESTIONS[0])] == [document.id for document in expected]


def test_wrong_settings(store: str, index_dir: Path, tmp_path: Path) -> None:
    for make in (langchain_llm2comp.LLM2CompRetriever, for_llama_index.LLM2CompRetriever):
        for settings, message in (
            ({"index_dir": index_dir}, "store is given together with index_dir: give either"),
            ({"url": "http://localhost:1"}, "store is given together with url: give either"),
            ({"mode": "hybrid"}, "a store is searched by vectors only"),
            ({"options": SearchOptions(threads=2)}, "threads is for an index on disk"),
        ):
            with pytest.raises((SettingsError, ValidationError), match=message):
                make(store=store, **settings)
        with pytest.raises(StoreError, match="there is no such table"):
            make(store=f"lancedb://{tmp_path}/none")
        with pytest.raises((SettingsError, ValidationError), match="mysql:// is no store") as failure:
            make(store="mysql://me:geheim@host/db")
        assert "geheim" not in str(failure.value)


def test_the_address_is_not_shown(store: str, bundled: LLM2Comp) -> None:
    retriever = langchain_llm2comp.LLM2CompRetriever(store=store, model=bundled)
    assert "lancedb" not in repr(retriever)
    assert "lancedb" not in retriever.model_dump_json()
