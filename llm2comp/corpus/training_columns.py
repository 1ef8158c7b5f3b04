"""Names of the columns of training files, and which of their values say that a passage is no positive."""

import math
import re
from collections.abc import Iterable
from typing import Any

__all__ = [
    *("NEGATIVE", "PASSAGES", "POSITIVE", "POSITIVE_LABELS", "QUERY"),
    *("find_columns", "find_numbered", "is_label", "normalise", "read_label"),
]

_TEXTS = "(text|passage|doc|document|ctx|context|example|sample|sentence|answer|response|candidate)?s?"
QUERY = ("query", "queries", "anchor", "anchors", "question", "questions", "querytext")
POSITIVE = re.compile(rf"pos(itive)?s?{_TEXTS}\d*")
NEGATIVE = re.compile(rf"(hard|easy|mined|random|bm25)?neg(ative)?s?{_TEXTS}\d*")
PASSAGES = (
    *("passages", "passage", "passagetexts", "passagetext", "documents", "document", "docs", "doc"),
    *("answers", "answer"),
)
"""Columns that hold positives, or passages of both kinds with labels, in files without a column of positives."""

POSITIVE_LABELS = re.compile("pos(itive)?s?(label|score|relevance)s?")
"""Columns with a number for each positive; below 0 are scores of a teacher, which say nothing, but 0 does."""

_LABEL = re.compile(
    "(gold|human)?(label|score|target|grade|rating)s?|(binary|pair|passage|doc|document|answer)labels?|"
    "similarity(score)?s?|(gold|match|duplicate|correct|selected)s?"
)
"""Columns whose numbers count; their other texts, such as the name of a topic, do not."""
_RELEVANCE = re.compile(
    "(passage|doc|document|answer)?(relevan(t|ce|cy)|qrel|rel|judge?ment|esci)(label|score|grade|judge?ment)?s?|"
    "is(relevant(passage|doc|document|answer)?|selected|duplicate|positive|match|matching|correct|answer|gold|related|"
    "similar|paraphrase|entailment)"
)
"""Columns that say nothing but whether a passage is a positive, so that a text of unknown meaning is an error."""
_IRRELEVANCE = re.compile("is(hard)?neg(ative)?|(is)?(irrelevant|nonrelevant|notrelevant)|isimpossible")
"""Columns that say so the other way round: 1 is for negatives."""
_NO = re.compile(
    "false|f|no|n|none|i|neg(ative)?|hardneg(ative)?|irrelevant|unrelated|unselected|incorrect|wrong|dissimilar|different|"
    "contradiction|neutral|refute[sd]|notenoughinfo|"
    "(not?|non)(relevant|related|selected|duplicate|positive|match|matching|correct|answer|gold|similar|paraphrase|"
    "entailment|equivalent)"
)
_YES = re.compile(
    "true|t|yes|y|pos(itive)?|(very|highly|partially|perfectly|somewhat)?relevant|related|selected|duplicate|match|"
    "matching|correct|answer|gold|similar|paraphrase|entailment|equivalent|support(s|ed)|e|exact|s|substitute|c|"
    "complement"
)


def normalise(name: str) -> str:
    """The name in lower case without spaces, `_` and `-`: `isRelevant` and `Is_Relevant` are one."""
    return re.sub(r"[\s_-]", "", name.lower())


def find_columns(fields: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Columns with a value that have one of the names, in the order of the names; case, `_` and `-` do not count."""
    present: dict[str, str] = {}
    for column, value in fields.items():
        if value is not None:
            present.setdefault(normalise(column), column)
    return [present[name] for name in names if name in present]


def find_numbered(fields: dict[str, Any], names: re.Pattern[str]) -> list[str]:
    """Columns with a value whose names fit: those without a number, then the others by number."""
    matching = [name for name in fields if fields[name] is not None and names.fullmatch(normalise(name))]
    return sorted(matching, key=lambda name: int((re.findall(r"\d+$", name) or [-1])[0]))


def is_label(name: str) -> bool:
    """Whether the column says which passages are positives, by a name of a closed list."""
    return any(names.fullmatch(normalise(name)) for names in (POSITIVE_LABELS, _LABEL, _RELEVANCE, _IRRELEVANCE))


def read_label(name: str, value: object) -> float | None:
    """The label as a number, 0 or less for a negative; None for one that says nothing, such as the name of a topic.

    Raises:
        ValueError: The column says only whether a passage is a positive, and its text is none of those known.
    """
    number = _number(value)
    if _IRRELEVANCE.fullmatch(normalise(name)):
        return None if number is None else float(number <= 0)
    if number is None and _RELEVANCE.fullmatch(normalise(name)) and isinstance(value, str) and value.strip():
        raise ValueError(
            f'"{name}" is {value!r:.60}, which does not say whether the passage is a positive; expected a number, 0 '
            "for a negative, or a word such as relevant or irrelevant"
        )
    return number


def _number(value: object) -> float | None:
    if isinstance(value, str):
        word = normalise(value)
        value = 0 if _NO.fullmatch(word) else 1 if _YES.fullmatch(word) else value.strip()
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
