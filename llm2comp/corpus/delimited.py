"""Rows of comma-separated and tab-separated files, each with the number of its first line.

CSV is read by the rules of RFC 4180. TSV has no quoting (BEIR, MS MARCO and TREC exports) unless the file shows it, as
`quoting.py` says. In a TSV file that shows it, lines within one pair of quotes that could be rows by themselves are an
error, unless the caller says that the file has quoting.
"""

import csv
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from llm2comp.corpus.columns import name_separator
from llm2comp.corpus.quoting import are_rows, find_quoting, may_be_several_rows, split_tabs
from llm2comp.corpus.report import Report
from llm2comp.corpus.text import NOT_UTF8, read_lines

__all__ = ["Lines", "read_delimited"]

_logger = logging.getLogger(__name__)
_FIELD_CHARACTERS = 2**28  # Python's default is 131,072; an unclosed quote must not fill the memory
_SAMPLE_LINES = 1_000  # that decide whether a TSV file has quotes
_SAMPLE_CHARACTERS = 2**20
_QUOTES = "with quotes as part of the texts; --quotes (quotes=True) reads them as one row"
_NO_QUOTES = "--no-quotes (quotes=False) reads quotes as part of the texts"
_LONE_RETURN = re.compile(r"\r(?![\r\n]|\Z)")
_FIRST_SEPARATOR = re.compile(r'"(?:[^"]|"")*" *([;|\t,])')
_DECLARED = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)
_RETURN = "\udc0d"  # stands for a carriage return inside a line, at which the csv module fails; no decoded byte is this


def read_delimited(
    lines: "Lines", delimiter: str, report: Report, *, quotes: bool | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Rows as (number of the first line, values), without blank lines.

    A row that cannot be read is passed to `report` and left out; reading continues with the line after the row's first
    line, so that a quote that is never closed takes no other row with it.

    Args:
        lines: Lines of the file.
        delimiter: The character between values.
        report: Receives messages `file:line: what is wrong`.
        quotes: Whether fields may be enclosed in quotes; None: in CSV they may, in TSV if the file shows it.
    """
    if quotes:
        rows = _read_quoted(lines, delimiter, report)
    elif quotes is None:
        rows = _read_tabs(lines, report) if delimiter == "\t" else _read_csv(lines, delimiter, report)
    else:
        rows = _read_plain(lines, delimiter)
    for number, values in rows:
        try:
            "".join(values).encode("utf-8")
        except UnicodeEncodeError:
            report(f"{lines.path}:{number}: {NOT_UTF8}")
        else:
            yield number, values


class Lines:
    r"""Lines of a file as text that end in `\n`; lines can be put back.

    Bytes that are not UTF-8 become surrogates, so that reading can continue after them. A first line such as `sep=;`,
    with which Excel is told the separator, is left out.

    Attributes:
        path: The file.
        separator: What that line says; None: there is none.
        number: Number of the last line read, from 1.
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path = path
        self.number = 0
        self._lines = read_lines(path, encoding)
        self._returned: list[str] = []  # in reverse order
        first = next(self, "")
        declared = _DECLARED.fullmatch(first)
        self.separator = declared[1] if declared else None
        if first and not declared:
            self.put_back([first])

    def __iter__(self) -> "Lines":
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


def _read_tabs(lines: Lines, report: Report) -> Iterator[tuple[int, list[str]]]:
    columns = None
    for line in lines:
        if '"' in line:
            lines.put_back([line])
            break
        if line.strip("\r\n"):
            values = split_tabs(line)
            columns = columns or len(values)
            yield lines.number, values
    shown, doubtful, doubled, enclosed = find_quoting(lines.peek(), columns)
    if shown:
        if doubled is not None:
            message = 'quotes around fields are not part of the texts, and "" within them is one quote; '
            _warn_once(lines.path, f"{lines.number + 1 + doubled}: {message}{_NO_QUOTES}")
        yield from _read_shown_quoting(lines, columns, report)
        return
    if doubtful:
        first, last = (lines.number + 1 + position for position in doubtful)
        _warn_once(lines.path, f"{first}: lines {first} to {last} are read as rows, {_QUOTES}")
    if enclosed is not None:
        message = "every field is in quotes, which are read as part of ids and texts; --quotes (quotes=True) drops them"
        _warn_once(lines.path, f"{lines.number + 1 + enclosed}: {message}")
    yield from _read_plain(lines, "\t")


def _read_plain(lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for line in lines:
        if line.strip("\r\n"):
            yield lines.number, line.rstrip("\r\n").split(delimiter)


def _read_shown_quoting(lines: Lines, columns: int | None, report: Report) -> Iterator[tuple[int, list[str]]]:
    """Rows of a TSV file that shows that it has quotes, without those that may be several rows."""
    for number, values, row in _parse_quoted(lines, "\t", report):
        if len(row) > 1 and may_be_several_rows(row, values, columns):
            report(
                f"{lines.path}:{number}: lines {number} to {lines.number} are one row with line breaks in quotes, or "
                f"several rows; --quotes (quotes=True) reads one row, {_NO_QUOTES}"
            )
            lines.put_back(row[1:])
        else:
            columns = columns or len(values)
            yield number, values


@cache  # a file may be read several times
def _warn_once(path: Path, message: str) -> None:
    _logger.warning("%s:%s", path, message)


def _read_csv(lines: Lines, delimiter: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """Rows by RFC 4180; the first one whose lines look like rows is named in the log."""
    warned = False
    for number, values, row in _parse_quoted(lines, delimiter, report):
        if len(row) > 1 and not warned and are_rows(row, len(values), delimiter):
            warned = True
            message = f"{number}: lines {number} to {lines.number} are read as one row with line breaks in quotes; "
            _warn_once(lines.path, message + _NO_QUOTES)
        yield number, values


def _read_quoted(lines: Lines, delimiter: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    for number, values, _ in _parse_quoted(lines, delimiter, report):
        yield number, values


def _parse_quoted(lines: Lines, delimiter: str, report: Report) -> Iterator[tuple[int, list[str], list[str]]]:
    """Rows as (number of the first line, values, lines); these lines but the first may be put back."""
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
            values = []
        if values is None:
            return
        if values:
            yield start, [value.replace(_RETURN, "\r") for value in values], row
        if lines.number < start + len(row) - 1:  # a generator that has ended stays so, while lines were put back
            rows = csv.reader(next_lines(), delimiter=delimiter, strict=True)


def _describe(error: csv.Error, start: int, row: list[str], delimiter: str) -> str:
    """The message after `file:` for a row that begins at the line `start`."""
    if "end of data" in str(error):
        return (
            f"{_find_open_quote(start, row)}: a quote opens a field here and no quote closes it, up to the last line; "
            f"{_NO_QUOTES}"
        )
    separator = _FIRST_SEPARATOR.match(row[0])
    if separator and separator[1] != delimiter:
        return f"{start}: the first quoted field ends at {separator[1]!r}, expected {delimiter!r} between the fields"
    kind, end = {"\t": "tab-separated values", ",": "comma-separated values"}.get(delimiter), start + len(row) - 1
    kind = kind or f"values with {name_separator(delimiter)} between them"
    return f"{start}: not a row of {kind} ({error}, read up to line {end}); {_NO_QUOTES}"


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
