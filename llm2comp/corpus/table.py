"""Tables in comma-separated and tab-separated files: which row has the names, and what the columns are without one."""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from llm2comp.corpus.delimited import read_delimited
from llm2comp.corpus.float_ids import drop_fraction, find_float_ids, note_float_ids
from llm2comp.corpus.report import Report, list_names
from llm2comp.errors import CorpusError

__all__ = ["Columns", "read_table"]

_QUOTES = "; --quotes (quotes=True) reads tabs and line breaks in quotes as part of a text"
_logger = logging.getLogger(__name__)


class Columns(NamedTuple):
    """Columns of a table.

    Attributes:
        values: Names of columns of texts or scores.
        ids: Names of columns of ids.
        without_header: Names of the columns of a file without a header, by their number.
    """

    values: frozenset[str]
    ids: frozenset[str]
    without_header: dict[int, tuple[str, ...]]


def read_table(
    path: Path,
    delimiter: str,
    report: Report,
    columns: Columns,
    *,
    header: bool | None = None,
    quotes: bool | None = None,
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Rows of a .csv or .tsv file as (number of the line, values by column name).

    In columns of ids that pandas wrote as floats, ids are whole numbers, and None where there is none.

    Args:
        path: The file.
        delimiter: A comma or a tab.
        report: Receives a message for each malformed row.
        columns: Names of columns, which make a first row a header, and those of files without one.
        header: Whether the first row has the names; None: decided by the row, and said in one line where it could be
            either.
        quotes: Whether fields may be enclosed in quotes; None: in CSV they may, in TSV if the file shows it.
    """
    rows = read_delimited(path, delimiter, report, quotes=quotes)
    first = next(rows, None)
    if first is None:
        return
    if header is None:
        header, doubt = _judge_first_row(first[1], columns)
        if doubt:
            _warn_once(path, doubt)
    if header:
        names: Sequence[str] = first[1]
        source = f"in the header: {list_names(names)}"
        if len(set(names)) < len(names):
            raise CorpusError(f"{path}:1: a column name occurs twice in the header: {list_names(names)}")
    else:
        names, source = _name_columns(path, first, columns), "in the first row"
        rows = chain([first], rows)
    floats = _find_float_columns(path, delimiter, names, columns, quotes)
    unsure, previous = delimiter == "\t" and quotes is None, list[str]()
    for number, values in rows:
        if len(values) == len(names):
            fields: dict[str, str | None] = dict(zip(names, values, strict=True))
            for name in floats:
                fields[name] = drop_fraction(fields[name] or "") or None
            yield number, fields
        else:
            hint = _QUOTES if unsure and '"' in "".join(previous + values) else ""
            report(f"{path}:{number}: {len(values)} fields, expected {len(names)} as {source}{hint}")
        previous = values


def _judge_first_row(row: Sequence[str], columns: Columns) -> tuple[bool, str]:
    """Whether the first row has the names of the columns, and a message if it could be either.

    A row that names an id and a value has. Without both, and with as many columns as a file without a header line has,
    it is a row if it names nothing, or has a digit in its first cell, as most ids and few names of columns have.
    """
    names = columns.without_header.get(len(row))
    known = not columns.values.isdisjoint(name.strip().lower() for name in row)
    if known and not columns.ids.isdisjoint(row) and not (names and row[0].isdigit()):
        return True, ""
    if not known and (names is None or row[0].strip().lower() in columns.ids):
        return True, ""
    numbered = re.search(r"\d", row[0]) is not None
    if names and (numbered or not known):
        reason = f"begins with {row[0]!r:.40}, which is no column name" if known else "has no known column name"
        return False, (
            f"the first line {reason}, so it is a row, and the columns are {', '.join(names)} (--header: the first "
            "line has the names)"
        )
    if names or numbered:
        return True, (
            f"the first line is read as the header, without a known name for ids: {list_names(row)} (--no-header: it "
            "is a row)"
        )
    return True, ""


def _find_float_columns(
    path: Path, delimiter: str, names: Sequence[str], columns: Columns, quotes: bool | None
) -> tuple[str, ...]:
    if not path.is_file():  # a pipe, which can be read once
        return ()
    positions = [position for position, name in enumerate(names) if name in columns.ids]
    rows = read_delimited(path, delimiter, lambda message: None, quotes=quotes)
    fitting = (values for _, values in rows if len(values) == len(names) and values != names)
    floats = find_float_ids(fitting, positions)
    floating = tuple(names[position] for position in sorted(floats))
    note_float_ids(path, floating)
    return floating


def _name_columns(path: Path, first: tuple[int, list[str]], columns: Columns) -> tuple[str, ...]:
    """Names of the columns of a file without a header, whose first row (number of its line, values) this is."""
    names = columns.without_header.get(len(first[1]))
    if names is None:
        expected = " or ".join(map(str, columns.without_header))
        raise CorpusError(f"{path}:{first[0]}: {len(first[1])} columns; a file without a header line has {expected}")
    return names


@cache  # a corpus may be read several times
def _warn_once(path: Path, message: str) -> None:
    _logger.warning("%s: %s", path, message)
