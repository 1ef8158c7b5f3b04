"""LLM2CompVectorStore in LangChain: what is kept, replaced, found and deleted, across reopening, threads, processes."""

import asyncio
import pickle
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from llm2comp import LLM2Comp
from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import IndexOptions, merge_index, open_index, verify_index
from llm2comp_indexes.format.lock import sole_writer
from llm2comp_indexes.format.manifest import read_manifest
from tests.word_encoder import WordEncoder

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from langchain_llm2comp import LLM2CompEmbeddings, LLM2CompVectorStore


class WordEmbeddings(Embeddings):
    """The stand-in encoder as embeddings; vectors are 3 times as long as a unit vector."""

    def __init__(self, dimension: int = 32) -> None:
        self.encoder, self.calls = WordEncoder(dimension), 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        return (3 * self.encoder.encode_document(texts)).tolist()

    def embed_query(self, text: str) -> list[float]:
        return (3 * self.encoder.encode_query([text])[0]).tolist()


class OtherEmbeddings(WordEmbeddings):
    pass


@pytest.fixture
def own(bundled: LLM2Comp) -> LLM2CompEmbeddings:
    return LLM2CompEmbeddings(model=bundled)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "idx"


@pytest.fixture
def store(folder: Path) -> LLM2CompVectorStore:
    return LLM2CompVectorStore(folder, WordEmbeddings())


def reopen(store: LLM2CompVectorStore) -> LLM2CompVectorStore:
    return LLM2CompVectorStore(store._store.folder, WordEmbeddings())


def ids(documents: list[Document]) -> list[str]:
    return [document.id or "" for document in documents]


def test_an_empty_store_is_an_index_without_documents(store: LLM2CompVectorStore, folder: Path) -> None:
    assert len(store) == 0
    assert store.similarity_search("bread") == []
    assert store.max_marginal_relevance_search("bread") == []
    assert store.similarity_search("bread", filter={"year": {"$gt": 2000}}) == []
    assert store.get_by_ids(["a"]) == []
    manifest = verify_index(folder)
    assert (manifest.documents, manifest.dimension, manifest.segments) == (0, 0, ())
    assert len(open_index(folder)) == 0
    assert merge_index(folder).measured is None
    assert store.add_texts(["bread"], ids=["a"]) == ["a"]
    assert read_manifest(folder).dimension == 32


def test_nothing_added_commits_nothing(store: LLM2CompVectorStore, folder: Path) -> None:
    assert store.add_texts([]) == []
    assert store.add_documents([]) == []
    assert store.delete([])
    assert store.delete(["never there"])
    assert read_manifest(folder).commit == 1


def test_every_add_is_one_commit(store: LLM2CompVectorStore, folder: Path) -> None:
    store.add_texts([f"bread {number}" for number in range(5000)])
    assert read_manifest(folder).commit == 2
    assert read_manifest(folder).documents == len(store) == 5000
    assert store.embeddings.calls == 1


METADATA: dict[str, Any] = {
    "year": 2020,
    "ratio": 0.5,
    "draft": False,
    "none": None,
    "tags": ["sea", "moon"],
    "author": {"name": "Ada", "born": {"year": 1815, "place": "London"}},
    "parts": [{"page": 1}, {"page": 2}],
    "id": "of the user",
    "text": "also",
    "title": "T",
}


def test_documents_come_back_as_they_went_in(store: LLM2CompVectorStore) -> None:
    texts = ["bread", "", "line\nbreak  ", "\u00b5 \U0001f600 \x00"]
    documents = [
        Document(text, id=f"d {number}/#1", metadata=dict(METADATA, number=number)) for number, text in enumerate(texts)
    ]
    store.add_documents(documents)
    for opened in (store, reopen(store)):
        assert opened.get_by_ids([document.id for document in documents]) == documents
        assert sorted(opened.similarity_search("moon", k=10), key=lambda one: one.id or "") == documents


def test_the_same_id_twice_in_one_call(store: LLM2CompVectorStore) -> None:
    assert store.add_texts(["bread", "moon", "tides"], ids=["a", "b", "a"]) == ["a", "b", "a"]
    assert len(store) == 2
    assert [one.page_content for one in store.get_by_ids(["a", "b"])] == ["tides", "moon"]
    assert [one.page_content for one in store.similarity_search("bread", k=9)].count("bread") == 0


