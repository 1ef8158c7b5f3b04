"""Rows of training files: which column holds queries, positives and negatives, and what a label means."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.report import choose_report, list_names
from llm2comp.corpus.training_columns import (
    NEGATIVE,
    PASSAGES,
    POSITIVE,
    POSITIVE_LABELS,
    QUERY,
    find_columns,
    find_numbered,
    is_label,
    normalise,
    read_label,
)
from llm2comp.corpus.training_fields import read_fields

__all__ = ["Triple", "read_rows"]

_NEED_LABELS = ("passages", "passagetexts", "documents", "docs")
_ENTRY_TEXTS = ("text", "passagetext")
_OTHER_FIELDS = ("source", "answer")
"""Of a derived pair, its document, for mining, and the sentence that answers, for stage 1; pairs do not need them."""

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
    for number, fields in read_fields(path, on_error=on_error, on_skip=on_skip):
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
        unused = [name for name in fields if name not in (*used, *named, *_OTHER_FIELDS)]
        if unused and name_unused:
            named.update(unused)
            _logger.warning("%s:%d: not used: %s; used: %s", path, number, list_names(unused), list_names(used))
        yield number, row


def _parse(fields: dict[str, Any]) -> tuple[_Row, list[str]]:
    """The row, and the names of the columns it was read from.

    Raises:
        ValueError: What is wrong with the row.
    """
    query_column = next(iter(find_columns(fields, QUERY)), "query")
    if query_column not in fields:
        raise ValueError(f'no query: expected a text under "query", found nothing; columns: {list_names(fields)}')
    queries = _queries(fields[query_column])
    named_positive = find_numbered(fields, POSITIVE)
    positive_columns = named_positive or find_columns(fields, PASSAGES)[:1]
    negative_columns = find_numbered(fields, NEGATIVE)
    values = [fields[name] for name in positive_columns]
    entries = [entry for value in values for entry in _entries(value, "positive")]
    if not entries:
        raise ValueError(
            'no positive: expected a text or a list of texts under "positive" (Tevatron: "positive_passages"); columns '
            f"with a value: {list_names(fields)}"
        )
    mined = [text for name in negative_columns for text, _ in _entries(fields[name], "negative")]
    passages = {text for text, _ in entries}
    negatives = tuple(text for text in mined if text not in passages)  # a mined one may be the positive itself
    both = not mined and len(values) == 1 and isinstance(values[0], list | dict)
    labels, label_columns = _labels(fields, entries, len(mined), both=both, named=bool(named_positive))
    if normalise(positive_columns[0]) in _NEED_LABELS and labels is None:
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
    used = [query_column, *positive_columns, *negative_columns, *label_columns]
    return _Row(queries, positives, negatives, labelled), used


def _queries(value: object) -> tuple[str, ...]:
    queries = value if isinstance(value, list) and value else [value]
    for query in queries:
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f'no query: expected a text under "query", found {_describe(query)}')
    return tuple(queries)


def _entries(value: object, role: str) -> list[tuple[str, float | None]]:
    """Texts with the labels that stand beside them, if any."""
    if isinstance(value, dict) and any(isinstance(value[name], list) for name in find_columns(value, _ENTRY_TEXTS)):
        lists = {name: column for name, column in value.items() if isinstance(column, list)}
        if len({len(column) for column in lists.values()}) > 1:
            raise ValueError(f"the lists of {list_names(lists)} have different lengths")
        value = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [(_text(entry, role), _entry_label(entry)) for entry in entries]


def _text(entry: object, role: str) -> str:
    if isinstance(entry, dict):
        columns = find_columns(entry, _ENTRY_TEXTS)
        text = next((entry[name] for name in columns if isinstance(entry[name], str)), None)
        title = next((entry[name] for name in find_columns(entry, ("title",))), None)
        if text is not None:
            entry = Document("", title if isinstance(title, str) else "", text).content
    if not isinstance(entry, str) or not entry.strip():
        raise ValueError(
            f"a {role} is {_describe(entry)}; expected a text that is not empty, or an object with title and text"
        )
    return entry


def _entry_label(entry: object) -> float | None:
    fields = entry.items() if isinstance(entry, dict) else ()
    labels = (read_label(name, value) for name, value in fields if value is not None and is_label(name))
    return min((label for label in labels if label is not None), default=None)


def _labels(
    fields: dict[str, Any], entries: list[tuple[str, float | None]], negatives: int, *, both: bool, named: bool
) -> tuple[list[float | None] | None, list[str]]:
    """A label for each passage, None if the row has none, and the columns that they are in.

    Args:
        fields: The row.
        entries: The passages, and the labels beside them.
        negatives: Number of negatives that stand in columns of their own.
        both: Whether the passages are one list that may hold positives and negatives.
        named: Whether the passages' column says that they are positives, so that scores need not.

    Raises:
        ValueError: Labels that do not say which passages are positives.
    """
    labels: list[float | None] = [label for _, label in entries]
    used = []
    for name in (name for name in fields if fields[name] is not None and is_label(name)):
        value = fields[name]
        if not isinstance(value, list):
            number = read_label(name, value)
            if number is not None and (number >= 0 or not POSITIVE_LABELS.fullmatch(normalise(name))):
                labels = _lower(labels, [number] * len(labels))
                used += [name] if number <= 0 or number.is_integer() else []
        elif numbers := _list_labels(name, value, len(entries), negatives, both=both, named=named):
            labels = _lower(labels, numbers)
            used.append(name)
    return (labels if any(label is not None for label in labels) else None), used


def _lower(labels: list[float | None], others: list[float | None]) -> list[float | None]:
    """The lower label of each pair: a passage that one column calls a negative is none by another."""
    pairs = zip(labels, others, strict=True)
    return [min((label for label in pair if label is not None), default=None) for pair in pairs]


def _list_labels(
    name: str, values: list[Any], passages: int, negatives: int, *, both: bool, named: bool
) -> list[float | None] | None:
    """The labels that a list gives the passages; None if it says nothing of whether they are positives."""
    numbers = [read_label(name, item) for item in values]
    if all(number is None for number in numbers):
        return None
    is_score = "score" in normalise(name) or "similarity" in normalise(name)
    of_positives = POSITIVE_LABELS.fullmatch(normalise(name)) is not None
    if of_positives or (not both and len(numbers) == passages + negatives > passages):
        # a teacher's scores may be below 0, and say nothing of whether it is a positive
        first = numbers[:passages]
        if not any(number is not None and _is_no(number, is_score) for number in first):
            return None
        if len(numbers) == passages or not of_positives:
            return [None if number is None or (is_score and number < 0) else number for number in first]
    elif (
        len(numbers) != passages and not both and (is_score or all(number is None or number > 0 for number in numbers))
    ):
        return None
    if len(numbers) != passages or (both and None in numbers):
        raise ValueError(f'"{name}" has {len(values)} values, expected a number for each of {passages} passages')
    fractions = [number for number in numbers if number is not None and not number.is_integer()]
    if both and not named and fractions and len(numbers) > 1:
        raise ValueError(
            f'"{name}" holds {fractions[0]:g}, which does not say whether its passage is a positive; give labels, '
            "0 for each negative and 1 for each positive"
        )
    return numbers


def _is_no(number: float, is_score: bool) -> bool:
    return number == 0 if is_score else number <= 0


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
