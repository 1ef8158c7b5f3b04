"""Chunks by fidelity beside chunks of one length: rows in pairs, at about equal numbers of chunks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.model import LLM2Comp
from llm2comp_benchmarks.chunks.corpus import Passage, PassageCorpus, Question
from llm2comp_benchmarks.chunks.fidelity import measure_pairs, nearest_size
from llm2comp_indexes import IndexOptions
from llm2comp_indexes.builder.chunks import make_splitter
from tests.training.tiny import text


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LLM2Comp]) -> LLM2Comp:
    return make_model(max_length=200)


@pytest.fixture(scope="module")
def corpus() -> PassageCorpus:
    documents = [Document(f"d{number}", "", text(number, 60)) for number in range(3)]
    questions = [Question(f"q{number}", text(number, 5), Passage(f"d{number}", 0, 40), ()) for number in range(3)]
    return PassageCorpus(documents, questions)


def test_the_size_makes_the_nearest_number_of_chunks(model: LLM2Comp, corpus: PassageCorpus) -> None:
    for wanted in (6, 12, 30):
        size = nearest_size(corpus, model, wanted)

        def chunks(tokens: int) -> int:
            split = make_splitter(IndexOptions(chunk_tokens=tokens), model)
            return sum(len(split(document)) for document in corpus.documents)

        found = abs(chunks(size) - wanted)
        assert found <= min(abs(chunks(size + step) - wanted) for step in (-1, 1))


def test_rows_come_in_pairs(model: LLM2Comp, corpus: PassageCorpus, tmp_path: Path) -> None:
    rows = measure_pairs(corpus, tmp_path, model=model, shares=(0.001, 0.9))
    assert [row["cut"] for row in rows] == ["fidelity", "length"] * 2
    assert [row.get("chunk_fidelity") for row in rows[::2]] == [0.001, 0.9]
    assert rows[0]["chunks"] <= rows[2]["chunks"]
    assert all(0 <= row["passage_mrr_at_10"] <= 1 for row in rows)
