"""Queries and relevance judgements of a retrieval test set, in the layouts of BEIR and TREC."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm2comp.corpus.records import choose_report, list_names, read_records
from llm2comp.corpus.text import read_lines
from llm2comp.errors import CorpusError

__all__ = ["read_qrels", "read_queries"]

_ID_FIELDS = ("_id", "id", "query_id", "query-id", "qid")
_TEXT_FIELDS = ("text", "query")
_QRELS_HEADER = ["query-id", "corpus-id", "score"]


def read_queries(path: str | Path) -> dict[str, str]:
    """Query texts by id, in the order of the file.

    The file has JSON lines (or is .csv, .tsv or .parquet). The id is in `_id`, `id`, `query_id`, `query-id` or `qid`,
    the text in `text` or `query`.

    Raises:
        CorpusError: The file cannot be read or is empty, or a row is malformed or repeats an id; the message names the
            line.
    """
    queries: dict[str, str] = {}
    for place, _, fields in read_records(Path(path), choose_report("raise", None)):
        identifier, text = _take(fields, _ID_FIELDS, place, str | int), _take(fields, _TEXT_FIELDS, place, str)
        if str(identifier) in queries:
            raise CorpusError(f"{place}: duplicate query id {str(identifier)!r:.80}")
        queries[str(identifier)] = text
    if not queries:
        raise CorpusError(f"{path}: no query in it")
    return queries


def _take(fields: dict[str, Any], names: tuple[str, ...], place: str, kind: Any) -> Any:
    value = next((fields[name] for name in names if name in fields), None)
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = "a string" if kind is str else "a string or a number"
        raise CorpusError(
            f"{place}: expected {expected} in {' or '.join(names)}, found {value!r:.40} among the fields "
            f"{list_names(fields)}"
        )
    return value


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Relevance scores by query id and document id; a higher score is more relevant, a missing pair is not relevant.

    Reads two layouts: BEIR (tab-separated, header `query-id corpus-id score`) and TREC (four columns: query, iteration,
    document, score).

    Raises:
        CorpusError: The file cannot be read or is empty, a line is malformed, or two lines give a pair different
            scores.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, query, document, score in _split_qrels(Path(path)):
        try:
            value = int(score)
        except ValueError:
            raise CorpusError(f"{place}: the score is {score!r:.40}, expected a whole number") from None
        if qrels.setdefault(query, {}).setdefault(document, value) != value:
            raise CorpusError(
                f"{place}: a second score, {value}, for query {query!r:.80} and document {document!r:.80}; it was "
                f"{qrels[query][document]}"
            )
    if not qrels:
        raise CorpusError(f"{path}: no judgement in it")
    return qrels


def _split_qrels(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Fields of each line as (place, query, document, score)."""
    beir = False
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise CorpusError(f"{place}: not UTF-8; convert the file with iconv") from None
        if number == 1 and text.split("\t") == _QRELS_HEADER:
            beir = True
        elif text.strip():
            columns = text.split("\t") if beir else text.split()
            if len(columns) != (3 if beir else 4):
                expected = (
                    "3, separated by tabs"
                    if beir
                    else "4 (TREC), or a first line query-id, corpus-id, score separated by tabs (BEIR)"
                )
                raise CorpusError(f"{place}: {len(columns)} columns, expected {expected}")
            yield (place, columns[0], columns[1], columns[2]) if beir else (place, columns[0], columns[2], columns[3])