def test_texts_without_ids_get_new_ones(store: LLM2CompVectorStore) -> None:
    first = store.add_documents([Document("bread"), Document("moon", id="m"), Document("tides")])
    second = store.add_texts(["bread", "bread"], ids=["x", None])
    assert len({*first, *second}) == 5
    assert first[1] == "m"
    assert len(store) == 5


def test_add_after_delete_and_reopening(store: LLM2CompVectorStore) -> None:
    store.add_texts(["bread", "moon"], ids=["a", "b"])
    store.delete(["a"])
    again = reopen(store)
    again.add_texts(["bread bread"], ids=["a"])
    again.add_texts(["harbour"], ids=["c"])
    last = reopen(again)
    assert {one.id: one.page_content for one in last.similarity_search("x", k=9)} == {
        "a": "bread bread",
        "b": "moon",
        "c": "harbour",
    }
    assert ids(store.similarity_search("bread", k=1)) == ["a"]  # the first object sees it too


def test_a_replaced_document_is_found_by_its_new_text_only(store: LLM2CompVectorStore) -> None:
    store.add_texts(["bread oven butter", "moon tides"], [{"v": 1}, {"v": 1}], ids=["a", "b"])
    store.add_texts(["prime numbers"], [{"v": 2}], ids=["a"])
    [(best, score)] = store.similarity_search_with_score("prime numbers", k=1)
    assert (best.id, best.metadata) == ("a", {"v": 2})
    assert score == pytest.approx(1.0, abs=1e-6)
    assert ids(store.similarity_search("bread", filter={"v": 1})) == ["b"]


def test_get_by_ids(store: LLM2CompVectorStore) -> None:
    store.add_texts(["bread", "moon", "tides"], ids=["a", "b", "c"])
    assert ids(store.get_by_ids(["c", "nowhere", "a", "c"])) == ["c", "a"]
    assert store.get_by_ids([]) == []
    with pytest.raises(SettingsError, match="ids is str 'abc', expected a list of strings"):
        store.get_by_ids("abc")


FILTERS: list[tuple[Any, str]] = [
    ({"lang": "en"}, "ab"),
    ({"lang": "en", "year": 2020}, "b"),
    ({"year": {"$gte": 2005, "$lt": 2020}}, "c"),
    ({"year": {"$gt": 2001}}, "bc"),
    ({"year": {"$lte": 2010.5}}, "ac"),
    ({"year": {"$ne": 2020}}, "acd"),
    ({"lang": {"$in": ["en", "fr"]}}, "ab"),
    ({"lang": {"$in": []}}, ""),
    ({"lang": {"$nin": ["en"]}}, "cd"),
    ({"lang": None}, "d"),
    ({"lang": {"$exists": True}}, "abc"),
    ({"lang": {"$exists": False}}, "d"),
    ({"tags": {"$contains": "sea"}}, "bc"),
    ({"tags": ["sea"]}, "c"),
    ({"note": {"$contains": "rise"}}, "d"),
    ({"draft": True}, "b"),
    ({"draft": 1}, ""),
    ({"author.name": "Ada"}, "a"),
    ({"author": {"name": "Ada"}}, "a"),
    ({"author": {"born": {"year": {"$gt": 1900}}}}, "b"),
    ({"$and": [{"lang": "en"}, {"year": {"$gt": 2005}}]}, "b"),
    ({"$or": [{"lang": "de"}, {"year": 2001}]}, "ac"),
    ({"$not": {"lang": "en"}}, "cd"),
    ({"$not": {"$or": [{"lang": "en"}, {"$and": [{"lang": "de"}, {"year": {"$lt": 2020}}]}]}}, "d"),
    ({"$or": [{"$and": [{"lang": "en"}, {"$not": {"year": 2020}}]}, {"note": "tides rise"}]}, "ad"),
    ({"year": {"$not": {"$gt": 2001}}}, "ad"),
    ({"year": "2020"}, ""),
    ({"nowhere": 1}, ""),
    ({"nowhere": {"$ne": 1}}, "abcd"),
    ({"day": {"$gte": date(2020, 2, 1)}}, "b"),
    ({}, "abcd"),
    (None, "abcd"),
    ("year >= 2005 and 'sea' in tags", "bc"),
    ("not (lang == 'en' or year < 2020)", "d"),
]


