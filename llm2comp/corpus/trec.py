"""TREC run files, which every evaluation tool reads: a line `query Q0 document rank score tag` per ranked document."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from llm2comp.atomic import write_output
from llm2comp.corpus.float_ids import drop_fraction, find_float_ids, note_float_ids
from llm2comp.corpus.text import open_text
from llm2comp.errors import CorpusError, SettingsError

__all__ = ["check_run_id", "read_run", "write_run"]

# White space as trec_eval defines it: ids may contain a no-break space, which str.split would split at
_WORDS = re.compile(r"[^ \t\r\n\f\v]+")
_FIELDS = "qid Q0 docid rank score tag"


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Scores by query and document of a run file, compressed or not. Ranks are ignored, as trec_eval ignores them.

    Where all ids of queries or of documents are whole numbers with .0, as pandas writes columns with gaps, these are
    read as the whole numbers, as in judgements.

    Raises:
        CorpusError: The file cannot be read or is empty, a line does not have six fields, a score is not a finite
            number, a query has a document twice, or an id is a floating-point number that may stand for several.
    """
    run: dict[str, dict[str, float]] = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = _WORDS.findall(line)
            if not fields:
                continue
            place = f"{path}:{number}"
            if len(fields) != 6:
                raise CorpusError(f"{place}: {len(fields)} fields; a run line has six: {_FIELDS}")
            query, document, score = fields[0], fields[2], _score(fields[4], place)
            ranking = run.setdefault(query, {})
            if document in ranking:
                raise CorpusError(
                    f"{place}: document {document!r} stands a second time under query {query!r}; keep one of the two "
                    "lines"
                )
            ranking[document] = score
    if not run:
        raise CorpusError(f"{path}: holds no ranking; expected lines of: {_FIELDS}")
    return _drop_fractions(Path(path), run)


def _drop_fractions(path: Path, run: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The run with whole numbers in place of ids such as 1.0, where all ids of a kind are such."""
    floats = find_float_ids(((query, document) for query, ranking in run.items() for document in ranking), (0, 1))
    if not floats:
        return run
    note_float_ids(path, tuple(name for position, name in enumerate(("qid", "docid")) if position in floats))

    def convert(position: int, identifier: str) -> str:
        return drop_fraction(identifier) if position in floats else identifier

    try:
        return {
            convert(0, query): {convert(1, document): score for document, score in ranking.items()}
            for query, ranking in run.items()
        }
    except ValueError as error:
        raise CorpusError(f"{path}: an id is {error}") from None


def _score(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise CorpusError(f"{place}: the score {text!r} is not a finite number; a run line is: {_FIELDS}")
    return score


def write_run(
    path: str | Path, rankings: Iterable[tuple[str, Iterable[tuple[str, float]]]], *, tag: str = "llm2comp"
) -> int:
    """Write a run file whole or not at all.

    Args:
        path: The file; its folder is made if it does not exist.
        rankings: For each query id, document ids and scores, best first. Ranks count from 1.
        tag: Name of the system.

    Returns:
        Number of lines.

    Raises:
        CorpusError: An id is empty or has white space, which the format cannot hold.
        SettingsError: `path` is a folder or a device.
        LLM2CompError: The file cannot be written.
    """
    path, lines = Path(path), 0
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path}: not a plain file; name the run file to write")

    def text() -> Iterator[str]:
        nonlocal lines
        for query, ranking in rankings:
            check_run_id("query", query)
            for rank, (document, score) in enumerate(ranking, start=1):
                check_run_id("document", document)
                lines += 1
                yield f"{query} Q0 {document} {rank} {score:.9g} {tag}\n"

    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, text())
    return lines


def check_run_id(kind: str, identifier: str) -> None:
    """Raise CorpusError if the id (of a "query" or "document") is empty or has white space, which separates fields."""
    if not _WORDS.fullmatch(identifier):
        raise CorpusError(
            f'{kind} id "{identifier}" is empty or has white space, which a TREC run cannot hold; rename it'
        )
