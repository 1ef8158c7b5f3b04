"""Tables in comma-separated and tab-separated files: which row has the names, and what the columns are without one."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

from llm2comp.corpus.columns import Columns, check_separator, find_separator, match_names, name_separator, normalise
from llm2comp.corpus.delimited import Lines, read_delimited
from llm2comp.corpus.encoding import choose_encoding
from llm2comp.corpus.float_ids import drop_fraction, find_float_ids, note_float_ids
from llm2comp.corpus.report import Report, list_names
from llm2comp.corpus.table_format import TableFormat
from llm2comp.corpus.text import uncompressed_name
from llm2comp.errors import CorpusError

__all__ = ["delimiter_of", "read_table"]

_QUOTES = "; --quotes (quotes=True) reads tabs and line breaks in quotes as part of a text"
_SPACED = "; a blank stands before a quote, which opens a field only right behind the comma"
_SPACED_QUOTE = re.compile(r'[ \t]+"')
_logger = logging.getLogger(__name__)


def delimiter_of(path: Path) -> str | None:
    """What separates the cells of a file of this name: a comma in .csv, a tab in .tsv; None: it has no cells."""
    return {".csv": ",", ".tsv": "\t"}.get(Path(uncompressed_name(path)).suffix.lower())


def read_table(
    path: Path,
    usual: str,
    report: Report,
    columns: Columns,
    layout: TableFormat,
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Rows of a .csv or .tsv file as (number of the line, values by column name).

    In columns of ids that pandas wrote as floats, ids are whole numbers, and None where there is none.

    Args:
        path: The file.
        usual: What separates the values in files of this name: a comma or a tab. The first lines may show another
            separator, and one line says so.
        report: Receives a message for each malformed row.
        columns: Names of columns, which make a first row a header, and those of files without one.
        layout: What the user says about the file. Where it says nothing of a header, the first row decides, and one
            line says so where it could be either.
    """
    encoding, quotes = choose_encoding(path, layout.encoding), layout.quotes
    lines = Lines(path, encoding)
    delimiter = layout.separator or _find_separator(lines, usual, columns)
    layout = replace(layout, separator=delimiter, encoding=encoding)
    rows = read_delimited(lines, delimiter, report, quotes=quotes)
    first = next(rows, None)
    if first is None:
        return
    names, header = _read_names(path, first, delimiter, columns, layout.header)
    source = f"in the header: {list_names(first[1])}" if header else "in the first row"
    if not header:
        rows = chain([first], rows)
    elif delimiter != "\t" and any(map(_SPACED_QUOTE.match, first[1])):
        _warn_once(path, f"line {first[0]}: quotes are part of the column's name{_SPACED}")
    floats = _find_float_columns(path, layout, names, columns, first[1] if header else None)
    nameless = [position for position, name in enumerate(names) if not name.strip()]
    unsure, previous = delimiter == "\t" and quotes is None, list[str]()
    ids = columns.ids.intersection(names)
    noted = False
    for number, values in rows:
        spaced = delimiter != "\t" and quotes is not False and any(map(_SPACED_QUOTE.match, values))
        if len(values) == len(names):
            if spaced and not noted:
                noted = True
                _warn_once(path, f"line {number}: quotes are part of the text{_SPACED}")
            fields: dict[str, str | None] = dict(zip(names, values, strict=True))
            if any(fields[name] != (fields[name] or "").strip() for name in ids):
                _note_blanks(path)
            try:
                fields |= {name: drop_fraction(text) if (text := fields[name]) else None for name in floats}
            except ValueError as error:
                report(f"{path}:{number}: an id is {error}")
                continue
            yield number, _drop_nameless(path, fields, nameless, values) if nameless else fields
        else:
            hint = _QUOTES if unsure and '"' in "".join(previous + values) else _SPACED if spaced else ""
            count = f"{len(values)} field{'s' * (len(values) != 1)}"
            report(f"{path}:{number}: {count}, expected {len(names)} as {source}{hint}")
        previous = values


def _find_separator(lines: Lines, usual: str, columns: Columns) -> str:
    separator = lines.separator or find_separator(lines.peek(), usual, columns)
    if separator != usual:
        _warn_once(lines.path, f"the values are separated by {name_separator(separator)} (--separator chooses another)")
    return separator


def _read_names(
    path: Path, first: tuple[int, list[str]], delimiter: str, columns: Columns, header: bool | None
) -> tuple[Sequence[str], bool]:
    """Names of the columns, and whether the first row (number of its line, values) is a header.

    Raises:
        CorpusError: Another character separates the columns, two columns have one name, or there are none for files
            without a header.
    """
    number, row = first
    try:
        check_separator(row, delimiter, columns)
        if header is None:
            header, doubt = _judge_first_row(row, columns)
            if doubt:
                _warn_once(path, doubt)
        if not header:
            return _name_columns(row, columns), False
        names = match_names(row, columns, path)
    except (CorpusError, ValueError) as error:
        raise CorpusError(f"{path}:{number}: {error}") from None
    named = [name for name in names if name.strip()]
    if len(set(named)) < len(named):
        raise CorpusError(f"{path}:{number}: a column name occurs twice in the header: {list_names(row)}")
    return names, True


def _drop_nameless(
    path: Path, fields: dict[str, str | None], nameless: Sequence[int], values: Sequence[str]
) -> dict[str, str | None]:
    """The fields without those that have no name, as a comma at the end of each line makes one."""
    for position in nameless:
        if values[position].strip():
            _warn_once(path, f"column {position + 1} has no name in the header, so its values are left out")
    return {name: value for name, value in fields.items() if name.strip()}


def _judge_first_row(row: Sequence[str], columns: Columns) -> tuple[bool, str]:
    """Whether the first row has the names of the columns, and a message if it could be either.

    A row that names an id and a value has. Without both, and with as many columns as a file without a header line has,
    it is a row if it names nothing, or has a digit in its first cell, as most ids and few names of columns have.
    """
    names = columns.without_header.get(len(row))
    known = not columns.values.isdisjoint(map(normalise, row))
    if known and not columns.ids.isdisjoint(map(normalise, row)) and not (names and row[0].isdigit()):
        return True, ""
    if not known and (names is None or normalise(row[0]) in columns.ids):
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
    path: Path, layout: TableFormat, names: Sequence[str], columns: Columns, header: Sequence[str] | None
) -> tuple[str, ...]:
    if not path.is_file():  # a pipe, which can be read once
        return ()
    positions = [position for position, name in enumerate(names) if name in columns.ids]
    lines = Lines(path, layout.encoding)
    rows = read_delimited(lines, layout.separator or "", lambda message: None, quotes=layout.quotes)
    fitting = (values for _, values in rows if len(values) == len(names) and values != header)
    floats = find_float_ids(fitting, positions)
    floating = tuple(names[position] for position in sorted(floats))
    note_float_ids(path, floating)
    return floating


def _name_columns(row: Sequence[str], columns: Columns) -> tuple[str, ...]:
    """Names of the columns of a file without a header, of which this is the first row."""
    names = columns.without_header.get(len(row))
    if names is None:
        expected = " or ".join(map(str, columns.without_header))
        raise CorpusError(f"{len(row)} columns; a file without a header line has {expected}")
    return names


@cache
def _note_blanks(path: Path) -> None:
    _logger.warning(
        "%s: some ids have blanks around them, which are part of the ids: '1 ' is another id than '1'", path
    )


@cache  # a corpus may be read several times
def _warn_once(path: Path, message: str) -> None:
    _logger.warning("%s: %s", path, message)
