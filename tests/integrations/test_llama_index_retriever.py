"""LLM2CompRetriever in LlamaIndex: results of an index as nodes, in engines, with filters."""

import asyncio
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp import LLM2Comp
from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import IndexOptions, SearchOptions, build_index, open_index
from tests.integrations.conftest import QUESTIONS, ROWS

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.schema import MetadataMode, QueryBundle
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.embeddings.llm2comp import LLM2CompRetriever

METADATA = {
    row["_id"]: {name: value for name, value in row.items() if name not in ("_id", "title", "text")} for row in ROWS
}


@pytest.fixture
def retriever(index_dir: Path, bundled: LLM2Comp) -> LLM2CompRetriever:
    return LLM2CompRetriever(index_dir, model=bundled)


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_nodes_are_the_hits_of_the_index(mode: Any, index_dir: Path, bundled: LLM2Comp) -> None:
    retriever = LLM2CompRetriever(index_dir, similarity_top_k=4, mode=mode, model=bundled)
    for question in QUESTIONS:
        hits = open_index(index_dir, model=bundled).search([question], k=4, options=SearchOptions(mode=mode))[0]
        nodes = retriever.retrieve(question)
        assert [(node.node_id, node.score, node.text) for node in nodes] == [
            (hit.id, hit.score, hit.text) for hit in hits
        ]


def test_ids_metadata_and_titles_come_through(retriever: LLM2CompRetriever) -> None:
    nodes = {node.node_id: node.node for node in retriever.retrieve(QUESTIONS[0])}
    assert len(nodes) == len(ROWS)
    for row in ROWS:
        node = nodes[row["_id"]]
        assert node.metadata == METADATA[row["_id"]] | ({"title": row["title"]} if row["title"] else {})
        assert node.ref_doc_id == row["_id"]
    assert "Bread rises because yeast makes gas.\nThe oven sets it." in nodes["bread"].get_content(MetadataMode.LLM)


def test_without_arguments_it_loads_the_indexs_model_and_finds_ten_at_most(index_dir: Path) -> None:
    retriever = LLM2CompRetriever(str(index_dir))
    assert isinstance(retriever, BaseRetriever)
    assert retriever.retrieve(QUESTIONS[1])[0].node_id == "train"
    retriever.similarity_top_k = 2
    assert len(retriever.retrieve(QUESTIONS[1])) == 2


def test_chunks_name_their_document(chunk_dir: Path, bundled: LLM2Comp) -> None:
    nodes = LLM2CompRetriever(chunk_dir, model=bundled).retrieve(QUESTIONS[0])
    assert nodes[0].node_id.startswith("bread#")
    assert nodes[0].node.ref_doc_id == "bread"
    place = nodes[0].node.start_char_idx, nodes[0].node.end_char_idx
    assert place == (nodes[0].metadata["llm2comp_begin"], nodes[0].metadata["llm2comp_end"])
    assert "llm2comp_begin" not in nodes[0].get_content(MetadataMode.LLM)
    grouped = LLM2CompRetriever(chunk_dir, 3, model=bundled, options=SearchOptions(by="document")).retrieve(
        QUESTIONS[0]
    )
    assert len({node.node.ref_doc_id for node in grouped}) == 3


def test_a_title_in_the_metadata_stays_beside_that_of_the_document(bundled: LLM2Comp, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "a", "title": "T", "text": "Bread.", "metadata": {"title": "of the file"}}\n')
    build_index([corpus], tmp_path / "idx", model=bundled, options=IndexOptions(type="flat"))
    [node] = LLM2CompRetriever(tmp_path / "idx", model=bundled).retrieve("?")
    assert node.metadata == {"title": "of the file", "llm2comp_title": "T"}


async def test_asynchronously_and_in_a_fusion_of_retrievers(
    index_dir: Path, bundled: LLM2Comp, retriever: LLM2CompRetriever
) -> None:
    assert [node.node_id for node in await retriever.aretrieve(QUESTIONS[0])] == [
        node.node_id for node in retriever.retrieve(QUESTIONS[0])
    ]
    words = LLM2CompRetriever(index_dir, mode="bm25")
    fusion = QueryFusionRetriever(
        [retriever, words], llm=MockLLM(), num_queries=1, similarity_top_k=3, mode="reciprocal_rerank"
    )
    assert (await fusion.aretrieve("children travel free"))[0].node_id == "train"


