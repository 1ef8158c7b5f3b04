"""LLM2CompEmbedding within LlamaIndex: its own indexes, pipelines, splitters, evaluators and events."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp import LLM2Comp
from tests.integrations.conftest import QUESTIONS, ROWS

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

import llama_index.core
from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.node_parser import SemanticSplitterNodeParser, SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.llm2comp import LLM2CompEmbedding

TEXTS = [row["text"] for row in ROWS]
EXPECTED = ["bread", "train", "root"]


@pytest.fixture
def embedding(bundled: LLM2Comp) -> LLM2CompEmbedding:
    return LLM2CompEmbedding(model=bundled)


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text=row["text"], id_=row["_id"]) for row in ROWS]


def _ranking(model: LLM2Comp, question: str) -> list[str]:
    scores = model.encode_document(TEXTS) @ model.encode_query(question)
    return [TEXTS[row] for row in np.argsort(-scores, kind="stable")]


def test_class_name_and_to_dict(embedding: LLM2CompEmbedding, saved_model: Path) -> None:
    assert embedding.class_name() == embedding.to_dict()["class_name"] == "LLM2CompEmbedding"
    named = LLM2CompEmbedding(model_name=saved_model, device="cpu", text_instruction="t: ")
    for again in (LLM2CompEmbedding.from_dict(named.to_dict()), LLM2CompEmbedding.from_json(named.to_json())):
        assert again.to_dict() == named.to_dict()
        assert again.get_text_embedding("tree") == named.get_text_embedding("tree")


def test_batches_have_the_size_asked_for(bundled: LLM2Comp, encoded: list[Any]) -> None:
    LLM2CompEmbedding(model=bundled, embed_batch_size=3).get_text_embedding_batch(TEXTS)
    assert encoded == [TEXTS[:3], TEXTS[3:6], TEXTS[6:]]


def test_as_the_default_of_an_index_it_ranks_as_the_model_does(
    embedding: LLM2CompEmbedding, documents: list[Document], bundled: LLM2Comp
) -> None:
    before = Settings._embed_model
    Settings.embed_model = embedding
    try:
        index = VectorStoreIndex.from_documents(documents)
        for question in QUESTIONS:
            nodes = index.as_retriever(similarity_top_k=len(TEXTS)).retrieve(question)
            assert [node.text for node in nodes] == _ranking(bundled, question)
            assert nodes[0].score == pytest.approx(
                bundled.encode_document(nodes[0].text) @ bundled.encode_query(question), abs=1e-5
            )
    finally:
        Settings._embed_model = before


async def test_an_index_kept_on_disk_is_asked_again_asynchronously(
    embedding: LLM2CompEmbedding, documents: list[Document], tmp_path: Path
) -> None:
    VectorStoreIndex.from_documents(documents, embed_model=embedding, use_async=False).storage_context.persist(
        str(tmp_path)
    )
    index = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=embedding)
    nodes = await index.as_retriever(similarity_top_k=1).aretrieve(QUESTIONS[0])
    assert nodes[0].node.ref_doc_id == EXPECTED[0]


def test_a_pipeline_asks_the_model_once_for_the_same_and_again_when_a_setting_changes(
    bundled: LLM2Comp, documents: list[Document], encoded: list[Any]
) -> None:
    cache = IngestionCache()

    def run(**settings: Any) -> list[Any]:
        parts = [SentenceSplitter(), LLM2CompEmbedding(model=bundled, **settings)]
        return list(IngestionPipeline(transformations=parts, cache=cache, disable_cache=False).run(documents=documents))

    first, calls = run(), len(encoded)
    assert [node.embedding for node in first] == bundled.encode_document(TEXTS).tolist()
    calls = len(encoded)
    assert [node.embedding for node in run()] == [node.embedding for node in first]
    assert len(encoded) == calls
    assert run(text_instruction="passage: ")[0].embedding != first[0].embedding
    assert len(encoded) == calls + 1


@pytest.mark.slow
def test_a_pipeline_in_two_processes_gives_the_same_vectors(
    documents: list[Document], bundled: LLM2Comp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Unpickled, the splitter's tokenizer looks for its file in this folder, and downloads it otherwise
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"))
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), LLM2CompEmbedding(device="cpu")], disable_cache=True
    )
    nodes = pipeline.run(documents=documents, num_workers=2)
    assert [node.text for node in nodes] == TEXTS
    np.testing.assert_allclose(
        [node.embedding for node in nodes], bundled.encode_document(TEXTS), atol=0.02
    )  # some machines load it in bfloat16


def test_the_semantic_splitter_cuts_where_the_model_sees_the_topic_change(
    embedding: LLM2CompEmbedding, bundled: LLM2Comp
) -> None:
    sentences = [
        "Bread rises because of yeast. ",
        "Yeast in dough makes bread rise. ",
        "Good bread needs yeast and time. ",
        "The train to Paris leaves at nine. ",
        "Trains leave for Paris every hour.",
    ]
    split = re.compile(r"[^.]+\.\s*").findall  # the default of early versions of LlamaIndex needs a download
    splitter = SemanticSplitterNodeParser.from_defaults(
        embed_model=embedding, breakpoint_percentile_threshold=80, buffer_size=1, sentence_splitter=split
    )
    nodes = splitter.get_nodes_from_documents([Document(text="".join(sentences))])
    groups = ["".join(sentences[max(0, row - 1) : row + 2]) for row in range(5)]
    vectors = bundled.encode_document(groups)
    distances = 1 - (vectors[:-1] * vectors[1:]).sum(axis=1)
    cut = int(np.argmax(distances)) + 1
    assert [node.text for node in nodes] == ["".join(sentences[:cut]), "".join(sentences[cut:])]


async def test_hit_rate_and_mrr(embedding: LLM2CompEmbedding, bundled: LLM2Comp) -> None:
    nodes = [TextNode(text=row["text"], id_=row["_id"]) for row in ROWS]
    retriever = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=2)
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr"], retriever=retriever)
    for question, expected in zip(QUESTIONS, EXPECTED, strict=True):
        result = await evaluator.aevaluate(question, expected_ids=[expected])
        rank = _ranking(bundled, question).index(next(row["text"] for row in ROWS if row["_id"] == expected)) + 1
        assert result.metric_vals_dict == {"hit_rate": float(rank <= 2), "mrr": 1 / rank if rank <= 2 else 0.0}


def test_callback_events_fire(bundled: LLM2Comp) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = LLM2CompEmbedding(model=bundled, callback_manager=CallbackManager([debug]), embed_batch_size=5)
    query = embedding.get_query_embedding("tree")
    vectors = embedding.get_text_embedding_batch(TEXTS)
    ends = [end.payload or {} for _, end in debug.get_event_pairs(CBEventType.EMBEDDING)]
    assert [end[EventPayload.CHUNKS] for end in ends] == [["tree"], TEXTS[:5], TEXTS[5:]]
    assert [end[EventPayload.EMBEDDINGS] for end in ends] == [[query], vectors[:5], vectors[5:]]


class _Recorder(BaseEventHandler):
    seen: list[Any] = []

    @classmethod
    def class_name(cls) -> str:
        return "Recorder"

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(event)


@pytest.fixture
def recorder() -> Iterator[_Recorder]:
    dispatcher, recorder = get_dispatcher(), _Recorder()
    dispatcher.add_event_handler(recorder)
    yield recorder
    dispatcher.event_handlers.remove(recorder)


async def test_instrumentation_events_fire_from_asynchronous_methods_too(
    embedding: LLM2CompEmbedding, recorder: _Recorder
) -> None:
    await embedding.aget_text_embedding_batch(TEXTS)
    await embedding.aget_query_embedding("tree")
    assert [type(event) for event in recorder.seen] == [EmbeddingStartEvent, EmbeddingEndEvent] * 2
    assert [event.chunks for event in recorder.seen[1::2]] == [TEXTS, ["tree"]]
    assert recorder.seen[0].model_dict["class_name"] == "LLM2CompEmbedding"


async def test_the_embeddings_cache_keeps_texts_and_never_takes_one_for_a_query(
    saved_model: Path, encoded: list[Any]
) -> None:
    cached = LLM2CompEmbedding(model_name=saved_model, device="cpu", embeddings_cache=SimpleKVStore())
    plain = LLM2CompEmbedding(model_name=saved_model, device="cpu")
    expected = plain.get_text_embedding("tree"), plain.get_query_embedding("tree")
    assert expected[0] != expected[1]
    for _ in range(2):
        assert (cached.get_text_embedding("tree"), cached.get_query_embedding("tree")) == expected
        assert (
            cached.get_text_embedding_batch(["tree"])
            == await cached.aget_text_embedding_batch(["tree"])
            == [expected[0]]
        )
        assert await cached.aget_query_embedding("tree") == expected[1]
    assert encoded.count(["tree"]) == 2  # by each of the two, once


def test_the_single_asynchronous_text(embedding: LLM2CompEmbedding) -> None:
    import asyncio

    assert asyncio.run(embedding.aget_text_embedding("tree")) == embedding.get_text_embedding("tree")


@pytest.mark.parametrize("where", ["constructor", "call"])
def test_progress_is_shown_where_asked_for(where: str, bundled: LLM2Comp, capsys: pytest.CaptureFixture[str]) -> None:
    LLM2CompEmbedding(model=bundled).get_text_embedding_batch(TEXTS)
    assert capsys.readouterr().err == ""
    shown = LLM2CompEmbedding(model=bundled, show_progress=where == "constructor")
    shown.get_text_embedding_batch(TEXTS, show_progress=where == "call")
    assert "Generating embeddings: 100%" in capsys.readouterr().err


def test_one_warning_tells_how_many_texts_were_cut(bundled: LLM2Comp, caplog: pytest.LogCaptureFixture) -> None:
    embedding = LLM2CompEmbedding(model=bundled, max_length=16, embed_batch_size=2)
    with caplog.at_level(logging.WARNING):
        embedding.get_text_embedding_batch(["word " * 20, "a", "b", "word " * 30, "c"])
    assert [record.getMessage() for record in caplog.records] == ["2 of 5 texts were cut to their first 16 tokens"]
