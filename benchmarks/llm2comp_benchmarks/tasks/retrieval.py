"""Retrieval tasks: a corpus, queries and judgements, read from a BEIR folder; scores of a model or of a ready run."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
from llm2comp.errors import CorpusError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.metrics import Qrels, Run, load_pytrec_eval, score_rankings
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_benchmarks.tasks.encoding import Searcher
from llm2comp_benchmarks.tasks.exact_search import exact_search

__all__ = ["IdenticalIds", "RetrievalTask", "evaluate_run", "read_beir", "search_task"]

IdenticalIds = Literal["auto", "drop", "keep"]
_PACKED = ("", ".gz", ".xz", ".zst")
_QUERY_FILES = [
    f"queries{suffix}{packed}" for suffix in (".jsonl", ".json", ".tsv", ".csv", ".parquet") for packed in _PACKED
]


@dataclass(frozen=True)
class RetrievalTask:
    """A retrieval test set.

    Attributes:
        name: Key of its results.
        documents: Opens the corpus; each call streams it from the start.
        queries: Texts of the judged queries by id.
        qrels: Judgements; every relevant document is in the corpus.
        self_matches: Ids of queries that are documents themselves; rankings leave out the document of the same id.
        details: Source and counts, reported with the metrics.
    """

    name: str
    documents: Callable[[], Iterable[Document]]
    queries: dict[str, str]
    qrels: Qrels
    self_matches: frozenset[str] = frozenset()
    details: dict[str, Any] = field(default_factory=dict)


def read_beir(folder: str | Path, *, split: str = "test", identical_ids: IdenticalIds = "auto") -> RetrievalTask:
    """The task in a BEIR folder: `corpus.jsonl`, `queries.jsonl` (compressed or not) and `qrels/<split>.tsv`.

    In some sets (ArguAna, Quora) queries are documents of the corpus, and finding a query's copy says nothing. In
    others (Cranfield, FiQA) ids of queries and documents are equal by chance.

    Args:
        folder: The folder; its name becomes the task's.
        split: Of the judgements.
        identical_ids: Whether rankings leave out the document with the id of the query. "auto": if it has the text of
            the query and is not judged relevant to it. "drop": always, as BEIR and mteb's `ignore_identical_ids` do.
            "keep": never.

    Raises:
        CorpusError: A file is missing or malformed, or a judgement names a query or document that does not exist.
    """
    root = Path(folder)
    documents = read_corpus(root)
    qrels_file = _find_qrels(root, split)
    qrels, queries = read_qrels(qrels_file), read_queries(_find_queries(root))
    unknown = [query for query in qrels if query not in queries]
    if unknown:
        raise CorpusError(
            f"{qrels_file}: {len(unknown)} of {len(qrels)} judged queries are not in the queries file{_first(unknown)}"
        )
    judged = {query: queries[query] for query in qrels}
    survey = _survey(documents, judged, qrels)
    if survey.absent:
        raise CorpusError(
            f"{qrels_file}: {len(survey.absent)} documents judged relevant are not in the corpus{_first(survey.absent)}"
        )
    dropped = {"auto": survey.self_matches, "drop": survey.identical_ids, "keep": frozenset[str]()}[identical_ids]
    details = {
        "source": str(folder),
        "split": split,
        "queries": len(judged),
        "documents": survey.documents,
        "judgements": sum(map(len, qrels.values())),
        "identical_ids": {"rule": identical_ids, "shared": len(survey.identical_ids), "dropped": len(dropped)},
    }
    return RetrievalTask(root.resolve().name, lambda: read_corpus(root), judged, qrels, dropped, details)


def _find_queries(root: Path) -> Path:
    for name in _QUERY_FILES:
        if (root / name).is_file():
            return root / name
    raise CorpusError(
        f"{root}: no queries.jsonl (or .gz, .xz, .zst) in it; expected a BEIR folder with corpus.jsonl, queries.jsonl "
        "and qrels/"
    )


def _find_qrels(root: Path, split: str) -> Path:
    folder = root / "qrels"
    for packed in _PACKED:
        if (folder / f"{split}.tsv{packed}").is_file():
            return folder / f"{split}.tsv{packed}"
    splits = sorted({path.name.partition(".")[0] for path in folder.glob("*.tsv*")})
    hint = f"there is {', '.join(splits)}; choose with --split" if splits else "expected judgements in qrels/SPLIT.tsv"
    raise CorpusError(f"{folder / split}.tsv: no such file; {hint}")


def _first(ids: list[str]) -> str:
    return f", the first is {ids[0]!r}; add what is missing or take out the judgements"


class _Survey(NamedTuple):
    documents: int
    absent: list[str]
    identical_ids: frozenset[str]
    self_matches: frozenset[str]


def _survey(documents: Iterable[Document], queries: dict[str, str], qrels: Qrels) -> _Survey:
    """One pass over the corpus before anything is encoded, so that a faulty set fails in seconds, not after hours."""
    missing = dict.fromkeys(document for grades in qrels.values() for document, grade in grades.items() if grade > 0)
    count, identical, same = 0, set(), set()
    for document in documents:
        count += 1
        missing.pop(document.id, None)
        if document.id in queries:
            identical.add(document.id)
            texts = {_squeeze(text) for text in (document.title, document.text, document.content)}
            if _squeeze(queries[document.id]) in texts and qrels[document.id].get(document.id, 0) <= 0:
                same.add(document.id)
    return _Survey(count, list(missing), frozenset(identical), frozenset(same))


def _squeeze(text: str) -> str:
    return " ".join(text.lower().split())


def search_task(
    task: RetrievalTask, model: Encoder | Searcher, *, k: int = 1000, batch_size: int = 32
) -> tuple[Run, float]:
    """The k best documents of every query, self matches included, and the seconds of encoding and search."""
    load_pytrec_eval()
    start = time.perf_counter()
    if isinstance(model, Searcher):
        run = model.search(task.documents(), task.queries, k=k)
    else:
        run = exact_search(model, task.documents(), task.queries, k=k, batch_size=batch_size, name=task.name)
    return run, time.perf_counter() - start


def evaluate_run(task: RetrievalTask, run: Run, *, seconds: float = 0.0) -> TaskResult:
    """Metrics of a run, ours or one read from a file; judged queries without a ranking count as 0.

    Args:
        task: The test set.
        run: Rankings by query id.
        seconds: Time that the run took; the time of scoring is added.

    Raises:
        CorpusError: None of the judged queries has a ranking.
    """
    start = time.perf_counter()
    if not any(run.get(query) for query in task.qrels):
        first, judged = next(iter(run), "none"), next(iter(task.qrels))
        raise CorpusError(
            f"{task.name}: the run ranks documents for none of the {len(task.qrels)} judged queries (it has "
            f"{first!r}, judged is {judged!r})"
        )
    rankings = _without_self_matches(run, task.self_matches)
    scores = score_rankings(task.qrels, rankings)
    details = task.details | {"queries_missing_from_run": scores.missing}
    samples = Samples.of_queries("ndcg_at_10", scores.per_query)
    return TaskResult(
        task.name, scores.metrics, details, seconds + time.perf_counter() - start, scores.per_query, rankings, samples
    )


def _without_self_matches(run: Run, self_matches: frozenset[str]) -> Run:
    # As in mteb, taken out after the search: such a ranking is one document shorter.
    return run | {
        query: {document: score for document, score in run[query].items() if document != query}
        for query in self_matches & run.keys()
    }
