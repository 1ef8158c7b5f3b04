"""Searching a store as one searches an index: the same hits, chunks and documents, and options it does not have."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp import LLM2Comp
from llm2comp.errors import SettingsError, StoreError
from llm2comp_indexes import Effort, SearchOptions, open_index, open_store_index, push_index
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.push import _header, read_blocks
from llm2comp_indexes.stores.rows import make_rows
from llm2comp_indexes.stores.search import StoreIndex
from tests.indexes.stores.conftest import documents
from tests.small_indexes import build_chunks, write_corpus
from tests.word_encoder import WordEncoder

Make = Callable[..., Path]
QUESTIONS = ["bread n7", "moon and rain n44", "the harbour n300", "zebra"]


def test_the_same_hits_as_from_the_index(store_url: str, make_index: Make) -> None:
    folder = make_index(documents(400))
    push_index(folder, store_url)
    with open_index(folder, model=WordEncoder()) as index, open_store_index(store_url, model=WordEncoder()) as store:
        assert (len(store), store.dimension) == (400, 32)
        for where in (None, "year >= 2010", "'y' in tags and price > 3", "year == 2003 and price < 2"):
            options = SearchOptions(where=where)
            expected = index.search(QUESTIONS, k=10, options=options)
            for best, rows in zip(store.search(QUESTIONS, k=10, options=options), expected, strict=True):
                assert [hit.id for hit in best] == [hit.id for hit in rows]
                assert [hit.score for hit in best] == pytest.approx([hit.score for hit in rows], abs=1e-5)
                assert [(hit.title, hit.text, hit.document_id) for hit in best] == [
                    (hit.title, hit.text, hit.document_id) for hit in rows
                ]
        [narrow] = store.search(["bread"], k=10, options=SearchOptions(where="price == 3"))
        assert [hit.id for hit in narrow] == ["d24 é"]
        assert store.search([], k=3) == []


def test_chunks_are_ranked_as_rows_or_as_documents(store_url: str, model: LLM2Comp, tmp_path: Path) -> None:
    words = "bread moon list rain prime harbour tides oven butter numbers".split()  # noqa: SIM905
    rows = [{"_id": f"d{row}", "text": " ".join([*words[row:], *words[:row]] * 2), "year": row} for row in range(8)]
    folder = build_chunks(tmp_path, write_corpus(tmp_path, rows), model)
    push_index(folder, store_url)
    with open_index(folder, model=model) as index, open_store_index(store_url, model=model) as store:
        assert len(store) > 16
        for by in ("row", "document"):
            options = SearchOptions(by=by)  # type: ignore[arg-type]
            [expected] = index.search(["moon list"], k=6, options=options)
            [best] = store.search(["moon list"], k=6, options=options)
            assert [round(hit.score, 4) for hit in best] == [round(hit.score, 4) for hit in expected]
            assert all(hit.document_id in hit.id and hit.document_id != hit.id for hit in best)
            assert len({hit.document_id for hit in best}) == len(best) or by == "row"


def test_a_store_has_no_words_lists_or_threads(store_url: str, make_index: Make) -> None:
    push_index(make_index(documents(20)), store_url)
    with open_store_index(store_url, model=WordEncoder()) as store:
        for options, message in (
            (SearchOptions(mode="hybrid"), "a store is searched by vectors only"),
            (SearchOptions(effort=Effort(nprobe=3)), "nprobe is for an index on disk"),
            (SearchOptions(threads=1), "threads is for an index on disk"),
        ):
            with pytest.raises(SettingsError, match=message):
                store.search(["bread"], options=options)
        assert len(store.search(["bread"], k=20, options=SearchOptions(effort=Effort(ef_search=200)))[0]) == 20
        for k in (0, 1001, "3"):
            with pytest.raises(SettingsError, match="k is"):
                store.search(["bread"], k=k)
        with pytest.raises(SettingsError, match="queries is a string"):
            store.search("bread")
        with pytest.raises(StoreError, match="query vectors of shape"):
            store.search(["bread"], vectors=np.ones((1, 5), np.float32))


def test_copies_and_pickles_open_the_store_again(store_url: str, make_index: Make) -> None:
    if store_url.startswith("qdrant+file"):
        pytest.skip("local mode of Qdrant is open once at a time")
    push_index(make_index(documents(20)), store_url)
    with open_store_index(store_url, model=WordEncoder()) as store:
        expected = store.search(["bread"], k=3)
        for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
            assert other.search(["bread"], k=3) == expected
            other.close()
        store.close()
        assert store.search(["bread"], k=3) == expected  # opened again


def test_rows_written_without_their_types(store_url: str, make_index: Make) -> None:
    """As by the actors of a cluster, which do not know the metadata of all rows: hits are whole."""
    folder = make_index(documents(20))
    with open_index(folder, model=WordEncoder()) as index:
        header = replace(_header(index, None, float16=False), fields=None, types=None)
        [block] = read_blocks(index)
    store = open_store(store_url)
    store.create(header)
    store.write([make_rows(block.rows, block.vectors, header)])
    store.finish()
    found = StoreIndex(store, header, model=WordEncoder())
    [[hit]] = found.search([f"{documents(20)[7]['title']} {documents(20)[7]['text']}"], k=1)
    assert hit.id == "d7 é"
    assert hit.metadata["tags"] == documents(20)[7]["tags"]
    found.close()


def test_the_model_that_the_table_names_is_loaded(store_url: str, make_index: Make, monkeypatch: Any) -> None:
    push_index(make_index(documents(5)), store_url)
    loaded: list[Any] = []

    def load(name: Any, options: Any = None) -> Any:
        loaded.append(name)
        return WordEncoder(), None

    monkeypatch.setattr("llm2comp_indexes.stores.search.load_encoder", load)
    with open_store_index(store_url) as store:
        assert loaded == []
        store.search(["bread"], k=1)
        store.search(["bread"], k=1)
        assert loaded == [store.header.model]
        assert store.encode_seconds > 0
