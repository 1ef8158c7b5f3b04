"""Metrics against values worked out by hand, and against the libraries whose conventions they follow."""

from math import log2

import numpy as np
import pytest

from llm2comp_benchmarks.metrics import Qrels, Run, ranked, score_rankings, spearman


def ranking(*documents: str) -> dict[str, float]:
    return {document: float(-position) for position, document in enumerate(documents)}


def test_one_query_by_hand() -> None:
    """Grades 3, 0, 1 found at ranks 2, 1, 4; a relevant document of grade 2 not found."""
    qrels = {"q": {"a": 3, "b": 0, "c": 1, "lost": 2}}
    metrics = score_rankings(qrels, {"q": ranking("b", "a", "x", "c")}).metrics
    gain = 3 / log2(3) + 1 / log2(5)
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    assert metrics["ndcg_at_10"] == pytest.approx(gain / ideal)
    assert metrics["map_at_1000"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert metrics["recall_at_100"] == pytest.approx(2 / 3)
    assert metrics["mrr_at_10"] == pytest.approx(1 / 2)


def test_depths() -> None:
    """A relevant document at rank 11, one at rank 101, one at rank 1001."""
    others = [f"x{number}" for number in range(1000)]
    documents = [*others[:10], "a", *others[10:99], "b", *others[99:998], "c"]
    metrics = score_rankings({"q": {"a": 1, "b": 1, "c": 1}}, {"q": ranking(*documents)}).metrics
    assert (documents.index("a"), documents.index("b"), documents.index("c")) == (10, 100, 1000)
    assert metrics["ndcg_at_10"] == metrics["mrr_at_10"] == 0
    assert metrics["recall_at_100"] == pytest.approx(1 / 3)
    assert metrics["map_at_1000"] == pytest.approx((1 / 11 + 2 / 101) / 3)


def test_judged_queries_missing_from_the_run_count_as_zero_and_queries_without_judgements_do_not_count() -> None:
    qrels = {"found": {"a": 1}, "missing": {"a": 1}, "empty": {"a": 1}, "hopeless": {"a": 0}}
    run = {"found": ranking("a"), "empty": {}, "hopeless": ranking("a"), "not judged": ranking("b")}
    scores = score_rankings(qrels, run)
    assert scores.metrics == dict.fromkeys(("ndcg_at_10", "map_at_1000", "recall_at_100", "mrr_at_10"), 1 / 4)
    assert scores.missing == 2
    assert set(scores.per_query) == set(qrels)
    assert scores.per_query["missing"]["ndcg_at_10"] == 0


def test_ties_fall_to_the_higher_id_in_every_metric() -> None:
    """trec_eval ranks equal scores by descending id, and holds scores as 32-bit floats."""
    tied = {"a": 1.0, "b": 1.0 + 1e-12, "c": 1.0}
    assert ranked(tied) == ["c", "b", "a"]
    metrics = score_rankings({"q": {"b": 1}}, {"q": tied}).metrics
    assert metrics["mrr_at_10"] == metrics["map_at_1000"] == pytest.approx(1 / 2)
    assert metrics["ndcg_at_10"] == pytest.approx(1 / log2(3))


def test_ties_across_the_cut_at_ten() -> None:
    """Eleven equal scores: the lowest id is the one that falls off."""
    run = {"q": {f"d{number:02}": 1.0 for number in range(11)}}
    assert score_rankings({"q": {"d00": 1}}, run).metrics["mrr_at_10"] == 0
    assert score_rankings({"q": {"d01": 1}}, run).metrics["mrr_at_10"] == pytest.approx(1 / 10)


def random_set(seed: int) -> tuple[Qrels, Run]:
    """Graded judgements, with negative ones, and rankings with many ties."""
    random = np.random.default_rng(seed)
    documents = [f"d{number}" for number in range(300)]
    qrels = {
        f"q{q}": {str(d): int(random.integers(-1, 4)) for d in random.choice(documents, 20, replace=False)}
        for q in range(30)
    }
    run = {
        query: {str(d): float(random.integers(0, 40)) / 7 for d in random.choice(documents, 150, replace=False)}
        for query in qrels
    }
    return qrels, run


@pytest.mark.parametrize("seed", range(3))
def test_same_as_pytrec_eval(seed: int) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels, run = random_set(seed)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map", "recall.100"}).evaluate(run)
    ours = score_rankings(qrels, run)
    for name, trec_name in {"ndcg_at_10": "ndcg_cut_10", "map_at_1000": "map", "recall_at_100": "recall_100"}.items():
        assert ours.metrics[name] == pytest.approx(
            np.mean([values[trec_name] for values in theirs.values()]), abs=1e-12
        )
        assert {query: values[name] for query, values in ours.per_query.items()} == {
            query: values[trec_name] for query, values in theirs.items()
        }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("seed", range(3))
def test_same_as_mteb(seed: int) -> None:
    """mteb computes reciprocal ranks by its own code, and rounds means to five decimals."""
    theirs = pytest.importorskip("mteb._evaluators.retrieval_metrics")
    qrels, run = random_set(seed)
    expected = theirs.calculate_retrieval_scores(run, qrels, [10, 100, 1000])
    ours = score_rankings(qrels, run).metrics
    assert ours["ndcg_at_10"] == pytest.approx(expected.ndcg["NDCG@10"], abs=1e-5)
    assert ours["map_at_1000"] == pytest.approx(expected.map["MAP@1000"], abs=1e-5)
    assert ours["recall_at_100"] == pytest.approx(expected.recall["Recall@100"], abs=1e-5)
    assert ours["mrr_at_10"] == pytest.approx(expected.mrr["MRR@10"], abs=1e-12)


def test_spearman_with_a_tie_by_hand() -> None:
    """Ranks 1, 2, 3, 4 against 1, 3.5, 2, 3.5, by Pearson's formula on the ranks, worked out below."""
    ranks = [np.array([1, 2, 3, 4.0]), np.array([1, 3.5, 2, 3.5])]
    covariance = float(np.sum((ranks[0] - 2.5) * (ranks[1] - 2.5)))
    assert covariance == 3
    assert spearman(np.array([10, 20, 30, 40]), np.array([0.0, 5, 1, 5])) == pytest.approx(
        covariance / (5 * 4.5) ** 0.5
    )
