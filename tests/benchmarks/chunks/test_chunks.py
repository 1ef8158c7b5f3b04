"""The benchmark of chunks: passages put together, ranks and answers counted as written by hand."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llm2comp_benchmarks.chunks.corpus import Passage, PassageCorpus, join_passages
from llm2comp_benchmarks.chunks.measure import BUDGETS, score
from llm2comp_benchmarks.chunks.run import WAYS, measure_ways
from llm2comp_indexes import Hit
from tests.indexes.live import ChunkingEncoder
from tests.paths import RESULTS, ROOT


@pytest.fixture
def corpus(tmp_path: Path) -> PassageCorpus:
    folder = tmp_path / "passages"
    (folder / "qrels").mkdir(parents=True)
    passages = [("p1", "Sea", "Salt water. Big waves."), ("p2", "Sea", "The moon pulls tides."), ("p3", "Sun", "Hot.")]
    write(folder / "corpus.jsonl.gz", [{"_id": one, "title": title, "text": text} for one, title, text in passages])
    write(folder / "queries.jsonl.gz", [{"_id": "q1", "text": "what pulls?"}, {"_id": "q2", "text": "how warm?"}])
    write(folder / "answers.jsonl.gz", [{"_id": "q1", "answers": ["moon"]}, {"_id": "q2", "answers": ["Hot"]}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp2\t1\nq2\tp3\t1\n")
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "o", "title": "Other", "text": "One.\\nTwo moon."}\n{"id": "p", "text": "Three."}\n')
    return join_passages(folder, [other], 1)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_passages_of_a_title_are_one_document(corpus: PassageCorpus) -> None:
    assert [(document.id, document.title, document.text) for document in corpus.documents] == [
        ("article-0", "Sea", "Salt water. Big waves.\n\nThe moon pulls tides."),
        ("article-1", "Sun", "Hot."),
        ("other-o", "Other", "One.\n\nTwo moon."),
    ]
    assert [question.passage for question in corpus.questions] == [
        Passage("article-0", 24, 45),
        Passage("article-1", 0, 4),
    ]


def test_scores_written_by_hand(corpus: PassageCorpus) -> None:
    hits = {
        "other-o": Hit("other-o", 0.9, "", "Two moon.", {}),
        "article-0#1": Hit(
            "article-0#1", 0.8, "", "Salt water.", {"llm2comp_document": "article-0", "llm2comp_chunk": 1}
        ),
        "article-0#2": Hit("article-0#2", 0.7, "", "The moon", {"llm2comp_document": "article-0", "llm2comp_chunk": 2}),
        "article-1": Hit("article-1", 0.6, "", "Hot.", {}),
    }
    results = [[hits["other-o"], hits["article-0#1"], hits["article-0#2"]], [hits["article-1"]]]
    scores = score(corpus, results, {name: 300 for name in hits})
    assert scores == (0.5, (1 / 3 + 1) / 2, {512: 0.5, 1024: 1.0, 2048: 1.0})


def test_every_way_of_cutting_is_measured(corpus: PassageCorpus, tmp_path: Path) -> None:
    rows = measure_ways(corpus, tmp_path, model=ChunkingEncoder(), sizes=(4, 8))
    assert [(row["cut"], row["chunk_tokens"]) for row in rows] == [(way, size) for size in (4, 8) for way in WAYS]
    assert all(0 <= row["passage_mrr_at_10"] <= 1 for row in rows)
    assert rows[0]["chunks"] > rows[-1]["chunks"]


def test_the_published_table_is_the_published_result() -> None:
    page = (ROOT / "docs" / "indexing" / "build.md").read_text(encoding="utf-8")
    table = page.partition("| chunks end at |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = json.loads((RESULTS / "chunks-xquad.json").read_text(encoding="utf-8"))["rows"]
    shares = ("passage_at_1", "passage_mrr_at_10", *(f"answer_in_{budget}_tokens" for budget in BUDGETS))
    expected = [
        [f"{row['chunk_tokens']}", row["cut"], f"{row['chunks']:,}", f"{row['mean_tokens']:.0f}"]
        + [f"{row[name]:.3f}" for name in shares]
        for row in rows
    ]
    assert [line.strip("| ").split(" | ") for line in table] == expected