@pytest.fixture
def filtered(store: LLM2CompVectorStore) -> LLM2CompVectorStore:
    metadatas: list[dict[str, Any]] = [
        {"lang": "en", "year": 2001, "author": {"name": "Ada", "born": {"year": 1815}}, "day": date(2001, 1, 1)},
        {"lang": "en", "year": 2020, "tags": ["moon", "sea"], "draft": True, "author": {"born": {"year": 1950}}},
        {"lang": "de", "year": 2010, "tags": ["sea"]},
        {"note": "tides rise"},
    ]
    metadatas[1]["day"] = date(2020, 5, 1)
    store.add_texts(["bread"] * 2, metadatas[:2], ids=["a", "b"])
    store.add_texts(["moon"] * 2, metadatas[2:], ids=["c", "d"])
    return store


@pytest.mark.parametrize(("filter", "expected"), FILTERS, ids=lambda value: str(value)[:60])
def test_filters(filtered: LLM2CompVectorStore, filter: Any, expected: str) -> None:
    assert sorted(ids(filtered.similarity_search("bread", k=9, filter=filter))) == list(expected)
    assert sorted(ids(filtered.max_marginal_relevance_search("bread", k=9, filter=filter))) == list(expected)


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ({"$nor": []}, r"'\$nor' is no field"),
        ({"year": {"$near": 2}}, r"the operator '\$near'"),
        ({"$and": {}}, r"\$and takes a list"),
        ({"$and": [1]}, "1 is not a dict of conditions"),
        ({"year": {"$gt": None}}, "expected a number, a text or a date"),
        ({"year": {"$gt": 1, "name": 2}}, "operators and fields at once"),
        ({"lang": {"$in": "en"}}, r"\$in of 'lang' takes a list"),
        ({"year": {"$gt": "2000"}}, "year.*holds whole numbers.*no document can match"),
        (lambda document: True, "filter is function"),
        ("year >", "where 'year >'"),
        ("nowhere == 1", 'no document has the field "nowhere"'),
    ],
)
def test_filters_that_are_none(filtered: LLM2CompVectorStore, filter: Any, message: str) -> None:
    for use in (filtered.similarity_search, filtered.max_marginal_relevance_search):
        with pytest.raises(SettingsError, match=message):
            use("bread", filter=filter)
    with pytest.raises(SettingsError, match=message):
        filtered.delete(filter=filter)
    assert len(filtered) == 4


def test_delete_by_filter(filtered: LLM2CompVectorStore) -> None:
    filtered.delete(filter={"$or": [{"lang": "de"}, {"author": {"name": "Ada"}}]})
    assert sorted(ids(reopen(filtered).similarity_search("x", k=9))) == ["b", "d"]
    filtered.delete(filter={"lang": "nowhere"})
    assert len(filtered) == 2


@pytest.mark.parametrize("arguments", [{}, {"filter": {}}, {"ids": None}, {"ids": ["a"], "filter": {"lang": "en"}}])
def test_delete_of_nothing_named_deletes_nothing(filtered: LLM2CompVectorStore, arguments: Any) -> None:
    with pytest.raises(SettingsError, match=r"delete takes ids or a filter.*clear\(\)"):
        filtered.delete(**arguments)
    assert len(filtered) == 4


def test_a_filter_in_the_place_of_ids_deletes_nothing(filtered: LLM2CompVectorStore) -> None:
    filtered.add_texts(["x"], ids=["lang"])
    with pytest.raises(SettingsError, match="ids is dict .* give a filter as filter="):
        filtered.delete({"lang": "en"})
    assert len(filtered) == 5


