"""Files of records: JSON lines, CSV, TSV and parquet, read one row at a time with its place for error messages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.corpus.delimited import read_delimited
from llm2comp.corpus.report import OnError, Report, choose_report, list_names
from llm2comp.corpus.text import read_lines, readable, uncompressed_name
from llm2comp.errors import CorpusError

__all__ = [
    "RECORD_SUFFIXES",
    "OnError",
    "Record",
    "Report",
    "choose_report",
    "list_names",
    "read_json_lines",
    "read_records",
]

RECORD_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")

_PARQUET_ROWS = 256
_PARQUET_BUFFER_BYTES = 2**20


class Record(NamedTuple):
    """One row of a file.

    Attributes:
        place: `file:line` (parquet: `file:row`), from 1.
        default_id: Id if the row has none: name of the file without folder and compression suffix, and line.
        fields: JSON-like values by name.
    """

    place: str
    default_id: str
    fields: dict[str, Any]


def read_json_lines(
    path: str | Path, *, on_error: OnError = "raise", on_skip: Report | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON lines file as (line number from 1, object); blank lines are skipped.

    Args:
        path: The file, decompressed according to its suffix.
        on_error: Whether a malformed line raises an error or is skipped.
        on_skip: With "skip", receives each message `file:line: what is wrong`; by default messages are logged.

    Raises:
        CorpusError: The file cannot be read, or (with "raise") a line is not UTF-8, not JSON, not an object, or holds
            half a surrogate pair, which cannot be encoded as UTF-8.
    """
    report = choose_report(on_error, on_skip)
    for number, line in read_lines(path):
        if line.isspace():
            continue
        try:
            fields = _parse_object(line)
        except (ValueError, RecursionError) as error:
            report(f"{path}:{number}: {_describe(error)}")
            continue
        yield number, fields


def _parse_object(line: bytes) -> dict[str, Any]:
    fields = json.loads(line.decode("utf-8"))
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
        return f"not UTF-8 ({byte}); convert the file with iconv"
    if isinstance(error, UnicodeEncodeError):
        return f"half a surrogate pair (\\u{ord(error.object[error.start]):04x}) in a string, expected whole characters"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at column {error.colno}), expected one whole object {{...}} per line"
    return "JSON nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_records(path: Path, report: Report) -> Iterator[Record]:
    """Rows of a .jsonl, .json (lines), .csv, .tsv (with a header line) or .parquet file.

    Malformed rows are passed to `report` and skipped.
    """
    name = uncompressed_name(path)
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        rows = _read_parquet(path)
    elif suffix in (".csv", ".tsv"):
        rows = _read_table(path, report)
    else:
        rows = read_json_lines(path, on_error="skip", on_skip=report)
    for number, fields in rows:
        yield Record(f"{path}:{number}", f"{name}:{number}", fields)


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        # Without these two settings, pyarrow keeps every row group that it has read
        with readable(path), parquet.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield number, fields
    except (ArrowException, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: not a readable parquet file, after row {number} ({str(error).splitlines()[0]})"
        ) from error


def _read_table(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    delimiter = "\t" if Path(uncompressed_name(path)).suffix.lower() == ".tsv" else ","
    rows = read_delimited(path, delimiter, report)
    header = next(rows, (0, []))[1]
    if len(set(header)) < len(header):
        raise CorpusError(f"{path}:1: a column name occurs twice in the header: {list_names(header)}")
    for number, values in rows:
        if len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        else:
            report(
                f"{path}:{number}: {len(values)} fields, expected {len(header)} as in the header: {list_names(header)}"
            )
