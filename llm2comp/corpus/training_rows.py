"""Rows of training files: which column holds queries, positives and negatives, and what a label means."""

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.records import read_json_lines
from llm2comp.corpus.report import choose_report, list_names

__all__ = ["Triple", "read_rows"]

_QUERY = ("query", "queries", "anchor", "anchors", "question", "questions")
_POSITIVE = re.compile(r"(positives?|pos)([_-]?\d+)?|positive_passages?")
_NEGATIVE = re.compile(r"(hard_?)?(negatives?|negs?)([_-]?\d+)?|(hard_?)?negative_passages?([_-]?\d+)?")
_LABELLED = ("passages", "passage", "documents", "document", "answers", "answer")
"""Columns that hold positives, or passages of both kinds with labels, in files without a column of positives."""
_LABELS = ("label", "labels", "score", "scores")
_ENTRY_TEXTS = ("text", "passage_text")
_ENTRY_LABELS = ("label", "score", "is_selected")

_logger = logging.getLogger(__name__)


class Triple(NamedTuple):
    """One row: a query, at least one text that answers it, and hard negatives, texts that do not (possibly none)."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


class _Row(NamedTuple):
    """A row as it is read: `positives` may be empty where labels make all of its passages negatives."""

    queries: tuple[str, ...]
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    labelled: tuple[str, ...]
    """Passages that a label of 0 makes negatives."""


def read_rows(
    path: str | Path,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    on_skip: Callable[[str], None] | None = None,
    negatives_from_label: bool = False,
    name_unused: bool = True,
) -> Iterator[tuple[int, Triple]]:
    """Rows of a training file with their line numbers from 1, as a stream.

    A row with a list of queries gives one triple for each of them.

    Args:
        path: The file.
        on_error: Whether a malformed row raises an error or is skipped.
        on_skip: With "skip", receives each message `file:line: what is wrong`.
        negatives_from_label: Passages with a label or score of 0 are negatives of all rows with the same query; they
            are kept in memory. If false, such a row is malformed: it is never a positive.
        name_unused: Log a line that names columns that are not used, at the row where they first occur.

    Raises:
        CorpusError: The file cannot be read, or a row is malformed and `on_error` is "raise".
    """
    if not negatives_from_label:
        for number, row in _parse_rows(path, on_error, on_skip, name_unused, False):
            for query in row.queries:
                yield number, Triple(query, row.positives, row.negatives)
        return
    by_query: dict[str, dict[str, None]] = {}
    answers: dict[str, set[str]] = {}
    for _, row in _parse_rows(path, on_error, on_skip, name_unused, True):
        for query in row.queries:
            if row.positives:
                answers.setdefault(query, set()).update(row.positives)
            if texts := (*row.labelled, *(() if row.positives else row.negatives)):
                by_query.setdefault(query, {}).update(dict.fromkeys(texts))
    if name_unused and (unanswered := by_query.keys() - answers.keys()):
        _logger.warning("%s: %d queries have negatives only and are left out", path, len(unanswered))
    for number, row in _parse_rows(path, "skip", _ignore, False, True):
        for query in row.queries if row.positives else ():
            negatives = dict.fromkeys((*row.negatives, *by_query.get(query, ())))
            yield number, Triple(query, row.positives, tuple(text for text in negatives if text not in answers[query]))


def _parse_rows(
    path: str | Path,
    on_error: Literal["raise", "skip"],
    on_skip: Callable[[str], None] | None,
    name_unused: bool,
    negatives_from_label: bool,
) -> Iterator[tuple[int, _Row]]:
    report = choose_report(on_error, on_skip)
    named: set[str] = set()
    for number, fields in read_json_lines(path, on_error=on_error, on_skip=on_skip):
        try:
            row, used = _parse(fields)
            if row.labelled and not negatives_from_label:
                raise ValueError(
                    "a label or score of 0 or less, so this is no positive: leave it out, or make it a negative of its "
                    "query with --negatives-from-label (negatives_from_label: true)"
                )
        except ValueError as error:
            report(f"{path}:{number}: {error}")
            continue
        unused = [name for name in fields if name not in used and name not in named and fields[name] is not None]
        if unused and name_unused:
            named.update(unused)
            _logger.warning("%s:%d: not used: %s; used: %s", path, number, list_names(unused), list_names(used))
        yield number, row


def _parse(fields: dict[str, Any]) -> tuple[_Row, list[str]]:
    """The row, and the names of the columns it was read from.

    Raises:
        ValueError: What is wrong with the row.
    """
    query_column = next(iter(_present(fields, _QUERY)), "query")
    queries = _queries(fields.get(query_column))
    positive_columns = _columns(fields, _POSITIVE) or _present(fields, _LABELLED)[:1]
    negative_columns = _columns(fields, _NEGATIVE)
    values = [fields[name] for name in positive_columns]
    entries = [entry for value in values for entry in _entries(value, "positive")]
    if not entries:
        raise ValueError(
            'no positive: expected a text or a list of texts under "positive" (Tevatron: "positive_passages")'
        )
    both = not negative_columns and len(values) == 1 and isinstance(values[0], list | dict)
    labels, label_columns = _labels(fields, entries, both=both)
    if positive_columns[0] in ("passages", "documents") and labels is None:
        raise ValueError(
            f'a list under "{positive_columns[0]}" without labels: expected "labels", 0 for each negative and 1 for '
            'each positive, or the texts under "positive" and "negative"'
        )
    texts = [text for text, _ in entries]
    wrong = [label is not None and label <= 0 for label in labels or [None] * len(texts)]
    positives = tuple(text for text, negative in zip(texts, wrong, strict=True) if not negative)
    labelled = tuple(text for text, negative in zip(texts, wrong, strict=True) if negative)
    if len(queries) > 1 and len(positives) > 1:
        raise ValueError("several queries and several positives: give one row for each query")
    negatives = tuple(text for name in negative_columns for text, _ in _entries(fields[name], "negative"))
    used = [query_column, *positive_columns, *negative_columns, *label_columns]
    return _Row(queries, positives, negatives, labelled), used


def _columns(fields: dict[str, Any], names: re.Pattern[str]) -> list[str]:
    """Columns with a value whose names fit: those without a number, then the others by number."""
    matching = [name for name in fields if fields[name] is not None and names.fullmatch(name)]
    return sorted(matching, key=lambda name: int((re.findall(r"\d+$", name) or [-1])[0]))


def _present(fields: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [name for name in names if fields.get(name) is not None]


def _queries(value: object) -> tuple[str, ...]:
    queries = value if isinstance(value, list) and value else [value]
    for query in queries:
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f'no query: expected a text under "query", found {_describe(query)}')
    return tuple(queries)


def _entries(value: object, role: str) -> list[tuple[str, float | None]]:
    """Texts with the labels that stand beside them, if any."""
    if isinstance(value, dict) and any(isinstance(value.get(name), list) for name in _ENTRY_TEXTS):
        lists = {name: column for name, column in value.items() if isinstance(column, list)}
        if len({len(column) for column in lists.values()}) > 1:
            raise ValueError(f"the lists of {list_names(lists)} have different lengths")
        value = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [(_text(entry, role), _entry_label(entry)) for entry in entries]


def _text(entry: object, role: str) -> str:
    if isinstance(entry, dict):
        text = next((entry[name] for name in _ENTRY_TEXTS if isinstance(entry.get(name), str)), None)
        title = entry.get("title")
        if text is not None:
            entry = Document("", title if isinstance(title, str) else "", text).content
    if not isinstance(entry, str) or not entry.strip():
        raise ValueError(
            f"a {role} is {_describe(entry)}; expected a text that is not empty, or an object with title and text"
        )
    return entry


def _entry_label(entry: object) -> float | None:
    values = (entry.get(name) for name in _ENTRY_LABELS) if isinstance(entry, dict) else ()
    return next((label for value in values if (label := _number(value)) is not None), None)


def _labels(
    fields: dict[str, Any], entries: list[tuple[str, float | None]], *, both: bool
) -> tuple[list[float | None] | None, list[str]]:
    """A label for each passage, None if the row has none, and the columns that they are in.

    Args:
        fields: The row.
        entries: The passages, and the labels beside them.
        both: Whether the passages are one list that may hold positives and negatives.

    Raises:
        ValueError: Labels that do not say which passages are positives.
    """
    labels: list[float | None] = [label for _, label in entries]
    used = []
    for name in _present(fields, _LABELS):
        value = fields[name]
        if not isinstance(value, list):
            if (number := _number(value)) is not None:
                labels = [number if label is None else min(label, number) for label in labels]
                used += [name] if number <= 0 or number.is_integer() else []
            continue
        numbers = [_number(item) for item in value]
        if not both and len(numbers) != len(entries):
            continue  # scores of the positive and of each negative, in the order of the columns
        if len(numbers) != len(entries) or None in numbers:
            raise ValueError(f'"{name}" has {len(value)} values, expected a number for each of {len(entries)} passages')
        fractions = [number for number in numbers if number is not None and not number.is_integer()]
        if both and fractions and len(numbers) > 1:
            raise ValueError(
                f'"{name}" holds {fractions[0]:g}, which does not say whether its passage is a positive; give labels, '
                "0 for each negative and 1 for each positive"
            )
        pairs = zip(labels, numbers, strict=True)
        labels = [min(value for value in pair if value is not None) for pair in pairs]
        used.append(name)
    return (labels if any(label is not None for label in labels) else None), used


def _number(value: object) -> float | None:
    """The value of a label as a number; None for one that is no number, such as the name of a topic."""
    if isinstance(value, str):
        text = value.strip().lower()
        value = {"true": 1, "false": 0}.get(text, text)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _describe(value: object) -> str:
    return (
        "nothing"
        if value is None
        else "an empty text"
        if isinstance(value, str)
        else f"a value of type {type(value).__name__}"
    )


def _ignore(message: str) -> None:
    """Does nothing: malformed rows were reported when the file was first read."""