def test_a_query_engine_puts_what_was_found_before_the_language_model(index_dir: Path, bundled: LLM2Comp) -> None:
    engine = RetrieverQueryEngine.from_args(LLM2CompRetriever(index_dir, 2, model=bundled), llm=MockLLM())
    response = engine.query(QUESTIONS[1])
    assert [node.node_id for node in response.source_nodes][0] == "train"
    assert "children travel free" in str(response)  # this language model repeats its prompt
    assert QUESTIONS[1] in str(response)


def test_retrieval_events_fire(index_dir: Path, bundled: LLM2Comp) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    LLM2CompRetriever(index_dir, model=bundled, callback_manager=CallbackManager([debug])).retrieve(QUESTIONS[0])
    assert len(debug.get_event_pairs(CBEventType.RETRIEVE)) == 1


def test_a_query_with_a_vector_of_its_own_is_searched_with_that(
    retriever: LLM2CompRetriever, bundled: LLM2Comp
) -> None:
    vector = (3 * bundled.encode_query(QUESTIONS[1])).tolist()
    nodes = retriever.retrieve(QueryBundle("something else", embedding=vector))
    expected = retriever.retrieve(QUESTIONS[1])
    assert [node.node_id for node in nodes] == [node.node_id for node in expected]
    np.testing.assert_allclose([node.score for node in nodes], [node.score for node in expected], atol=1e-6)


def test_hypothetical_answers_are_searched_with_their_mean(
    retriever: LLM2CompRetriever, bundled: LLM2Comp, index_dir: Path
) -> None:
    bundle = QueryBundle("?", custom_embedding_strs=["yeast makes gas", "an oven"])
    mean = bundled.encode_query(["yeast makes gas", "an oven"]).mean(axis=0)
    expected = {
        row["_id"]: bundled.encode_document(f"{row['title']}\n{row['text']}" if row["title"] else row["text"]) @ mean
        for row in ROWS
    }
    nodes = retriever.retrieve(bundle)
    assert [node.node_id for node in nodes] == sorted(expected, key=lambda name: -expected[name])
    assert nodes[0].score == pytest.approx(max(expected.values()) / np.linalg.norm(mean), abs=1e-5)
    engine = TransformQueryEngine(
        RetrieverQueryEngine.from_args(retriever, llm=MockLLM()), HyDEQueryTransform(llm=MockLLM())
    )
    assert engine.query(QUESTIONS[0]).source_nodes[0].node_id == "bread"
    with pytest.raises(SettingsError, match="mode 'bm25' cannot use"):
        LLM2CompRetriever(index_dir, mode="bm25").retrieve(bundle)


def _filter(key: str, operator: FilterOperator, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=operator)


OPERATORS = [
    _filter("lang", FilterOperator.EQ, "en"),
    _filter("lang", FilterOperator.NE, "en"),
    _filter("year", FilterOperator.NE, 2020),
    _filter("year", FilterOperator.GT, 2010),
    _filter("year", FilterOperator.GTE, 2010),
    _filter("year", FilterOperator.LT, 2005.5),
    _filter("year", FilterOperator.LTE, 2005),
    _filter("lang", FilterOperator.IN, ["de", "fr"]),
    _filter("year", FilterOperator.IN, [1999, 2020]),
    _filter("lang", FilterOperator.IN, ["de"]),
    _filter("year", FilterOperator.NIN, [1999, 2020]),
    _filter("lang", FilterOperator.IN, []),
    _filter("lang", FilterOperator.NIN, []),
    _filter("tags", FilterOperator.CONTAINS, "sea"),
    _filter("tags", FilterOperator.ANY, ["milk", "travel"]),
    _filter("tags", FilterOperator.ALL, ["sea", "travel"]),
    _filter("tags", FilterOperator.ANY, []),
    _filter("tags", FilterOperator.ALL, []),
    _filter("tags", FilterOperator.IS_EMPTY),
    _filter("note", FilterOperator.IS_EMPTY),
    _filter("note", FilterOperator.TEXT_MATCH, "'quotes' and \"more\""),
    _filter("note", FilterOperator.EQ, "with 'quotes' and \"more\""),
]


def _found(index_dir: Path, model: LLM2Comp, filters: Any) -> set[str]:
    anything = QueryBundle("", embedding=[1.0] + [0.0] * 255)
    return {
        node.node_id
        for node in LLM2CompRetriever(index_dir, len(ROWS), filters=filters, model=model).retrieve(anything)
    }


def _leaves_out_documents_without_the_field() -> bool:
    return not build_metadata_filter_fn(
        lambda _: {}, MetadataFilters(filters=[_filter("lang", FilterOperator.NE, "en")])
    )("")


