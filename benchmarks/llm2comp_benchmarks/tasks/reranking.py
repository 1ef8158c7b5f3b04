"""Reranking: ranks of the positive texts among a few texts for each query."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2comp.corpus.records import read_json_lines
from llm2comp.errors import CorpusError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.metrics import load_pytrec_eval, score_rankings
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_benchmarks.tasks.encoding import document_vectors, query_vectors
from llm2comp_benchmarks.tasks.tsv import task_name

__all__ = ["Candidates", "RerankingTask", "evaluate_reranking", "read_reranking"]

_METRICS = ("map_at_1000", "ndcg_at_10", "mrr_at_10")


@dataclass(frozen=True)
class Candidates:
    """A query, one or more texts that answer it, and one or more that do not."""

    query: str
    positive: list[str]
    negative: list[str]


@dataclass(frozen=True)
class RerankingTask:
    """A reranking set.

    Attributes:
        name: Key of its results.
        queries: Queries and their texts by id.
        details: Source and counts, reported with the metrics.
    """

    name: str
    queries: dict[str, Candidates]
    details: dict[str, Any]


def read_reranking(path: str | Path) -> RerankingTask:
    """The task in a file of JSON lines `{"query", "positive": [texts], "negative": [texts]}`, named as by `read_sts`.

    The id of a query is "q" and the number of its line. The file can be compressed.

    Raises:
        CorpusError: The file cannot be read, has no query, or a line is malformed or has no positive or no negative
            text.
    """
    queries = {f"q{number}": _candidates(fields, f"{path}:{number}") for number, fields in read_json_lines(path)}
    if not queries:
        raise CorpusError(
            f'{path}: no query in it, expected lines of {{"query": text, "positive": [texts], "negative": [texts]}}'
        )
    name, split = task_name(path)
    positives, negatives = (
        sum(len(getattr(candidates, side)) for candidates in queries.values()) for side in ("positive", "negative")
    )
    return RerankingTask(
        name,
        queries,
        {"source": str(path), "split": split, "queries": len(queries), "positives": positives, "negatives": negatives},
    )


def _candidates(fields: dict[str, Any], place: str) -> Candidates:
    if not isinstance(fields.get("query"), str):
        raise CorpusError(
            f'{place}: expected {{"query": text, "positive": [texts], "negative": [texts]}}, the query is missing or '
            "no text"
        )
    for side in ("positive", "negative"):
        texts = fields.get(side)
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise CorpusError(f"{place}: {side!r} is {json.dumps(texts):.40}, expected a list of one text or more")
    return Candidates(fields["query"], fields["positive"], fields["negative"])


def evaluate_reranking(task: RerankingTask, model: Encoder, *, batch_size: int = 32) -> TaskResult:
    """MAP, nDCG@10 and MRR@10 by trec_eval of each query's texts, ranked by the model's similarity, as in mteb.

    Equal scores count against the model: a negative text is ranked above a positive one.
    """
    load_pytrec_eval()
    start = time.perf_counter()
    texts = sorted(
        {text for candidates in task.queries.values() for text in (*candidates.positive, *candidates.negative)}
    )
    row = {text: position for position, text in enumerate(texts)}
    documents = document_vectors(model, texts, batch_size)
    queries = query_vectors(model, [candidates.query for candidates in task.queries.values()], batch_size)
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for vector, (query, candidates) in zip(queries, task.queries.items(), strict=True):
        scores = documents[[row[text] for text in (*candidates.positive, *candidates.negative)]] @ vector
        # Of equal scores trec_eval puts the greater id first.
        ids = [
            *(f"a{position}" for position in range(len(candidates.positive))),
            *(f"b{position}" for position in range(len(candidates.negative))),
        ]
        qrels[query] = {document: int(document.startswith("a")) for document in ids}
        run[query] = dict(zip(ids, scores.tolist(), strict=True))
    scored = score_rankings(qrels, run)
    per_query = {query: {name: values[name] for name in _METRICS} for query, values in scored.per_query.items()}
    metrics = {name: scored.metrics[name] for name in _METRICS}
    samples = Samples.of_queries("map_at_1000", per_query)
    return TaskResult(task.name, metrics, task.details, time.perf_counter() - start, per_query, samples=samples)
