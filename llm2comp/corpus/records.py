"""Files of records: JSON lines, CSV, TSV and parquet, read one row at a time with its place for error messages."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.corpus.columns import Columns, rename_fields
from llm2comp.corpus.documents import Document
from llm2comp.corpus.parquet import read_parquet
from llm2comp.corpus.report import OnError, Report, choose_report
from llm2comp.corpus.table import delimiter_of, read_table
from llm2comp.corpus.table_format import TableFormat
from llm2comp.corpus.text import NOT_UTF8, read_lines, uncompressed_name

__all__ = [
    "RECORD_SUFFIXES",
    "Record",
    "read_json_lines",
    "read_records",
    "to_records",
]

RECORD_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")


class Record(NamedTuple):
    """One row of a file.

    Attributes:
        place: `file:line` (parquet: `file:row`), from 1.
        default_id: Id if the row has none: name of the file without folder and compression suffix, and line.
        fields: JSON-like values by name.
        cells: Whether the values are the cells of a CSV or TSV file, which are all texts.
        document: The document, if it is one already; its id is empty if it has none.
    """

    place: str
    default_id: str
    fields: dict[str, Any]
    cells: bool = False
    document: Document | None = None


def read_json_lines(
    path: str | Path,
    *,
    on_error: OnError = "raise",
    on_skip: Report | None = None,
    encoding: str | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON lines file as (line number from 1, object); blank lines are skipped.

    Args:
        path: The file, decompressed according to its suffix.
        on_error: Whether a malformed line raises an error or is skipped.
        on_skip: With "skip", receives each message `file:line: what is wrong`; by default messages are logged.
        encoding: Of the file; None: UTF-8, or what its byte order mark says.

    Raises:
        CorpusError: The file cannot be read, or (with "raise") a line is not UTF-8, not JSON, not an object, has a key
            twice in one object, or holds half a surrogate pair, which cannot be encoded as UTF-8.
    """
    report = choose_report(on_error, on_skip)
    for number, line in read_lines(path, encoding):
        if line.isspace():
            continue
        try:
            fields = _parse_object(line)
        except (ValueError, RecursionError) as error:
            report(f"{path}:{number}: {_describe(error)}")
            continue
        yield number, fields


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        key = next(key for number, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:number]))
        raise ValueError(f"the key {key!r:.60} stands twice in one object, expected it once")
    return fields


_parse_json = json.JSONDecoder(object_pairs_hook=_unique_keys).decode  # no slower than without the hook


def _parse_object(line: bytes) -> dict[str, Any]:
    fields = _parse_json(line.decode("utf-8").rstrip("\r\n"))  # an error at its end is on this line, not the next
    if not isinstance(fields, dict):
        raise ValueError(
            f"a JSON {type(fields).__name__}, expected one object {{...}} per line (`jq -c '.[]'` converts an array)"
        )
    if b"\\u" in line:  # a lone surrogate can only come from an escape
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    return fields


def _describe(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeDecodeError):
        byte = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
        return NOT_UTF8.replace("8", f"8 ({byte})", 1)
    if isinstance(error, UnicodeEncodeError):
        return f"half a surrogate pair (\\u{ord(error.object[error.start]):04x}) in a string, expected whole characters"
    if isinstance(error, json.JSONDecodeError):
        ends_early = error.pos >= len(error.doc)  # as every first line of an object on several lines does
        hint = "; `jq -c .` writes each object on a line of its own" if ends_early else ""
        return f"not JSON ({error.msg} at column {error.colno}), expected one whole object {{...}} per line{hint}"
    return "JSON nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_records(path: Path, report: Report, columns: Columns, layout: TableFormat) -> Iterator[Record]:
    """Rows of a .jsonl, .ndjson, .json (lines), .csv, .tsv or .parquet file; of any other file, JSON lines.

    Malformed rows are passed to `report` and skipped.

    Args:
        path: The file.
        report: Receives a message for each malformed row.
        columns: Known names of columns and fields, which match without regard to case and surrounding blanks.
        layout: What the user says about the file.
    """
    name = uncompressed_name(path)
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        rows = read_parquet(path, report)
    elif delimiter := delimiter_of(path):
        rows = read_table(path, delimiter, report, columns, layout)
    else:
        rows = read_json_lines(path, on_error="skip", on_skip=report, encoding=layout.encoding)
    yield from to_records(rows, path, name, report, columns, cells=delimiter_of(path) is not None)


def to_records(
    rows: Iterable[tuple[int, dict[str, Any]]],
    source: str | Path,
    name: str,
    report: Report,
    columns: Columns,
    *,
    cells: bool = False,
) -> Iterator[Record]:
    """Rows as records, with known names in place of those that match them; rows with ambiguous names are reported.

    Args:
        rows: Numbers and fields.
        source: File or data set, for messages.
        name: What the ids of rows without one begin with.
        report: Receives messages.
        columns: Known names.
        cells: As the records have it.
    """
    for number, fields in rows:
        try:
            fields = fields if cells else rename_fields(fields, columns, source)  # the header's names are known ones
        except ValueError as error:
            report(f"{source}:{number}: {error}")
        else:
            yield Record(f"{source}:{number}", f"{name}:{number}", fields, cells)
