"""Rows of a training file as fields by column, whatever the format: JSON lines, CSV, TSV or parquet."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from llm2comp.corpus.columns import Columns
from llm2comp.corpus.parquet import read_parquet
from llm2comp.corpus.records import read_json_lines
from llm2comp.corpus.report import OnError, Report, choose_report
from llm2comp.corpus.scalars import is_missing
from llm2comp.corpus.table import delimiter_of, read_table
from llm2comp.corpus.table_format import TableFormat
from llm2comp.corpus.text import NAME_ENCODING, uncompressed_name
from llm2comp.corpus.training_columns import PASSAGES, QUERY

__all__ = ["JSON_SUFFIXES", "TABLE_SUFFIXES", "read_fields"]

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_PARQUET = ".parquet"
_NAMES = frozenset((*QUERY, *PASSAGES, "positive", "positives", "pos", "negative", "negatives", "neg"))
_COLUMNS = Columns(values=_NAMES, ids=frozenset(), without_header={}, groups=())
"""What shows the separator of a table; its first line is its header in any case."""


def read_fields(
    path: str | Path, *, on_error: OnError = "raise", on_skip: Report | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as (number from 1 of the line, in parquet of the row; values by column), without missing values.

    Cells of CSV and TSV files are texts, and an empty one is a missing value. Files of other suffixes are JSON lines.

    Args:
        path: The file.
        on_error: Whether a malformed row raises an error or is skipped.
        on_skip: With "skip", receives each message `file:line: what is wrong`.

    Raises:
        CorpusError: The file cannot be read, or a row is malformed and `on_error` is "raise".
    """
    path, report = Path(path), choose_report(on_error, on_skip)
    delimiter = delimiter_of(path)
    if Path(uncompressed_name(path)).suffix.lower() == _PARQUET:
        rows: Iterator[tuple[int, dict[str, Any]]] = read_parquet(path, report)
    elif delimiter is not None:
        cells = read_table(path, delimiter, report, _COLUMNS, TableFormat())
        rows = ((number, {name: text or None for name, text in fields.items()}) for number, fields in cells)
    else:
        rows = read_json_lines(path, on_error="skip", on_skip=partial(_report_line, report))
    for number, fields in rows:
        yield number, {name: value for name, value in fields.items() if not is_missing(value)}


def _report_line(report: Report, message: str) -> None:
    """Reports a malformed line; commands that read training files have no option for an encoding."""
    report(message.replace(NAME_ENCODING, ""))
