"""Rows of comma-separated and tab-separated files, each with the number of its first line.

CSV is read by the rules of RFC 4180. TSV has no quoting (BEIR, MS MARCO and TREC exports) unless the file shows it:
every field of its first row is enclosed in quotes, or the first row that fits the columns in only one of the two
readings fits them when read with quotes, or all rows fit in both and one has doubled quotes inside enclosing ones.
"""

import csv
import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llm2comp.corpus.report import Report
from llm2comp.corpus.text import read_lines

__all__ = ["read_delimited"]

_FIELD_CHARACTERS = 2**28  # Python's default is 131,072; an unclosed quote must not fill the memory
_SAMPLE_LINES = 1_000  # that decide whether a TSV file has quotes
_SAMPLE_CHARACTERS = 2**20
# One field as a writer with quotes writes it: a field that has a quote is enclosed, and its quotes are doubled
_FIELD = re.compile(r'(?:"(?P<quoted>[^"]*(?:""[^"]*)*)"|[^"\t\n]*?)(?P<end>\t|\r?\n|\Z)')
_LONE_RETURN = re.compile(r"\r(?![\r\n]|\Z)")
_RETURN = "\udc0d"  # stands for a carriage return inside a line, at which the csv module fails; no decoded byte is this


def read_delimited(path: Path, delimiter: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """Rows as (number of the first line, values), without blank lines.

    A row that cannot be read is passed to `report` and left out; reading continues with the line after the row's first
    line, so that a quote that is never closed takes no other row with it.

    Args:
        path: The file, decompressed according to its suffix.
        delimiter: A comma or a tab.
        report: Receives messages `file:line: what is wrong`.
    """
    lines = _Lines(path)
    rows = _read_tabs(lines, report) if delimiter == "\t" else _read_quoted(lines, delimiter, report)
    for number, values in rows:
        try:
            "".join(values).encode("utf-8")
        except UnicodeEncodeError:
            report(f"{path}:{number}: not UTF-8; convert the file with iconv")
        else:
            yield number, values


class _Lines:
    r"""Lines of a file as text that end in `\n`; lines can be put back.

    Bytes that are not UTF-8 become surrogates, so that reading can continue after them.

    Attributes:
        path: The file.
        number: Number of the last line read, from 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._lines = read_lines(path)
        self._returned: list[str] = []  # in reverse order

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = (
            self._returned.pop() if self._returned else next(self._lines)[1].decode("utf-8", errors="surrogateescape")
        )
        self.number += 1
        return line

    def put_back(self, lines: list[str]) -> None:
        """Makes the last lines read the next ones again."""
        self._returned += reversed(lines)
        self.number -= len(lines)

    def peek(self) -> list[str]:
        """The next lines, which stay the next ones."""
        lines, characters = list[str](), 0
        for line in self:
            lines.append(line)
            characters += len(line)
            if len(lines) == _SAMPLE_LINES or characters >= _SAMPLE_CHARACTERS:
                break
        self.put_back(lines)
        return lines


def _read_tabs(lines: _Lines, report: Report) -> Iterator[tuple[int, list[str]]]:
    columns = None
    for line in lines:
        if '"' in line:
            lines.put_back([line])
            if _has_quoting(lines.peek(), columns):
                yield from _read_quoted(lines, "\t", report)
                return
            break
        if line.strip("\r\n"):
            values = _split_tabs(line)
            columns = columns or len(values)
            yield lines.number, values
    for line in lines:
        if line.strip("\r\n"):
            yield lines.number, _split_tabs(line)


def _split_tabs(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def _read_quoted(lines: _Lines, delimiter: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_CHARACTERS))
    row: list[str] = []

    def next_lines() -> Iterator[str]:
        for line in lines:
            row.append(line)
            yield _LONE_RETURN.sub(_RETURN, line) if "\r" in line else line

    rows = csv.reader(next_lines(), delimiter=delimiter, strict=True)
    while True:
        start = lines.number + 1
        row.clear()
        try:
            values = next(rows, None)
        except csv.Error as error:
            report(f"{lines.path}:{_describe(error, start, row, delimiter)}")
            lines.put_back(row[1:])
            # A generator that has ended stays so, while lines that were put back are still to be read
            rows = csv.reader(next_lines(), delimiter=delimiter, strict=True)
            continue
        if values is None:
            return
        if values:
            yield start, [value.replace(_RETURN, "\r") for value in values]


def _describe(error: csv.Error, start: int, row: list[str], delimiter: str) -> str:
    """The message after `file:` for a row that begins at the line `start`."""
    if "end of data" in str(error):
        return f"{_find_open_quote(start, row)}: a quote opens a field here and no quote closes it, up to the last line"
    kind = "tab" if delimiter == "\t" else "comma"
    return f"{start}: not a row of {kind}-separated values ({error}, read up to line {start + len(row) - 1})"


def _find_open_quote(start: int, row: list[str]) -> int:
    """Number of the line with the quote that is not closed; the row's first line has the number `start`."""
    opened = None
    for number, line in enumerate(row, start=start):
        quotes = line.replace('""', "").count('"')
        if opened is None:
            opened = number if quotes % 2 else None
        elif quotes:  # closed here; an even number opens the next field
            opened = None if quotes % 2 else number
    return opened or start


class _QuotedRow(NamedTuple):
    """A row as a writer with quotes writes it.

    Attributes:
        columns: Number of fields.
        enclosed: Number of fields in quotes.
        needs_quotes: Whether one of these has doubled quotes or a carriage return in it.
        end: Where the row ends in the text.
    """

    columns: int
    enclosed: int
    needs_quotes: bool
    end: int


def _has_quoting(lines: list[str], columns: int | None) -> bool:
    """Whether these lines of a TSV file are read with quotes.

    Args:
        lines: The first line with a quote, and lines after it.
        columns: Number of columns; None if the first of the lines is the first row of the file.
    """
    text = "".join(lines)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    plain_columns = quoted_columns = columns
    position, needed = 0, False
    while position < len(lines):
        row = _parse_quoted_row(text, starts[position])
        if plain_columns is None:
            plain_columns = len(_split_tabs(lines[position]))
            quoted_columns = row.columns if row else plain_columns
            if row and row.enclosed == row.columns:
                return True
        end = bisect_left(starts, row.end) if row else position + 1
        spanned = [line for line in lines[position:end] if line.strip("\r\n")]
        fitting = sum(len(_split_tabs(line)) == plain_columns for line in spanned)
        fits_quoted = row is not None and row.columns == quoted_columns
        if fits_quoted and fitting < len(spanned):
            return fitting <= 1  # two lines that are whole rows by themselves are not one text
        if fitting and not fits_quoted and spanned:
            return False
        needed |= row is not None and row.needs_quotes and end == position + 1
        position = end
    return needed


def _parse_quoted_row(text: str, start: int) -> _QuotedRow | None:
    """The row that begins there; None if no writer with quotes writes such a row."""
    columns, enclosed, needed = 0, 0, False
    while field := _FIELD.match(text, start):
        columns += 1
        enclosed += field["quoted"] is not None
        needed |= field["quoted"] is not None and ('""' in field["quoted"] or "\r" in field["quoted"])
        start = field.end()
        if field["end"] != "\t":
            return _QuotedRow(columns, enclosed, needed, start)
    return None
