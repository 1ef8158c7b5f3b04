"""Query vectors that an index is measured with, and where they come from."""

import re
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Queries", "QueryKind"]


class QueryKind(StrEnum):
    """Where the queries of a measurement come from. The values stand in report files."""

    PASSAGES = "passages"
    """A few words in a row from random documents, encoded as queries."""
    QUESTIONS = "questions"
    """Questions of the user, encoded."""
    FILE = "file"
    """Vectors from a file."""
    HELD_OUT = "held_out"
    """Rows that are in another segment than the one measured."""
    MOVED_ROWS = "moved_rows"
    """Rows of the index, each moved by noise so that it does not find itself."""
    OTHER_ROWS = "other_rows"
    """Rows of the other segment, for the small segment that holds those held out."""
    OTHER = "other"
    """Known by its description only."""

    def describe(self, **values: Any) -> str:
        """The source of queries as text for people; `values` fill the fields of the kind's sentence (`count` …)."""
        return _TEXTS[self].format(**values)

    @classmethod
    def from_text(cls, text: str) -> "QueryKind":
        """The kind that `describe` made the text of: reports of version 0.1.0 hold the text alone."""
        return next((kind for kind, template in _TEXTS.items() if _matches(text, template)), cls.OTHER)


_TEXTS = {
    QueryKind.PASSAGES: "{count} passages of {least} to {most} words from the documents, encoded as queries",
    QueryKind.QUESTIONS: "{count} of the {total:,} questions in {file}, encoded as queries",
    QueryKind.FILE: "{count} of the {total:,} vectors in {file}",
    QueryKind.HELD_OUT: "{count} random documents that are held out of the rows measured (they are in a segment of "
    "their own)",
    QueryKind.MOVED_ROWS: "{count} rows, each moved by noise of half its length (none are held out)",
    QueryKind.OTHER_ROWS: "{count} rows of the other segment",
}


def _matches(text: str, template: str) -> bool:
    """Whether `template.format` with some numbers (and a file's name) gives the text."""
    fields = {"file": ".+"}
    parts = re.split(r"\{(\w+)[^}]*\}", template)  # text, field, text, field, ..., text
    pattern = "".join(fields.get(part, "[0-9,]+") if place % 2 else re.escape(part) for place, part in enumerate(parts))
    return re.fullmatch(pattern, text, re.DOTALL) is not None


class Queries(NamedTuple):
    """Query vectors (queries, dimension) to measure with, where they come from, and that as text for people."""

    vectors: NDArray[np.float32]
    kind: QueryKind
    source: str
