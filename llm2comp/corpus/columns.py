"""Names of columns and fields: which are known, and which differ from known ones in case or blanks alone."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from llm2comp.errors import CorpusError

__all__ = [
    "Columns",
    "check_separator",
    "find_separator",
    "match_names",
    "name_separator",
    "normalise",
    "normalise_names",
    "rename_fields",
]

_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}
TAB = "\t"
_SAMPLE_ROWS = 50
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Columns:
    """Known names of columns.

    Attributes:
        values: Names of columns of texts or scores.
        ids: Names of columns of ids.
        without_header: Names of the columns of a file without a header, by their number.
        groups: Names that mean the same, such as `id` and `docid`, in a set for each meaning.
        originals: The names that the row read last has in its file, by the known ones that replace them; for messages.
    """

    values: frozenset[str]
    ids: frozenset[str]
    without_header: dict[int, tuple[str, ...]]
    groups: tuple[frozenset[str], ...]
    originals: dict[str, str] = field(default_factory=dict)


def normalise(name: str) -> str:
    """The name in lower case, without surrounding blanks."""
    return name.strip().lower()


def normalise_names(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with normalised names; as they are if two of these are the same."""
    normal = {normalise(name): value for name, value in fields.items()}
    return normal if len(normal) == len(fields) else fields


def match_names(names: Sequence[str], columns: Columns, source: str | Path) -> list[str]:
    """The names, with known ones in place of those that differ from them in case or surrounding blanks alone.

    A group that has a known name as it stands is left as it is. One line in the log says which names were matched.

    Raises:
        ValueError: Two names may be the same known one.
    """
    columns.originals.clear()
    matches = _find_matches(tuple(names), columns.groups)
    _note_matches(source, matches)
    known = dict(matches)
    columns.originals.update((name, original) for original, name in matches)
    return [known.get(name, name) for name in names]


def rename_fields(fields: dict[str, Any], columns: Columns, source: str | Path) -> dict[str, Any]:
    """The fields under the names that `match_names` gives them."""
    if not _find_matches(tuple(fields), columns.groups):
        columns.originals.clear()
        return fields
    return dict(zip(match_names(list(fields), columns, source), fields.values(), strict=True))


@lru_cache(maxsize=1_024)  # rows of one file mostly have the same names
def _find_matches(names: tuple[str, ...], groups: tuple[frozenset[str], ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of a name and the known name that it means."""
    matches = dict[str, str]()
    for group in groups:
        if group.isdisjoint(names):
            by_normal = {normalise(known): known for known in group}
            for name in names:
                known = by_normal.get(normalise(name))
                if known is not None and known in matches:
                    raise ValueError(f'the names "{matches[known]}" and "{name}" may both mean {known}; rename one')
                if known is not None:
                    matches[known] = name
    return tuple((name, known) for known, name in matches.items())


@cache  # a file may be read several times
def _note_matches(source: str | Path, matches: tuple[tuple[str, str], ...]) -> None:
    if matches:
        _logger.warning(
            "%s: %s: names match without regard to case and surrounding blanks",
            source,
            ", ".join(f'"{name}" is read as {known}' for name, known in matches),
        )


def check_separator(row: Sequence[str], delimiter: str, columns: Columns) -> None:
    """Checks that the first row of a table is not separated by another character.

    Raises:
        CorpusError: It is a single cell without a known name and has another separator in it, or known names of an id
            and of a value stand in it between such separators.
    """
    known, line = columns.ids | columns.values, delimiter.join(row)
    if not known.isdisjoint(map(normalise, row)):
        return
    for separator, name in _SEPARATORS.items():
        cells = {normalise(cell.strip('" ')) for cell in line.split(separator)}
        named = not columns.ids.isdisjoint(cells) and not columns.values.isdisjoint(cells)
        if separator != delimiter and len(cells) > 1 and (named or len(row) == 1):
            raise CorpusError(
                f"the first line has {name} between its values, expected {name_separator(delimiter)}; --separator "
                f"'{'tab' if separator == TAB else separator}' (separator) reads it"
            )


def name_separator(separator: str) -> str:
    """The separator in words."""
    return _SEPARATORS.get(separator, repr(separator))


def find_separator(lines: Sequence[str], usual: str, columns: Columns) -> str:
    """The character between the values of a table: a comma, a tab, a semicolon or a vertical bar.

    The usual one, if known names stand between it in the first line. Then another one, if known names of an id and of a
    value stand between it there; one, if it gives a known name and the usual one a single cell; and the only one with
    which all lines have the same number of cells, two or more.

    Args:
        lines: The first lines of the file.
        usual: The separator in files of this name.
        columns: Known names.
    """
    rows = {separator: _split(lines, separator) for separator in (usual, *_SEPARATORS)}
    if not rows[usual]:
        return usual
    known, first = columns.ids | columns.values, rows[usual][0]
    if not known.isdisjoint(map(normalise, first)):
        return usual
    others = [separator for separator in _SEPARATORS if separator != usual and len(next(iter(rows[separator]), ())) > 1]
    cells = {separator: frozenset(map(normalise, rows[separator][0])) for separator in others}
    for separator in others:
        if not columns.ids.isdisjoint(cells[separator]) and not columns.values.isdisjoint(cells[separator]):
            return separator
    for separator in others:
        if len(first) == 1 and not known.isdisjoint(cells[separator]):
            return separator
    even = [separator for separator in others if len(set(map(len, rows[separator]))) == 1]
    usual_fits = len(first) > 1 and len(set(map(len, rows[usual]))) == 1
    return even[0] if len(even) == 1 and not usual_fits else usual


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The first rows; a cell in quotes has no line breaks but those of these lines."""
    rows = csv.reader(lines[: 2 * _SAMPLE_ROWS], delimiter=separator)
    try:
        return [row for row in islice(rows, _SAMPLE_ROWS) if row]
    except csv.Error:
        return []
