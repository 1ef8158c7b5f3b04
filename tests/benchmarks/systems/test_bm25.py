"""BM25 against Lucene's formula; its figures on real sets are in test_bm25_reference."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks import evaluate, read_beir
from llm2comp_benchmarks.systems.bm25 import Bm25

pytest.importorskip("bm25s", reason="needs the extra eval")
pytest.importorskip("nltk", reason="needs the extra eval")

DOCUMENTS = [
    Document(id="d1", title="Bridges", text="The bridge over the river"),
    Document(id="d2", title="", text="rivers running, rivers run"),
    Document(id="d3", title="Stone", text="of the tower and the clock"),
]
STEMS = {
    "d1": ["bridg", "bridg", "over", "river"],
    "d2": ["river", "run", "river", "run"],
    "d3": ["stone", "tower", "clock"],
}


def lucene(words: list[str], document: str) -> float:
    """Kamphuis et al. 2020, table 1: "Lucene (accurate)" with k1 = 1.2 and b = 0.75."""
    length = sum(map(len, STEMS.values())) / len(STEMS)
    score = 0.0
    for word in words:
        holders = sum(word in other for other in STEMS.values())
        inverse = math.log(1 + (len(STEMS) - holders + 0.5) / (holders + 0.5))
        times = STEMS[document].count(word)
        score += inverse * times / (times + 1.2 * (1 - 0.75 + 0.75 * len(STEMS[document]) / length))
    return score


def test_scores_are_lucenes_over_title_and_text() -> None:
    run = Bm25().search(DOCUMENTS, {"q1": "a running river", "q2": "Bridge of stone"}, k=10)
    assert run["q1"] == pytest.approx({name: lucene(["run", "river"], name) for name in ("d1", "d2")}, rel=1e-5)
    assert run["q2"] == pytest.approx({name: lucene(["bridg", "stone"], name) for name in ("d1", "d3")}, rel=1e-5)


def test_only_the_best_are_kept_and_only_what_matches() -> None:
    run = Bm25().search(DOCUMENTS, {"one": "river", "none": "of the", "unknown": "zebra", "empty": ""}, k=1)
    assert {query: list(scores) for query, scores in run.items()} == {
        "one": ["d2"],
        "none": [],
        "unknown": [],
        "empty": [],
    }


@pytest.mark.parametrize("documents", [[], [Document(id="d", title="", text="of the")]])
def test_documents_without_words(documents: list[Document]) -> None:
    assert Bm25().search(documents, {"q": "river"}, k=10) == {"q": {}}


def test_it_is_searched_with_in_the_harness(fruit: Path) -> None:
    result = evaluate(Bm25(), read_beir(fruit))
    assert result.metrics["mrr_at_10"] == 1
    assert set(result.run["q1"]) == {"d2"}


@pytest.mark.parametrize("method", ["encode_query", "encode_document", "encode"])
def test_it_has_no_vectors(method: str) -> None:
    encode: Callable[[list[str]], object] = getattr(Bm25(), method)
    with pytest.raises(SettingsError, match="retrieval tasks only"):
        encode(["a text"])


@pytest.mark.parametrize("package", ["bm25s", "nltk.stem.snowball"])
def test_the_error_without_the_extra_names_the_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LLM2CompError, match=r'pip install "llm2comp\[eval\]"'):
        Bm25()