def test_fields_that_no_document_has_are_logged_once(
    filtered: LLM2CompVectorStore, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert filtered.similarity_search("x", filter={"yaer": 2020}) == []
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith('filter: no document has the field "yaer"; did you mean "year"?')


def test_texts_metadata_and_ids_may_be_read_once(store: LLM2CompVectorStore) -> None:
    names = store.add_texts(iter(["bread", "moon"]), ({"n": n} for n in range(2)), ids=(name for name in "ab"))
    assert names == ["a", "b"]
    assert [one.metadata for one in store.get_by_ids(names)] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("embedding", ["all-MiniLM-L6-v2", WordEmbeddings])
def test_what_is_no_embedding(folder: Path, embedding: Any) -> None:
    with pytest.raises(TypeError, match="expected embeddings of LangChain"):
        LLM2CompVectorStore(folder, embedding)
    with pytest.raises(TypeError, match="index_dir is WordEmbeddings, expected a folder"):
        LLM2CompVectorStore(WordEmbeddings(), WordEmbeddings())
    assert not folder.exists()


class FailingEmbeddings(WordEmbeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return super().embed_documents(texts)[:-1]


def test_an_embedding_that_loses_a_text_adds_nothing(folder: Path) -> None:
    store = LLM2CompVectorStore(folder, FailingEmbeddings())
    with pytest.raises(SettingsError, match=r"vectors of shape \(1, 32\) for 2 documents"):
        store.add_texts(["bread", "moon"])
    assert len(store) == 0


def test_clear(filtered: LLM2CompVectorStore, folder: Path) -> None:
    filtered.clear()
    assert len(filtered) == 0
    assert verify_index(folder).segments == ()
    filtered.add_texts(["bread"], ids=["a"])
    assert ids(reopen(filtered).similarity_search("x")) == ["a"]


def test_scores_are_cosines_and_relevance_is_between_0_and_1(store: LLM2CompVectorStore) -> None:
    store.add_texts(["bread oven", "moon tides"], ids=["a", "b"])
    encoder = WordEncoder()
    expected = (encoder.encode_document(["bread oven", "moon tides"]) @ encoder.encode_query(["bread"])[0]).tolist()
    scores = {one.id: score for one, score in store.similarity_search_with_score("bread")}
    assert scores == pytest.approx({"a": expected[0], "b": expected[1]}, abs=1e-6)
    store.add_embeddings([("opposite", [-value for value in store.embeddings.embed_query("bread")])], ids=["c"])
    relevance = {one.id: score for one, score in store.similarity_search_with_relevance_scores("bread")}
    assert relevance["c"] == 0.0
    assert relevance["a"] == pytest.approx(expected[0], abs=1e-6)


def test_by_vector(filtered: LLM2CompVectorStore) -> None:
    vector = filtered.embeddings.embed_query("moon")
    assert filtered.similarity_search_by_vector(vector, k=2, filter={"lang": "de"}) == filtered.similarity_search(
        "moon", k=1, filter={"lang": "de"}
    )
    mmr = filtered.max_marginal_relevance_search_by_vector(vector, k=2)
    assert mmr == filtered.max_marginal_relevance_search("moon", k=2)


def test_mmr_prefers_variety(store: LLM2CompVectorStore) -> None:
    store.add_texts(["bread oven", "bread oven butter", "bread moon"], ids=["a", "b", "c"])
    assert ids(store.similarity_search("bread oven", k=2)) == ["a", "b"]
    assert ids(store.max_marginal_relevance_search("bread oven", k=2, lambda_mult=0.2)) == ["a", "c"]
    assert ids(store.max_marginal_relevance_search("bread oven", k=2, lambda_mult=1.0)) == ["a", "b"]
    assert ids(store.max_marginal_relevance_search("bread oven", k=2, fetch_k=2, lambda_mult=0.2)) == ["a", "b"]


async def test_async(folder: Path) -> None:
    store = await LLM2CompVectorStore.afrom_texts(
        ["bread", "moon"], WordEmbeddings(), [{"n": 1}, {"n": 2}], ids=["a", "b"], index_dir=folder
    )
    await asyncio.gather(*(store.aadd_texts([f"tides {number}"], ids=[f"t{number}"]) for number in range(8)))
    assert len(store) == 10
    assert ids(await store.asimilarity_search("moon", k=1, filter={"n": 2})) == ["b"]
    assert ids(await store.amax_marginal_relevance_search("moon", k=1)) == ["b"]
    assert ids(await store.aget_by_ids(["b"])) == ["b"]
    assert (await store.asimilarity_search_with_score("moon", k=1))[0][1] == pytest.approx(1.0, abs=1e-6)
    await store.adelete(filter={"n": 1})
    await store.adelete(["t0"])
    assert len(store) == 8


def test_from_documents_and_from_texts(folder: Path) -> None:
    documents = [Document("bread", id="a", metadata={"n": 1}), Document("moon")]
    store = LLM2CompVectorStore.from_documents(documents, WordEmbeddings(), index_dir=folder)
    again = LLM2CompVectorStore.from_texts(["tides"], WordEmbeddings(), [{"n": 2}], ids=["t"], index_dir=folder)
    assert len(store) == len(again) == 3
    assert store.get_by_ids(["a"]) == documents[:1]
    with pytest.raises(SettingsError, match="index_dir is missing"):
        LLM2CompVectorStore.from_texts(["bread"], WordEmbeddings())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ["a"], "metadatas": [{}, {}]}, "metadatas has length 2, texts 1"),
        ({"texts": ["a", "b"], "ids": ["x"]}, "ids has length 1, texts 2"),
        ({"texts": ["a", "b"], "ids": "xy"}, "ids is a string"),
        ({"texts": ["a"], "ids": ["x"], "metadatas": ["y"]}, "document \"x\": metadata is 'y', expected a dict"),
        ({"texts": ["a"], "ids": [7]}, "the id 7 is int, expected a string"),
        ({"texts": ["a"], "ids": ["x"], "metadatas": [{"f": float("inf")}]}, "document \"x\": metadata 'f' is inf"),
        ({"texts": ["a"], "ids": ["x"], "metadatas": [{"f": {1, 2}}]}, r'document "x": metadata cannot hold f \(set\)'),
        ({"texts": ["a"], "ids": ["x"], "metadatas": [{"a.b": 1, "a": {"b": 2}}]}, 'document "x": "a.b" names two'),
    ],
)
def test_what_cannot_be_added(store: LLM2CompVectorStore, folder: Path, arguments: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        store.add_texts(**arguments)
    assert read_manifest(folder).commit == 1


def test_what_is_no_text(store: LLM2CompVectorStore) -> None:
    for texts in ("bread", ["bread", None]):
        with pytest.raises(TypeError, match="expected a list of strings|text 1 of 2 is NoneType"):
            store.add_texts(texts)
    with pytest.raises(TypeError, match="the query is NoneType"):
        store.similarity_search(None)
    for k in (0, 1001, "3", None, 2.5):
        with pytest.raises(SettingsError, match=f"k is {k!r}, expected 1 to 1,000"):
            store.similarity_search("bread", k=k)
    with pytest.raises(TypeError, match="fliter"):
        store.similarity_search("bread", fliter={"n": 1})


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0]], "holds vectors of dimension 32, these have 2"),
        ([[float("nan")] * 32], 'the vector of document "x" is not finite'),
    ],
)
def test_vectors_that_do_not_fit(store: LLM2CompVectorStore, vectors: Any, message: str) -> None:
    store.add_texts(["bread"])
    with pytest.raises(LLM2CompError, match=message):
        store.add_embeddings([("x", vector) for vector in vectors], ids=["x"])
    with pytest.raises(SettingsError, match=r"the query's vector is of shape \(2,\), expected \(32,\)|is not finite"):
        store.similarity_search_by_vector(vectors[0])
    assert len(store) == 1


