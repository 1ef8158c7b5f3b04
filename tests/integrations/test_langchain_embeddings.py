"""LLM2CompEmbeddings within LangChain: its stores, cache, splitter, indexing API and chains."""

import logging
from typing import Any

import numpy as np
import pytest

from llm2comp import LLM2Comp
from tests.integrations.conftest import QUESTIONS, ROWS

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.language_models import FakeListChatModel, ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_llm2comp import LLM2CompEmbeddings

TEXTS = [row["text"] for row in ROWS]
SUNSET = pytest.mark.filterwarnings("ignore:`langchain-(community|experimental)` is being sunset:DeprecationWarning")


@pytest.fixture
def embeddings(bundled: LLM2Comp) -> LLM2CompEmbeddings:
    return LLM2CompEmbeddings(model=bundled)


@pytest.fixture
def documents() -> list[Document]:
    return [Document(row["text"], id=row["_id"], metadata={"lang": row.get("lang")}) for row in ROWS]


def _scores(model: LLM2Comp, question: str) -> list[tuple[str, float]]:
    scores = model.encode_document(TEXTS) @ model.encode_query(question)
    return [(TEXTS[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")]


async def test_an_in_memory_store_ranks_as_the_model_does(
    embeddings: LLM2CompEmbeddings, documents: list[Document], bundled: LLM2Comp
) -> None:
    store = InMemoryVectorStore(embeddings)
    await store.aadd_documents(documents)
    for question in QUESTIONS:
        expected = _scores(bundled, question)
        for results in (
            store.similarity_search_with_score(question, k=8),
            await store.asimilarity_search_with_score(question, k=8),
        ):
            assert [document.page_content for document, _ in results] == [text for text, _ in expected]
            np.testing.assert_allclose([score for _, score in results], [score for _, score in expected], atol=1e-5)


@SUNSET
def test_a_faiss_store_ranks_as_the_model_does(
    embeddings: LLM2CompEmbeddings, documents: list[Document], bundled: LLM2Comp
) -> None:
    vectorstores = pytest.importorskip("langchain_community.vectorstores", reason="needs the extra dev")
    pytest.importorskip("faiss", reason="needs the extra cpu")
    store = vectorstores.FAISS.from_documents(documents, embeddings, distance_strategy="MAX_INNER_PRODUCT")
    for question in QUESTIONS:
        expected = _scores(bundled, question)
        results = store.similarity_search_with_score(question, k=8)
        assert [document.page_content for document, _ in results] == [text for text, _ in expected]
        np.testing.assert_allclose([score for _, score in results], [score for _, score in expected], atol=1e-5)


@SUNSET
def test_a_cache_named_by_the_fingerprint_asks_the_model_once(bundled: LLM2Comp, encoded: list[Any]) -> None:
    cached_embeddings = pytest.importorskip(
        "langchain_classic.embeddings", reason="needs the extra dev"
    ).CacheBackedEmbeddings
    store = InMemoryByteStore()

    def make(**settings: Any) -> Any:
        embeddings = LLM2CompEmbeddings(model=bundled, **settings)
        return cached_embeddings.from_bytes_store(
            embeddings, store, namespace=embeddings.fingerprint, key_encoder="sha256"
        )

    first = make().embed_documents(TEXTS)
    assert first == make().embed_documents(TEXTS) == bundled.encode_document(TEXTS).tolist()
    assert encoded.count(TEXTS) == 2  # one of them by the test itself
    assert make(text_instruction="passage: ").embed_documents(TEXTS) != first
    assert encoded.count(TEXTS) == 3


@SUNSET
def test_the_semantic_chunker_cuts_where_the_model_sees_the_topic_change(
    embeddings: LLM2CompEmbeddings, bundled: LLM2Comp
) -> None:
    splitter = pytest.importorskip("langchain_experimental.text_splitter", reason="needs the extra dev")
    sentences = [
        "Bread rises because of yeast.",
        "Yeast in dough makes bread rise.",
        "Good bread needs yeast and time.",
        "The train to Paris leaves at nine.",
        "Trains leave for Paris every hour.",
    ]
    chunks = splitter.SemanticChunker(embeddings, breakpoint_threshold_amount=80).split_text(" ".join(sentences))
    vectors = bundled.encode_document([" ".join(sentences[max(0, row - 1) : row + 2]) for row in range(5)])
    cut = int(np.argmin((vectors[:-1] * vectors[1:]).sum(axis=1))) + 1
    assert chunks == [" ".join(sentences[:cut]), " ".join(sentences[cut:])]


def test_the_indexing_api_encodes_only_what_is_new(
    embeddings: LLM2CompEmbeddings, documents: list[Document], encoded: list[Any]
) -> None:
    store, records = InMemoryVectorStore(embeddings), InMemoryRecordManager("test")
    records.create_schema()
    for document in documents:
        document.metadata["source"] = document.id
    settings: dict[str, Any] = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "sha256"}
    assert index(documents[:6], records, store, **settings)["num_added"] == 6
    assert encoded.pop() == TEXTS[:6]
    changed = [*documents[:5], Document("The prime numbers never end.", metadata=documents[5].metadata), *documents[6:]]
    result = index(changed, records, store, **settings)
    assert (result["num_added"], result["num_skipped"], result["num_deleted"]) == (3, 5, 1)
    assert encoded == [["The prime numbers never end.", *TEXTS[6:]]]


async def test_a_chain_hands_what_was_found_to_the_language_model(
    embeddings: LLM2CompEmbeddings, documents: list[Document]
) -> None:
    retriever = InMemoryVectorStore.from_documents(documents, embeddings).as_retriever(search_kwargs={"k": 1})
    prompt = ChatPromptTemplate.from_template("Context: {context}\nQuestion: {question}")
    inputs = {"context": retriever | (lambda documents: documents[0].page_content), "question": RunnablePassthrough()}
    parrot = inputs | prompt | ParrotFakeChatModel() | StrOutputParser()
    assert parrot.invoke(QUESTIONS[1]) == f"Context: {TEXTS[4]}\nQuestion: {QUESTIONS[1]}"
    canned = inputs | prompt | FakeListChatModel(responses=["At nine."]) | StrOutputParser()
    assert await canned.abatch(list(QUESTIONS)) == ["At nine."] * 3


def test_one_warning_tells_how_many_texts_were_cut(bundled: LLM2Comp, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        LLM2CompEmbeddings(model=bundled, max_length=16, embed_batch_size=2).embed_documents(
            ["word " * 20, "a", "b", "word " * 30, "c"]
        )
    assert caplog.messages == ["2 of 5 texts were cut to their first 16 tokens"]


def test_progress_is_shown_where_asked_for(bundled: LLM2Comp, capsys: pytest.CaptureFixture[str]) -> None:
    LLM2CompEmbeddings(model=bundled).embed_documents(TEXTS)
    assert capsys.readouterr().err == ""
    LLM2CompEmbeddings(model=bundled, show_progress=True, embed_batch_size=3).embed_documents(TEXTS)
    assert "Batches: 100%" in capsys.readouterr().err
