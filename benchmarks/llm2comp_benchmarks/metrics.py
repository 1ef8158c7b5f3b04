"""Scores of rankings and of sentence pairs under mteb's names."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.optional import optional_import

__all__ = [
    "RETRIEVAL_METRICS",
    "Qrels",
    "RankingScores",
    "Run",
    "load_pytrec_eval",
    "ranked",
    "score_rankings",
    "spearman",
]

Qrels = dict[str, dict[str, int]]
"""Grades by query id and document id; a grade above 0 is relevant, a missing document is not."""
Run = dict[str, dict[str, float]]
"""Scores by query id and document id; higher ranks first."""

RETRIEVAL_METRICS = ("ndcg_at_10", "map_at_1000", "recall_at_100", "mrr_at_10")
_TREC_NAMES = {"ndcg_at_10": "ndcg_cut_10", "map_at_1000": "map_cut_1000", "recall_at_100": "recall_100"}
_MRR_DEPTH = 10


@dataclass(frozen=True)
class RankingScores:
    """Retrieval metrics of one run.

    Attributes:
        metrics: Mean over all judged queries, by metric name.
        per_query: The same by query id.
        missing: Judged queries without a ranking; each counts as 0 in every mean.
    """

    metrics: dict[str, float]
    per_query: dict[str, dict[str, float]]
    missing: int


def ranked(scores: dict[str, float]) -> list[str]:
    """Document ids, best first, in the order of trec_eval: by score as 32-bit float, equal ones by descending id."""
    singles = np.fromiter(scores.values(), np.float32, len(scores)).tolist()
    return [document for _, document in sorted(zip(singles, scores, strict=True), reverse=True)]


def score_rankings(qrels: Qrels, run: Run) -> RankingScores:
    """nDCG@10, MAP, Recall@100 and MRR@10 as trec_eval computes them.

    nDCG takes grades as linear gains. MAP is over the first 1,000 documents. MRR@10 is trec_eval's reciprocal rank of
    rankings cut after ten documents. Queries without judgements are ignored; judged queries without a ranking count as
    0, so leaving out hard queries gains nothing.

    Args:
        qrels: Judgements; at least one query.
        run: Rankings by query id.
    """
    full = _trec_eval(qrels, run, {"ndcg_cut.10", "map_cut.1000", "recall.100"})
    cut = {
        query: {document: scores[document] for document in ranked(scores)[:_MRR_DEPTH]}
        for query, scores in run.items()
        if query in qrels
    }
    reciprocal = _trec_eval(qrels, cut, {"recip_rank"})
    per_query = {
        query: {name: full.get(query, {}).get(trec_name, 0.0) for name, trec_name in _TREC_NAMES.items()}
        | {"mrr_at_10": reciprocal.get(query, {}).get("recip_rank", 0.0)}
        for query in qrels
    }
    return RankingScores(_mean_scores(per_query), per_query, sum(not run.get(query) for query in qrels))


def _mean_scores(per_query: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([scores[name] for scores in per_query.values()])) for name in RETRIEVAL_METRICS}


def _trec_eval(qrels: Qrels, run: Run, measures: set[str]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = (
        load_pytrec_eval()
        .RelevanceEvaluator(qrels, measures)
        .evaluate({query: ranking for query, ranking in run.items() if ranking})
    )
    return scores


def load_pytrec_eval() -> Any:
    """The scoring library; called before the encoding too, so that its absence costs no time.

    Raises:
        LLM2CompError: It is not installed.
    """
    return optional_import("pytrec_eval", extra="eval", needed_by="scoring rankings")


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's rank correlation of two arrays (n,), neither constant; equal values share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
