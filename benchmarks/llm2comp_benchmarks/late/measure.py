"""One retrieval set by vectors, and by MaxSim over memory tokens, stored in several ways and fewer of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.late_interaction import TextVectors, maxsim
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask, evaluate_run
from llm2comp_indexes.format.memory_vectors import MemoryForm, MemoryWriter, open_memory, to_codes
from llm2comp_indexes.options import MEMORY_KINDS

__all__ = ["CANDIDATES", "System", "compare_set", "sample_key"]

CANDIDATES = 100
_DEPTH = 1000
Scorer = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]
"""From a query's vectors of memory tokens (k, dim) and rows of documents to their scores (rows,)."""


class System(NamedTuple):
    """A ranking of a set.

    Attributes:
        name: `dense`, or `maxsim` with how its vectors are stored and how many there are.
        row: Its entry in a result file.
        values: nDCG@10 of each query.
    """

    name: str
    row: dict[str, Any]
    values: list[float]


def compare_set(task: RetrievalTask, model: Any, workdir: Path, *, candidates: int = CANDIDATES) -> list[System]:
    """The ranking by vectors, then its first documents ordered by MaxSim in each way.

    Ways are all memory tokens as float32, int8 and binary, and the first 1, 2, 4 … of them as float32, of queries and
    documents alike. Everything is encoded once.

    Args:
        task: The set.
        model: A model with memory tokens.
        workdir: Folder for the files of stored vectors, which are the files of an index.
        candidates: Number of documents of a query that are ordered.
    """
    documents = list(task.documents())
    made = model.encode_vectors([document.content for document in documents])
    asked = model.encode_vectors(list(task.queries.values()), task="query")
    names, start = [document.id for document in documents], time.perf_counter()
    scores = asked.pooled @ made.pooled.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    dense_ms = 1000 * (time.perf_counter() - start) / len(asked.pooled)
    run = _to_run(task, names, order, np.take_along_axis(scores, order, axis=1))
    dimension = made.pooled.shape[1]
    systems = [_system(task, "dense", run, {"bytes_per_document": 4 * dimension, "ms_per_query": round(dense_ms, 3)})]
    for name, facts, scorer in _ways(made, workdir):
        rescored, times = [], []
        for query, rows in zip(asked.memory, order[:, :candidates], strict=True):
            begin = time.perf_counter()
            rescored.append(scorer(query, rows))
            times.append(1000 * (time.perf_counter() - begin))
        run = _to_run(task, names, order[:, :candidates], np.stack(rescored))
        systems.append(_system(task, name, run, facts | {"ms_per_query": round(float(np.median(times)), 3)}))
    systems[0].row["cosine_of_memory_tokens"] = round(_mean_cosine(made.memory), 3)
    return systems


def sample_key(row: dict[str, Any]) -> str:
    """Key of the samples of a row of a result file."""
    return " ".join(row[part] for part in ("model", "set", "system") if part in row)


def _ways(made: TextVectors, workdir: Path) -> Iterator[tuple[str, dict[str, Any], Scorer]]:
    """Name, facts and scorer of each way of storing the memory tokens of the documents."""
    count, tokens, dimension = made.memory.shape
    counts: Sequence[int] = [1 << power for power in range(tokens.bit_length()) if 1 << power < tokens]
    for kept in [tokens, *reversed(counts)]:
        facts = {"vectors": "float32", "tokens": kept, "bytes_per_document": 4 * kept * dimension}
        yield f"maxsim float32 {kept}", facts, _first_tokens(made.memory, kept)
    for kind in MEMORY_KINDS:
        form = MemoryForm(kind, tokens, dimension)
        with MemoryWriter(workdir / kind, form) as writer:
            writer.append(to_codes(made.memory, form))
            writer.finish()
        facts = {"vectors": kind, "tokens": tokens, "bytes_per_document": form.row_bytes}
        yield f"maxsim {kind} {tokens}", facts, open_memory(workdir / kind, form, rows=count).scores


def _first_tokens(memory: NDArray[np.float32], kept: int) -> Scorer:
    def score(query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return maxsim(query[None, :kept], memory[rows, :kept]).ravel()

    return score


def _to_run(task: RetrievalTask, names: list[str], order: NDArray[np.int64], scores: NDArray[np.float32]) -> Run:
    return {
        query: {names[row]: score for row, score in zip(rows, its_scores, strict=True)}
        for query, rows, its_scores in zip(task.queries, order.tolist(), scores.tolist(), strict=True)
    }


def _system(task: RetrievalTask, name: str, run: Run, facts: dict[str, Any]) -> System:
    result = evaluate_run(task, run)
    metrics = {metric: round(result.metrics[metric], 5) for metric in ("ndcg_at_10", "recall_at_100")}
    values = [round(result.per_query[query]["ndcg_at_10"], 4) for query in task.qrels]
    return System(name, {"set": task.name, "system": name, **metrics, **facts}, values)


def _mean_cosine(memory: NDArray[np.float32]) -> float:
    """Mean cosine of two memory tokens of a text; 1 if it has only one."""
    tokens = memory.shape[1]
    if tokens == 1:
        return 1.0
    total = float((memory.sum(axis=1) ** 2).sum() / len(memory))  # of all pairs, each token with itself too
    return float((total - tokens) / (tokens * (tokens - 1)))