def test_another_embedding_is_refused(store: LLM2CompVectorStore, folder: Path) -> None:
    store.add_texts(["bread"])
    with pytest.raises(IndexFolderError, match='made with "WordEmbeddings", opened with "OtherEmbeddings"'):
        LLM2CompVectorStore(folder, OtherEmbeddings())
    assert len(LLM2CompVectorStore(folder, OtherEmbeddings(), embedding_name="WordEmbeddings")) == 1
    with pytest.raises(IndexFolderError, match='opened with "mine"'):
        LLM2CompVectorStore(folder, WordEmbeddings(), embedding_name="mine")
    smaller = LLM2CompVectorStore(folder, WordEmbeddings(16))
    with pytest.raises(LLM2CompError, match="dimension 32, these have 16"):
        smaller.add_texts(["moon"])


def test_folders_that_are_no_store(tmp_path: Path, chunk_dir: Path, own: LLM2CompEmbeddings) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexFolderError, match="a file, expected a folder"):
        LLM2CompVectorStore(tmp_path / "file", WordEmbeddings())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    with pytest.raises(IndexFolderError, match="holds something other than an index"):
        LLM2CompVectorStore(tmp_path / "full", WordEmbeddings())
    with pytest.raises(IndexFolderError, match="an index of chunks"):
        LLM2CompVectorStore(chunk_dir, own)


def test_an_index_of_the_builder_is_a_store(index_dir: Path, own: LLM2CompEmbeddings, bundled: LLM2Comp) -> None:
    store = LLM2CompVectorStore(index_dir, own)
    for mode in ("dense", "bm25", "hybrid"):
        assert ids(store.similarity_search("why does bread rise?", k=1, mode=mode)) == ["bread"]
    assert store.get_by_ids(["bread"])[0].metadata["title"] == "Bread"


