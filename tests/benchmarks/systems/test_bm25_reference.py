"""The system bm25 gives the reference figures published with the evaluation sets.

Title and text as one field, English stop words, Porter2 stemming, Lucene scoring with k1 = 1.2, b = 0.75. Skipped where
the sets are not at hand.
"""

import pytest

from llm2comp_benchmarks import RetrievalTask, evaluate_run, read_beir, read_sts
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.systems.load import load_model
from llm2comp_benchmarks.tasks.retrieval import search_task
from tests.paths import EVAL

NEAR = 0.002

pytestmark = pytest.mark.skipif(
    not EVAL.is_dir(), reason="the evaluation sets are not here; LLM2COMP_DATA names their folder"
)


def rank_by_bm25(task: RetrievalTask) -> Run:
    for package in ("bm25s", "nltk"):
        pytest.importorskip(package, reason="needs the extra eval")
    return search_task(task, load_model("bm25"))[0]


def read_source_documents() -> dict[str, str]:
    lines = (EVAL / "cranfield" / "source-documents.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)


@pytest.mark.parametrize(
    ("name", "split", "ndcg", "recall"),
    [
        pytest.param("scifact", "test", 0.679, 0.913, marks=pytest.mark.slow),
        pytest.param("scifact", "train", 0.696, 0.928, marks=pytest.mark.slow),
        ("cranfield", "test", 0.360, 0.731),
        ("xquad", "test", 0.967, 0.997),
    ],
)
def test_bm25_reference_figures(name: str, split: str, ndcg: float, recall: float) -> None:
    task = read_beir(EVAL / name, split=split)
    metrics = evaluate_run(task, rank_by_bm25(task)).metrics
    assert metrics["ndcg_at_10"] == pytest.approx(ndcg, abs=NEAR)
    assert metrics["recall_at_100"] == pytest.approx(recall, abs=NEAR)


def test_cranfield_without_the_papers_the_questions_arose_from() -> None:
    task, sources = read_beir(EVAL / "cranfield"), read_source_documents()
    run = {
        query: {document: score for document, score in scores.items() if document != sources[query]}
        for query, scores in rank_by_bm25(task).items()
    }
    metrics = evaluate_run(task, run).metrics
    assert metrics["ndcg_at_10"] == pytest.approx(0.410, abs=NEAR)
    assert metrics["recall_at_100"] == pytest.approx(0.733, abs=NEAR)


def test_cranfield_numbers_its_queries_and_documents_alike_and_nothing_is_dropped_for_it() -> None:
    assert read_beir(EVAL / "cranfield").details["identical_ids"] == {"rule": "auto", "shared": 225, "dropped": 0}


def test_every_pair_of_the_similarity_benchmark_is_read() -> None:
    assert read_sts(EVAL / "stsb" / "test.tsv.gz").details["pairs"] == 1379
