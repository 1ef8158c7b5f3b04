"""Retrieval tasks: a corpus, queries and judgements, read from a BEIR folder; scores of a model or of a ready run."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.float_ids import drop_fraction, find_float_ids
from llm2comp.corpus.judgements import QRELS_SUFFIXES
from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
from llm2comp.corpus.text import uncompressed_name
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
    f"queries{suffix}{packed}"
    for suffix in (".jsonl", ".ndjson", ".json", ".tsv", ".csv", ".parquet")
    for packed in _PACKED
]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrievalTask:
    """A retrieval test set.

    Attributes:
        name: Key of its results.
        documents: Opens the corpus; each call streams it from the start.
        queries: Texts of the judged queries by id.
        qrels: Judgements of these queries; relevant documents that the corpus lacks stay in the ideal ranking.
        self_matches: Ids of queries that are documents themselves; rankings leave out the document of the same id.
        details: Source and counts, reported with the metrics.
    """

    name: str
    documents: Callable[[], Iterable[Document]]
    queries: dict[str, str]
    qrels: Qrels
    self_matches: frozenset[str] = frozenset()
    details: dict[str, Any] = field(default_factory=dict)


def read_beir(
    folder: str | Path,
    *,
    split: str = "test",
    identical_ids: IdenticalIds = "auto",
    header: bool | None = None,
    quotes: bool | None = None,
) -> RetrievalTask:
    """The task in a BEIR folder: `corpus.jsonl`, `queries.jsonl` (compressed or not) and `qrels/<split>.tsv`.

    Each of the three may be in another format that `read_corpus`, `read_queries` and `read_qrels` take.

    Judged queries that the queries file lacks are left out. Documents judged relevant that the corpus lacks cannot be
    found, and stay in the ideal ranking: they lower nDCG, MAP and recall, as in trec_eval. One warning has the number
    of both.

    In some sets (ArguAna, Quora) queries are documents of the corpus, and finding a query's copy says nothing. In
    others (Cranfield, FiQA) ids of queries and documents are equal by chance.

    Args:
        folder: The folder; its name becomes the task's.
        split: Of the judgements.
        identical_ids: Whether rankings leave out the document with the id of the query. "auto": if it has the text of
            the query and is not judged relevant to it. "drop": always, as BEIR and mteb's `ignore_identical_ids` do.
            "keep": never.
        header: Whether the first line of .csv and .tsv files has the column names; None: if it has known ones.
        quotes: Whether fields of .csv and .tsv files may be enclosed in quotes; None: in CSV they may, in TSV if the
            file shows it.

    Raises:
        CorpusError: A file is missing or malformed, or none of the judged queries has a text.
    """
    root = Path(folder)
    documents = read_corpus(root, header=header, quotes=quotes, csv_strings=True)
    qrels_file = _find_qrels(root, split)
    qrels = read_qrels(qrels_file, quotes=quotes)
    queries = read_queries(_find_queries(root), header=header, quotes=quotes, skip_missing=True)
    judged_queries = len(qrels)
    qrels = _with_texts(qrels, queries, qrels_file)
    judged = {query: queries[query] for query in qrels}
    survey = _survey(documents, judged, qrels)
    qrels = {query: _rename(grades, survey.renamed) for query, grades in qrels.items()}
    _warn_of_missing(qrels_file, judged_queries - len(qrels), judged_queries, survey)
    dropped = {"auto": survey.self_matches, "drop": survey.identical_ids, "keep": frozenset[str]()}[identical_ids]
    details: dict[str, Any] = {
        "source": str(folder),
        "split": split,
        "queries": len(judged),
        "documents": survey.documents,
        "judgements": sum(map(len, qrels.values())),
        "identical_ids": {"rule": identical_ids, "shared": len(survey.identical_ids), "dropped": len(dropped)},
    }
    missing = {
        "queries_without_text": judged_queries - len(qrels),
        "relevant_documents_absent": len(survey.absent),
    }
    details |= {name: count for name, count in missing.items() if count}  # none: as in results of earlier versions
    return RetrievalTask(
        root.resolve().name,
        lambda: read_corpus(root, header=header, quotes=quotes, csv_strings=True),
        judged,
        qrels,
        dropped,
        details,
    )


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
    for suffix in QRELS_SUFFIXES:
        for packed in _PACKED:
            if (folder / f"{split}{suffix}{packed}").is_file():
                return folder / f"{split}{suffix}{packed}"
    splits = sorted({path.name.partition(".")[0] for path in folder.glob("*.*") if _holds_qrels(path)})
    hint = f"there is {', '.join(splits)}; choose with --split" if splits else "expected judgements in qrels/SPLIT.tsv"
    raise CorpusError(f"{folder / split}.tsv: no such file; {hint}")


def _holds_qrels(path: Path) -> bool:
    return Path(uncompressed_name(path)).suffix in QRELS_SUFFIXES


def _with_texts(qrels: Qrels, queries: dict[str, str], file: Path) -> Qrels:
    """Judgements of the queries that have a text, under the ids of the texts: a judged 12.0 is the query 12."""
    kept: Qrels = {}
    for query, grades in qrels.items():
        name = query if query in queries else _other_form(query)
        if name in queries and (name == query or name not in qrels):
            kept[name] = grades
    if not kept:
        raise CorpusError(
            f"{file}: none of the {len(qrels)} judged queries is in the queries file; judged is {next(iter(qrels))!r}, "
            f"a query is {next(iter(queries))!r}"
        )
    return kept


def _other_form(name: str) -> str:
    """The id as pandas writes it in a column of floats, or without that: "12" for "12.0", "12.0" for "12"."""
    whole = name.removesuffix(".0")
    return f"{name}.0" if whole == name else whole


def _rename(grades: dict[str, int], renamed: dict[str, str]) -> dict[str, int]:
    names = {document: renamed.get(document, document) for document in grades}
    return {document if names[document] in grades else names[document]: grade for document, grade in grades.items()}


def _warn_of_missing(file: Path, left_out: int, judged: int, survey: "_Survey") -> None:
    parts = []
    if left_out:
        parts.append(f"{left_out} of {judged} judged queries have no text in the queries file and are left out")
    if survey.absent:
        parts.append(
            f"{len(survey.absent)} of {survey.relevant} documents judged relevant are not in the corpus and stay in "
            f"the ideal ranking, the first is {survey.absent[0]!r:.80}"
        )
    if parts:
        _logger.warning("%s: %s", file, "; ".join(parts))


class _Survey(NamedTuple):
    documents: int
    relevant: int
    absent: list[str]
    renamed: dict[str, str]
    identical_ids: frozenset[str]
    self_matches: frozenset[str]


def _survey(documents: Iterable[Document], queries: dict[str, str], qrels: Qrels) -> _Survey:
    """One pass over the corpus before anything is encoded, so that a faulty set fails in seconds, not after hours."""
    missing = dict.fromkeys(document for grades in qrels.values() for document, grade in grades.items() if grade > 0)
    relevant, others = len(missing), dict[str, str]()
    count, identical, same = 0, set(), set()
    for document in documents:
        count += 1
        missing.pop(document.id, None)
        if (other := _other_form(document.id)) in missing:
            others[other] = document.id
        if document.id in queries:
            identical.add(document.id)
            texts = {_squeeze(text) for text in (document.title, document.text, document.content)}
            if _squeeze(queries[document.id]) in texts and qrels[document.id].get(document.id, 0) <= 0:
                same.add(document.id)
    renamed = {judged: name for judged, name in others.items() if judged in missing}
    absent = [document for document in missing if document not in renamed]
    return _Survey(count, relevant, absent, renamed, frozenset(identical), frozenset(same))


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
    run = _match_ids(run, task.qrels)
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


def _match_ids(run: Run, qrels: Qrels) -> Run:
    """The run with 1 for each 1.0, if all its ids are such, as those of tools that read CSV, and no judged id is."""
    judged = [{*qrels}, {document for grades in qrels.values() for document in grades}]
    pairs = ((query, document) for query, ranking in run.items() for document in ranking)
    floats = {
        position
        for position in find_float_ids(pairs, (0, 1))
        if not any(name.endswith(".0") for name in judged[position])
    }
    if 1 in floats:
        run = {
            query: {drop_fraction(document): score for document, score in ranking.items()}
            for query, ranking in run.items()
        }
    return {drop_fraction(query): ranking for query, ranking in run.items()} if 0 in floats else run


def _without_self_matches(run: Run, self_matches: frozenset[str]) -> Run:
    # As in mteb, taken out after the search: such a ranking is one document shorter.
    return run | {
        query: {document: score for document, score in run[query].items() if document != query}
        for query in self_matches & run.keys()
    }
