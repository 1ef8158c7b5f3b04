"""LLM2CompRetriever in LangChain: results of an index as documents, in chains, with filters."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llm2comp import LLM2Comp
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes import Effort, Index, IndexOptions, SearchOptions, build_index, open_index
from tests.integrations.conftest import QUESTIONS, ROWS

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from langchain_llm2comp import LLM2CompRetriever


@pytest.fixture
def retriever(index_dir: Path, bundled: LLM2Comp) -> LLM2CompRetriever:
    return LLM2CompRetriever(index_dir, model=bundled)


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
async def test_documents_are_the_hits_of_the_index(mode: Any, index_dir: Path, bundled: LLM2Comp) -> None:
    options = SearchOptions(weights=(1.0, 0.25), effort=Effort(nprobe=1))
    retriever = LLM2CompRetriever(index_dir=index_dir, k=4, mode=mode, options=options, model=bundled)
    for question in QUESTIONS:
        searched = SearchOptions(mode=mode, weights=(1.0, 0.25))
        hits = open_index(index_dir, model=bundled).search([question], k=4, options=searched)[0]
        expected = [(hit.id, hit.score, hit.text) for hit in hits]
        for documents in (retriever.invoke(question), await retriever.ainvoke(question)):
            assert [
                (document.id, document.metadata["relevance_score"], document.page_content) for document in documents
            ] == expected


def test_ids_metadata_and_titles_come_through(retriever: LLM2CompRetriever) -> None:
    documents = {document.id: document for document in retriever.invoke(QUESTIONS[0])}
    assert len(documents) == len(ROWS)
    for row in ROWS:
        metadata = dict(documents[row["_id"]].metadata)
        assert isinstance(metadata.pop("relevance_score"), float)
        expected = {
            name: value for name, value in row.items() if name not in ("_id", "text") and (name != "title" or value)
        }
        assert metadata == expected


def test_chunks_name_their_document(chunk_dir: Path, bundled: LLM2Comp) -> None:
    best = LLM2CompRetriever(chunk_dir, model=bundled, k=1).invoke(QUESTIONS[0])[0]
    assert best.id.startswith("bread#")
    assert best.metadata["llm2comp_document"] == "bread"


def test_metadata_of_the_names_that_documents_get_stays(bundled: LLM2Comp, tmp_path: Path) -> None:
    rows = [
        {"_id": "both", "title": "T", "text": "Bread.", "relevance_score": 7, "metadata": {"title": "of the file"}},
        {"_id": "same", "title": "T", "text": "Butter.", "metadata": {"title": "T"}},
        {"_id": "none", "title": "T", "text": "Tides."},
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index([corpus], tmp_path / "idx", model=bundled, options=IndexOptions(type="flat"))
    hits = open_index(tmp_path / "idx", model=bundled).search(["?"])[0]
    scores = {hit.id: hit.score for hit in hits}
    documents = LLM2CompRetriever(tmp_path / "idx", model=bundled).invoke("?")
    assert {document.id: document.metadata for document in documents} == {
        "both": {
            "relevance_score": 7,
            "title": "of the file",
            "llm2comp_title": "T",
            "llm2comp_score": scores["both"],
        },
        "same": {"title": "T", "relevance_score": scores["same"]},
        "none": {"title": "T", "relevance_score": scores["none"]},
    }


async def test_a_question_may_bring_its_own_number_and_filter(index_dir: Path, bundled: LLM2Comp) -> None:
    retriever = LLM2CompRetriever(index_dir, model=bundled, where='lang == "en"')
    assert {document.metadata["lang"] for document in retriever.invoke("?")} == {"en"}
    for changes in ({"k": 2}, {"similarity_top_k": 2}):
        assert len(await retriever.ainvoke("?", **changes)) == len(retriever.invoke("?", **changes)) == 2
    assert {document.id for document in retriever.invoke("?", where="year >= 2020")} == {"train", "primes"}
    assert [
        {document.id for document in documents}
        for documents in await retriever.abatch(["?", "!"], where="year == 1999")
    ] == [{"violin"}] * 2
    for wrong, message in (
        ({"k": 0}, "k is 0"),
        ({"k": 1, "similarity_top_k": 2}, "the same"),
        ({"where": ""}, "where"),
    ):
        with pytest.raises(SettingsError, match=message):
            retriever.invoke("?", **wrong)
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke("?", top_k=2)


async def test_in_a_chain(retriever: LLM2CompRetriever) -> None:
    prompt = ChatPromptTemplate.from_template("{source} {question}")
    chain = (
        {"source": retriever | (lambda documents: documents[0].id), "question": RunnablePassthrough()}
        | prompt
        | ParrotFakeChatModel()
        | StrOutputParser()
    )
    assert chain.invoke(QUESTIONS[1]) == f"train {QUESTIONS[1]}"
    assert await chain.ainvoke(QUESTIONS[0]) == f"bread {QUESTIONS[0]}"


def test_callbacks_fire(retriever: LLM2CompRetriever) -> None:
    class Recorder(BaseCallbackHandler):
        def on_retriever_start(self, serialized: Any, query: str, **_: Any) -> None:
            seen.append(query)

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            seen.append(documents)

    seen: list[Any] = []
    documents = retriever.invoke(QUESTIONS[0], config={"callbacks": [Recorder()]})
    assert seen == [QUESTIONS[0], documents]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 3}, "top_k\n"),
        ({"mode": "sparse"}, "mode\n"),
        ({"k": 0}, "k\n"),
        ({"k": 1, "similarity_top_k": 2}, "similarity_top_k\n"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], message: str, index_dir: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        LLM2CompRetriever(index_dir, **settings)


def test_wrong_folders_and_models_are_refused_at_once(
    index_dir: Path, chunk_dir: Path, model: LLM2Comp, bundled: LLM2Comp, tmp_path: Path
) -> None:
    with pytest.raises(IndexFolderError, match=str(tmp_path)):
        LLM2CompRetriever(tmp_path)
    with pytest.raises(IndexFolderError, match="dimension"):
        LLM2CompRetriever(index_dir, model=model)
    for settings, message in (
        ({"where": "year >>"}, "invalid syntax"),
        ({"where": "yaer > 3"}, 'did you mean "year"'),
        ({"k": 5000}, "k is 5000"),
    ):
        with pytest.raises(ValidationError, match=message):
            LLM2CompRetriever(index_dir, model=bundled, **settings)
    with pytest.raises(ValidationError, match="holds no BM25 index"):
        LLM2CompRetriever(chunk_dir, mode="hybrid", model=bundled)


@pytest.mark.parametrize("bad", [None, 3, b"bytes", [], ["a list"]])
@pytest.mark.parametrize("mode", ["dense", "bm25"])
async def test_a_question_that_is_no_string_is_refused(mode: Any, bad: Any, index_dir: Path, bundled: LLM2Comp) -> None:
    retriever = LLM2CompRetriever(index_dir, mode=mode, model=bundled)
    with pytest.raises(TypeError, match=f"the query is {type(bad).__name__}"):
        retriever.invoke(bad)
    with pytest.raises(TypeError, match=f"the query is {type(bad).__name__}"):
        await retriever.ainvoke(bad)


async def test_asked_asynchronously_it_searches_in_a_thread(
    retriever: LLM2CompRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_runs, waited, search = threading.Event(), [], Index.search

    def wait_for_the_loop(self: Index, *args: Any, **settings: Any) -> Any:
        waited.append(loop_runs.wait(20))  # never set if the loop stands still
        return search(self, *args, **settings)

    async def run_the_loop() -> None:
        loop_runs.set()

    monkeypatch.setattr(Index, "search", wait_for_the_loop)
    documents, _ = await asyncio.gather(retriever.ainvoke(QUESTIONS[1]), run_the_loop())
    assert (documents[0].id, waited) == ("train", [True])


def test_many_threads_get_what_one_gets(retriever: LLM2CompRetriever) -> None:
    questions = [f"{QUESTIONS[number % 3]} {number}" for number in range(24)]
    expected = [retriever.invoke(question) for question in questions]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(retriever.invoke, questions)) == expected


def test_words_need_no_model(index_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm2comp.load", lambda *_, **__: pytest.fail("loaded"))
    assert LLM2CompRetriever(index_dir, k=1, mode="bm25").invoke("yeast")[0].id == "bread"
