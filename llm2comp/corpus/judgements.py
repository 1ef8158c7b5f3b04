"""Queries and relevance judgements of a retrieval test set, in the layouts of BEIR, TREC and other tools."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.corpus.columns import Columns, normalise
from llm2comp.corpus.float_ids import drop_fraction, find_float_ids, note_float_ids
from llm2comp.corpus.records import read_records
from llm2comp.corpus.report import choose_report, list_names
from llm2comp.corpus.scalars import id_text, is_missing
from llm2comp.corpus.table import read_table
from llm2comp.corpus.table_format import TableFormat
from llm2comp.corpus.text import read_lines, uncompressed_name
from llm2comp.errors import CorpusError

__all__ = ["QRELS_SUFFIXES", "read_qrels", "read_queries"]

QRELS_SUFFIXES = (".tsv", ".txt", ".qrels", ".trec", ".csv", ".jsonl", ".ndjson", ".json", ".parquet")
_ID_FIELDS = ("_id", "id", "query_id", "query-id", "qid")
_TEXT_FIELDS = ("text", "query")
_QUERY_COLUMNS = Columns(
    frozenset(_TEXT_FIELDS),
    frozenset(_ID_FIELDS),
    {2: ("id", "text"), 3: ("id", "text", "third column")},
    (frozenset(_ID_FIELDS), frozenset(_TEXT_FIELDS)),
)
_QUERY = ("query-id", "query_id", "qid", "queryid", "query")
_DOCUMENT = (
    "corpus-id",
    "corpus_id",
    "docid",
    "doc_id",
    "doc-id",
    "document_id",
    "document-id",
    "document",
    "docno",
    "pid",
)
_SCORE = ("score", "relevance", "rel", "grade", "label")
_THREE = ("qid", "docid", "score")
_FOUR = ("qid", "iteration", "docid", "score")
_QRELS_COLUMNS = Columns(
    frozenset(_SCORE),
    frozenset(_QUERY + _DOCUMENT),
    {3: _THREE, 4: _FOUR},
    tuple(map(frozenset, (_QUERY, _DOCUMENT, _SCORE))),
)
_WORDS = re.compile(r"[^ \t\r\n\f\v]+")  # as trec_eval splits: not at a no-break space, which an id can have
_ITERATION = re.compile(r"Q?\d+", re.IGNORECASE)


def read_queries(
    path: str | Path, *, header: bool | None = None, quotes: bool | None = None, skip_missing: bool = False
) -> dict[str, str]:
    """Query texts by id, in the order of the file.

    The file has JSON lines (or is .csv, .tsv or .parquet). The id is in `_id`, `id`, `query_id`, `query-id` or `qid`,
    the text in `text` or `query`. A .csv or .tsv file without a header line has the id in the first column and the text
    in the second.

    Args:
        path: The file, compressed or not.
        header: Whether the first line of a .csv or .tsv file has the column names; None: if it has known ones.
        quotes: Whether fields of .csv and .tsv files may be enclosed in quotes; None: in CSV they may, in TSV if the
            file shows it.
        skip_missing: Leave out queries whose text is null, NaN or not there, instead of raising an error.

    Raises:
        CorpusError: The file cannot be read or is empty, or a row is malformed or repeats an id; the message names the
            line.
    """
    queries: dict[str, str] = {}
    records = read_records(Path(path), choose_report("raise", None), _QUERY_COLUMNS, TableFormat(header, quotes))
    for record in records:
        place, fields = record.place, record.fields
        identifier = _take_id(fields, _ID_FIELDS, place)
        text = _take(fields, _TEXT_FIELDS)
        if text is None and skip_missing:
            continue
        if not isinstance(text, str):
            raise CorpusError(_describe("a string", _TEXT_FIELDS, text, fields, place))
        if identifier in queries:
            raise CorpusError(f"{place}: duplicate query id {identifier!r:.80}")
        queries[identifier] = text
    if not queries:
        raise CorpusError(f"{path}: no query in it")
    return queries


def _take(fields: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if not is_missing(fields.get(name))), None)


def _take_id(fields: dict[str, Any], names: tuple[str, ...], place: str) -> str:
    value = _take(fields, names)
    try:
        return id_text(value)
    except ValueError as error:
        if isinstance(value, str) or is_missing(value):
            raise CorpusError(_describe("a string or a number", names, value, fields, place)) from None
        raise CorpusError(f"{place}: the id in {' or '.join(names)} is {error}") from None


def _describe(expected: str, names: tuple[str, ...], value: object, fields: dict[str, Any], place: str) -> str:
    return (
        f"{place}: expected {expected} in {' or '.join(names)}, found {value!r:.40} among the fields "
        f"{list_names(fields)}"
    )


def read_qrels(path: str | Path, *, quotes: bool | None = None) -> dict[str, dict[str, int]]:
    """Relevance scores by query id and document id; a higher score is more relevant, a missing pair is not relevant.

    Text files have a line for each pair, with four columns (TREC: query, iteration, document, score) or three (query,
    document, score), separated by any run of spaces and tabs; or, below a header line such as BEIR's `query-id
    corpus-id score`, columns by name, separated by single tabs. In .csv, .jsonl, .ndjson, .json and .parquet files,
    columns and fields have such names.

    Args:
        path: The file, compressed or not.
        quotes: Whether columns by name may be enclosed in quotes; None: in CSV they may, in TSV if the file shows it.

    Raises:
        CorpusError: The file cannot be read or is empty, a line is malformed, or two lines give a pair different
            scores.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, query, document, score in _read_judgements(Path(path), quotes):
        if qrels.setdefault(query, {}).setdefault(document, score) != score:
            raise CorpusError(
                f"{place}: a second score, {score}, for query {query!r:.80} and document {document!r:.80}; it was "
                f"{qrels[query][document]}"
            )
    if not qrels:
        raise CorpusError(f"{path}: no judgement in it")
    return qrels


class _Judgement(NamedTuple):
    place: str
    query: str
    document: str
    score: int


def _read_judgements(path: Path, quotes: bool | None) -> Iterator[_Judgement]:
    report = choose_report("raise", None)
    if Path(uncompressed_name(path)).suffix.lower() in (".csv", ".jsonl", ".ndjson", ".json", ".parquet"):
        for record in read_records(path, report, _QRELS_COLUMNS, TableFormat(quotes=quotes)):
            yield _to_judgement(record.fields, record.place)
    elif not path.is_fifo() and _is_table(path):  # a pipe can be read once
        for number, fields in read_table(path, "\t", report, _QRELS_COLUMNS, TableFormat(True, quotes)):
            yield _to_judgement(fields, f"{path}:{number}")
    else:
        yield from _drop_fractions(path, list(_read_words(path)))


def _is_table(path: Path) -> bool:
    """Whether the first line has names of columns between tabs."""
    first = next((line.decode("utf-8", errors="replace").rstrip("\r\n") for _, line in read_lines(path)), "")
    return "\t" in first and _has_names(first.replace('"', "").split("\t"))


def _has_names(columns: Sequence[str]) -> bool:
    names = set(map(normalise, columns))
    return not names.isdisjoint(_QUERY) and not names.isdisjoint(_DOCUMENT)


def _read_words(path: Path) -> Iterator[_Judgement]:
    names: Sequence[str] = ()
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise CorpusError(f"{place}: not UTF-8; convert the file with iconv") from None
        columns = _split(text)
        if not columns:
            continue
        if not names and _has_names(columns):
            names = list(map(normalise, columns))
            continue
        names = names or {3: _THREE, 4: _FOUR}.get(len(columns), _FOUR)
        if len(columns) != len(names):
            raise CorpusError(
                f"{place}: {len(columns)} columns, expected {len(names)}: {', '.join(names)}, separated by spaces or "
                "tabs; or 3 separated by tabs below a first line query-id, corpus-id, score (BEIR)"
            )
        yield _to_judgement(dict(zip(names, columns, strict=True)), place)


def _drop_fractions(path: Path, judgements: list[_Judgement]) -> Iterator[_Judgement]:
    floats = find_float_ids(((judged.query, judged.document) for judged in judgements), (0, 1))
    note_float_ids(path, tuple(_THREE[position] for position in sorted(floats)))
    for judged in judgements:
        try:
            query = drop_fraction(judged.query) if 0 in floats else judged.query
            document = drop_fraction(judged.document) if 1 in floats else judged.document
        except ValueError as error:
            raise CorpusError(f"{judged.place}: an id is {error}") from None
        yield judged._replace(query=query, document=document)


def _split(text: str) -> list[str]:
    """Columns of a line: at tabs alone if these give three and an id has spaces, else at every space and tab."""
    words, columns = _WORDS.findall(text), text.split("\t")
    spaced = len(words) > 3 and not (len(words) == 4 and _ITERATION.fullmatch(words[1]))
    return columns if spaced and len(columns) == 3 else words


def _to_judgement(fields: dict[str, Any], place: str) -> _Judgement:
    value = _take(fields, _SCORE)
    try:
        score = int(value)
        if not isinstance(value, str) and score != value:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        score = _whole(value, place)
    return _Judgement(place, _take_id(fields, _QUERY, place), _take_id(fields, _DOCUMENT, place), score)


def _whole(value: object, place: str) -> int:
    """The score in a text such as 1.0, as pandas writes whole numbers of a column with gaps."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None or not number.is_integer():
        raise CorpusError(f"{place}: the score is {value!r:.40}, expected a whole number")
    return int(number)
