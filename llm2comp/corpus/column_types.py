"""Types of the metadata columns of CSV and TSV files: number, date or boolean if all values of a source are, else text.

A cell that is empty or blank has no value. Every other cell of a typed column must be of its type:

- boolean: `true` or `false`, in any case.
- number: a whole number of 64 bits or a decimal that a double holds without loss, with a point and no superfluous zero
  or plus sign in front (`007` and `+49` are text, as are `nan`, `inf` and `1,5`). An exponent counts where a program
  wrote it (`1.5e6`, `1e-05`); `1e5` may be a code, and is text.
- date, date and time, date and time with zone: ISO 8601, such as `2024-01-31` and `2024-01-31T08:30:00+01:00` (with a
  blank for the T, `Z` for the zone, and without seconds, too).
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from itertools import islice
from typing import Any

from llm2comp.corpus.report import list_names

__all__ = ["ColumnType", "convert_metadata", "find_types", "note_types"]

_logger = logging.getLogger(__name__)
_ROWS = 1024  # checked at once: a value that repeats among them is checked once
_EXACT_CHARACTERS = 16  # a decimal of at most 15 digits and a point is what its double is written as
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][+-]?[0-9]{1,3})?|-?[1-9](?:[eE][+-][0-9]{1,3})")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_TIME = re.compile(rf"{_DATE.pattern}[T ]{_CLOCK}(?P<zone>Z|[+-][0-9]{{2}}:?[0-9]{{2}})?")


class ColumnType(StrEnum):
    """What the values of a column are; its text is the name in messages and manifests."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "date and time"
    ZONED = "date and time with zone"
    TEXT = "text"


def _parse_number(text: str) -> int | float | None:
    if _WHOLE.fullmatch(text):
        number = int(text)
        return number if -(2**63) <= number < 2**63 else None
    if not _DECIMAL.fullmatch(text):
        return None
    double = float(text)
    exact = len(text) <= _EXACT_CHARACTERS or Decimal(repr(double)) == Decimal(text)
    return double if exact and abs(double) != float("inf") else None


def _parse_boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _parse_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:  # the 31st of February
        return None


def _parse_time(text: str, *, zoned: bool = False) -> datetime | None:
    match = _TIME.fullmatch(text)
    if match is None or (match["zone"] is not None) != zoned:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


_PARSERS: dict[ColumnType, Callable[[str], Any]] = {
    ColumnType.NUMBER: _parse_number,
    ColumnType.BOOLEAN: _parse_boolean,
    ColumnType.DATE: _parse_date,
    ColumnType.TIME: _parse_time,
    ColumnType.ZONED: lambda text: _parse_time(text, zoned=True),
}


class _Candidates:
    """The types that all values of a column so far have; None: it has had no value."""

    def __init__(self) -> None:
        self.types: tuple[ColumnType, ...] | None = None

    def check(self, values: Iterable[str | None]) -> None:
        """Drops the types that one of the values does not have."""
        for value in {value.strip() for value in values if value}:
            if value:
                candidates = tuple(_PARSERS) if self.types is None else self.types
                self.types = tuple(type_ for type_ in candidates if _PARSERS[type_](value) is not None)
            if self.types == ():
                return


def find_types(
    tables: Iterable[Iterable[Mapping[str, str | None]]], is_metadata: Callable[[str], bool]
) -> dict[str, ColumnType]:
    """The type of each column, in the order in which they appear; a column without any value is left out.

    Args:
        tables: Rows of each file, as cells by column name; those of a file are read until all its columns are text.
        is_metadata: Whether the type of a column of this name is to be found; others are not in the result.
    """
    columns = dict[str, _Candidates]()
    for table in tables:
        rows = iter(table)
        names: list[str] | None = None
        while block := list(islice(rows, _ROWS)):
            names = list(filter(is_metadata, block[0])) if names is None else names
            for name in names:
                columns.setdefault(name, _Candidates()).check(row[name] for row in block)
            names = [name for name in names if columns[name].types != ()]
            if not names:
                break
    return {
        name: candidates.types[0] if candidates.types else ColumnType.TEXT
        for name, candidates in columns.items()
        if candidates.types is not None
    }


def convert_metadata(metadata: dict[str, Any], types: Mapping[str, ColumnType]) -> dict[str, Any]:
    """The metadata of a row of a CSV file with values of these types in place of their texts, and null for empty cells.

    Raises:
        ValueError: A value is not of the type of its column.
    """
    return {
        name: _convert(name, value, types.get(name, ColumnType.TEXT)) if isinstance(value, str) else value
        for name, value in metadata.items()
    }


def _convert(name: str, text: str, type_: ColumnType) -> Any:
    if type_ is ColumnType.TEXT:
        return text or None
    if not (text := text.strip()):
        return None
    value = _PARSERS[type_](text)
    if value is None:
        raise ValueError(
            f'"{name:.40}" is {text!r:.40}, in a column whose type in this source is {type_}; correct it, or give the '
            "rows a source of their own (--source NAME)"
        )
    return value.isoformat() if isinstance(value, date) else value


@cache  # a corpus may be read several times
def note_types(source: str, types: tuple[tuple[str, ColumnType], ...]) -> None:
    """Logs once which columns are read as what."""
    typed = dict[ColumnType, list[str]]()
    for name, type_ in types:
        if type_ is not ColumnType.TEXT:
            typed.setdefault(type_, []).append(name)
    if typed:
        columns = "; ".join(f"{type_}: {list_names(names)}" for type_, names in typed.items())
        _logger.warning("%s: columns read as %s (--csv-strings keeps all as text)", source, columns)