def test_a_store_is_an_index_of_the_model(folder: Path, own: LLM2CompEmbeddings, bundled: LLM2Comp) -> None:
    store = LLM2CompVectorStore(folder, own, options=IndexOptions(hybrid=True))
    store.add_texts(["Bread rises because yeast makes gas.", "The train leaves at nine."], ids=["a", "b"])
    [hits] = open_index(folder, model=bundled).search(["what makes bread rise?"], k=1)
    assert [hit.id for hit in hits] == ["a"]
    assert ids(store.similarity_search("train nine", k=1, mode="bm25")) == ["b"]
    asked = LLM2CompEmbeddings(model=bundled, query_instruction="find: ")
    assert len(LLM2CompVectorStore(folder, asked)) == 2  # its documents' vectors are the same
    with pytest.raises(IndexFolderError, match="take the embedding that it was made with"):
        LLM2CompVectorStore(folder, LLM2CompEmbeddings(model=bundled, text_instruction="text: "))
    merge_index(folder)
    assert ids(reopened := LLM2CompVectorStore(folder, own).similarity_search("train", k=1)) == ["b"], reopened


def test_the_record_manager_and_index_run_on_it(store: LLM2CompVectorStore) -> None:
    records = InMemoryRecordManager("test")
    records.create_schema()

    def run(documents: list[Document], cleanup: Any) -> Any:
        return index(
            documents, records, store, cleanup=cleanup, source_id_key="source", batch_size=9, key_encoder="sha256"
        )

    documents = [Document(f"bread {n}", metadata={"source": f"s{n % 2}", "n": n}) for n in range(5)]
    assert run(documents, "incremental") == {"num_added": 5, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    assert run(documents, "incremental") == {"num_added": 0, "num_updated": 0, "num_skipped": 5, "num_deleted": 0}
    changed = [Document("moon", metadata={"source": "s0", "n": 9}), *documents[1::2]]
    assert run(changed, "incremental") == {"num_added": 1, "num_updated": 0, "num_skipped": 2, "num_deleted": 3}
    assert sorted(one.metadata["n"] for one in store.similarity_search("x", k=9)) == [1, 3, 9]
    assert run(documents[:1], "full")["num_deleted"] == 3
    assert [one.metadata["n"] for one in reopen(store).similarity_search("x", k=9)] == [0]
    assert run([], "full")["num_deleted"] == 1
    assert len(store) == 0


async def test_the_asynchronous_index_runs_on_it(store: LLM2CompVectorStore) -> None:
    records = InMemoryRecordManager("test")
    await records.acreate_schema()
    documents = [Document(f"bread {n}", metadata={"source": "s"}) for n in range(3)]
    for expected in (3, 0):
        result = await aindex(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")
        assert result["num_added"] == expected
    assert len(store) == 3


def test_as_retriever(filtered: LLM2CompVectorStore) -> None:
    assert ids(filtered.as_retriever(search_kwargs={"k": 1, "filter": {"lang": "de"}}).invoke("moon")) == ["c"]
    mmr = filtered.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 3, "lambda_mult": 0.5})
    assert len(mmr.invoke("moon")) == 2
    near = filtered.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9})
    assert ids(near.invoke("moon")) == ["c", "d"]


def test_threads_add_at_once(store: LLM2CompVectorStore) -> None:
    others = [store, reopen(store)]

    def add(thread: int) -> None:
        for number in range(5):
            others[thread % 2].add_texts([f"bread {thread} {number}"], ids=[f"{thread}-{number}"])
            others[thread % 2].similarity_search("bread", k=3)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == len(others[1]) == 30


def test_a_writer_that_takes_too_long_is_one_clear_line(folder: Path) -> None:
    store = LLM2CompVectorStore(folder, WordEmbeddings(), timeout=0.1)
    with sole_writer(folder):
        for change in (lambda: store.add_texts(["bread"]), lambda: store.delete(["a"]), store.clear):
            with pytest.raises(IndexFolderError, match="being written by process") as raised:
                change()
            assert "\n" not in str(raised.value)
        assert store.similarity_search("bread") == []  # searches do not wait
    store.add_texts(["bread"])
    assert len(store) == 1


def test_a_pickled_store_opens_its_folder_again(store: LLM2CompVectorStore) -> None:
    store.add_texts(["bread"], ids=["a"])
    again = pickle.loads(pickle.dumps(store))
    store.add_texts(["moon"], ids=["b"])
    assert ids(again.similarity_search("moon", k=1)) == ["b"]
