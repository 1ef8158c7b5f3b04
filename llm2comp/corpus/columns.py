"""Names of columns and fields: which are known, and which differ from known ones in case or blanks alone."""

import logging
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.errors import CorpusError

__all__ = ["Columns", "check_separator", "match_names", "normalise", "rename_fields"]

_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}
_logger = logging.getLogger(__name__)


class Columns(NamedTuple):
    """Known names of columns.

    Attributes:
        values: Names of columns of texts or scores.
        ids: Names of columns of ids.
        without_header: Names of the columns of a file without a header, by their number.
        groups: Names that mean the same, such as `id` and `docid`, in a set for each meaning.
    """

    values: frozenset[str]
    ids: frozenset[str]
    without_header: dict[int, tuple[str, ...]]
    groups: tuple[frozenset[str], ...]


def normalise(name: str) -> str:
    """The name in lower case, without surrounding blanks."""
    return name.strip().lower()


def match_names(names: Sequence[str], columns: Columns, source: str | Path) -> list[str]:
    """The names, with known ones in place of those that differ from them in case or surrounding blanks alone.

    A group that has a known name as it stands is left as it is. One line in the log says which names were matched.

    Raises:
        ValueError: Two names may be the same known one.
    """
    matches = _find_matches(tuple(names), columns.groups)
    _note_matches(source, matches)
    known = dict(matches)
    return [known.get(name, name) for name in names]


def rename_fields(fields: dict[str, Any], columns: Columns, source: str | Path) -> dict[str, Any]:
    """The fields under the names that `match_names` gives them."""
    if not _find_matches(tuple(fields), columns.groups):
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
            suffix = {",": "name it .csv", "\t": "name it .tsv"}.get(
                separator, f"write {_SEPARATORS[delimiter]}, or JSON lines"
            )
            raise CorpusError(
                f"the first line has {name} between its values, expected {_SEPARATORS[delimiter]} in a file of this "
                f"name; {suffix}"
            )
