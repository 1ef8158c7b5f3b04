"""Quality of an index on disk: its answers to judged questions, chunks joined to documents."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import CorpusError
from llm2comp_benchmarks.metrics import Qrels, Run, load_pytrec_eval, score_rankings
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_indexes import Index, SearchOptions
from llm2comp_indexes.search.lookup import find_rows
from llm2comp_indexes.search.options import count_candidates

__all__ = ["Mode", "check_judged", "evaluate_index"]

Mode = Literal["dense", "bm25", "hybrid"]
_DEPTH = 1000
_AT_ONCE = 256
_NAMED = 3
_logger = logging.getLogger(__name__)


def evaluate_index(
    index: Index,
    queries: dict[str, str],
    qrels: Qrels,
    *,
    mode: Mode = "dense",
    options: SearchOptions | None = None,
    vectors: dict[str, NDArray[np.float32]] | None = None,
) -> TaskResult:
    """Metrics of the documents that the index finds for judged questions, each at the place of its best chunk.

    `seconds` is the time of encoding and searching; the model is loaded before. Judged documents that the index does
    not hold stay in the ideal ranking, as in every test set, and a warning names them.

    Args:
        index: The index, open.
        queries: Questions by id; those that are not judged are not asked.
        qrels: Grades by question id and document id.
        mode: By vectors, by words, or by both.
        options: Effort, fusion, weights and rescoring; None: those of the index, and none. Its mode and grouping are
            not used. Rescored, only candidates are ranked.
        vectors: Vectors of the questions by id, (dimension,) each; None: the model of the index encodes them.

    Raises:
        CorpusError: No judged question has a text, or the index holds none of the judged documents.
        SettingsError: The mode needs a BM25 index, or rescoring vectors of memory tokens, and there are none.
    """
    load_pytrec_eval()
    judged = check_judged(index, queries, qrels)
    chosen = options or SearchOptions()
    search = replace(chosen, mode=mode, by="document", where=None)
    depth = _DEPTH if search.rescore is None else min(_DEPTH, count_candidates(search, 1))
    encodes = search.uses_model and vectors is None
    if encodes:
        index.model  # noqa: B018  # loaded now: its time is not that of the questions
    start, run = time.perf_counter(), dict[str, dict[str, float]]()
    names = list(judged)
    for first in range(0, len(names), _AT_ONCE):
        block = names[first : first + _AT_ONCE]
        made = None if vectors is None else np.stack([vectors[name] for name in block])
        answers = index.search([queries[name] for name in block], k=depth, options=search, vectors=made)
        for name, hits in zip(block, answers, strict=True):
            run[name] = {hit.document_id: hit.score for hit in hits}
    seconds = time.perf_counter() - start
    return _score(index, judged, run, search, seconds, encoded=encodes)


def _score(
    index: Index, judged: Qrels, run: Run, search: SearchOptions, seconds: float, *, encoded: bool
) -> TaskResult:
    scores = score_rankings(judged, run)
    details = {
        "index": str(index.folder),
        "commit": index.manifest.commit,
        "mode": search.mode,
        **({"fusion": search.fusion, "weights": list(search.fused_weights)} if search.mode == "hybrid" else {}),
        **({"rescore": search.rescore, "candidates": count_candidates(search, 1)} if search.rescore else {}),
        "documents": len(index),
        "rows": index.manifest.rows,
        "queries": len(judged),
        "ms_per_query": round(1000 * seconds / len(judged), 3),
        "ms_contain": "encoding and search, in batches" if encoded else "search",
    }
    samples = Samples.of_queries("ndcg_at_10", scores.per_query)
    name = Path(index.folder).resolve().name
    return TaskResult(name, scores.metrics, details, seconds, scores.per_query, run, samples)


def check_judged(index: Index, queries: dict[str, str], qrels: Qrels) -> Qrels:
    """The judgements of questions that have a text and a relevant document; a warning counts what is left out.

    Raises:
        CorpusError: There are none, or the index holds none of the documents that they name.
    """
    judged = {
        name: grades
        for name, grades in qrels.items()
        if name in queries and any(grade > 0 for grade in grades.values())
    }
    if not judged:
        raise CorpusError(
            f"none of the {len(qrels):,} judged questions has a text and a relevant document (judged is "
            f"{next(iter(qrels))!r:.60}, a question is {next(iter(queries))!r:.60}): the files do not belong together"
        )
    relevant = list(dict.fromkeys(doc for grades in judged.values() for doc, grade in grades.items() if grade > 0))
    absent = _find_absent(index, relevant)
    if len(absent) == len(relevant):
        raise CorpusError(
            f"{index.folder}: holds none of the {len(relevant):,} documents that the judgements name, such as "
            f"{relevant[0]!r:.60}; give the judgements of its documents' ids"
        )
    parts = [f"{len(qrels) - len(judged):,} of {len(qrels):,} judged questions have no text or no relevant document"]
    parts = parts if len(judged) < len(qrels) else []
    if absent:
        named = ", ".join(f"{name!r:.60}" for name in absent[:_NAMED])
        parts.append(
            f"{len(absent):,} of {len(relevant):,} documents judged relevant are not in the index and count as not "
            f"found ({named}{' …' if len(absent) > _NAMED else ''})"
        )
    if parts:
        _logger.warning("%s: %s", index.folder, "; ".join(parts))
    return judged


def _find_absent(index: Index, names: list[str]) -> list[str]:
    return [name for name, rows in zip(names, find_rows(index, names), strict=True) if not rows]