@pytest.mark.skipif(_leaves_out_documents_without_the_field(), reason="the store of LlamaIndex before 0.14.23 differs")
@pytest.mark.parametrize("condition", [FilterCondition.AND, FilterCondition.OR, FilterCondition.NOT])
def test_filters_match_what_they_match_in_llama_indexs_own_store(
    condition: FilterCondition, index_dir: Path, bundled: LLM2Comp
) -> None:
    for first in OPERATORS:
        for second in OPERATORS[::6]:
            filters = MetadataFilters(filters=[first, second], condition=condition)
            matches = build_metadata_filter_fn(METADATA.__getitem__, filters)
            assert _found(index_dir, bundled, filters) == {name for name in METADATA if matches(name)}, filters


def test_groups_of_filters_may_hold_groups(index_dir: Path, bundled: LLM2Comp) -> None:
    inner = MetadataFilters(
        filters=[_filter("lang", FilterOperator.EQ, "de"), _filter("lang", FilterOperator.EQ, "fr")],
        condition=FilterCondition.OR,
    )
    recent = MetadataFilters(filters=[inner, _filter("year", FilterOperator.GT, 2010)])
    assert _found(index_dir, bundled, recent) == {"harbour", "primes"}
    assert _found(index_dir, bundled, MetadataFilters(filters=[recent], condition=FilterCondition.NOT)) == set(
        METADATA
    ) - {"harbour", "primes"}
    assert _found(index_dir, bundled, MetadataFilters(filters=[])) == set(METADATA)


