"""TREC run files: `qid Q0 docid rank score tag`, one ranked document a line."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from llm2comp.corpus.read import open_text
from llm2comp.errors import CorpusError
from llm2comp_benchmarks.metrics import Run, ranked
from llm2comp_benchmarks.results.record import write_atomically

__all__ = ["read_run", "write_run"]

# White space as trec_eval knows it: ids may hold a no-break space, at which str.split would cut.
_WORDS = re.compile(r"[^ \t\r\n\f\v]+")
_FIELDS = "qid Q0 docid rank score tag"


def read_run(path: str | Path) -> Run:
    """Scores by query and document of a run file, compressed or not. Ranks are ignored, as trec_eval ignores them.

    Raises:
        CorpusError: The file cannot be read or is empty, a line does not have six fields, a score is not a finite
            number, or a document stands twice under one query.
    """
    run: Run = {}
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
    return run


def _score(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise CorpusError(f"{place}: the score {text!r} is not a finite number; a run line is: {_FIELDS}")
    return score


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Write a run file whole or not at all; ranks follow the order trec_eval gives these scores.

    Raises:
        CorpusError: An id holds white space, which the format cannot carry.
    """
    write_atomically(path, _lines(run, tag))


def _lines(run: Run, tag: str) -> Iterator[str]:
    for query, scores in run.items():
        for rank, document in enumerate(ranked(scores), start=1):
            if not (_WORDS.fullmatch(query) and _WORDS.fullmatch(document)):
                raise CorpusError(
                    f"query {query!r}, document {document!r}: a TREC run cannot hold an empty id or one with white "
                    "space"
                )
            yield f"{query} Q0 {document} {rank} {scores[document]:.9g} {tag}\n"
