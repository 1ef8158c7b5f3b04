"""Rescored rankings: the first documents of a ranking by MaxSim, computed plainly, and what is refused."""

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.systems.hybrid import Hybrid
from llm2comp_benchmarks.systems.rescored import Rescored
from llm2comp_benchmarks.tasks import exact_search as blocks
from llm2comp_benchmarks.tasks.exact_search import exact_search
from llm2comp_indexes import SearchOptions
from tests.memory_encoder import MemoryWordEncoder
from tests.word_encoder import WORDS, WordEncoder

DOCUMENTS = [Document(f"d{row}", "", " ".join(np.random.default_rng(row).choice(WORDS, 6))) for row in range(30)]
QUERIES = {"a": "bread moon rain", "b": "oven tides", "c": "field"}


def by_the_book(query: str, document: str) -> float:
    encoder = MemoryWordEncoder()
    (asked,), (memory,) = encoder.memory_of([query]), encoder.memory_of([document])
    return sum(max(float(one @ other) for other in memory) for one in asked)


@pytest.mark.parametrize(
    "hybrid",
    [None, SearchOptions(mode="hybrid"), SearchOptions(mode="hybrid", fusion="ranks", weights=(1.0, 2.0))],
    ids=["vectors", "by scores", "by ranks"],
)
def test_candidates_by_maxsim(hybrid: SearchOptions | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 7)
    if hybrid is None:
        first = exact_search(MemoryWordEncoder(), DOCUMENTS, QUERIES, k=12)
    else:
        pytest.importorskip("bm25s", reason="needs the extra eval")
        first = Hybrid(MemoryWordEncoder(), hybrid).search(DOCUMENTS, QUERIES, k=12)
    encoder = MemoryWordEncoder()
    run = Rescored(encoder, 12, hybrid).search(iter(DOCUMENTS), QUERIES, k=1000)
    assert encoder.documents == len(DOCUMENTS), "every text is encoded once"
    assert encoder.passes == 1 + 5, "queries, and blocks of 7 documents"
    texts = {document.id: document.text for document in DOCUMENTS}
    for query, text in QUERIES.items():
        expected = {name: by_the_book(text, texts[name]) for name in first[query]}
        assert run[query] == pytest.approx(expected, abs=1e-6)
        assert list(run[query].values()) == sorted(run[query].values(), reverse=True)


def test_k_best() -> None:
    system = Rescored(MemoryWordEncoder(), 12)
    whole, few = (system.search(DOCUMENTS, QUERIES, k=k) for k in (1000, 3))
    assert {query: list(its) for query, its in few.items()} == {query: list(its)[:3] for query, its in whole.items()}


def test_an_empty_corpus_has_no_answers() -> None:
    assert Rescored(MemoryWordEncoder()).search([], QUERIES, k=5) == {query: {} for query in QUERIES}


def test_refused() -> None:
    with pytest.raises(SettingsError, match="has no memory tokens"):
        Rescored(WordEncoder())
    with pytest.raises(SettingsError, match="candidates is 0"):
        Rescored(MemoryWordEncoder(), 0)
    with pytest.raises(SettingsError, match="retrieval tasks only"):
        Rescored(MemoryWordEncoder()).encode_query(["a"])
