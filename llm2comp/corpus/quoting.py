"""Whether a tab-separated file has quotes around fields, judged by its rows.

It has if every field of its first row is enclosed in quotes, or the first row that fits the columns in only one of the
two readings fits them when read with quotes, or all rows fit in both and one has doubled quotes inside enclosing ones.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Quoting", "are_rows", "find_quoting", "may_be_several_rows", "split_tabs"]

_ID = re.compile(r"\S*\d\S*")
_WORD = re.compile(r"\S+")
# One field as a writer with quotes writes it: a field that has a quote is enclosed, and its quotes are doubled
_FIELD = re.compile(r'(?:"(?P<quoted>[^"]*(?:""[^"]*)*)"|[^"\t\n]*?)(?P<end>\t|\r?\n|\Z)')


def split_tabs(line: str) -> list[str]:
    """Values of a line without quoting."""
    return line.rstrip("\r\n").split("\t")


def are_rows(lines: Sequence[str], columns: int, separator: str) -> bool:
    """Whether several lines of a CSV file, without blank ones, look like rows.

    They fit the columns, as lines of a text do by chance, and all begin or all end with a word as ids are: one with
    digits, or any, if there are three lines or more.
    """
    rows = [line.rstrip("\r\n").split(separator) for line in lines if line.strip("\r\n")]
    fitting = len(rows) > 1 and all(len(row) == columns for row in rows)
    pattern = _ID if len(rows) < 3 else _WORD
    return fitting and any(all(pattern.fullmatch(row[position]) for row in rows) for position in (0, -1))


def may_be_several_rows(lines: Sequence[str], values: Sequence[str], columns: int | None) -> bool:
    """Whether lines that are one row with quotes have a row of the file among them when read without.

    One line that fits the columns is no sign of it, for the first line of a last field and the last line of a first
    field do; a second one is, and so is one that fits by tabs inside the quotes.

    Args:
        lines: All lines of the row.
        values: Its values; each line break in them begins the next one of the lines.
        columns: Number of columns; None: the row is the first of the file.
    """
    expected = {columns} if columns is not None else {len(values), len(split_tabs(lines[0]))}
    fits = [bool(line.strip("\r\n")) and len(split_tabs(line)) in expected for line in lines]
    inside = ["", *(part for value in values for part in value.split("\n")[1:])]
    return sum(fits) > 1 or any(fit and "\t" in part for fit, part in zip(fits, inside, strict=True))


class Quoting(NamedTuple):
    """Whether a TSV file has quotes.

    Attributes:
        shown: Whether it shows it.
        doubtful: The first lines that fit as one row with quotes and as several without, as (first, last) from 0; None:
            there are none.
        doubled: The first line with doubled quotes inside enclosing ones, from 0, if nothing else shows that the file
            has quotes.
        enclosed: The first line on which every field is in quotes, from 0, if the file does not show that it has them.
    """

    shown: bool
    doubtful: tuple[int, int] | None = None
    doubled: int | None = None
    enclosed: int | None = None


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


def find_quoting(lines: list[str], columns: int | None) -> Quoting:
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
    position, doubled, doubtful, enclosed = 0, None, None, None
    while position < len(lines):
        row = _parse_quoted_row(text, starts[position])
        if plain_columns is None:
            plain_columns = len(split_tabs(lines[position]))
            quoted_columns = row.columns if row else plain_columns
            if row and row.enclosed == row.columns:
                return Quoting(True)
        end = bisect_left(starts, row.end) if row else position + 1
        spanned = [line for line in lines[position:end] if line.strip("\r\n")]
        fitting = sum(len(split_tabs(line)) == plain_columns for line in spanned)
        fits_quoted = row is not None and row.columns == quoted_columns
        if fits_quoted and fitting < len(spanned):
            # two lines that are whole rows by themselves are not one text
            return Quoting(fitting <= 1, doubtful, enclosed=enclosed if fitting > 1 else None)
        if fitting and not fits_quoted and spanned:
            return Quoting(False, doubtful, enclosed=enclosed)
        if len(spanned) > 1 and fits_quoted:
            doubtful = doubtful or (position, end - 1)
        if doubled is None and row is not None and row.needs_quotes and end == position + 1:
            doubled = position
        if enclosed is None and row is not None and row.enclosed == row.columns > 1 and end == position + 1:
            enclosed = position
        position = end
    return Quoting(doubled is not None, doubtful, doubled, None if doubled is not None else enclosed)


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