def test_a_filter_may_be_in_our_own_syntax(index_dir: Path, bundled: LLM2Comp) -> None:
    assert _found(index_dir, bundled, 'year >= 2020 and lang == "en"') == {"train"}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            _filter("note", FilterOperator.TEXT_MATCH_INSENSITIVE, "a"),
            "'note' cannot be expressed: operator 'text_match_insensitive'",
        ),
        (_filter("lang", FilterOperator.IN, "en"), "operator 'in' with the value 'en'; expected a list"),
        (_filter("lang", FilterOperator.ANY, 3), "operator 'any' with the value 3; expected a list"),
        (
            _filter("year", FilterOperator.GT, None),
            "'year' .* operator '>' with the value None; expected a number or a",
        ),
        (_filter("lang", FilterOperator.CONTAINS, ["en"]), "expected a number or a text; for several, take any or all"),
        (_filter("lang", FilterOperator.TEXT_MATCH, 3), "operator 'text_match' with the value 3; expected a text"),
    ],
)
def test_filters_without_a_counterpart_are_refused(part: MetadataFilter, message: str, index_dir: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        LLM2CompRetriever(index_dir, filters=MetadataFilters(filters=[part]))


def test_a_field_that_no_document_has_is_missing_everywhere_and_logged_once(
    index_dir: Path, bundled: LLM2Comp, caplog: pytest.LogCaptureFixture
) -> None:
    for operator, value, expected in (
        (FilterOperator.EQ, "x", set()),
        (FilterOperator.EQ, ["x"], set()),
        (FilterOperator.GT, 3, set()),
        (FilterOperator.CONTAINS, "x", set()),
        (FilterOperator.TEXT_MATCH, "x", set()),
        (FilterOperator.ALL, [], set()),
        (FilterOperator.NE, "x", set(METADATA)),
        (FilterOperator.NE, None, set(METADATA)),
        (FilterOperator.NIN, ["x"], set(METADATA)),
        (FilterOperator.IS_EMPTY, None, set(METADATA)),
    ):
        caplog.clear()
        filters = MetadataFilters(filters=[_filter("yaer", operator, value)])
        assert _found(index_dir, bundled, filters) == expected, (operator, value)
        [record] = [record for record in caplog.records if "llm2comp" in record.name]
        assert record.getMessage().startswith(
            'filters: no document has the field "yaer"; did you mean "year"? The fields are: '
        )


def test_messages_show_the_filters_of_llama_index(index_dir: Path, bundled: LLM2Comp) -> None:
    group = MetadataFilters(filters=[_filter("lang", FilterOperator.EQ, "de")], condition=FilterCondition.NOT)
    filters = MetadataFilters(filters=[_filter("year", FilterOperator.GT, "2020"), group])
    with pytest.raises(SettingsError) as failure:
        LLM2CompRetriever(index_dir, filters=filters, model=bundled)
    assert str(failure.value).startswith(
        """filters "year > '2020' and (not (lang == 'de'))": "year" holds whole numbers"""
    )
    assert "field[" not in str(failure.value)
    with pytest.raises(SettingsError, match='no document has the field "yaer"'):
        LLM2CompRetriever(index_dir, filters="yaer == 2020", model=bundled)


def test_wrong_folders_models_and_modes_are_refused_at_once(
    index_dir: Path, chunk_dir: Path, model: LLM2Comp, bundled: LLM2Comp, tmp_path: Path
) -> None:
    with pytest.raises(IndexFolderError, match=str(tmp_path)):
        LLM2CompRetriever(tmp_path)
    with pytest.raises(IndexFolderError, match="dimension"):
        LLM2CompRetriever(index_dir, model=model)
    with pytest.raises(SettingsError, match="mode is 'sparse'"):
        LLM2CompRetriever(index_dir, mode="sparse")
    with pytest.raises(TypeError, match="top_k"):
        LLM2CompRetriever(index_dir, **{"top_k": 3})
    with pytest.raises(LLM2CompError, match="k is 0"):
        LLM2CompRetriever(index_dir, similarity_top_k=0, mode="bm25")
    for filters, message in (
        ("year >>", "invalid syntax"),
        ("yaer > 3", 'did you mean "year"'),
        ({"year": 3}, "filters is dict"),
    ):
        with pytest.raises(SettingsError, match=message):
            LLM2CompRetriever(index_dir, filters=filters, model=bundled)
    with pytest.raises(SettingsError, match="holds no BM25 index"):
        LLM2CompRetriever(chunk_dir, mode="hybrid", model=bundled)


@pytest.mark.parametrize("bad", [None, 3, b"bytes", [], ["a list"], QueryBundle(None)])
@pytest.mark.parametrize("mode", ["dense", "bm25"])
async def test_a_question_that_is_no_string_is_refused(mode: Any, bad: Any, index_dir: Path, bundled: LLM2Comp) -> None:
    retriever = LLM2CompRetriever(index_dir, mode=mode, model=bundled)
    kind = type(bad.query_str if isinstance(bad, QueryBundle) else bad).__name__
    with pytest.raises(TypeError, match=f"the query is {kind}"):
        retriever.retrieve(bad)
    with pytest.raises(TypeError, match=f"the query is {kind}"):
        await retriever.aretrieve(bad)


def test_an_empty_question_has_a_vector_and_no_words(index_dir: Path, bundled: LLM2Comp) -> None:
    hits = open_index(index_dir, model=bundled).search([""])[0]
    assert [node.node_id for node in LLM2CompRetriever(index_dir, model=bundled).retrieve("")] == [
        hit.id for hit in hits
    ]
    assert LLM2CompRetriever(index_dir, mode="bm25").retrieve("") == []


def test_a_vector_that_is_not_finite_is_refused(retriever: LLM2CompRetriever) -> None:
    with pytest.raises(SettingsError, match="not finite"):
        retriever.retrieve(QueryBundle("?", embedding=[float("nan")] * 256))


async def test_asked_asynchronously_it_searches_in_a_thread(
    retriever: LLM2CompRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_runs, waited, retrieve = threading.Event(), [], LLM2CompRetriever._retrieve

    def wait_for_the_loop(self: LLM2CompRetriever, bundle: QueryBundle) -> Any:
        waited.append(loop_runs.wait(20))  # never set if the loop stands still
        return retrieve(self, bundle)

    async def run_the_loop() -> None:
        loop_runs.set()

    monkeypatch.setattr(LLM2CompRetriever, "_retrieve", wait_for_the_loop)
    nodes, _ = await asyncio.gather(retriever.aretrieve(QUESTIONS[1]), run_the_loop())
    assert (nodes[0].node_id, waited) == ("train", [True])


def test_many_threads_get_what_one_gets(retriever: LLM2CompRetriever) -> None:
    questions = [f"{QUESTIONS[number % 3]} {number}" for number in range(24)]
    expected = [[(node.node_id, node.score) for node in retriever.retrieve(question)] for question in questions]
    with ThreadPoolExecutor(8) as threads:
        results = threads.map(retriever.retrieve, questions)
        assert [[(node.node_id, node.score) for node in nodes] for nodes in results] == expected


def test_words_need_no_model(index_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm2comp.load", lambda *_, **__: pytest.fail("loaded"))
    copy = shutil.copytree(index_dir, tmp_path / "copy")
    assert LLM2CompRetriever(copy, 1, mode="bm25").retrieve("yeast")[0].node_id == "bread"
