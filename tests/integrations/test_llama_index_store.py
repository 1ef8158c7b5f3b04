"""LLM2CompVectorStore in LlamaIndex: the documented protocol of vector stores, its indexes and its pipeline."""

import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp import LLM2Comp
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes import IndexOptions, open_index, verify_index
from llm2comp_indexes.format.lock import sole_writer
from llm2comp_indexes.format.manifest import read_manifest
from tests.word_encoder import WordEncoder

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.embeddings.llm2comp import LLM2CompEmbedding, LLM2CompVectorStore


class WordEmbedding(BaseEmbedding):
    """The stand-in encoder as an embedding."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return WordEncoder().encode_document([text])[0].tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return WordEncoder().encode_query([query])[0].tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


WORDS = WordEmbedding(model_name="words")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "idx"


@pytest.fixture
def store(folder: Path) -> LLM2CompVectorStore:
    return LLM2CompVectorStore(folder, WORDS, options=IndexOptions(hybrid=True))


def make_node(name: str, text: str, source: str | None = None, **metadata: Any) -> TextNode:
    node = TextNode(id_=name, text=text, metadata=metadata)
    node.embedding = WORDS.get_text_embedding(text)
    if source is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return node


def nodes() -> list[BaseNode]:
    return [
        make_node("a", "bread oven", "first", lang="en", year=2001, author={"name": "Ada"}),
        make_node("b", "bread butter", "first", lang="en", year=2020, tags=["moon", "sea"]),
        make_node("c", "moon tides", "second", lang="de", year=2010, tags=["sea"]),
        make_node("d", "prime numbers", None, note="tides rise"),
    ]


@pytest.fixture
def filled(store: LLM2CompVectorStore) -> LLM2CompVectorStore:
    assert store.add(nodes()) == list("abcd")
    return store


def ask(store: Any, text: str, k: int = 9, mode: str = "default", **query: Any) -> list[str]:
    options = {name: query.pop(name) for name in ("mmr_threshold", "mmr_prefetch_k") if name in query}
    vector = WORDS.get_query_embedding(text)
    asked = VectorStoreQuery(vector, k, query_str=text, mode=VectorStoreQueryMode(mode), **query)
    return list(store.query(asked, **options).ids or [])


def where(*filters: Any, condition: str = "and") -> MetadataFilters:
    parts = [part if isinstance(part, MetadataFilters) else MetadataFilter(**part) for part in filters]
    return MetadataFilters(filters=parts, condition=FilterCondition(condition))


def field(key: str, value: Any, operator: str = "==") -> dict[str, Any]:
    return {"key": key, "value": value, "operator": FilterOperator(operator)}


def test_it_states_what_it_does(store: LLM2CompVectorStore, folder: Path) -> None:
    assert store.stores_text
    assert store.is_embedding_query
    assert store.class_name() == "LLM2CompVectorStore"
    assert store.client.folder == folder
    assert ask(store, "bread") == []
    assert store.get_nodes() == []
    assert read_manifest(folder).documents == 0


def test_nodes_come_back_as_they_went_in(store: LLM2CompVectorStore, folder: Path) -> None:
    nested = {"author": {"name": "Ada", "born": {"year": 1815}}, "tags": ["a", "b"], "none": None, "flag": True}
    own = {"doc_id": "of the user", "text": "also", "ref_doc_id": 7, "_node_content": "mine"}
    node = make_node("a", "bread\n oven ", "first")
    node.metadata = nested | own
    node.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="b", metadata={"x": 1})
    node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys = ["tags"], ["flag"]
    node.start_char_idx, node.end_char_idx, node.metadata_template = 3, 9, "{key} is {value}"
    others = [
        IndexNode(id_="i", text="an index", index_id="sub", obj=None, embedding=node.embedding),
        ImageNode(id_="p", text="a picture", image_url="http://localhost/p.png", embedding=node.embedding),
        TextNode(id_="e", text="", embedding=node.embedding),
    ]
    store.add([node, *others])
    for opened in (store, LLM2CompVectorStore(folder, WORDS)):
        for sent, got in zip([node, *others], opened.get_nodes(["a", "i", "p", "e"]), strict=True):
            assert type(got) is type(sent)
            assert got.model_dump(exclude={"embedding"}) == sent.model_dump(exclude={"embedding"})
            assert got.get_content(MetadataMode.ALL) == sent.get_content(MetadataMode.ALL)
    assert store.get_nodes(["a"])[0].ref_doc_id == "first"


def test_ids_are_replaced_and_the_last_of_one_call_stays(filled: LLM2CompVectorStore, folder: Path) -> None:
    commit = read_manifest(folder).commit
    filled.add([make_node("a", "stone"), make_node("x", "rain"), make_node("a", "harbour light")])
    assert read_manifest(folder).commit == commit + 1
    assert [node.text for node in filled.get_nodes(["a"])] == ["harbour light"]
    assert ask(filled, "harbour light", k=1) == ["a"]
    assert len(filled.client) == 5


def test_delete_removes_the_nodes_of_a_document(filled: LLM2CompVectorStore, folder: Path) -> None:
    filled.delete("first")
    filled.delete("nowhere")
    again = LLM2CompVectorStore(folder, WORDS)
    assert sorted(ask(again, "bread")) == ["c", "d"]
    again.add([make_node("a", "bread oven", "first")])
    assert sorted(ask(filled, "bread")) == ["a", "c", "d"]
    filled.delete("None")  # which other stores take for nodes without a document
    assert len(filled.client) == 3


@pytest.mark.parametrize(
    ("ids", "filters", "left"),
    [
        (["a", "nowhere"], None, "bcd"),
        (["a", "c"], where(field("lang", "de")), "abd"),
        (None, where(field("lang", "en"), field("year", 2010, ">")), "acd"),
        (None, where(field("lang", "en"), condition="not"), "ab"),
        ([], None, "abcd"),
        (None, where(field("lang", "nowhere")), "abcd"),
    ],
)
def test_delete_nodes(filled: LLM2CompVectorStore, ids: Any, filters: Any, left: str) -> None:
    filled.delete_nodes(ids, filters)
    assert [node.node_id for node in filled.get_nodes()] == list(left)


def test_delete_nodes_of_nothing_named_deletes_nothing(filled: LLM2CompVectorStore) -> None:
    for arguments in ({}, {"filters": MetadataFilters(filters=[])}):
        with pytest.raises(SettingsError, match=r"delete_nodes takes node_ids or filters.*clear\(\)"):
            filled.delete_nodes(**arguments)
    assert len(filled.client) == 4


def test_clear(filled: LLM2CompVectorStore) -> None:
    filled.clear()
    assert filled.get_nodes() == []
    filled.add(nodes()[:1])
    assert ask(filled, "bread") == ["a"]


def test_get_nodes(filled: LLM2CompVectorStore) -> None:
    def found(*arguments: Any) -> list[str]:
        return [node.node_id for node in filled.get_nodes(*arguments)]

    assert found() == list("abcd")
    assert found(["d", "nowhere", "a", "d"]) == ["d", "a"]
    assert found(None, where(field("tags", "sea", "contains"))) == ["b", "c"]
    assert found(["c", "a"], where(field("lang", "en"))) == ["a"]


FILTERS = [
    where(field("lang", "en")),
    where(field("year", 2005, ">"), field("lang", "en")),
    where(field("lang", ["en", "fr"], "in")),
    where(field("lang", ["en"], "nin")),
    where(field("year", 2010, "!=")),
    where(field("lang", "de"), field("year", 2001), condition="or"),
    where(field("nowhere", 1, "!=")),
]


@pytest.mark.parametrize("filters", FILTERS, ids=range(len(FILTERS)))
def test_filters_match_what_the_store_of_llama_index_matches(filled: LLM2CompVectorStore, filters: Any) -> None:
    simple = SimpleVectorStore()
    simple.add(nodes())
    expected = ask(simple, "bread moon", filters=filters)
    assert ask(filled, "bread moon", filters=filters) == expected
    assert sorted(ask(filled, "bread moon", mode="mmr", filters=filters)) == sorted(expected)


def test_filters_within_objects_negated_and_given_as_text(filled: LLM2CompVectorStore) -> None:
    assert ask(filled, "x", filters=where(field("author.name", "Ada"))) == ["a"]
    either = where(field("lang", "de"), field("year", 2001), condition="or")
    assert sorted(ask(filled, "x", filters=where(either, field("tags", "sea", "contains")))) == ["c"]
    both = where(field("lang", "en"), field("year", 2020))
    assert sorted(ask(filled, "x", filters=where(both, field("note", "rise", "text_match"), condition="or"))) == [
        "b",
        "d",
    ]
    negated = where(where(field("lang", "de"), field("year", 2020), condition="or"), condition="not")
    assert sorted(ask(filled, "x", filters=negated)) == ["a", "d"]
    assert ask(filled, "x", filters="year > 2001 and 'moon' in tags") == ["b"]
    with pytest.raises(SettingsError, match='no document has the field "yaer"'):
        ask(filled, "x", filters="yaer > 2001")
    with pytest.raises(SettingsError, match="no document can match"):
        ask(filled, "x", filters=where(field("year", "2001", ">")))


def test_queries_of_documents_and_of_nodes(filled: LLM2CompVectorStore) -> None:
    assert ask(filled, "bread", doc_ids=["second"]) == ["c"]
    assert sorted(ask(filled, "bread", doc_ids=["first", "nowhere"])) == ["a", "b"]
    assert ask(filled, "bread", doc_ids=[]) == []
    every = ask(filled, "bread moon")
    assert ask(filled, "bread moon", node_ids=["d", "c", "a"]) == [name for name in every if name != "b"]
    assert ask(filled, "bread", k=1, node_ids=["c", "d"], filters=where(field("lang", "de"))) == ["c"]
    assert len(ask(filled, "bread", node_ids=[])) == 4  # what the retriever of LlamaIndex gives, for all nodes
    assert sorted(ask(filled, "bread", mode="mmr", node_ids=["c", "d"])) == ["c", "d"]
    with pytest.raises(SettingsError, match="node_ids restrict queries by vectors, not mode 'sparse'"):
        ask(filled, "bread", mode="sparse", node_ids=["a"])


def test_similarities_are_cosines(filled: LLM2CompVectorStore) -> None:
    vector = WORDS.get_query_embedding("moon tides")
    result = filled.query(VectorStoreQuery([7 * value for value in vector], similarity_top_k=2))
    expected = [float(np.dot(vector, WORDS.get_text_embedding(node.get_content()))) for node in result.nodes or []]
    assert result.similarities == pytest.approx(expected, abs=1e-6)
    assert max(result.similarities or []) == pytest.approx(1.0, abs=1e-6)


def test_modes(filled: LLM2CompVectorStore) -> None:
    assert ask(filled, "butter", mode="sparse") == ["b"]
    assert ask(filled, "tides", mode="text_search", filters=where(field("lang", "de"))) == ["c"]
    assert ask(filled, "butter", k=3, mode="sparse", sparse_top_k=1) == ["b"]
    assert ask(filled, "prime", k=1, mode="hybrid", alpha=0.0) == ["d"]
    assert ask(filled, "bread", k=2, mode="hybrid", alpha=1.0) == ask(filled, "bread", k=2)
    assert len(ask(filled, "bread", k=3, mode="hybrid", hybrid_top_k=1)) == 1
    with pytest.raises(SettingsError, match="alpha is 1.5, expected 0 \\(words alone\\) to 1 \\(vectors alone\\)"):
        ask(filled, "bread", mode="hybrid", alpha=1.5)
    with pytest.raises(SettingsError, match="the query's mode is 'svm', expected one of default, sparse"):
        ask(filled, "bread", mode="svm")


def test_mmr_prefers_variety_as_in_llama_index(filled: LLM2CompVectorStore) -> None:
    simple = SimpleVectorStore()
    simple.add(nodes())
    for threshold in (0.1, 0.5, 1.0):
        assert ask(filled, "bread", mode="mmr", mmr_threshold=threshold) == ask(
            simple, "bread", mode="mmr", mmr_threshold=threshold
        )
    assert sorted(ask(filled, "bread", k=2, mode="mmr", mmr_threshold=0.1, mmr_prefetch_k=2)) == ["a", "b"]


def test_words_need_an_index_with_bm25(folder: Path) -> None:
    store = LLM2CompVectorStore(folder, WORDS)
    store.add(nodes())
    with pytest.raises(SettingsError, match="holds no BM25 index"):
        ask(store, "bread", mode="sparse")


def test_what_has_no_vector_is_embedded_or_refused(folder: Path, tmp_path: Path) -> None:
    bare = TextNode(id_="n", text="bread oven", metadata={"lang": "en"})
    store = LLM2CompVectorStore(folder, WORDS)
    store.add([bare])
    assert bare.embedding is None
    result = store.query(VectorStoreQuery(query_str=bare.get_content(MetadataMode.EMBED)))
    assert result.similarities == pytest.approx([1.0], abs=1e-6)
    without = LLM2CompVectorStore(tmp_path / "other")
    with pytest.raises(SettingsError, match='node "n" has no embedding'):
        without.add([bare])
    with pytest.raises(SettingsError, match="the query has no embedding"):
        without.query(VectorStoreQuery(query_str="bread"))
    with pytest.raises(SettingsError, match=r"the query's vector is of shape \(2,\), expected \(32,\)"):
        store.query(VectorStoreQuery([1.0, 2.0]))
    with pytest.raises(SettingsError, match=r"k is 0, expected 1 to 1,000"):
        store.query(VectorStoreQuery(WORDS.get_query_embedding("x"), similarity_top_k=0))


def test_another_embedding_is_refused(filled: LLM2CompVectorStore, folder: Path) -> None:
    other = WordEmbedding(model_name="others")
    with pytest.raises(IndexFolderError, match='made with "WordEmbedding words", opened with "WordEmbedding others"'):
        LLM2CompVectorStore(folder, other)
    assert len(LLM2CompVectorStore(folder, other, embedding_name="WordEmbedding words").client) == 4
    assert len(LLM2CompVectorStore(folder).client) == 4  # without one, only the dimension is compared
    short = TextNode(id_="s", text="s", embedding=[1.0, 2.0])
    with pytest.raises(IndexFolderError, match="holds vectors of dimension 32, these have 2"):
        LLM2CompVectorStore(folder).add([short])


async def test_async(folder: Path) -> None:
    store = LLM2CompVectorStore(folder, WORDS)
    assert await store.async_add(nodes()) == list("abcd")
    await asyncio.gather(*(store.async_add([make_node(f"n{n}", "rain")]) for n in range(6)))
    assert len(await store.aget_nodes()) == 10
    result = await store.aquery(VectorStoreQuery(WORDS.get_query_embedding("moon tides")))
    assert result.ids == ["c"]
    await store.adelete("first")
    await store.adelete_nodes(["c"])
    await store.adelete_nodes(filters=where(field("note", "tides rise")))
    assert len(await store.aget_nodes()) == 6
    await store.aclear()
    assert await store.aget_nodes() == []


def test_a_writer_that_takes_too_long_is_one_clear_line(folder: Path) -> None:
    store = LLM2CompVectorStore(folder, WORDS, timeout=0.1)
    with sole_writer(folder), pytest.raises(IndexFolderError, match="being written by process"):
        store.add(nodes())
    assert store.add(nodes()) == list("abcd")


def test_an_index_of_llama_index_on_it(folder: Path) -> None:
    def open_one() -> VectorStoreIndex:
        return VectorStoreIndex.from_vector_store(LLM2CompVectorStore(folder, WORDS), embed_model=WORDS)

    documents = [Document(text="bread oven", id_="one"), Document(text="moon tides", id_="two", metadata={"n": 1})]
    storage = StorageContext.from_defaults(vector_store=LLM2CompVectorStore(folder, WORDS))
    VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=WORDS)
    [hit] = open_one().as_retriever(similarity_top_k=1).retrieve("moon tides")
    assert (hit.text, hit.node.ref_doc_id, hit.metadata) == ("moon tides", "two", {"n": 1})
    open_one().insert(Document(text="rain harbour", id_="three"))
    open_one().delete_ref_doc("one")
    open_one().update_ref_doc(Document(text="stone light", id_="two"))
    index = open_one()
    texts = {hit.text for hit in index.as_retriever(similarity_top_k=9).retrieve("x")}
    assert texts == {"rain harbour", "stone light"}
    mmr = index.as_retriever(vector_store_query_mode="mmr", similarity_top_k=2)
    assert len(mmr.retrieve("rain")) == 2
    assert len(index.as_retriever(filters=where(field("n", 1))).retrieve("x")) == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_pipeline_with_upserts_runs_on_it(folder: Path, asynchronous: bool) -> None:
    docstore = SimpleDocumentStore()
    store = LLM2CompVectorStore(folder, WORDS)

    async def run(documents: list[Document], strategy: DocstoreStrategy) -> int:
        pipeline = IngestionPipeline(
            transformations=[SentenceSplitter(chunk_size=16, chunk_overlap=0), WORDS],
            docstore=docstore,
            vector_store=store,
            docstore_strategy=strategy,
        )
        return len(await pipeline.arun(documents=documents) if asynchronous else pipeline.run(documents=documents))

    def texts() -> list[tuple[str | None, str]]:
        return sorted((node.ref_doc_id, node.get_content()) for node in store.get_nodes())

    long = "The bread rises in the oven. " * 4
    first = [Document(text=long, id_="one"), Document(text="Moon.", id_="two")]
    made = await run(first, DocstoreStrategy.UPSERTS)
    assert made == len(texts()) == 3
    assert await run(first, DocstoreStrategy.UPSERTS) == 0  # nothing is new
    assert made == len(texts())
    shorter = [Document(text="Bread.", id_="one"), first[1]]
    assert await run(shorter, DocstoreStrategy.UPSERTS) == 1
    assert texts() == [("one", "Bread."), ("two", "Moon.")]  # no old chunk is left
    await run(shorter[:1], DocstoreStrategy.UPSERTS_AND_DELETE)
    assert texts() == [("one", "Bread.")]
    verify_index(folder)


def test_settings_and_pickles_open_the_folder_again(filled: LLM2CompVectorStore, folder: Path) -> None:
    again = pickle.loads(pickle.dumps(filled))
    assert ask(again, "moon tides", k=1) == ["c"]
    settings = filled.to_dict()
    assert settings["index_dir"] == str(folder)
    restored = LLM2CompVectorStore.from_dict(settings, embed_model=WORDS)
    assert ask(restored, "moon tides", k=1) == ["c"]


def test_a_store_of_the_model_is_an_index_of_it(folder: Path, bundled: LLM2Comp) -> None:
    embedding = LLM2CompEmbedding(model=bundled)
    storage = StorageContext.from_defaults(vector_store=LLM2CompVectorStore(folder, embedding))
    documents = [Document(text="Bread rises because yeast makes gas.", id_="b"), Document(text="The train leaves.")]
    VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=embedding)
    [hits] = open_index(folder, model=bundled).search(["what makes bread rise?"], k=1)
    assert hits[0].text == documents[0].text
    assert hits[0].metadata["llm2comp_source"] == "b"
